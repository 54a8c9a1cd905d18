"""How large the fast crossbar's state is: it keeps the theorem's bound, and is far below it.

Off the optimum P rests at -g tau / E|g + eps| (E9), which falls as sigma grows and as tau shrinks: the trend that the
bound has too. At the optimum the opposite is true of sigma: there P is noise, of variance alpha sigma tau sqrt(pi/8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices.presets import asymmetric_linear
from ohmgrad.experiments.verify.e09_residual import fast_only
from ohmgrad.experiments.verify.pairs import ROOT, modulus
from ohmgrad.experiments.verify.planted import bounds_ignored
from ohmgrad.experiments.verify.verdict import Panel, Point, Verdict, at_least, at_most, equal, of_groups, slope, worst
from ohmgrad.pulses.forms import Dense

PLANTED = (bounds_ignored,)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """sigmas at the middle tau, taus at the middle sigma. gradient: off the optimum. fast_lr: alpha."""

    sigmas: tuple[float, ...] = (0.2, 0.4, 0.8)
    taus: tuple[float, ...] = (0.5, 1.0, 2.0)
    gradient: float = 0.05
    fast_lr: float = 0.02
    side: int = 20
    within: float = 0.15
    seed: int = 0


QUICK = Settings(fast_lr=0.06, side=20, within=0.3)


def states(settings: Settings, cases: list[tuple[float, float]], g: float) -> tuple[Tensor, Tensor]:
    """P and P^2 at rest for each sigma and tau, means over time and pairs of opposite noise, (cases, pairs)."""
    generator = torch.Generator().manual_seed(settings.seed)
    shape = (len(cases), settings.side, settings.side)
    sigma = torch.tensor([s for s, _ in cases], dtype=torch.float64)[:, None, None]
    devices = [asymmetric_linear(tau) for _, tau in cases]
    algorithm = fast_only(0.0, settings.fast_lr)
    weight = torch.zeros(2, *shape, dtype=torch.float64).flatten(0, 1)
    tile = Tile(weight, algorithm=algorithm, crossbar={"device": devices * 2}, seed=settings.seed)
    n = round(5 * max(tau / modulus(g, s) for s, tau in cases) / settings.fast_lr)  # five of the slowest time constants
    totals = torch.zeros(2, 2, *shape, dtype=torch.float64)
    for k in range(2 * n):
        noise = sigma * torch.randn(shape, generator=generator, dtype=torch.float64)
        tile.algorithm.update(tile.state, Dense(torch.cat([g + noise, g - noise])), 1.0)
        if k >= n:
            P = tile.state.fast.weight.unflatten(0, (2, -1))
            totals += torch.stack([P, P.square()])
    return tuple((totals / n).mean(1).flatten(2))  # type: ignore[return-value]  # two of them


def run(settings: Settings) -> Verdict:
    """Trends of the mean off the optimum, the variance at it, and E P^2 over the bound."""
    sigmas, taus = settings.sigmas, settings.taus
    n = len(sigmas)
    cases = [(s, taus[len(taus) // 2]) for s in sigmas] + [(sigmas[n // 2], t) for t in taus]
    (off, off_squared), (_, at_squared) = (states(settings, cases, g) for g in (settings.gradient, 0.0))
    theory = [settings.gradient * tau / modulus(settings.gradient, s) for s, tau in cases]
    means = [of_groups(lambda p, t=t: float(-p) / t, p) for p, t in zip(off, theory, strict=True)]
    spread = [settings.fast_lr * s * t * math.sqrt(math.pi / 8.0) for s, t in cases]
    variances = [of_groups(lambda q, v=v: float(q) / v, p) for p, v in zip(at_squared, spread, strict=True)]
    bound = [41.0 * tau**4 / (ROOT * s) ** 2 / s**2 for s, tau in cases]  # L = D = 1, E|g + eps| >= c sigma
    shares = [
        of_groups(lambda q, b=b: float(q) / b, p)
        for squared in (off_squared, at_squared)
        for p, b in zip(squared, bound, strict=True)
    ]
    x = [torch.tensor(v) for v in (sigmas, taus)]
    falls = of_groups(lambda p: slope(x[0], -p), off[:n])
    rises = of_groups(lambda p: slope(x[1], -p), off[n:])
    points = [
        Point("off the optimum, -E P", s, m.value * t, m.half_width * t, t)
        for (s, _), m, t in zip(cases[:n], means, theory, strict=False)
    ] + [
        Point("at the optimum, E P^2", s, v.value * t, v.half_width * t, t)
        for (s, _), v, t in zip(cases[:n], variances, spread, strict=False)
    ]
    return Verdict(
        name="E10",
        title="scale of the fast crossbar",
        statement="E||P||^2 <= 41 L^2 tau^4 D / (c^2 sigma^2); off the optimum P falls with sigma and rises with tau",
        source="Wu et al. 2024, Thm. 4",
        claims=(
            at_most(
                "E P^2 over the bound, largest of all",
                1.0,
                worst(shares, 0.0),
                because="the bound is loose: it is kept by far",
            ),
            at_most(
                "slope of |E P| with sigma, off the optimum",
                -0.5,
                falls,
                because="a trend; -1 for sigma >> g, by -g tau / E|g + eps|",
            ),
            at_least("slope of |E P| with tau, off the optimum", 0.5, rises, because="a trend; 1 by the same formula"),
            equal(
                "E P^2 over alpha sigma tau sqrt(pi/8), at the optimum, worst",
                1.0,
                worst(variances, 1.0),
                within=settings.within,
                because="first order in alpha; here P grows with sigma",
            ),
        ),
        panels=(Panel(x="sigma", y="P", points=tuple(points)),),
    )
