"""With Gaussian noise Analog SGD rests off the optimum, where a penalty on the weight would put it.

f = h/2 (w - w_star)^2 on the asymmetric linear device: h (w - w_star) = -(w/tau) E|g|, to first order
w = h w_star / (h + sigma sqrt(2/pi)/tau).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import AnalogSGD
from ohmgrad.devices.presets import asymmetric_linear
from ohmgrad.experiments.verify.pairs import ROOT, modulus, rest, resting_point
from ohmgrad.experiments.verify.planted import doubled_asymmetry
from ohmgrad.experiments.verify.verdict import Panel, Point, Verdict, equal, mean, of_groups, worst

PLANTED = (doubled_asymmetry,)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """sigmas: noises, the first being the reference's. lr and lr / 4, whose results are continued to 0."""

    w_star: float = 0.4
    h: float = 1.0
    tau: float = 1.0
    sigmas: tuple[float, ...] = (0.3, 0.2, 0.1, 0.05)
    lr: float = 0.02
    pairs: int = 1800
    seed: int = 0


QUICK = Settings(sigmas=(0.3, 0.1), lr=0.04, pairs=2600)


def resting(settings: Settings, lr: float) -> tuple[Tensor, Tensor]:
    """w and the loss of each pair of runs for each sigma, (sigma, pairs)."""
    n = len(settings.sigmas)
    start = [exact_point(settings, sigma) for sigma in settings.sigmas]
    columns = [torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (start, settings.sigmas)]
    result = rest(
        AnalogSGD(),
        [asymmetric_linear(settings.tau)] * n,
        lambda w: settings.h * (w - settings.w_star),
        sigma=columns[1],
        lr=lr,
        start=columns[0],
        settle=6.0,
        times=6.0,
        seed=settings.seed,
        shape=(1, settings.pairs),
    )
    return result.w.flatten(1), (result.squared / (2.0 * settings.h)).flatten(1)


def exact_point(settings: Settings, sigma: float) -> float:
    """Where w rests at lr = 0."""
    return resting_point(settings.w_star, sigma, settings.h, lambda w: w / settings.tau)


def run(settings: Settings) -> Verdict:
    """Resting points at lr = 0 beside the exact and the first-order ones, and the floor of the loss."""
    h, tau, w_star = settings.h, settings.tau, settings.w_star
    (coarse, coarse_loss), (fine, fine_loss) = (resting(settings, lr) for lr in (settings.lr, settings.lr / 4.0))
    w, loss = (4.0 * fine - coarse) / 3.0, (4.0 * fine_loss - coarse_loss) / 3.0
    points, off, floors = [], [], []
    for sigma, of_sigma, of_loss in zip(settings.sigmas, w, loss, strict=True):
        exact, measured = exact_point(settings, sigma), mean(of_sigma)
        off.append(mean((of_sigma - w_star) / (exact - w_star)))
        floors.append(mean(of_loss / (0.5 * h * (exact - w_star) ** 2)))
        points.append(Point("w at rest", sigma, w_star - measured.value, measured.half_width, w_star - exact))
    sigma = settings.sigmas[0]
    first = h * w_star / (h + sigma * ROOT / tau)
    at = exact_point(settings, sigma)
    gradient = of_groups(lambda v: float((h * (v - w_star) / (sigma * v / tau)).square()), w[0])
    return Verdict(
        name="E3",
        title="Gaussian quadratic",
        statement="E g = -(w/tau) E|g|: w rests at h w_star / (h + sigma sqrt(2/pi)/tau), to first order in w - w_star",
        source="Wu et al. 2025, Thm. 1; technical reference, E3",
        claims=(
            equal(
                "w at rest, first order",
                first,
                mean(w[0]),
                within=0.004,
                because="E|g + noise| exceeds sigma sqrt(2/pi) by a term of second order in g / sigma",
            ),
            equal("w at rest, exact", at, mean(w[0]), within=5e-4, because="terms of lr^2 remain"),
            equal(
                "w - w_star over the exact one, worst of all sigma",
                1.0,
                worst(off, 1.0),
                within=0.02,
                because="terms of lr^2 remain",
            ),
            equal(
                "floor of the loss over h/2 (w - w_star)^2 at lr = 0, worst",
                1.0,
                worst(floors, 1.0),
                within=0.03,
                because="terms of lr^2 remain; a doubled G would give about 3.3",
            ),
            equal(
                "squared gradient over sigma^2 (w/tau)^2",
                2.0 / torch.pi * (modulus(h * (at - w_star), sigma) / (sigma * ROOT)) ** 2,
                gradient,
                within=0.03,
                because="2/pi, times the exact E|g|^2 over its value at g = 0",
            ),
        ),
        panels=(Panel(x="sigma", y="w_star - w at rest", points=tuple(points)),),
    )
