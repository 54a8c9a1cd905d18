"""The floor that whole pulses leave: proportional to dw_min, whatever the step of the algorithm.

Analog SGD pulse by pulse on f = (w - w_star)^2 / 2 with wide bounds. A gradient g sends one pulse with odds
lr |g| / dw_min: w walks on a lattice, up and down with odds lr E(g)_- / dw_min and lr E(g)_+ / dw_min. Its law at
rest is known by balance between neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.devices import SoftBounds
from ohmgrad.experiments.verify.planted import steps_doubled
from ohmgrad.experiments.verify.verdict import Panel, Point, Verdict, at_least, equal, of_groups, worst
from ohmgrad.pulses.settings import PulsedUpdate

PLANTED = (steps_doubled,)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """steps: dw_min, largest first; lr, and its quarter at the middle dw_min. runs: rows of one column.

    times: over how many times 1 / lr they are averaged.
    """

    steps: tuple[float, ...] = (0.2, 0.1, 0.05, 0.02, 0.01)
    tau: float = 50.0
    lr: float = 0.05
    sigma: float = 0.05
    runs: int = 8000
    times: float = 40.0
    within: float = 0.08
    seed: int = 0


QUICK = Settings(steps=(0.1, 0.05, 0.02, 0.01), runs=1500, times=20.0, within=0.1)


def distances(
    settings: Settings, dw_min: float, lr: float, update: PulsedUpdate = PulsedUpdate(), start: float = 0.0
) -> Tensor:
    """Mean of (w - w_star)^2 over time for each run; w_star is spread evenly over a step, for all lattices.

    Row 0 asks for one whole pulse, up and down in turn, which makes x certain and trains one slot long.
    """
    generator, n = torch.Generator().manual_seed(settings.seed), settings.runs
    device = SoftBounds(w_max=settings.tau, w_min=-settings.tau, dw_min=dw_min)
    w_star = dw_min * ((0.618034 * torch.arange(n, dtype=torch.float64)) % 1.0 - 0.5)
    bar = Crossbar(
        (n + 1, 1),
        device=device,
        update=update,
        seed=settings.seed,
        dtype=torch.float64,
        weight=torch.full((n + 1, 1), start, dtype=torch.float64),
    )
    x, whole = torch.ones(1, 1, dtype=torch.float64), dw_min / lr
    total, n_settle, n_steps = torch.zeros(n, dtype=torch.float64), round(10 / lr), round(settings.times / lr)
    for k in range(n_settle + n_steps):
        gap = bar.weight[1:, 0] - w_star
        g = gap + settings.sigma * torch.randn(n, generator=generator, dtype=torch.float64)
        first = torch.tensor([whole if k % 2 else -whole], dtype=torch.float64)
        bar.pulse(x, torch.cat([first, g.clamp(-whole, whole)])[None], lr)
        if k >= n_settle:
            total += gap.square()
    return total / n_steps


def predicted(settings: Settings, dw_min: float) -> float:
    """E (w - w_star)^2 of the walk at rest; lr cancels as long as lr |g| < dw_min."""
    sigma, offsets = settings.sigma, (np.arange(50) + 0.5) / 50 - 0.5
    reach = int(np.ceil((8 * sigma + 6 * np.sqrt(dw_min * sigma) + 6 * dw_min) / dw_min))
    gap = (np.arange(-reach, reach + 1)[:, None] + offsets) * dw_min
    z = gap / sigma
    down = sigma * (z * stats.norm.cdf(z) + stats.norm.pdf(z))  # E (gap + noise)_+
    up = sigma * (stats.norm.pdf(z) - z * stats.norm.sf(z))
    up, down = np.maximum(up, 1e-300), np.maximum(down, 1e-300)  # far out they cancel to 0
    weights = np.vstack([np.zeros_like(offsets), np.cumsum(np.log(up[:-1]) - np.log(down[1:]), 0)])
    law = np.exp(weights - weights.max(0))
    return float(((law * gap**2).sum(0) / law.sum(0)).mean())


def run(settings: Settings) -> Verdict:
    """Floors beside those of the walk, their slope with dw_min, a smaller lr, and trains rounded to nearest."""
    steps = settings.steps
    floors = [distances(settings, dw, settings.lr) for dw in steps]
    theory = [predicted(settings, dw) for dw in steps]
    measured = [of_groups(float, f) for f in floors]
    fine = torch.stack(floors[-3:])
    line = torch.tensor(steps[-3:], dtype=torch.float64)
    with_dw = of_groups(lambda f: float(np.polyfit(line.log(), f.log(), 1)[0]), fine)
    middle = len(steps) // 2
    quarter = of_groups(float, distances(settings, steps[middle], settings.lr / 4.0)).times(1.0 / theory[middle])
    dead = steps[0] / (2.0 * settings.lr)  # below |g| = dw_min / (2 lr) no pulse is sent
    stuck = of_groups(
        lambda f: float(f.sqrt()) / dead,
        distances(settings, steps[0], settings.lr, PulsedUpdate(train="deterministic"), 2.0 * dead),
    )
    ratios = [e.times(1.0 / t) for e, t in zip(measured, theory, strict=True)]
    points = [
        Point("stochastic", dw, e.value, e.half_width, t) for dw, e, t in zip(steps, measured, theory, strict=True)
    ]
    return Verdict(
        name="E12",
        title="floor of granularity",
        statement="pulse by pulse the floor of Analog SGD goes as dw_min, and no smaller step mends it",
        source="arXiv 2510.02516, Thm. 1 and 2; the walk's law: balance between neighbours",
        claims=(
            equal(
                "E (w - w_star)^2 over that of the walk, worst of all dw_min",
                1.0,
                worst(ratios, 1.0),
                within=settings.within,
                because="at lr |g| > dw_min, five deviations of g or more off, a train is cut",
            ),
            equal(
                "slope of the floor with dw_min, three smallest",
                1.0,
                with_dw,
                within=0.2,
                because="first order in dw_min; the walk's own slope rises to 1.1 where dw_min nears sigma",
            ),
            equal("the same ratio at a quarter of lr", 1.0, quarter, within=settings.within, because="lr cancels"),
            at_least(
                "|w - w_star| with trains rounded to nearest over dw_min / (2 lr)",
                0.5,
                stuck,
                because="updates below half a pulse are lost: w stops where noise lifts none over that",
            ),
        ),
        panels=(Panel(x="dw_min", y="E (w - w_star)^2", points=tuple(points)),),
    )
