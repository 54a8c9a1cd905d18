"""What the fast crossbar comes to hold: with gamma what the slow one lacks, without it the gradient over its noise.

The slow crossbar stands still (beta = 0). With gamma > 0 on ideal devices W + gamma P rests at the optimum, P at
(w_star - W) / gamma. With gamma = 0 on the asymmetric linear device P rests at -g tau / E|g + eps|.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import TikiTaka
from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices import Device, Ideal
from ohmgrad.devices.presets import asymmetric_linear
from ohmgrad.experiments.verify.pairs import modulus
from ohmgrad.experiments.verify.planted import doubled_asymmetry
from ohmgrad.experiments.verify.verdict import Claim, Estimate, Panel, Point, Verdict, equal, mean
from ohmgrad.pulses.forms import Dense

PLANTED = (doubled_asymmetry,)
STILL = 1e-18  # a transfer_lr, which has to be positive


@dataclass(frozen=True, kw_only=True)
class Settings:
    """gradients: at gamma = 0, constant. fast_lr: there; times: its time constants to settle. side: side^2 runs."""

    gammas: tuple[float, ...] = (0.2, 0.4, 0.8)
    gradients: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    sigma: float = 0.3
    tau: float = 1.0
    fast_lr: float = 0.05
    side: int = 100
    seed: int = 0


QUICK = Settings(gradients=(0.1, 0.4), side=60)


def fast_only(gamma: float, fast_lr: float) -> TikiTaka:
    """Tiki-Taka whose slow crossbar stands still."""
    own = {"n_reads": None, "scale_fast_lr": False, "scale_transfer_lr": False}
    return TikiTaka(fast_lr=fast_lr, transfer_lr=STILL, gamma=gamma, **own)


def held(gamma: float, slow: Tensor, device: Device, w_star: float = 0.3) -> Tensor:
    """P at rest for each state of the slow crossbar, (1, n), without noise."""
    tile = Tile(slow, algorithm=fast_only(gamma, 0.5), crossbar={"device": device}, seed=0)
    for _ in range(round(80 / gamma)):
        tile.algorithm.update(tile.state, Dense(tile.weight - w_star), 1.0)
    return tile.state.fast.weight.clone()


def saturated(settings: Settings, g: float) -> Tensor:
    """P of each run after ten time constants of gradients g + noise."""
    generator, shape = torch.Generator().manual_seed(settings.seed), (settings.side, settings.side)
    device = asymmetric_linear(settings.tau)
    algorithm = fast_only(0.0, settings.fast_lr)
    weight = torch.zeros(shape, dtype=torch.float64)
    tile = Tile(weight, algorithm=algorithm, crossbar={"device": device}, seed=settings.seed)
    time = settings.tau / (settings.fast_lr * modulus(g, settings.sigma))
    for _ in range(round(10 * time)):
        noise = settings.sigma * torch.randn(shape, generator=generator, dtype=torch.float64)
        tile.algorithm.update(tile.state, Dense(g + noise), 1.0)
    return tile.state.fast.weight.flatten()


def run(settings: Settings) -> Verdict:
    """Slopes of P against w_star - W, and what P rests at for each gradient."""
    slow, w_star = torch.linspace(0.1, 0.28, 7, dtype=torch.float64)[None], 0.3
    claims: list[Claim] = []
    points = []
    for gamma in settings.gammas:
        lack = (w_star - slow)[0]
        of_lack = float((held(gamma, slow, Ideal(), w_star)[0] * lack).sum() / lack.square().sum())
        claims.append(
            equal(
                f"P over w_star - W, gamma = {gamma:g}, times gamma",
                1.0,
                Estimate(of_lack * gamma),
                within=1e-9,
                because="no noise, and all but converged",
            )
        )
    for g in settings.gradients:
        e, predicted = mean(saturated(settings, g)), -g * settings.tau / modulus(g, settings.sigma)
        claims.append(
            equal(
                f"P at rest over -g tau / E|g + eps|, gamma = 0, g = {g:g}",
                1.0,
                e.times(1.0 / predicted),
                within=0.04,
                because="exact at any step; chance alone",
            )
        )
        points.append(Point("gamma = 0", g, -e.value, e.half_width, -predicted))
    return Verdict(
        name="E9",
        title="what the fast crossbar holds",
        statement="P rests at (w_star - W)/gamma; with gamma = 0 at -g tau / E|g + eps|",
        source="Wu et al. 2025, eq. 9-10; technical reference, E9",
        claims=tuple(claims),
        panels=(Panel(x="gradient", y="-P at rest", points=tuple(points)),),
    )
