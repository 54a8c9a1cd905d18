"""The asymptotic error goes as 1 / tau^2 and as sigma^2.

The instance of E1, with tau and sigma swept at a fixed w_star.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.experiments.verify.e01_lower_bound import resting_point, simulate
from ohmgrad.experiments.verify.planted import bounds_ignored
from ohmgrad.experiments.verify.verdict import Panel, Point, Verdict, equal, of_groups, slope, worst
from ohmgrad.theory.instances import LowerBound

PLANTED = (bounds_ignored,)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """taus at the largest sigma, sigmas at the smallest tau; lr and lr / 2, whose results are continued to 0."""

    w_star: float = 0.25
    taus: tuple[float, ...] = (1.0, 2.0, 4.0)
    sigmas: tuple[float, ...] = (0.025, 0.05, 0.1)
    lr: float = 0.02
    times: float = 16.0
    runs: int = 10_000
    within: float = 0.05
    seed: int = 0


QUICK = Settings(taus=(1.0, 2.0), sigmas=(0.05, 0.1), lr=0.08, times=10.0, runs=4500, within=0.2)


def gaps(settings: Settings, instances: list[LowerBound], lr: float) -> Tensor:
    """w - w_star of each run on each instance, (instances, runs)."""
    options = {"lr": lr, "times": settings.times, "runs": settings.runs, "seed": settings.seed}
    return torch.stack([simulate(instance, **options).gradient.flatten() for instance in instances])


def run(settings: Settings) -> Verdict:
    """Squared mean gradients, their slopes, and how far they are from sigma^2 S where theory says that w rests."""
    taus, sigmas = settings.taus, settings.sigmas
    cases = [(tau, max(sigmas)) for tau in taus] + [(min(taus), sigma) for sigma in sigmas]
    instances = [LowerBound(tau=tau, w_star=settings.w_star, sigma=sigma) for tau, sigma in cases]
    gap = 2.0 * gaps(settings, instances, settings.lr / 2.0) - gaps(settings, instances, settings.lr)
    theory = [(resting_point(instance) - settings.w_star) ** 2 for instance in instances]
    errors = [of_groups(lambda g: float(g.square()), g) for g in gap]
    ratios = [e.times(1.0 / t) for e, t in zip(errors, theory, strict=True)]
    n = len(taus)
    with_tau = of_groups(lambda g: slope(torch.tensor(taus), g.square()), gap[:n])
    with_sigma = of_groups(lambda g: slope(torch.tensor(sigmas), g.square()), gap[n:])
    points = [
        Point("tau" if i < n else "sigma", cases[i][0 if i < n else 1], e.value, e.half_width, theory[i])
        for i, e in enumerate(errors)
    ]
    because = "-2 and 2 hold for w_star << tau and sigma << tau; at these values the exact resting points give"
    exact = [slope(torch.tensor(v), torch.tensor(t)) for v, t in ((taus, theory[:n]), (sigmas, theory[n:]))]
    tolerance = [abs(exact[0] + 2.0) + settings.within, abs(exact[1] - 2.0) + settings.within]
    return Verdict(
        name="E2",
        title="error against tau and sigma",
        statement="the asymptotic error sigma^2 S falls as 1 / tau^2 and rises as sigma^2",
        source="Wu et al. 2024, Thm. 2 and 3",
        claims=(
            equal(
                "slope of the error with tau", -2.0, with_tau, within=tolerance[0], because=f"{because} {exact[0]:.2f}"
            ),
            equal(
                "slope of the error with sigma",
                2.0,
                with_sigma,
                within=tolerance[1],
                because=f"{because} {exact[1]:.2f}",
            ),
            equal(
                "error over sigma^2 S at the exact resting point, worst of all",
                1.0,
                worst(ratios, 1.0),
                within=2.0 * settings.within,
                because="terms of lr^2 remain",
            ),
        ),
        panels=(
            Panel(x="tau", y="squared mean gradient", points=tuple(points[:n])),
            Panel(x="sigma", y="squared mean gradient", points=tuple(points[n:])),
        ),
    )
