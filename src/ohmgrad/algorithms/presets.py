"""Algorithms on measured devices, by name: hardware and settings that others have found to go together.

Source of every number: aihwkit 1.2, `simulator/presets/configs.py`, whose class `TTv2ReRamESPreset` is "ttv2-reram-es"
here. Converters are its `PresetIOParameters`, without noise and bound management where an algorithm transfers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ohmgrad.algorithms.agad import AGAD
from ohmgrad.algorithms.chopped_tiki_taka_v2 import ChoppedTikiTakaV2
from ohmgrad.algorithms.mixed_precision import MixedPrecision
from ohmgrad.algorithms.tiki_taka import TikiTaka
from ohmgrad.devices import catalog
from ohmgrad.periphery import PRESET, Periphery
from ohmgrad.pulses.settings import PulsedUpdate

DEVICES = ("reram-es", "reram-sb", "capacitor", "ecram", "ecram-mo", "idealized")
# Of each device: fast_lr, auto_granularity, longest pulse train.
TTV2 = ((0.5, 1000, 31), (0.5, 1000, 31), (0.1, 1000, 31), (0.1, 500, 100), (0.1, 500, 100), (0.1, 500, 100))
# Also in_chop_prob.
CHOPPED = (
    (0.5, 1000, 31, 0.01), (0.5, 1000, 31, 0.01), (0.1, 1000, 31, 0.01),
    (1.0, 500, 100, 0.01), (0.1, 500, 100, 0.001), (0.1, 500, 100, 0.001),
)  # fmt: skip
# Also tail_weightening.
DYNAMIC = (
    (0.5, 1000, 31, 0.02, 5.0), (0.5, 1000, 31, 0.02, 5.0), (0.1, 1000, 31, 0.01, 20.0),
    (0.1, 750, 31, 0.005, 50.0), (0.1, 500, 100, 0.005, 50.0), (0.1, 500, 100, 0.005, 50.0),
)  # fmt: skip


def names() -> tuple[str, ...]:
    """Every name that `find` knows.

    >>> names()[0], len(names())
    ('tiki-taka-reram-es', 30)
    """
    return tuple(_presets())


def find(name: str) -> dict[str, Any]:
    """What `convert` takes: device, algorithm, update and periphery.

    Args:
        name: an algorithm (tiki-taka, ttv2, chopped-ttv2, agad, mixed-precision) and a device, in any spelling.

    Raises:
        ValueError: no such preset.

    >>> find("AGAD-EcRam")["algorithm"].auto_granularity
    750
    """
    device_name, algorithm, bit_length = catalog.pick(name, _presets(), "preset of an algorithm")
    # aihwkit calibrates these to their symmetric points wherever they are a compound's.
    calibrated = {"subtract_symmetry_point": True} if device_name == "reram-sb" and not _is_digital(algorithm) else {}
    return {
        "device": catalog.find(device_name, **calibrated),
        "algorithm": algorithm,
        "update": PulsedUpdate(bit_length=bit_length),
        "periphery": Periphery(
            forward=PRESET,
            backward=PRESET,
            transfer=dataclasses.replace(PRESET, noise_management="none", bound_management="none"),
        ),
    }


def _is_digital(algorithm: Any) -> bool:
    return isinstance(algorithm, MixedPrecision)


def _presets() -> dict[str, tuple[str, Any, int]]:
    """Device, algorithm and longest pulse train by name."""
    found: dict[str, tuple[str, Any, int]] = {f"tiki-taka-{d}": (d, TikiTaka(), 31) for d in DEVICES}
    scaled = {"auto_scale": True, "units_in_mbatch": False}
    for d, (fast_lr, granularity, length) in zip(DEVICES, TTV2, strict=True):
        fields = {"fast_lr": fast_lr, "auto_granularity": granularity, **scaled}
        found[f"ttv2-{d}"] = d, ChoppedTikiTakaV2(in_chop_prob=0.0, **fields), length
    for d, (fast_lr, granularity, length, chop) in zip(DEVICES, CHOPPED, strict=True):
        fields = {"fast_lr": fast_lr, "auto_granularity": granularity, "in_chop_prob": chop, **scaled}
        found[f"chopped-ttv2-{d}"] = d, ChoppedTikiTakaV2(**fields), length
    for d, (fast_lr, granularity, length, chop, tail) in zip(DEVICES, DYNAMIC, strict=True):
        fields = {"fast_lr": fast_lr, "auto_granularity": granularity, "in_chop_prob": chop, **scaled}
        found[f"agad-{d}"] = d, AGAD(tail_weightening=tail, **fields), length
    return found | {f"mixed-precision-{d}": (d, MixedPrecision(), 31) for d in DEVICES}
