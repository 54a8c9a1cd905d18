"""At the optimum noise drifts the weight of Analog SGD to the symmetric point, and that of Tiki-Taka beta times less.

One step from w = w_star, P = 0: -(alpha/tau) E|eps| w and -(alpha beta/tau) E|eps| w.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import AnalogSGD, TikiTaka
from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices.presets import asymmetric_linear
from ohmgrad.experiments.verify.pairs import ROOT
from ohmgrad.experiments.verify.planted import doubled_asymmetry, transfer_sign_flipped
from ohmgrad.experiments.verify.verdict import Claim, Panel, Point, Verdict, equal, mean, of_groups
from ohmgrad.pulses.forms import Dense

PLANTED = (doubled_asymmetry, transfer_sign_flipped)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """draws: of the noise, in pairs of opposite sign."""

    alpha: float = 0.1
    betas: tuple[float, ...] = (0.5, 0.2, 0.1, 0.05)
    tau: float = 2.0
    sigma: float = 0.5
    w: float = 1.5
    draws: int = 1_000_000
    seed: int = 0


QUICK = Settings(betas=(0.5, 0.1), draws=600_000)


def steps(algorithm: AnalogSGD | TikiTaka, noise: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Change of the slow crossbar by one step for pairs of opposite noise: their mean, and half of their difference."""
    weight = torch.full_like(noise, settings.w)
    tile = Tile(weight, algorithm=algorithm, crossbar={"device": asymmetric_linear(settings.tau)}, seed=settings.seed)
    tile.algorithm.update(tile.state, Dense(noise), settings.alpha)
    first, second = (tile.weight - weight).flatten().chunk(2)
    return (first + second) / 2.0, (first - second) / 2.0


def run(settings: Settings) -> Verdict:
    """Drift of Analog SGD, the ratio of Tiki-Taka's to it for each beta, and where Tiki-Taka's step leads."""
    generator = torch.Generator().manual_seed(settings.seed)
    half = settings.sigma * torch.randn(500, settings.draws // 1000, generator=generator, dtype=torch.float64)
    noise = torch.cat([half, -half])
    sgd, _ = steps(AnalogSGD(), noise, settings)
    predicted = -settings.alpha / settings.tau * settings.sigma * ROOT * settings.w
    claims: list[Claim] = [
        equal(
            "drift of Analog SGD over -(alpha/tau) E|eps| w",
            1.0,
            mean(sgd).times(1.0 / predicted),
            within=0.02,
            because="chance alone",
        )
    ]
    points = []
    for beta in settings.betas:
        algorithm = TikiTaka(
            fast_lr=beta, transfer_lr=settings.alpha, n_reads=None, scale_fast_lr=False, scale_transfer_lr=False
        )
        tiki, odd = steps(algorithm, noise, settings)
        ratio = of_groups(lambda a, b: float(a / b), tiki, sgd)
        along = of_groups(lambda a, b: float(a / b), odd * half.flatten(), half.flatten().square())
        name = f"Tiki-Taka, beta = {beta:g}"
        claims += [
            equal(
                f"{name}: drift over that of Analog SGD, over beta",
                1.0,
                ratio.times(1.0 / beta),
                within=1e-6,
                because="pair by pair, up to roundings",
            ),
            equal(
                f"{name}: step along the noise over -alpha beta",
                1.0,
                along.times(-1.0 / (settings.alpha * beta)),
                within=1e-6,
                because="pair by pair, up to roundings",
            ),
        ]
        points.append(Point("Tiki-Taka / Analog SGD", beta, ratio.value, ratio.half_width, beta))
    return Verdict(
        name="E6",
        title="drift at the optimum",
        statement="one step at the optimum drifts by -(alpha/tau) E|eps| w, with Tiki-Taka by beta times that",
        source="Wu et al. 2024, eq. 11-12",
        claims=tuple(claims),
        panels=(Panel(x="beta", y="ratio of drifts", points=tuple(points)),),
    )
