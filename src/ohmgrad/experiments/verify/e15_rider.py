"""RIDER tracks the symmetric point that biases residual learning.

f = (w - w_star)^2 / 2 with Gaussian noise; the fast crossbar's symmetric point is w_d, unknown to the algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import Rider, TikiTaka
from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices import SoftBoundsReference
from ohmgrad.devices.presets import asymmetric_linear
from ohmgrad.experiments.verify.pairs import ROOT, rest
from ohmgrad.experiments.verify.planted import reference_not_tracked
from ohmgrad.experiments.verify.verdict import Panel, Point, Verdict, at_most, equal, mean, of_groups
from ohmgrad.pulses.forms import Dense

PLANTED = (reference_not_tracked,)
OWN = {"scale_fast_lr": False, "scale_transfer_lr": False}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """point: w_d. lrs: steps, largest first. flips: chop_prob of E-RIDER. gradient: on P, while Q searches."""

    w_star: float = 0.4
    sigma: float = 0.3
    point: float = 0.3
    gamma: float = 0.4
    lrs: tuple[float, ...] = (0.08, 0.04, 0.02)
    flips: tuple[float, ...] = (0.0, 0.1, 0.2)
    gradient: float = 0.1
    pairs: int = 800
    side: int = 80
    seed: int = 0


QUICK = Settings(lrs=(0.08, 0.04), flips=(0.0, 0.1), pairs=400, side=70)


def off(settings: Settings) -> SoftBoundsReference:
    """The fast crossbar's device."""
    return SoftBoundsReference(w_max=1.0, w_min=-1.0, reference_mean=-settings.point, ctoc="multiplicative")


def bias(settings: Settings, kind: type[TikiTaka] | type[Rider], lr: float) -> Tensor:
    """w - w_star at rest of each pair of runs."""
    steps = {"fast_lr": lr, "transfer_lr": lr / 4, "gamma": settings.gamma, "n_reads": None}
    algorithm = kind(fast_device=off(settings), **steps, **OWN)
    result = rest(
        algorithm,
        asymmetric_linear(),
        lambda w: w - settings.w_star,
        sigma=settings.sigma,
        lr=lr,
        start=settings.w_star,
        settle=14.0,
        times=8.0,
        seed=settings.seed,
        shape=(1, settings.pairs),
    )
    return result.w.flatten() - settings.w_star


def found(settings: Settings, chop_prob: float, gradient: float) -> Tensor:
    """Q of each run after eight time constants of P, with a slow crossbar that stands still."""
    algorithm = Rider(fast_lr=0.1, gamma=0.0, transfer_lr=1e-18, chop_prob=chop_prob, fast_device=off(settings), **OWN)
    shape = (settings.side, settings.side)
    tile = Tile(
        torch.zeros(shape, dtype=torch.float64),
        algorithm=algorithm,
        crossbar={"device": asymmetric_linear()},
        seed=settings.seed,
    )
    generator = torch.Generator().manual_seed(settings.seed)
    for _ in range(round(8 / (0.1 * settings.sigma * ROOT))):
        noise = settings.sigma * torch.randn(shape, generator=generator, dtype=torch.float64)
        tile.algorithm.update(tile.state, Dense(gradient + noise), 1.0)
    return tile.state.Q.flatten()


def run(settings: Settings) -> Verdict:
    """Biases of both, where Q ends, and how far a gradient draws it off with and without flips."""
    expected = settings.point * settings.sigma * ROOT
    learning = mean(bias(settings, TikiTaka, settings.lrs[-1]))
    rider = [bias(settings, Rider, lr) for lr in settings.lrs]
    ratio = of_groups(lambda a, b: float(a / b), rider[-1], rider[-2])
    share = of_groups(lambda b: abs(float(b)) / expected, rider[-1])
    drawn = [
        of_groups(lambda q: abs(float(q) - settings.point), found(settings, p, settings.gradient))
        for p in settings.flips
    ]
    points = [
        Point("RIDER", lr, abs(e.value), e.half_width, float("nan"))
        for lr, e in zip(settings.lrs, map(mean, rider), strict=True)
    ]
    points.append(Point("residual learning", settings.lrs[-1], learning.value, learning.half_width, expected))
    return Verdict(
        name="E15",
        title="RIDER",
        statement="residual learning is off by w_d sigma sqrt(2/pi), RIDER by what shrinks with its steps; Q finds w_d",
        source="arXiv 2602.21321, Thm. 3.7; technical reference, E15",
        claims=(
            equal(
                "bias of residual learning over w_d sigma sqrt(2/pi)",
                1.0,
                learning.times(1.0 / expected),
                within=0.08,
                because="first order in w_d; terms of order lr",
            ),
            at_most(
                "|bias| of RIDER over the same, at the smallest lr", 0.25, share, because="a trend; it vanishes with lr"
            ),
            at_most(
                "bias of RIDER over that at twice the lr",
                0.6,
                ratio,
                because="a trend; a half, were it proportional to lr, and less by terms of next order",
            ),
            equal(
                "Q after a search without gradient",
                settings.point,
                mean(found(settings, 0.0, 0.0)),
                within=0.02,
                because="eight time constants",
            ),
            at_most(
                "distance of Q from w_d under a gradient, with flips over without",
                0.5,
                drawn[-1].times(1.0 / drawn[0].value),
                because="flips give the gradient no side; their one sequence for all runs leaves a part",
            ),
        ),
        panels=(Panel(x="lr", y="bias", points=tuple(points)),),
    )
