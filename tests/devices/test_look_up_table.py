"""The look-up table: its noise, and what it refuses."""

import pytest
import torch

from chance import assert_mean, assert_variance
from ohmgrad import Crossbar, PulsedUpdate
from ohmgrad.crossbar.zero_shift import one_pulse
from ohmgrad.devices import LookUpTable

DEVICE = LookUpTable(
    w_min=-1.0, w_max=1.0, dw_min=0.01, dw_min_ctoc=0.5,
    step_up=(2.0, 1.0), step_down=(1.0, 3.0), noise_up=(1.0, 2.0), noise_down=(4.0, 0.0),
)  # fmt: skip


@pytest.mark.parametrize(
    ("up", "mean", "std"),
    # At w = 0.5, three quarters of the way from the first entry to the last.
    [(True, 0.01 * 1.25, 0.5 * 0.01 * 1.75), (False, -0.01 * 2.5, 0.5 * 0.01 * 1.0)],
)
def test_mean_and_spread_of_a_pulse(up, mean, std):
    bar = Crossbar(
        (100, 400), device=DEVICE, update=PulsedUpdate(eager=True), seed=1, weight=torch.full((100, 400), 0.5)
    )
    one_pulse(bar, up=up)
    # 40,000 pulses see an error of 2.5 % of the spread in the mean, and of 3.5 % in the spread.
    assert_mean(bar.weight - 0.5, mean, std=std)
    assert_variance(bar.weight - 0.5, std**2, kurtosis=3.0)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"noise_up": (1.0, -1.0)}, "noise_up >= 0 at every state"),
        ({"step_up": (1.0, 2.0, 3.0)}, "of equal length"),
        ({"step_down": (1.0, float("nan"))}, "finite number for step_down"),
        ({"w_max": float("inf")}, "w_max"),
    ],
)
def test_wrong_tables_are_named(fields, says):
    with pytest.raises(ValueError, match=f"LookUpTable needs .*{says}"):
        LookUpTable(**fields)
