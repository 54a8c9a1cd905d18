"""Algorithms' presets: the source's numbers, and each trains on its device."""

import pytest
import torch

from ohmgrad import ExpectedUpdate, Outer, Tile
from ohmgrad.algorithms.presets import PRESETS
from ohmgrad.devices.presets import CELLS, MEASURED


def test_names_and_devices_go_together():
    of_device = {f.__name__.replace("_", "-"): f() for f in MEASURED} | {"pcm-pair": CELLS["pcm_pair"]()}
    kinds = ("tiki-taka", "tiki-taka-v2", "chopped-tiki-taka-v2", "agad")
    expected = {f"{k}-{d.__name__.replace('_', '-')}" for k in kinds for d in MEASURED[:6]}
    expected |= {f"mixed-precision-{d}" for d in of_device if d not in ("pcm", "reram-array-om", "reram-array-hfo2")}
    assert set(PRESETS) == expected
    for name, preset in PRESETS.items():
        assert preset.device == of_device[max((d for d in of_device if name.endswith(f"-{d}")), key=len)]


@pytest.mark.parametrize(
    ("name", "bit_length", "fields"),
    [
        # As the classes TTv2CapacitorPreset, ChoppedTTv2EcRamPreset, ChoppedTTv2EcRamMOPreset, AGADReRamSBPreset,
        # AGADCapacitorPreset and AGADEcRamPreset have them.
        ("tiki-taka-v2-capacitor", 31, {"fast_lr": 0.1, "auto_granularity": 1000, "in_chop_prob": 0.0}),
        ("chopped-tiki-taka-v2-ecram", 100, {"fast_lr": 1.0, "auto_granularity": 500, "in_chop_prob": 0.01}),
        ("chopped-tiki-taka-v2-ecram-mo", 100, {"fast_lr": 0.1, "auto_granularity": 500, "in_chop_prob": 0.001}),
        ("agad-reram-sb", 31, {"fast_lr": 0.5, "auto_granularity": 1000, "in_chop_prob": 0.02, "tail_weightening": 5}),
        ("agad-capacitor", 31, {"auto_granularity": 1000, "in_chop_prob": 0.01, "tail_weightening": 20}),
        ("agad-ecram", 31, {"auto_granularity": 750, "in_chop_prob": 0.005, "tail_weightening": 50}),
    ],
)
def test_the_numbers(name, bit_length, fields):
    preset = PRESETS[name]
    assert preset.update.bit_length == bit_length
    given = {"auto_scale": True, "units_in_mbatch": False, "max_pulses": 1, "scale_fast_lr": False} | fields
    assert {k: getattr(preset.algorithm, k) for k in given} == given


@pytest.mark.parametrize("name", PRESETS)
def test_each_trains(name):
    # A crossbar that is not connected would stay where it was.
    preset = PRESETS[name]
    options = {"device": preset.device, "update": ExpectedUpdate(bit_length=preset.update.bit_length)}
    tile = Tile(torch.zeros(3, 2), algorithm=preset.algorithm, crossbar=options)
    before = [bar.weight.clone() for bar in tile.crossbars]
    for _ in range(5):
        preset.algorithm.update(tile.state, Outer(torch.ones(4, 3), torch.ones(4, 2)), 0.05)
    assert any((bar.weight != old).any() for bar, old in zip(tile.crossbars, before, strict=True))
    assert torch.isfinite(tile.weight).all()
