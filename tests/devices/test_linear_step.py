"""Linear steps: slopes, their spread, and the bounds they refer to."""

import pytest
import torch
from scipy import stats

from chance import assert_same_law
from ohmgrad.devices import LinearStep, SoftBounds
from ohmgrad.devices.base import draw

SHAPE = (300, 300)


def test_gamma_one_is_soft_bounds():
    bounds = {"w_max": 0.7, "w_min": -0.4, "dw_min": 0.01, "up_down": -0.3}
    linear, soft = LinearStep(gamma_up=1.0, gamma_down=1.0, **bounds), SoftBounds(**bounds)
    w = torch.linspace(-0.4, 0.7, 23, dtype=torch.float64)
    for up in (True, False):
        torch.testing.assert_close(linear.step(w, up), soft.step(w, up), rtol=0.0, atol=4e-18)


def test_slopes_spread_by_an_addition_folded_at_zero(seed):
    # aihwkit: slope = |gamma + gamma_dtod xi| / w_max. Folded, the law is scipy's foldnorm; n = 90,000 sees a
    # distance of 0.9 % between the laws: the tail that a multiplicative spread (0.3 * 0.2) lacks is 10 %.
    device = LinearStep(w_max=0.5, gamma_up=0.3, gamma_down=0.1, gamma_up_dtod=0.2, gamma_down_dtod=0.2)
    params = draw(device, torch.tensor(seed), SHAPE, torch.float64)
    assert_same_law(params["slope_up"] * 0.5, stats.foldnorm(0.3 / 0.2, scale=0.2))
    assert_same_law(-params["slope_down"], stats.foldnorm(0.1 / 0.2, scale=0.2))


@pytest.mark.parametrize("mean_bound_reference", [True, False])
def test_slopes_refer_to_nominal_or_own_bounds(seed, mean_bound_reference):
    device = LinearStep(gamma_up=0.5, gamma_down=0.25, w_max_dtod=0.1, w_min_dtod=0.1)
    device = LinearStep(**{**vars(device), "mean_bound_reference": mean_bound_reference})
    params = draw(device, torch.tensor(seed), (3, 4), torch.float64)
    if mean_bound_reference:
        assert (params["slope_up"], params["slope_down"]) == (0.5, -0.25)
    else:
        assert torch.equal(params["slope_up"], 0.5 / params["w_max"])
        assert torch.equal(params["slope_down"], 0.25 / params["w_min"])


@pytest.mark.parametrize("field", ["gamma_up", "gamma_down"])
def test_a_growing_response_is_refused(field):
    with pytest.raises(ValueError, match=f"LinearStep needs {field} >= 0, got -0.1"):
        LinearStep(**{field: -0.1})


@pytest.mark.parametrize("family", [LinearStep, SoftBounds])
def test_a_bound_at_zero_is_refused(family):
    # Both divide by their bounds: w_max = 0 once gave NaN weights at the first up pulse.
    with pytest.raises(ValueError, match=f"{family.__name__} needs w_min < 0 < w_max, got w_min=-1.0, w_max=0.0"):
        family(w_max=0.0)
