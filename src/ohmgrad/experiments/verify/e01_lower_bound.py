"""The lower bound of Analog SGD is met by an instance: its constant is 1, not the printed 4.

f = (w - w_star)^2 / 2 on the asymmetric linear device, with gradient noise of two values, sigma sqrt((1 - p)/p) with
odds p = (1 - w/tau)/2 and -sigma sqrt(p/(1 - p)) else, which the device turns into the largest drift. In D equal
coordinates with shared noise all move alike; one stands for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import optimize
from torch import Tensor

from ohmgrad.algorithms import AnalogSGD
from ohmgrad.devices.presets import asymmetric_linear
from ohmgrad.experiments.verify.planted import doubled_asymmetry
from ohmgrad.experiments.verify.quadratic import Noise, Rest, quadratic, rest
from ohmgrad.experiments.verify.verdict import Panel, Point, Verdict, equal, of_groups
from ohmgrad.theory import asymmetry

PLANTED = (doubled_asymmetry,)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """lrs: steps, the constant being read off at 0.

    times: over how many times 1 / lr a run is averaged. side: side x side runs. within: tolerance.
    """

    w_star: float = 0.25
    sigma: float = 0.1
    tau: float = 1.0
    lrs: tuple[float, ...] = (0.02, 0.01, 0.005)
    times: float = 20.0
    side: int = 100
    within: float = 0.02
    seed: int = 0


QUICK = Settings(lrs=(0.04, 0.02), times=10.0, within=0.06)


def resting_point(w_star: float, sigma: float, tau: float) -> float:
    """Where g = -(w/tau) E|g| with E|g| = -(w/tau) g + sigma sqrt(1 - (w/tau)^2)."""

    def imbalance(w: float) -> float:
        return w - w_star + sigma * (w / tau) / math.sqrt(1.0 - (w / tau) ** 2)

    return float(optimize.brentq(imbalance, 0.0, w_star))


def two_valued_noise(sigma: float | Tensor, share: float | Tensor) -> Noise:
    """The instance's noise at w = share tau; numbers, or one for each value of a sweep, (sweep, 1, 1)."""
    p = (1.0 - torch.as_tensor(share, dtype=torch.float64)) / 2.0
    up, down = sigma * ((1.0 - p) / p).sqrt(), -sigma * (p / (1.0 - p)).sqrt()

    def noise(generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
        return torch.where(torch.rand(shape, generator=generator, dtype=torch.float64) < p, up, down)

    return noise


def simulate(settings: Settings, lr: float) -> Rest:
    """The instance from its resting point on; watched: S(w)."""
    device = asymmetric_linear(settings.tau)
    w = resting_point(settings.w_star, settings.sigma, settings.tau)
    return rest(
        AnalogSGD(),
        device,
        quadratic(settings.w_star),
        noise=two_valued_noise(settings.sigma, w / settings.tau),
        lr=lr,
        start=w,
        settle=round(4 / lr),
        steps=round(settings.times / lr),
        seed=settings.seed,
        shape=(settings.side, settings.side),
        watch=lambda w: asymmetry(device, w[..., None, None]),
    )


def run(settings: Settings) -> Verdict:
    """Ratios of the squared gradient to sigma^2 S_K at each step, and their intercept at 0."""
    lrs = torch.tensor(settings.lrs, dtype=torch.float64)
    rests = [simulate(settings, lr) for lr in settings.lrs]
    squared, S, w = (torch.stack([getattr(r, name).flatten() for r in rests]) for name in ("squared", "watched", "w"))
    bound = settings.sigma**2

    def intercept(y: Tensor) -> float:
        return float(torch.linalg.lstsq(torch.stack([torch.ones_like(lrs), lrs], -1), y[:, None]).solution[0, 0])

    of_mean = of_groups(lambda w, S: intercept((w - settings.w_star).square() / (bound * S)), w, S)
    of_square = of_groups(lambda g, S: intercept(g / (bound * S)), squared, S)
    because = "a straight line in lr leaves terms of lr^2; the printed constant would be 4, a doubled G gives 4.4"
    points = [
        Point("mean squared gradient", lr, e.value, e.half_width, 1.0)
        for lr, e in zip(settings.lrs, (of_groups(lambda g, S: g / (bound * S), g, s) for g, s in zip(squared, S, strict=True)), strict=True)
    ]  # fmt: skip
    return Verdict(
        name="E1",
        title="lower-bound instance",
        statement="mean E||grad f||^2 = sigma^2 S_K + O(lr) on the instance of the lower bound",
        source="Wu et al. 2024, Thm. 3, with the constant 1 that its proof gives",
        claims=(
            equal("E||grad f||^2 / (sigma^2 S_K) at lr = 0", 1.0, of_square, within=settings.within, because=because),
            equal("||E grad f||^2 / (sigma^2 S_K) at lr = 0", 1.0, of_mean, within=settings.within, because=because),
        ),
        panels=(Panel(x="lr", y="E||grad f||^2 / (sigma^2 S)", points=tuple(points), log_y=False),),
    )
