"""What an experiment hands back: claims with their confidence intervals, and the sweeps behind them.

An estimate comes with the interval that covers the true value with `CONFIDENCE`. A claim holds where that whole
interval lies in what is accepted, so that noise can make a claim fail but not hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

CONFIDENCE = 0.999
GROUPS = 50


@dataclass(frozen=True)
class Estimate:
    """A measured number and half of the width of its confidence interval, 0 where nothing is random."""

    value: float
    half_width: float = 0.0

    def times(self, factor: float) -> Estimate:
        """In other units."""
        return Estimate(self.value * factor, self.half_width * abs(factor))


def mean(samples: Tensor) -> Estimate:
    """The mean of independent samples, at least two, by Student's t."""
    x = samples.double().flatten()
    return Estimate(float(x.mean()), float(x.std()) / math.sqrt(len(x)) * _quantile(len(x)))


def of_groups(function: Callable[..., float], *samples: Tensor) -> Estimate:
    """A function of means: samples (..., runs), whose means over runs (...) the function takes.

    The interval is that of `GROUPS` groups of runs.
    """
    parts = [s.double().tensor_split(GROUPS, dim=-1) for s in samples]
    values = torch.tensor([function(*(p.mean(-1) for p in group)) for group in zip(*parts, strict=True)])
    value = function(*(s.double().mean(-1) for s in samples))
    return Estimate(float(value), float(values.double().std()) / math.sqrt(GROUPS) * _quantile(GROUPS))


def of_runs(above: Tensor, below: Tensor) -> Estimate:
    """Ratio of two means over the same few runs, (runs,), with the error of pairs."""
    a, b = above.double(), below.double()
    ratio = float(a.mean() / b.mean())
    return Estimate(ratio, mean(a - ratio * b).half_width / float(b.mean()))


def slope(x: Tensor, y: Tensor) -> float:
    """Of y against x by least squares on doubly logarithmic axes; (n,)."""
    u, v = x.double().log(), y.double().log()
    return float(((u - u.mean()) * (v - v.mean())).sum() / (u - u.mean()).square().sum())


def _quantile(n: int) -> float:
    return float(stats.t.ppf((1.0 + CONFIDENCE) / 2.0, n - 1))


def worst(estimates: Sequence[Estimate], target: float) -> Estimate:
    """The one farthest from the target, its interval counted in."""
    return max(estimates, key=lambda e: abs(e.value - target) + e.half_width)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One number that theory predicts.

    low, high: the confidence interval. accepted: where all of it must lie. because: why that much and no less.
    """

    what: str
    predicted: float
    measured: float
    low: float
    high: float
    accepted: tuple[float, float]
    because: str

    @property
    def holds(self) -> bool:
        """Whether the interval lies in what is accepted; never for NaN."""
        return self.accepted[0] <= self.low <= self.high <= self.accepted[1]


def equal(what: str, predicted: float, measured: Estimate, *, within: float, because: str) -> Claim:
    """Measured is predicted, within an absolute tolerance."""
    return _claim(what, predicted, measured, (predicted - within, predicted + within), because)


def at_most(what: str, bound: float, measured: Estimate, *, because: str) -> Claim:
    """Measured does not exceed the bound."""
    return _claim(what, bound, measured, (-math.inf, bound), because)


def at_least(what: str, bound: float, measured: Estimate, *, because: str) -> Claim:
    """Measured does not fall short of the bound."""
    return _claim(what, bound, measured, (bound, math.inf), because)


def _claim(what: str, predicted: float, measured: Estimate, accepted: tuple[float, float], because: str) -> Claim:
    low, high = measured.value - measured.half_width, measured.value + measured.half_width
    return Claim(
        what=what,
        predicted=float(predicted),
        measured=measured.value,
        low=low,
        high=high,
        accepted=(float(accepted[0]), float(accepted[1])),
        because=because,
    )


@dataclass(frozen=True)
class Point:
    """One point of a sweep; predicted is NaN where theory gives no number."""

    series: str
    x: float
    measured: float
    half_width: float
    predicted: float


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A sweep, as a plot: labels of the axes, and whether they are logarithmic."""

    x: str
    y: str
    points: tuple[Point, ...]
    log_x: bool = True
    log_y: bool = True


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one experiment found.

    name: "E1". title: a few words. statement: what theory says. source: where. error: what ended it before its time.
    """

    name: str
    title: str
    statement: str
    source: str
    claims: tuple[Claim, ...] = ()
    panels: tuple[Panel, ...] = ()
    error: str = ""

    @property
    def holds(self) -> bool:
        """Whether every claim holds; never without one."""
        return bool(self.claims) and all(claim.holds for claim in self.claims)
