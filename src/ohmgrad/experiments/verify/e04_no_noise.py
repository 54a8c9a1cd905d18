"""Without noise Analog SGD has no error: it converges, slowed by the response alone.

f = (w - w_star)^2 / 2 on the asymmetric linear device. From below pulses go up, and a step makes of the distance
1 - lr (1 - w/tau) of it; from above 1 - lr (1 + w/tau).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import AnalogSGD
from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices.presets import asymmetric_linear
from ohmgrad.experiments.verify.planted import doubled_asymmetry
from ohmgrad.experiments.verify.verdict import Estimate, Panel, Point, Verdict, at_most, equal, worst
from ohmgrad.pulses.forms import Dense

PLANTED = (doubled_asymmetry,)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """shares: w_star / tau. steps: enough for all to arrive. seed: of nothing, as nothing is random."""

    tau: float = 0.8
    shares: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    lr: float = 0.1
    steps: int = 1400
    seed: int = 0


QUICK = Settings()


def distances(settings: Settings) -> Tensor:
    """w_star - w after each step, (steps + 1, side, share), from 0.9 tau below and above."""
    tau = settings.tau
    w_star = torch.tensor(settings.shares, dtype=torch.float64) * tau
    start = torch.tensor([[-0.9], [0.9]], dtype=torch.float64).expand(-1, len(w_star)) * tau
    tile = Tile(start, algorithm=AnalogSGD(), crossbar={"device": asymmetric_linear(tau)}, seed=settings.seed)
    rows = [w_star - tile.weight]
    for _ in range(settings.steps):
        tile.algorithm.update(tile.state, Dense(-rows[-1]), settings.lr)
        rows.append(w_star - tile.weight)
    return torch.stack(rows)


def run(settings: Settings) -> Verdict:
    """What is left in the end, the rates on the way, and the theorem's bound on the mean squared gradient."""
    lr, d = settings.lr, distances(settings)
    shares = torch.tensor(settings.shares, dtype=torch.float64)
    factors, points = [], []
    for i, sign in enumerate((1.0, -1.0)):
        for j, share in enumerate(settings.shares):
            near = (d[:, i, j].abs() < 1e-4) & (d[:, i, j].abs() > 1e-9)
            path = d[:, i, j].abs()[near].log()
            rate = 1.0 - float(((path[-1] - path[0]) / (len(path) - 1)).exp()) if len(path) > 1 else 0.0
            predicted = lr * (1.0 - sign * share)
            factors.append(Estimate(rate / predicted))
            points.append(Point("from below" if sign > 0 else "from above", share, rate, 0.0, predicted))
    # f0 - f_star = d0^2 / 2, L = 1; |w| is largest at one of its ends, the start or w_star.
    largest = torch.maximum(torch.full_like(shares, 0.9), shares).square()
    bound = d[0].square() / (lr * settings.steps * (1.0 - largest))
    excess = float((d[:-1].square().mean(0) / bound).max())
    return Verdict(
        name="E4",
        title="no noise, no error",
        statement="without noise the gradient vanishes at a linear rate, lr (1 -+ w_star/tau) a step",
        source="Wu et al. 2024, Thm. 9; Wu et al. 2025, Thm. 6",
        claims=(
            at_most("largest |grad f| in the end", 1e-12, Estimate(float(d[-1].abs().max())), because="roundings of w"),
            equal(
                "rate over lr (1 -+ w_star/tau), worst of all",
                1.0,
                worst(factors, 1.0),
                within=1e-3,
                because="the response changes along the way, by less than 1e-4 of the range",
            ),
            at_most(
                "mean squared gradient over 2 (f0 - f_star) / (lr K (1 - W_max^2/tau^2))",
                1.0,
                Estimate(excess),
                because="the theorem's bound, for lr <= 1",
            ),
        ),
        panels=(Panel(x="w_star / tau", y="rate of convergence", points=tuple(points), log_x=False, log_y=False),),
    )
