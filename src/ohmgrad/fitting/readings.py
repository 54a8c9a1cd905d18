"""Measured ramps in units of w, and how they are divided for cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ohmgrad.fitting.measured import Measurement, Ramp

FOLDS = 5


@dataclass(frozen=True)
class Scale:
    """w = (reading - zero) / per_unit; unit: of the reading, "" for an arbitrary one."""

    zero: float
    per_unit: float
    unit: str = ""

    def state(self, reading: np.ndarray) -> np.ndarray:
        """w of readings."""
        return (reading - self.zero) / self.per_unit

    def reading(self, w: np.ndarray) -> np.ndarray:
        """Readings of states w."""
        return self.zero + self.per_unit * w


@dataclass(frozen=True)
class Readings:
    """Ramps end to end, in units of w.

    y: (n,) readings, NaN where there is none. up: (n,) bool, direction of the pulse before. first: (n,) bool, where a
    ramp starts; that reading is its known start and is not scored.
    """

    y: np.ndarray
    up: np.ndarray
    first: np.ndarray

    @property
    def is_scored(self) -> np.ndarray:
        """Which readings count, (n,) bool."""
        return ~np.isnan(self.y) & ~self.first

    def without(self, left_out: np.ndarray) -> Readings:
        """As if those readings, (n,) bool, had not been taken; the pulses stay, and so do starts."""
        return replace(self, y=np.where(left_out & ~self.first, np.nan, self.y))


def scale_of(measurement: Measurement, zero: float | None = None) -> Scale:
    """The lowest and the highest reading at w = -1 and 1; or `zero` at 0, and the one farther off at -1 or 1.

    Raises:
        ValueError: zero lies outside of the readings, where no device keeps its w_min <= 0 <= w_max.
    """
    values = np.concatenate([r.values for r in measurement.ramps])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if zero is None:
        return Scale((low + high) / 2.0, (high - low) / 2.0, measurement.unit)
    if not low < zero < high:
        raise ValueError(f"zero needs a reading between the lowest, {low:.6g}, and the highest, {high:.6g}, got {zero}")
    return Scale(zero, max(high - zero, zero - low), measurement.unit)


def readings_of(ramps: Sequence[Ramp], scale: Scale) -> Readings:
    """Ramps end to end."""
    first = [np.arange(len(r.values)) == 0 for r in ramps]
    y, up = (np.concatenate([getattr(r, k) for r in ramps]) for k in ("values", "up"))
    return Readings(scale.state(y), up, np.concatenate(first))


def groups(readings: Readings) -> np.ndarray:
    """Numbers of the pieces that are held out together, (n,), group g in fold g % FOLDS.

    Whole ramps where there are enough of them in each direction; else each is cut into pieces of successive readings.
    """
    starts = np.flatnonzero(readings.first)
    ends = [*starts[1:], len(readings.y)]
    kinds = [readings.up[a + 1 : b].mean() if b > a + 1 else 0.5 for a, b in zip(starts, ends, strict=True)]
    number, n_groups = np.empty(len(readings.y), int), 0
    for kind in dict.fromkeys(kinds):  # up ramps, down ramps and others each spread over all folds
        own = [(a, b) for a, b, k in zip(starts, ends, kinds, strict=True) if k == kind]
        n_pieces = 1 if len(own) >= FOLDS else 2 * FOLDS
        n_groups += -n_groups % FOLDS
        for a, b in own:
            number[a:b] = n_groups + np.arange(b - a) * n_pieces // (b - a)
            n_groups += n_pieces
    return number
