"""Zero-shifting: where it leads, how fast, and what is left (reference 2.5)."""

import math

import numpy as np
import pytest
import torch

from chance import assert_mean
from ohmgrad import Crossbar, PulsedUpdate
from ohmgrad.crossbar import zero_shift
from ohmgrad.devices import ConstantStep, LogDomain, SoftBounds
from ohmgrad.theory import pulses_to_symmetric_point

C = 0.2


def linear(dw_min: float) -> SoftBounds:
    """q_up = (1 + c)(1 - w), q_down = (1 - c)(1 + w), in units of dw_min: the symmetric point is c (reference 1.3)."""
    return SoftBounds(dw_min=dw_min * (1.0 + C), up_down=2.0 * C / (1.0 + C))


def pulses_needed(dw_min: float, start: float, tolerance: float) -> int:
    """Alternating pulses, counted in pairs, until a state is within tolerance of the symmetric point."""
    bar = Crossbar((1, 1), device=linear(dw_min), weight=torch.full((1, 1), start).double(), dtype=torch.float64)
    n = 0
    while abs(float(bar.weight) - C) > tolerance:
        zero_shift(bar, 2)
        n += 2
    return n


def test_pulses_go_as_the_inverse_of_the_step():
    """The reference's check run: 338 and 3536 pulses from 0.9 to within 0.02, where 356 and 3555 are predicted."""
    counts = {dw: pulses_needed(dw, 0.9, 0.02) for dw in (1e-2, 1e-3)}
    for dw, n in counts.items():
        predicted = pulses_to_symmetric_point(linear(dw), 0.9, 0.02)
        assert predicted == pytest.approx(2.0 * math.log(0.7 / 0.02) / (2.0 * dw), rel=1e-6)
        # A pair leaves an offset of the order of a step, which the count of pulses sees as a share dw / 0.02 or so.
        assert n == pytest.approx(predicted, rel=6.0 * dw + 0.001)
    assert abs(counts[1e-2] - 338) <= 2 and abs(counts[1e-3] - 3536) <= 2


@pytest.mark.slow
def test_slope_of_minus_one_over_two_decades():
    steps = np.array([1e-2, 1e-3, 1e-4])
    counts = [pulses_needed(dw, 0.9, 0.02) for dw in steps]
    assert counts[2] == pytest.approx(35534, abs=2)
    slope = np.polyfit(np.log(steps), np.log(counts), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.015)


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


def test_random_signs_lead_to_the_point_in_the_mean():
    """The order of signs is random: states scatter by the step's root about the point, after 5 time constants."""
    bar = Crossbar((60, 60), device=linear(0.01), update=None, seed=1, dtype=torch.float64)
    reference = zero_shift(bar, 1000, order="random", seed=4)
    # Signs of two places, r_i c_j and r_k c_l, are independent, and so are their states, taken in pairs. The mean of
    # the linear map is exact; its variance is dw^2 q^2 / (2 dw) to first order in dw, q = 1 - c^2.
    assert_mean(reference - C, 0.0)
    assert float(reference.std()) == pytest.approx((1.0 - C**2) * math.sqrt(0.01 / 2.0), rel=0.1)


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
