"""Programming a matrix by gradients, pulse by pulse, and what an offset of the fast crossbars' reference does to it.

Targets N(0, 0.3^2), x ~ N(0, 1), d = (W - target) x, on noisy devices of few states, that differ by 30 %. At 12 x 12,
where the published experiment has 20 x 20.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import AGAD, AnalogSGD, ChoppedTikiTakaV2, TikiTakaV2
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices import SoftBoundsReference
from ohmgrad.experiments.verify.planted import choppers_stuck
from ohmgrad.experiments.verify.verdict import Claim, Panel, Point, Verdict, at_least, at_most, mean, of_runs
from ohmgrad.pulses.forms import Outer
from ohmgrad.pulses.settings import PulsedUpdate

PLANTED = (choppers_stuck,)
KINDS = {"Tiki-Taka v2": TikiTakaV2, "chopped Tiki-Taka v2": ChoppedTikiTakaV2, "AGAD": AGAD}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """offset: spread of the fast crossbars' references. samples: of x, five to a mini-batch. runs: replicas."""

    size: int = 12
    n_states: float = 20.0
    offset: float = 0.3
    samples: int = 6000
    lr: float = 0.1
    runs: int = 32
    seed: int = 0


QUICK = Settings(runs=24)


def device(settings: Settings, offset: float = 0.0) -> SoftBoundsReference:
    """One crosspoint."""
    return SoftBoundsReference(
        w_max=1.0,
        w_min=-1.0,
        dw_min=2.0 / settings.n_states,
        dw_min_dtod=0.3,
        dw_min_ctoc=0.3,
        w_max_dtod=0.3,
        w_min_dtod=0.3,
        up_down_dtod=0.01,
        subtract_symmetry_point=True,
        reference_std=offset,
    )


def algorithm(settings: Settings, kind: str, offset: float) -> Algorithm:
    """With the rates that suit each."""
    if kind == "Analog SGD":
        return AnalogSGD()
    chopping = {} if kind == "Tiki-Taka v2" else {"in_chop_prob": 0.1, "auto_scale": True}
    return KINDS[kind](
        fast_device=device(settings, offset),
        transfer_every=5,
        scale_transfer_lr=False,
        transfer_lr=0.1,
        auto_granularity=10.0 * settings.n_states,
        fast_lr=0.1 if chopping else 0.05,
        **chopping,
    )


def error(settings: Settings, kind: str, offset: float) -> Tensor:
    """Root mean square error of the weights of each run, (runs,), over the last third of the samples."""
    generator, size, runs = torch.Generator().manual_seed(settings.seed), settings.size, settings.runs
    target = 0.3 * torch.randn(size, size, generator=generator)
    options = {"device": device(settings), "update": PulsedUpdate(bit_length=5)}
    seeds = list(range(settings.seed * runs, (settings.seed + 1) * runs))
    method = algorithm(settings, kind, offset)
    tile = Tile(torch.zeros(runs, size, size), algorithm=method, crossbar=options, seed=seeds)
    n, errors = settings.samples // 5, []
    for k in range(n):
        x = torch.randn(runs, 5, size, generator=generator)
        method.update(tile.state, Outer(x @ (tile.weight - target).mT, x), settings.lr)
        if k > n * 2 // 3:
            errors.append((tile.weight - target).square().mean((-2, -1)).sqrt())
    return torch.stack(errors).double().mean(0)


def run(settings: Settings) -> Verdict:
    """Errors with and without an offset, and their ratios, run by run."""
    sgd = error(settings, "Analog SGD", 0.0)
    claims: list[Claim] = []
    points = [Point("Analog SGD", 0.0, mean(sgd).value, mean(sgd).half_width, float("nan"))]
    growth = {}
    for kind in KINDS:
        without, with_offset = (error(settings, kind, offset) for offset in (0.0, settings.offset))
        for offset, e in ((0.0, mean(without)), (settings.offset, mean(with_offset))):
            points.append(Point(kind, offset, e.value, e.half_width, float("nan")))
        growth[kind] = of_runs(with_offset, without)
        claims.append(
            at_least(
                f"error of Analog SGD over that of {kind}, without offset",
                2.0,
                of_runs(sgd, without),
                because="an order; more than 25 % against 5 % in the paper",
            )
        )
    claims += [
        at_least(
            "Tiki-Taka v2: error with the offset over that without",
            1.5,
            growth["Tiki-Taka v2"],
            because="a trend; 9 % against 5 % in the paper",
        ),
        at_most(
            "chopped Tiki-Taka v2: the same",
            1.5,
            growth["chopped Tiki-Taka v2"],
            because="flat in the paper's figure; here a quarter to a third is added, so the claim is less than that",
        ),
        at_most(
            "AGAD: the same",
            1.15,
            growth["AGAD"],
            because="flat in the paper's figure, and the offset is no part of it",
        ),
    ]
    return Verdict(
        name="E17",
        title="weight programming",
        statement="Analog SGD is worst; an offset spoils Tiki-Taka v2, not the chopped and the dynamic form",
        source="Rasch et al. 2024, Fig. 4",
        claims=tuple(claims),
        panels=(Panel(x="offset", y="rms error of the weights", points=tuple(points), log_x=False, log_y=False),),
    )
