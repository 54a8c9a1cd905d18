"""Figures of devices: what a pulse strays by, whatever the kind of noise, and ramps that go all the way."""

import pytest
import torch

from ohmgrad.devices import LookUpTable, PowStep, SoftBounds, presets
from ohmgrad.theory.portrait import portrait

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
        # No symmetric point, so at 0: steps of 28.235 and 3.235 dw, noise of 0.6 (|step| + 4.2 dw).
        (presets.pcm(), 0.6 * (1.0 + 4.2 / ((28.235 + 3.235) / 2.0))),
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
