"""A symmetric point that is off biases Tiki-Taka and residual learning, whatever their steps and gamma.

Responses as (1 + c)(1 - w) to (1 - c)(1 + w) on both crossbars: P rests at 0 only where the gradient is c E|eps|.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import TikiTaka
from ohmgrad.devices import SoftBounds
from ohmgrad.experiments.verify.pairs import ROOT, rest
from ohmgrad.experiments.verify.planted import doubled_asymmetry
from ohmgrad.experiments.verify.verdict import Claim, Panel, Point, Verdict, equal, mean, of_groups

PLANTED = (doubled_asymmetry,)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """offsets: c. lr: alpha, and alpha / 4, whose results are continued to 0 in sqrt(lr); share: beta / alpha."""

    w_star: float = 0.4
    sigma: float = 0.3
    h: float = 1.0
    offsets: tuple[float, ...] = (0.05, 0.1, 0.3)
    gammas: tuple[float, ...] = (0.4, 0.8)
    lr: float = 0.04
    share: float = 0.25
    pairs: int = 800
    within: float = 0.06
    seed: int = 0


QUICK = Settings(offsets=(0.1, 0.3), lr=0.12, pairs=500, within=0.12)


def linear(c: float) -> SoftBounds:
    """q_up = 1 - w, q_down = (1 + w)(1 - c)/(1 + c): that ratio of steps, and the symmetric point c (reference 1.3)."""
    return SoftBounds(up_down=2.0 * c / (1.0 + c))


def bias(settings: Settings, gamma: float, lr: float) -> Tensor:
    """W + gamma P - w_star at rest of each pair of runs for each offset, (offset, pairs)."""
    own = {"n_reads": None, "scale_fast_lr": False, "scale_transfer_lr": False}
    expected = torch.tensor(settings.offsets).double()[:, None, None] * settings.sigma * ROOT / settings.h
    result = rest(
        TikiTaka(fast_lr=lr, transfer_lr=settings.share * lr, gamma=gamma, **own),
        [linear(c) for c in settings.offsets],
        lambda w: settings.h * (w - settings.w_star),
        sigma=settings.sigma,
        lr=lr,
        start=settings.w_star + expected,
        settle=14.0,
        times=10.0,
        seed=settings.seed,
        shape=(1, settings.pairs),
    )
    return result.w.flatten(1) - settings.w_star


def run(settings: Settings) -> Verdict:
    """Bias over c sigma sqrt(2/pi) / h for each gamma, at lr = 0."""
    slope = settings.sigma * ROOT / settings.h
    c = torch.tensor(settings.offsets, dtype=torch.float64)
    claims: list[Claim] = []
    points, slopes = [], []
    for gamma in settings.gammas:
        at_zero = 2.0 * bias(settings, gamma, settings.lr / 4.0) - bias(settings, gamma, settings.lr)
        slopes.append(at_zero)
        fitted = of_groups(lambda b: float((b * c).sum() / c.square().sum()), at_zero)
        claims.append(
            equal(
                f"bias over c at lr = 0, gamma = {gamma:g}",
                slope,
                fitted,
                within=settings.within * slope,
                because="of first order in c and sigma; terms of order lr remain",
            )
        )
        for offset, e in zip(settings.offsets, map(mean, at_zero), strict=True):
            points.append(Point(f"gamma = {gamma:g}", offset, e.value, e.half_width, slope * offset))
    low, high = slopes[0], slopes[-1]
    ratio = of_groups(lambda a, b: float((a * c).sum() / (b * c).sum()), low, high)
    claims.append(
        equal(
            "bias at the smallest gamma over that at the largest",
            1.0,
            ratio,
            within=1.5 * settings.within,
            because="gamma mends nothing; terms of order lr remain",
        )
    )
    return Verdict(
        name="E8",
        title="an offset symmetric point",
        statement="a symmetric point at c tau leaves a bias c sigma sqrt(2/pi) / h, whatever steps and gamma are",
        source="Wu et al. 2025, Cor. 1, whose assumption G(0) = 0 it breaks; technical reference, E8",
        claims=tuple(claims),
        panels=(Panel(x="c", y="w - w_star at rest", points=tuple(points)),),
    )
