"""From a measurement to a device: every family fitted and ranked, the chosen one as a make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ohmgrad.devices.base import Device
from ohmgrad.fitting.filter import predict
from ohmgrad.fitting.measured import Measurement
from ohmgrad.fitting.rank import Ranked, rank
from ohmgrad.fitting.readings import Readings, Scale, readings_of, scale_of
from ohmgrad.fitting.spread import make_of


@dataclass(frozen=True)
class Characterised:
    """What a measurement says.

    device, errors: the chosen family's make, and standard errors by field. rows: all families, the chosen first.
    failed: families that could not be fitted, and why. readings: of each device, in units of w, which `scale` explains.
    """

    device: Device
    errors: dict[str, float]
    rows: list[Ranked]
    failed: dict[str, str]
    readings: list[Readings]
    scale: Scale

    @property
    def chosen(self) -> Ranked:
        """The row that `device` is of: the first."""
        return self.rows[0]


def characterise(
    measurement: Measurement,
    families: Sequence[Device],
    *,
    zero: float | None = None,
    on_family: Callable[[str], None] | None = None,
) -> Characterised:
    """Fit and rank these families.

    Args:
        families: a device of each, see `rank`; those without bounds, which no measured device is, are left out.
        zero: the reading at w = 0; the middle if absent.
        on_family: called with each family's name when it begins.

    Raises:
        ValueError: no family can be fitted, or zero lies outside of the readings.
    """
    scale = scale_of(measurement, zero)
    own = [[r for r in measurement.ramps if r.device == name] for name in measurement.devices]
    readings = [readings_of(ramps, scale) for ramps in own]
    bounded = [f for f in families if np.isfinite([f.w_min, f.w_max]).all()]
    rows, failed = rank(bounded, readings, on_family)
    device, errors = make_of(rows[0].fits)
    return Characterised(device, errors, rows, failed, readings, scale)


def ramp(device: Device, readings: Readings) -> np.ndarray:
    """The device's mean ramp through the same pulses from the same starts, (n,), in units of w."""
    return predict(device, readings.without(np.ones(len(readings.y), bool))).mean


def residuals(measurement: Measurement, found: Characterised) -> Iterator[tuple[str | int | float, ...]]:
    """One row for each reading: names and pulse, reading, fitted ramp and their difference, all in the reading's unit;
    and the difference from what the readings before it let expect, in standard deviations."""
    for name, fit, readings in zip(measurement.devices, found.chosen.fits, found.readings, strict=True):
        p, fitted = predict(fit.device, readings), found.scale.reading(ramp(fit.device, readings))
        one_step = (readings.y - p.mean) / np.sqrt(p.variance)
        ramps = [r for r in measurement.ramps if r.device == name]
        at = 0
        for r in ramps:
            for k in range(len(r.values)):
                if not np.isnan(r.values[k]):
                    direction = "start" if k == 0 else "up" if r.up[k] else "down"
                    value, mean = r.values[k], fitted[at + k]
                    score = float("nan") if k == 0 else one_step[at + k]
                    yield name, r.name, k, direction, value, mean, value - mean, score
            at += len(r.values)
