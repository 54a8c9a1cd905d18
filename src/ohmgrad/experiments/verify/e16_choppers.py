"""Choppers take an offset of the fast crossbar out: Tiki-Taka v2 integrates it, chopped and dynamic forms do not.

What a transfer adds to buffer and slow crossbar in the mean, per unit of rate, when the fast crossbar's symmetric point
is mu off and the gradient is constant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import AGAD, ChoppedTikiTakaV2, TikiTakaV2
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices import ConstantStep, SoftBoundsReference
from ohmgrad.experiments.verify.planted import choppers_stuck
from ohmgrad.experiments.verify.verdict import Estimate, Panel, Point, Verdict, equal, mean, of_groups, worst
from ohmgrad.pulses.forms import Dense

PLANTED = (choppers_stuck,)
KINDS = {"Tiki-Taka v2": TikiTakaV2, "chopped Tiki-Taka v2": ChoppedTikiTakaV2, "AGAD": AGAD}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """offsets: mu. gradient: constant, to see AGAD's share of it. fast_lr: of P.

    period: transfers between flips. periods: pairs of them to settle and to average. shape: of independent runs.
    """

    offsets: tuple[float, ...] = (0.2, 0.4, 0.6)
    gradient: float = 0.05
    sigma: float = 0.3
    fast_lr: float = 0.1
    period: int = 10
    periods: int = 6
    shape: tuple[int, int] = (200, 50)
    seed: int = 0


QUICK = Settings(offsets=(0.6,), shape=(100, 60))


def algorithm(settings: Settings, kind: str, offset: float) -> Algorithm:
    """With whole matrices at each transfer, and a buffer that loses nothing."""
    fast = SoftBoundsReference(w_max=1.0, w_min=-1.0, reference_mean=-offset, ctoc="multiplicative")
    chopping = {} if kind == "Tiki-Taka v2" else {"in_chop_prob": 1.0 / settings.period, "in_chop_random": False}
    return KINDS[kind](
        fast_lr=settings.fast_lr,
        transfer_lr=1e-3,
        scale_transfer_lr=False,
        n_reads=None,
        fast_device=fast,
        units_in_mbatch=True,
        forget_buffer=False,
        max_pulses=10**6,
        **chopping,
    )


def intake(settings: Settings, kind: str, offset: float, gradient: float) -> Tensor:
    """Of each run, in the mean over transfers."""
    generator = torch.Generator().manual_seed(settings.seed)
    slow = ConstantStep(w_min=-math.inf, w_max=math.inf)
    method = algorithm(settings, kind, offset)
    zero = torch.zeros(settings.shape, dtype=torch.float64)
    tile = Tile(zero, algorithm=method, crossbar={"device": slow}, seed=settings.seed)
    held, n = [], 2 * settings.period * settings.periods
    for _ in range(2):  # to settle; to count
        for _ in range(n):
            noise = settings.sigma * torch.randn(settings.shape, generator=generator, dtype=torch.float64)
            method.update(tile.state, Dense(gradient + noise), 1.0)
        held.append(tile.state.slow.weight / 1e-3 + tile.state.buffer)
    return ((held[1] - held[0]) / n).flatten()


def run(settings: Settings) -> Verdict:
    """Intake against the offset, for each algorithm, and AGAD's of a gradient with and without one."""
    points: list[Point] = []
    shares: dict[str, list[Estimate]] = {}
    for kind in KINDS:
        of_kind = [mean(intake(settings, kind, mu, 0.0)) for mu in settings.offsets]
        shares[kind] = [e.times(1.0 / mu) for e, mu in zip(of_kind, settings.offsets, strict=True)]
        expected = 1.0 if kind == "Tiki-Taka v2" else 0.0
        points += [
            Point(kind, mu, e.value, e.half_width, expected * mu)
            for mu, e in zip(settings.offsets, of_kind, strict=True)
        ]
    with_offset, without = (intake(settings, "AGAD", mu, settings.gradient) for mu in (settings.offsets[-1], 0.0))
    ratio = of_groups(lambda a, b: float(a / b), with_offset, without)
    plain, chopped, dynamic = (shares[kind] for kind in KINDS)
    return Verdict(
        name="E16",
        title="choppers",
        statement="an offset mu of the fast crossbar adds mu to each read of Tiki-Taka v2, 0 over two chopper periods",
        source="Rasch et al. 2024, Fig. 3",
        claims=(
            equal(
                "intake of Tiki-Taka v2 over mu, worst of all",
                1.0,
                worst(plain, 1.0),
                within=0.05,
                because="P has three time constants to settle",
            ),
            equal(
                "intake of chopped Tiki-Taka v2 over mu, worst of all",
                0.0,
                worst(chopped, 0.0),
                within=0.03,
                because="flips are regular and cancel over two periods, but for what has not settled",
            ),
            equal(
                "intake of AGAD over mu, worst of all",
                0.0,
                worst(dynamic, 0.0),
                within=0.03,
                because="the reference lags behind what has not settled",
            ),
            equal(
                "AGAD's intake of a gradient with the largest mu over that without",
                1.0,
                ratio,
                within=0.05,
                because="the same noise in both; the response differs by what has not settled",
            ),
        ),
        panels=(Panel(x="mu", y="intake of a transfer", points=tuple(points), log_x=False, log_y=False),),
    )
