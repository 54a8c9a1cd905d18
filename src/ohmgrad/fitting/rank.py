"""Which family describes readings best: by what it says of readings that it has not seen.

Every family is fitted with each kind of noise it knows, and the likelier kind goes on. Then a fifth of the readings is
held out in turn (`readings.groups`), the family is fitted to the rest, and two figures are taken of what was held out:

* score: mean logarithm of the density of a reading, in units of w, given all readings before it;
* error: root mean square of reading minus the family's ramp, which sees no reading of the group that it runs through.

The best score is not always the right family: one that contains another says as much of readings that the other
explains. So families are as good as the best whose score is within one standard error of it (Breiman et al. 1984, sec.
3.4.3), or that lack in all less than log(n) / 2 for each parameter fewer, n the readings of a device (Schwarz 1978: by
chance alone a needless parameter gains more in a share of measurements that falls with n; with a charge of 1, Akaike's,
in one of six, however many readings there are). These come first, those with fewest free parameters before others; all
else goes by score. The first of all is chosen. Families with one law (`SoftBounds` and `SoftBoundsReference`, `PowStep`
and `PowStepReference`, whose references only tell devices apart) stay in the order that they are given in.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ohmgrad.devices.base import Device
from ohmgrad.fitting.filter import predict
from ohmgrad.fitting.fit import Fit, fit, log_terms
from ohmgrad.fitting.readings import FOLDS, Readings, groups

HALF_LOG = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Ranked:
    """A family, fitted to all readings of each device and held against those held out.

    fits: one for each device. score, error: as the module has them. by_group: sums of the score, by group and device.
    below, below_se: how much less the score is than the best one, and the standard error of that. is_as_good: whether
    it ties with the best.
    """

    fits: tuple[Fit, ...]
    score: float
    error: float
    by_group: np.ndarray
    below: float = 0.0
    below_se: float = 0.0
    is_as_good: bool = False

    @property
    def family(self) -> type[Device]:
        """Of the device."""
        return type(self.fits[0].device)


def rank(
    families: Sequence[Device], devices: Sequence[Readings], on_family: Callable[[str], None] | None = None
) -> tuple[list[Ranked], dict[str, str]]:
    """The families in their order, the chosen one first, and why others could not be fitted.

    Args:
        families: a device of each, whose fields that are not fitted are kept.
        devices: readings of each device; it is fitted by itself.
        on_family: called with each family's name when it begins.
    """
    found, failed = [], {}
    for base in families:
        name = type(base).__name__
        if on_family:
            on_family(name)
        try:
            found.append(_ranked(base, devices))
        except (ValueError, np.linalg.LinAlgError) as error:
            failed[name] = str(error)
    if not found:
        raise ValueError(f"no family can be fitted: {'; '.join(failed.values())}")
    best = max(found, key=lambda r: r.score)
    return sorted((_beside(best, r) for r in found), key=_place), failed


def _beside(best: Ranked, row: Ranked) -> Ranked:
    """With its distance from the best."""
    n = sum(f.n for f in row.fits)
    below, se = best.score - row.score, _standard_error(best.by_group - row.by_group) / n
    charge = sum((b.n_free - r.n_free) * math.log(r.n) / 2.0 for b, r in zip(best.fits, row.fits, strict=True))
    return dataclasses.replace(row, below=below, below_se=se, is_as_good=below <= max(se, charge / n))


def _place(row: Ranked) -> tuple[float, ...]:
    """What the order goes by. Climbs of one law end a little apart, so scores count to a tenth of a unit in all."""
    below = round(row.below * sum(f.n for f in row.fits), 1)
    return (0, row.fits[0].n_free, below) if row.is_as_good else (1, below)


def _ranked(base: Device, devices: Sequence[Readings]) -> Ranked:
    fits = _likeliest(base, devices)
    sums, squares, n = [], 0.0, 0
    for one, readings in zip(fits, devices, strict=True):
        by_group, errors = held_out(one, readings)
        sums.append(by_group)
        squares, n = squares + float((errors**2).sum()), n + len(errors)
    by_group = np.concatenate(sums)
    return Ranked(tuple(fits), float(by_group.sum()) / n, math.sqrt(squares / n), by_group)


def _likeliest(base: Device, devices: Sequence[Readings]) -> list[Fit]:
    """Fits with the likelier kind of noise; that of the family's own, where it is the default."""
    first = [fit(base, r) for r in devices]
    if base.ctoc == "own":
        return first
    other = "additive" if base.ctoc == "multiplicative" else "multiplicative"
    starts = [[dataclasses.replace(f.device, ctoc=other)] for f in first]
    second = [fit(start[0], r, start) for start, r in zip(starts, devices, strict=True)]
    return max(first, second, key=lambda fits: sum(f.log_likelihood for f in fits))


def held_out(found: Fit, readings: Readings) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the score by group, and the errors of all readings held out, fold by fold."""
    group, scored = groups(readings), readings.is_scored
    sums, errors = np.zeros(group.max() + 1), []
    for k in range(FOLDS):
        out = (group % FOLDS == k) & scored
        if not out.any() or out.sum() == scored.sum():
            continue
        rest = readings.without(out)
        device = fit(found.device, rest, start=[found.device]).device
        terms = log_terms(predict(device, readings), readings, out) - HALF_LOG
        sums += np.bincount(group[out], terms, len(sums))
        errors.append(readings.y[out] - predict(device, rest).mean[out])
    return sums, np.concatenate(errors)


def _standard_error(differences: np.ndarray) -> float:
    """Of the sum of these, one for each group."""
    return float(differences.std(ddof=1) * math.sqrt(len(differences))) if len(differences) > 1 else 0.0
