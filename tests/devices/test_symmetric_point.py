"""The symmetric point: formulas of reference 1.3 and 8.4, attraction, and responses that have none."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ohmgrad.devices import ConstantStep, Device, LinearStep, SoftBounds
from ohmgrad.vocabulary import absolute, where

N = 1000


def elements(rng, **ranges: tuple[float, float]) -> dict[str, Tensor]:
    """Parameters of N elements, uniform in those ranges."""
    return {name: torch.as_tensor(rng.uniform(*ends, N)) for name, ends in ranges.items()}


def test_soft_bounds(rng):
    # Reference 1.3: (a+ - a-) / (a+ / w_max - a- / w_min), with w_min < 0.
    p = elements(rng, w_max=(0.1, 10.0), w_min=(-10.0, -0.1), dw_up=(0.1, 1.0), dw_down=(0.1, 1.0))
    expected = (p["dw_up"] - p["dw_down"]) / (p["dw_up"] / p["w_max"] - p["dw_down"] / p["w_min"])
    torch.testing.assert_close(SoftBounds().symmetric_point(p), expected, rtol=0.0, atol=2e-14)


@given(tau=st.floats(0.1, 10.0), c=st.floats(0.0, 0.9))
@settings(max_examples=10)
def test_up_down_between_equal_bounds(tau, c):
    # Reference 8.4: c tau / (2 - c), not c tau.
    device = SoftBounds(w_max=tau, w_min=-tau, up_down=c)
    assert device.symmetric_point().item() == pytest.approx(c * tau / (2.0 - c), abs=1e-14 * tau)


def test_alternating_pulses_approach_it_at_the_known_rate(rng):
    # A pair of pulses on soft bounds +-1 with steps a, b: w <- (1 - a)(1 - b) w + a (1 - b) - b, exactly.
    p = elements(rng, dw_up=(0.005, 0.01), dw_down=(0.005, 0.01)) | {"w_min": -1.0, "w_max": 1.0}
    device, start = SoftBounds(), torch.as_tensor(rng.uniform(-1.0, 1.0, N))
    w = start
    for _ in range(200):
        w = w + device.step(w, True, p)
        w = w + device.step(w, False, p)
    a, b = p["dw_up"], p["dw_down"]
    rate, rest = (1.0 - a) * (1.0 - b), (a * (1.0 - b) - b) / (1.0 - (1.0 - a) * (1.0 - b))
    torch.testing.assert_close(w, rest + (start - rest) * rate**200, rtol=0.0, atol=1e-13)
    # The rest point of the pairs is the symmetric point but for a part of a step.
    assert (rest - device.symmetric_point(p)).abs().max() < 0.01


def test_each_element_has_its_own():
    params = {"w_min": torch.tensor([-1.0, -0.5]), "w_max": 1.0, "dw_up": torch.tensor([1e-3, 1e-3]), "dw_down": 8e-4}
    expected = torch.tensor([0.2 / 1.8, 0.2 / (1.0 + 0.8 / 0.5)], dtype=torch.float64)
    torch.testing.assert_close(SoftBounds().symmetric_point(params), expected, rtol=1e-6, atol=0.0)


def test_the_middle_of_an_interval_without_asymmetry():
    @dataclass(frozen=True, kw_only=True)
    class DeadZone(Device):
        @staticmethod
        def response(w, up, w_max, w_min, dw_min):
            return where(absolute(w - 0.1) < 0.2, 0.0, dw_min * where(up, 1.0 - w / w_max, w / w_min - 1.0))

    # G is 0 between -0.1 and 0.3, and jumps at both ends: an end of it is no symmetric point.
    assert DeadZone().symmetric_point().item() == pytest.approx(0.1, abs=1e-14)


@pytest.mark.parametrize("device", [ConstantStep(up_down=0.1), LinearStep(gamma_up=0.1, gamma_down=0.1, up_down=0.5)])
def test_none_inside_the_bounds(device):
    with pytest.raises(ValueError, match=f"{type(device).__name__} has no symmetric point .* in 1 of 1 elements"):
        device.symmetric_point()
