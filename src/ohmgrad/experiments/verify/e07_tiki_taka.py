"""Tiki-Taka's bias vanishes with its steps, as their root; that of Analog SGD stays.

f = (w - w_star)^2 / 2 with Gaussian noise on the asymmetric linear device, no noise of pulses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import AnalogSGD, TikiTaka
from ohmgrad.devices.presets import asymmetric_linear
from ohmgrad.experiments.verify.pairs import rest
from ohmgrad.experiments.verify.planted import symmetric_point_shifted
from ohmgrad.experiments.verify.verdict import Panel, Point, Verdict, at_most, equal, mean, of_groups, slope

PLANTED = (symmetric_point_shifted,)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """lrs: alpha, the step of the fast crossbar and of Analog SGD, largest first; share: beta / alpha."""

    w_star: float = 0.4
    sigma: float = 0.3
    lrs: tuple[float, ...] = (0.08, 0.04, 0.02, 0.01)
    share: float = 0.1
    settle: float = 30.0
    times: float = 30.0
    pairs: int = 1250
    within: float = 0.1
    seed: int = 0


QUICK = Settings(lrs=(0.08, 0.02), settle=20.0, times=12.0, pairs=1200, within=0.15)


def bias(settings: Settings, algorithm: AnalogSGD | TikiTaka, lr: float) -> Tensor:
    """w - w_star at rest of each pair of runs."""
    return (
        rest(
            algorithm,
            asymmetric_linear(),
            lambda w: w - settings.w_star,
            sigma=settings.sigma,
            lr=lr,
            start=settings.w_star,
            settle=settings.settle,
            times=settings.times,
            seed=settings.seed,
            shape=(1, settings.pairs),
        ).w.flatten()
        - settings.w_star
    )


def run(settings: Settings) -> Verdict:
    """Bias of both at each step, slopes on logarithmic axes, and Tiki-Taka's at 0."""
    lrs = torch.tensor(settings.lrs, dtype=torch.float64)
    own = {"n_reads": None, "scale_fast_lr": False, "scale_transfer_lr": False}
    sgd = torch.stack([bias(settings, AnalogSGD(), lr) for lr in settings.lrs])
    tiki = torch.stack(
        [bias(settings, TikiTaka(fast_lr=lr, transfer_lr=settings.share * lr, **own), lr) for lr in settings.lrs]
    )
    grows, stays = (of_groups(lambda b: slope(lrs, b.abs()), b) for b in (tiki, sgd))
    ratio = (settings.lrs[-2] / settings.lrs[-1]) ** 0.5
    left = of_groups(lambda b: float((ratio * b[-1] - b[-2]) / (ratio - 1.0)), tiki)
    fraction = of_groups(lambda a, b: float(a / b), tiki[-1], sgd[-1])
    points = [
        Point(name, lr, -e.value, e.half_width, float("nan"))
        for name, of_method in (("Analog SGD", sgd), ("Tiki-Taka", tiki))
        for lr, e in zip(settings.lrs, map(mean, of_method), strict=True)
    ]
    return Verdict(
        name="E7",
        title="Tiki-Taka is exact in the limit",
        statement="the bias of Tiki-Taka goes to 0 with its steps, that of Analog SGD does not",
        source="Wu et al. 2024, Thm. 4; root of the step: technical reference, E7",
        claims=(
            equal(
                "slope of Tiki-Taka's bias with lr",
                0.5,
                grows,
                within=settings.within,
                because="the noise left on P goes as sqrt(lr), and its modulus drives the bias; next order lr",
            ),
            equal(
                "bias of Tiki-Taka at lr = 0", 0.0, left, within=0.002, because="next order lr; Analog SGD has -0.08"
            ),
            equal("slope of Analog SGD's bias with lr", 0.0, stays, within=0.02, because="next order lr"),
            equal(
                "bias of Analog SGD at the smallest lr",
                -0.0797,
                mean(sgd[-1]),
                within=0.001,
                because="NumPy run of the reference, to its digits",
            ),
            at_most(
                "bias of Tiki-Taka over that of Analog SGD at the smallest lr",
                1.0 / 8.0,
                fraction,
                because="0.06 in the reference at lr = 0.02, and falling",
            ),
        ),
        panels=(Panel(x="lr", y="w_star - w at rest", points=tuple(points)),),
    )
