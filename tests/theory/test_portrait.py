"""Figures of devices: what a pulse strays by, whatever the kind of noise, and ramps that go all the way."""

import math

import pytest
import torch

from ohmgrad.devices import LookUpTable, PowStep, SoftBounds, presets
from ohmgrad.theory.portrait import portrait

POINT = math.log(27.235 / 2.235) / 5.0
TABLE = LookUpTable(
    dw_min=0.01, dw_min_ctoc=0.5, step_up=(2.0, 1.0, 0.0), step_down=(0.0, 1.0, 2.0),
    noise_up=(3.0,) * 3, noise_down=(3.0,) * 3,
)  # fmt: skip


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (SoftBounds(dw_min_ctoc=0.3), 0.3),
        # The step at 0 is dw / 4, the noise a tenth of dw.
        (PowStep(gamma=2.0, dw_min_ctoc=0.1, ctoc="additive"), 0.4),
        (TABLE, 1.5),
        # Up and down steps of 1 + sqrt(27.235 2.235) dw at w = 0.5 or so; noise of 0.6 (|step| + 0.042 + 0.108 w).
        (presets.pcm(), 0.6 * (1.0 + (0.042 + 0.108 * POINT) / (0.01 + 0.01 * math.sqrt(27.235 * 2.235)))),
        (SoftBounds(), 0.0),
    ],
)
def test_step_noise(device, expected):
    assert portrait(device).step_noise == pytest.approx(expected, rel=1e-9)


def test_ramps_of_fine_devices_go_all_the_way():
    # 20,000 states, twice as many pulses: all but e^-4 of the way, from either end.
    f = portrait(SoftBounds(dw_min=1e-4, dw_min_ctoc=0.3))
    assert f.pulses[-1] == 40_000
    assert torch.as_tensor(f.up[-1]).min() > 0.9 and torch.as_tensor(f.down[-1]).max() < -0.9
