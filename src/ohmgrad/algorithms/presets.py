"""Settings of algorithms that were chosen for measured devices.

Source of every number: aihwkit 1.2, `simulator/presets/configs.py`, the class named by algorithm and device, such as
`ChoppedTTv2EcRamPreset`. What a class leaves open has aihwkit's default, which is ours. Its reads, in both directions
and in transfers, are `ohmgrad.periphery.PRESET`.

>>> preset = PRESETS["agad-ecram"]
>>> preset.algorithm.in_chop_prob, preset.update.bit_length
(0.005, 31)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ohmgrad.algorithms.agad import AGAD
from ohmgrad.algorithms.chopped_tiki_taka_v2 import ChoppedTikiTakaV2
from ohmgrad.algorithms.mixed_precision import MixedPrecision
from ohmgrad.algorithms.tiki_taka import TikiTaka
from ohmgrad.devices import presets as devices
from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import Cell
from ohmgrad.pulses.settings import PulsedUpdate


@dataclass(frozen=True)
class Preset:
    """An algorithm with the settings that suit a device.

    algorithm: with these settings. device: what it is for, the fast crossbar too. update: with the longest train.
    """

    algorithm: Any  # an Algorithm, whose fields users look at
    device: Device | Cell
    update: PulsedUpdate


# fast_lr, auto_granularity, bit_length
V2 = {
    "reram_es": (0.5, 1000.0, 31),
    "reram_sb": (0.5, 1000.0, 31),
    "capacitor": (0.1, 1000.0, 31),
    "ecram": (0.1, 500.0, 100),
    "ecram_mo": (0.1, 500.0, 100),
    "idealized": (0.1, 500.0, 100),
}
# fast_lr, auto_granularity, in_chop_prob, bit_length; EcRam's fast_lr is the default
CHOPPED = {
    "reram_es": (0.5, 1000.0, 0.01, 31),
    "reram_sb": (0.5, 1000.0, 0.01, 31),
    "capacitor": (0.1, 1000.0, 0.01, 31),
    "ecram": (1.0, 500.0, 0.01, 100),
    "ecram_mo": (0.1, 500.0, 0.001, 100),
    "idealized": (0.1, 500.0, 0.001, 100),
}
# fast_lr, auto_granularity, in_chop_prob, tail_weightening, bit_length
DYNAMIC = {
    "reram_es": (0.5, 1000.0, 0.02, 5.0, 31),
    "reram_sb": (0.5, 1000.0, 0.02, 5.0, 31),
    "capacitor": (0.1, 1000.0, 0.01, 20.0, 31),
    "ecram": (0.1, 750.0, 0.005, 50.0, 31),
    "ecram_mo": (0.1, 500.0, 0.005, 50.0, 100),
    "idealized": (0.1, 500.0, 0.005, 50.0, 100),
}
DIGITAL = (*V2, "gokmen_vlasov", "pcm_pair")


def _made() -> Mapping[str, Preset]:
    """By name, ALGORITHM-DEVICE. Tiki-Taka v2 has running scales there: its chopped form with choppers off."""
    known: dict[str, Callable[[], Device | Cell]] = {**devices.PRESETS, **devices.CELLS}
    made: dict[str, Preset] = {}

    def add(name: str, device: str, algorithm: Any, bit_length: int = 31) -> None:
        key = f"{name}-{device.replace('_', '-')}"
        made[key] = Preset(algorithm, known[device](), PulsedUpdate(bit_length=bit_length))

    for device, (fast_lr, granularity, length) in V2.items():
        add("tiki-taka", device, TikiTaka())
        common = {"fast_lr": fast_lr, "auto_granularity": granularity, "auto_scale": True}
        add("tiki-taka-v2", device, ChoppedTikiTakaV2(in_chop_prob=0.0, **common), length)
    for device, (fast_lr, granularity, chop, length) in CHOPPED.items():
        common = {"fast_lr": fast_lr, "auto_granularity": granularity, "auto_scale": True}
        add("chopped-tiki-taka-v2", device, ChoppedTikiTakaV2(in_chop_prob=chop, **common), length)
    for device, (fast_lr, granularity, chop, tail, length) in DYNAMIC.items():
        common = {"fast_lr": fast_lr, "auto_granularity": granularity, "auto_scale": True}
        add("agad", device, AGAD(in_chop_prob=chop, tail_weightening=tail, **common), length)
    for device in DIGITAL:
        add("mixed-precision", device, MixedPrecision())
    return made


PRESETS: Mapping[str, Preset] = _made()
