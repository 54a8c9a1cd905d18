"""The training algorithms by name, for comparisons: what each is for, and which of its settings a search tries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ohmgrad.algorithms import (
    AGAD,
    AnalogSGD,
    ChoppedTikiTakaV2,
    MixedPrecision,
    MultiTile,
    ResidualLearning,
    Rider,
    TikiTaka,
    TikiTakaV2,
)
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.elements import Step


@dataclass(frozen=True)
class Method:
    """An algorithm in a comparison.

    algorithm: with settings that suit small networks. ranges: of the settings that a search tries, on a log scale.
    strength: what it does about a device's faults, in half a sentence.
    """

    label: str
    algorithm: Any  # an Algorithm, and a dataclass, which `replace` asks for
    ranges: Mapping[str, tuple[float, float]]
    strength: str

    def tuned(self, settings: Mapping[str, Step]) -> Algorithm:
        """With some of its settings set; a tensor (*replica, 1, 1) is one for each replica."""
        return replace(self.algorithm, **settings)


# Whole matrices after each mini-batch: the papers' form, and the cheapest to simulate.
WHOLE: dict[str, Any] = {"n_reads": None, "units_in_mbatch": True}
BUFFERED: dict[str, Any] = {**WHOLE, "forget_buffer": False}
FAST, TRANSFER = (0.03, 3.0), (0.3, 30.0)
ALONE = {"lr": (0.01, 10.0)}  # where the optimizer's step is the only one
METHODS: dict[str, Method] = {
    "analog-sgd": Method("Analog SGD", AnalogSGD(), ALONE, "has nothing against asymmetry, and is the cheapest"),
    "tiki-taka": Method(
        "Tiki-Taka",
        TikiTaka(fast_lr=0.1, scale_fast_lr=False, **WHOLE),
        {"fast_lr": FAST, "transfer_lr": TRANSFER},
        "keeps the gradient's noise on a fast crossbar that rests at its zero",
    ),
    "tiki-taka-v2": Method(
        "Tiki-Taka v2",
        TikiTakaV2(fast_lr=0.5, transfer_lr=3.0, buffer_granularity=10.0, max_pulses=10, **BUFFERED),
        {"fast_lr": FAST, "transfer_lr": TRANSFER},
        "averages out noisy reads and coarse steps in a digital buffer",
    ),
    "chopped-tiki-taka-v2": Method(
        "chopped Tiki-Taka v2",
        ChoppedTikiTakaV2(
            fast_lr=0.5, transfer_lr=3.0, buffer_granularity=10.0, max_pulses=10, in_chop_prob=0.05, **BUFFERED
        ),
        {"fast_lr": FAST, "transfer_lr": TRANSFER},
        "lets offsets of the symmetric point change sign and average out",
    ),
    "agad": Method(
        "AGAD",
        AGAD(fast_lr=0.5, transfer_lr=5.0, buffer_granularity=10.0, max_pulses=10, in_chop_prob=0.02, **BUFFERED),
        {"fast_lr": FAST, "transfer_lr": TRANSFER},
        "measures its reference while it trains, so no symmetric point matters",
    ),
    "mixed-precision": Method(
        "mixed precision", MixedPrecision(), ALONE, "sums gradients digitally, and pays a digital update for it"
    ),
    "residual-learning": Method(
        "residual learning",
        TikiTaka(fast_lr=0.1, scale_fast_lr=False, gamma=0.4, **WHOLE),
        {"fast_lr": FAST, "transfer_lr": TRANSFER},
        "learns on a fast crossbar what the slow one lacks",
    ),
    "residual-learning-v2": Method(
        "residual learning v2",
        ResidualLearning(fast_lr=0.1, scale_fast_lr=False, **WHOLE),
        {"fast_lr": FAST, "buffer_rate": (0.01, 1.0)},
        "learns what the slow crossbar lacks, and buffers what it hands over",
    ),
    "multi-tile": Method(
        "multi-tile",
        MultiTile(fast_lr=0.1, scale_fast_lr=False, gamma=0.3, **WHOLE),
        {"fast_lr": FAST, "transfer_lr": (0.01, 0.3)},
        "composes a weight from several tiles of few states",
    ),
    "rider": Method(
        "RIDER",
        Rider(fast_lr=0.1, transfer_lr=5.0, scale_fast_lr=False, **WHOLE),
        {"fast_lr": FAST, "transfer_lr": TRANSFER},
        "tracks the symmetric point while it trains",
    ),
    "e-rider": Method(
        "E-RIDER",
        Rider(fast_lr=0.5, transfer_lr=5.0, scale_fast_lr=False, chop_prob=0.02, **WHOLE),
        {"fast_lr": FAST, "transfer_lr": TRANSFER},
        "tracks the symmetric point faster, with a sign that flips",
    ),
}
