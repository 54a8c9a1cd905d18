"""Algorithms on measured devices, by name."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import ohmgrad as og
from ohmgrad.algorithms import presets
from ohmgrad.devices import catalog


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_trains(name):
    given = presets.find(name)
    torch.manual_seed(0)
    model = og.convert(nn.Linear(4, 3), **given | {"update": replace(given["update"], eager=True)})
    before = model.weight.clone()
    optimizer = og.AnalogOptimizer(model, lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (model(torch.randn(8, 4)) - torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
    assert model.weight.shape == before.shape and torch.isfinite(model.weight).all()


@pytest.mark.parametrize(
    ("name", "fast_lr", "granularity", "chop", "length"),
    [
        # aihwkit's `presets/configs.py`, read class by class.
        ("TTv2ReRamES", 0.5, 1000, 0.0, 31),
        ("TTv2EcRam", 0.1, 500, 0.0, 100),
        ("ChoppedTTv2Capacitor", 0.1, 1000, 0.01, 31),
        ("ChoppedTTv2EcRam", 1.0, 500, 0.01, 100),
        ("ChoppedTTv2Idealized", 0.1, 500, 0.001, 100),
        ("AGADReRamSB", 0.5, 1000, 0.02, 31),
        ("AGADEcRam", 0.1, 750, 0.005, 31),
        ("AGADEcRamMO", 0.1, 500, 0.005, 100),
    ],
)
def test_numbers(name, fast_lr, granularity, chop, length):
    given = presets.find(name)
    a = given["algorithm"]
    assert (a.fast_lr, a.auto_granularity, a.in_chop_prob) == (fast_lr, granularity, chop)
    assert a.auto_scale and not a.units_in_mbatch and given["update"].bit_length == length


def test_devices():
    assert presets.find("agad-ecram")["device"] == catalog.find("ecram")
    assert presets.find("agad-reram-sb")["device"].subtract_symmetry_point
    assert not presets.find("mixed-precision-reram-sb")["device"].subtract_symmetry_point
    with pytest.raises(ValueError, match=r"no preset of an algorithm is named 'agad-ecra'; there are .*agad-ecram"):
        presets.find("agad-ecra")
