"""Zero-shifting: alternating pulses lead to the symmetric point, in a number that goes as 1 / dw_min.

On q_up = (1 + c)(1 - w), q_down = (1 - c)(1 + w): 2 ln(e/t) / (2 dw_min) pulses from distance e to t. In the end a
state lies (1 - c)(1 - c^2) dw_min / 2 below; with random signs it scatters, of variance dw_min (1 - c^2)^2 / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.crossbar import zero_shift
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.devices import SoftBounds
from ohmgrad.experiments.verify.planted import doubled_asymmetry, symmetric_point_shifted
from ohmgrad.experiments.verify.verdict import Claim, Estimate, Panel, Point, Verdict, equal, of_groups, slope, worst
from ohmgrad.theory import pulses_to_symmetric_point

PLANTED = (doubled_asymmetry, symmetric_point_shifted)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """steps: dw_min, for pulses in turn; random_steps: for random signs, on a crossbar of `shape`."""

    c: float = 0.2
    start: float = 0.9
    tolerance: float = 0.02
    steps: tuple[float, ...] = (1e-2, 1e-3, 1e-4)
    random_steps: tuple[float, ...] = (0.02, 0.01, 0.005)
    shape: tuple[int, int] = (20, 1000)
    seed: int = 0


QUICK = Settings(steps=(1e-2, 3e-3, 1e-3), random_steps=(0.04, 0.02), shape=(40, 1000))


def linear(c: float, dw_min: float) -> SoftBounds:
    """q_up = (1 + c)(1 - w), q_down = (1 - c)(1 + w), in units of dw_min: the symmetric point is c (reference 1.3)."""
    return SoftBounds(dw_min=dw_min * (1.0 + c), up_down=2.0 * c / (1.0 + c))


def pulses_needed(settings: Settings, dw_min: float) -> int:
    """Alternating pulses, counted in pairs, to get within the tolerance; at most four times those predicted."""
    device = linear(settings.c, dw_min)
    bar = _crossbar(settings, dw_min, settings.start, (1, 1))
    n, most = 0, 4 * pulses_to_symmetric_point(device, settings.start, settings.tolerance)
    while abs(float(bar.weight) - settings.c) > settings.tolerance and n < most:
        zero_shift(bar, 2)
        n += 2
    return n


def left(settings: Settings, dw_min: float) -> float:
    """Distance below the symmetric point after ten time constants of alternating pulses, from it."""
    return settings.c - float(zero_shift(_crossbar(settings, dw_min, settings.c, (1, 1)), 2 * round(5 / dw_min)))


def scattered(settings: Settings, dw_min: float) -> Tensor:
    """States after five time constants of random signs, column by column.

    The sign of a pulse is that of its row times that of its column, so that any two elements are independent.
    """
    bar = _crossbar(settings, dw_min, settings.c, settings.shape)
    return zero_shift(bar, round(5 / dw_min), order="random", seed=settings.seed).mT.flatten()


def _crossbar(settings: Settings, dw_min: float, start: float, shape: tuple[int, int]) -> Crossbar:
    weight = torch.full(shape, start, dtype=torch.float64)
    return Crossbar(shape, device=linear(settings.c, dw_min), seed=settings.seed, weight=weight, dtype=torch.float64)


def run(settings: Settings) -> Verdict:
    """Counts beside the prediction, their slope, what is left in the end, and the scatter."""
    steps = settings.steps
    counts = [float(pulses_needed(settings, dw)) for dw in steps]
    theory = [pulses_to_symmetric_point(linear(settings.c, dw), settings.start, settings.tolerance) for dw in steps]
    ratios = [Estimate(n / t) for n, t in zip(counts, theory, strict=True)]
    half = [dw * (1.0 - settings.c) * (1.0 - settings.c**2) / 2.0 for dw in settings.random_steps]
    gaps = [Estimate(left(settings, dw) / h) for dw, h in zip(settings.random_steps, half, strict=True)]
    ends = [scattered(settings, dw) for dw in settings.random_steps]
    law = [dw * (1.0 - settings.c**2) ** 2 / 2.0 for dw in settings.random_steps]
    spreads = [
        of_groups(lambda s, v=v: float(s) / v, (w - settings.c).square()) for w, v in zip(ends, law, strict=True)
    ]
    points = [Point("alternating", dw, n, 0.0, t) for dw, n, t in zip(steps, counts, theory, strict=True)]
    claims: list[Claim] = [
        equal(
            "slope of the number of pulses with dw_min",
            -1.0,
            Estimate(slope(torch.tensor(steps), torch.tensor(counts))),
            within=0.02,
            because="a pair leaves an offset of the order of a step, which the count sees at the coarsest",
        ),
        equal(
            "pulses over ln(e/t) / dw_min, worst of all",
            1.0,
            worst(ratios, 1.0),
            within=6.0 * max(steps) + 0.001,
            because="the same offset over the tolerance",
        ),
        equal(
            "distance below the point in the end over (1 - c) half a step, worst",
            1.0,
            worst(gaps, 1.0),
            within=0.05,
            because="first order in dw_min",
        ),
        equal(
            "random signs: mean state",
            settings.c,
            of_groups(float, ends[-1]),
            within=0.01,
            because="exact; chance alone",
        ),
        equal(
            "random signs: variance over dw_min (1 - c^2)^2 / 2, worst",
            1.0,
            worst(spreads, 1.0),
            within=0.15,
            because="first order in dw_min",
        ),
    ]
    return Verdict(
        name="E14",
        title="zero-shifting",
        statement="pulses to the symmetric point go as 1 / dw_min, what is left as dw_min",
        source="arXiv 2602.21321, Thm. 2.2, C.2 and C.3",
        claims=tuple(claims),
        panels=(Panel(x="dw_min", y="pulses to the symmetric point", points=tuple(points)),),
    )
