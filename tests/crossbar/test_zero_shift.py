"""Zero-shifting (reference 2.5). How fast it is, and what is left, E14: `experiments/verify`."""

import pytest
import torch

from ohmgrad import Crossbar, PulsedUpdate
from ohmgrad.crossbar import zero_shift
from ohmgrad.devices import ConstantStep, LogDomain, SoftBounds
from ohmgrad.theory import pulses_to_symmetric_point


@pytest.mark.parametrize("update", [None, PulsedUpdate(eager=True)], ids=["expected", "pulsed"])
def test_every_device_reaches_its_own_point(update):
    device = SoftBounds(dw_min=0.02, dw_min_dtod=0.1, up_down_dtod=0.1, w_max_dtod=0.2, w_min_dtod=0.2)
    bar = Crossbar((4, 5), device=device, update=update, seed=3, dtype=torch.float64)
    reference = zero_shift(bar, 500)
    points = device.symmetric_point(bar.params)
    assert points.std() > 0.05
    # After a pair, up first, a state is half a step below the point, and steps are 0.02 and a little.
    assert ((reference - points).abs() < 0.02).all()
    assert torch.equal(reference, bar.weight)
    x = torch.ones(1, 5, dtype=torch.float64)
    assert torch.equal(bar.read(x, bar.weight - reference), torch.zeros(1, 4, dtype=torch.float64))


def test_what_is_refused():
    bar = Crossbar((1, 1), device=SoftBounds())
    with pytest.raises(ValueError, match="n_pulses needs a whole number >= 0, got -1"):
        zero_shift(bar, -1)
    with pytest.raises(ValueError, match="order needs 'alternating' or 'random', got 'up'"):
        zero_shift(bar, 1, order="up")  # type: ignore[arg-type]
    bar = Crossbar((1, 1), device=SoftBounds(), update=PulsedUpdate(bit_length_management=False))
    with pytest.raises(ValueError, match="needs bit-length management"):
        zero_shift(bar, 1)
    with pytest.raises(ValueError, match="tolerance needs a number > 0, got 0"):
        pulses_to_symmetric_point(SoftBounds(), 0.5, 0.0)
    with pytest.raises(ValueError, match="ConstantStep is not drawn to its symmetric point"):
        pulses_to_symmetric_point(ConstantStep(), 0.5, 0.1)
    with pytest.raises(ValueError, match="has no symmetric point"):
        pulses_to_symmetric_point(LogDomain(), 0.5, 0.1)
