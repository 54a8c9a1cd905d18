"""Mean, variance and covariance of what a pulse train writes.

An increment alpha x d is sent as a train of BL slots in which the lines fire with odds p_x and p_d: the count is
binomial, each pulse strays by sigma_c of its step, and crosspoints of a row share the row's bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.devices import SoftBounds
from ohmgrad.experiments.verify.planted import cycle_noise_halved
from ohmgrad.experiments.verify.verdict import Claim, Estimate, Panel, Point, Verdict, equal, of_groups, worst
from ohmgrad.pulses.settings import PulsedUpdate

PLANTED = (cycle_noise_halved,)
TAU = 1000.0  # wide bounds: the response is 1 throughout


@dataclass(frozen=True, kw_only=True)
class Settings:
    """share: of the largest product that an element asks for, so its odds of a pulse. rows: elements with a sure x.

    replicas: of a 2 x 2 crossbar whose lines are all random. noises: sigma_c.
    """

    share: float = 0.63
    lrs: tuple[float, ...] = (0.01, 0.02, 0.03)
    steps: tuple[float, ...] = (2.5e-3, 1.25e-3, 6.25e-4)
    noises: tuple[float, ...] = (0.0, 0.3, 1.0)
    rows: int = 100_000
    replicas: int = 50_000
    within: float = 0.04
    seed: int = 0


QUICK = Settings(lrs=(0.01, 0.02), steps=(2.5e-3, 1.25e-3), noises=(0.0, 1.0), rows=40_000, replicas=12_000, within=0.1)


def device(dw_min: float, sigma: float) -> SoftBounds:
    """Constant steps, with noise from pulse to pulse."""
    return SoftBounds(w_max=TAU, w_min=-TAU, dw_min=dw_min, dw_min_ctoc=sigma)


def sure_column(settings: Settings, lr: float, dw_min: float, sigma: float) -> Tensor:
    """Changes of `rows` elements of one column whose x is certain: row 0 asks for whole slots."""
    bar = Crossbar(
        (settings.rows + 1, 1),
        device=device(dw_min, sigma),
        update=PulsedUpdate(),
        seed=settings.seed,
        dtype=torch.float64,
    )
    d = torch.full((1, settings.rows + 1), settings.share, dtype=torch.float64)
    d[0, 0] = 1.0
    bar.pulse(torch.ones(1, 1, dtype=torch.float64), d, lr)
    return -bar.weight[1:, 0]


def random_lines(settings: Settings, lr: float, dw_min: float) -> tuple[Tensor, Tensor]:
    """Changes of two crosspoints of one row, x = (0.5, 0.7) beside 1 and d = 0.9 beside 1, in every replica."""
    n = settings.replicas
    bar = Crossbar(
        (2, 3),
        device=device(dw_min, 0.0),
        update=PulsedUpdate(),
        seed=settings.seed,
        replicas=(n,),
        dtype=torch.float64,
    )
    x, d = (torch.tensor([[v]], dtype=torch.float64).expand(n, 1, -1) for v in ((1.0, 0.5, 0.7), (1.0, 0.9)))
    bar.pulse(x.contiguous(), d.contiguous(), lr)
    return -bar.weight[:, 1, 1], -bar.weight[:, 1, 2]


def variance(x: Tensor) -> Estimate:
    """Of independent samples."""
    return of_groups(lambda m, s: float(s - m.square()), x, x.square())


def run(settings: Settings) -> Verdict:
    """Ratios to the predicted moments over lr, dw_min and sigma_c, and the covariance within a row."""
    p, lr, dw = settings.share, settings.lrs[0], settings.steps[0]
    cases = [(rate, dw, 0.0) for rate in settings.lrs] + [(lr, step, 0.0) for step in settings.steps]
    cases += [(lr, dw, sigma) for sigma in settings.noises]
    means, ratios, points = [], [], []
    for rate, step, sigma in cases:
        moved = sure_column(settings, rate, step, sigma)
        predicted = step * rate * p * (1.0 - p + sigma**2)
        means.append(of_groups(lambda m, rate=rate: float(m) / (rate * p), moved))
        ratios.append(variance(moved).times(1.0 / predicted))
        points.append((rate, step, sigma, ratios[-1].times(predicted), predicted))
    n, k = len(settings.lrs), len(settings.steps)
    left, right = random_lines(settings, lr, dw)
    slots = lr / dw
    both = of_groups(lambda a, b, ab: float(ab - a * b), left, right, left * right)
    shared = dw**2 * slots * 0.5 * 0.7 * 0.9 * (1.0 - 0.9)
    one = variance(right).times(1.0 / (dw**2 * slots * 0.63 * 0.37))
    because = "exact; chance alone"
    claims: list[Claim] = [
        equal(
            "mean over alpha |x d|, worst of all", 1.0, worst(means, 1.0), within=settings.within / 2.0, because=because
        ),
        equal(
            "variance over alpha |x d| dw_min (1 - p + sigma_c^2): lr swept, worst",
            1.0,
            worst(ratios[:n], 1.0),
            within=settings.within,
            because=because,
        ),
        equal(
            "the same: dw_min swept, worst", 1.0, worst(ratios[n : n + k], 1.0), within=settings.within, because=because
        ),
        equal(
            "the same: sigma_c swept, worst", 1.0, worst(ratios[n + k :], 1.0), within=settings.within, because=because
        ),
        equal("the same: rows and columns random", 1.0, one, within=1.5 * settings.within, because=because),
        equal(
            "covariance in a row over dw_min^2 BL p_x p_x' p_d (1 - p_d)",
            1.0,
            both.times(1.0 / shared),
            within=6.0 * settings.within,
            because="chance alone; independent counts would give 0",
        ),
    ]
    panels = [
        Panel(
            x=x,
            y="variance of a train",
            points=tuple(Point(x, point[i], point[3].value, point[3].half_width, point[4]) for point in part),
        )
        for i, x, part in ((0, "lr", points[:n]), (1, "dw_min", points[n : n + k]))
    ]
    return Verdict(
        name="E11",
        title="statistics of pulse trains",
        statement="a train writes alpha x d in the mean, with variance alpha |x d| dw_min (1 - p + sigma_c^2)",
        source="arXiv 2510.02516, Lemma 1; aihwkit's trains, technical reference 2.1",
        claims=tuple(claims),
        panels=tuple(panels),
    )
