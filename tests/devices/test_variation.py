"""Device-to-device variation, as aihwkit constructs its devices (reference 4.1).

b = w_max (1 + w_max_dtod xi1),  gain = 1 + dw_min_dtod xi3 or exp(dw_min_dtod xi3),  r = up_down_dtod xi4
dw_up = dw_min (gain + min(up_down, 0) + r),  dw_down = dw_min (gain - max(up_down, 0) - r),  all folded at 0
"""

import pytest
import torch
from scipy import stats

from chance import assert_correlation, assert_mean, assert_same_law, assert_variance
from ohmgrad import random
from ohmgrad.devices import DEVICES, SoftBounds
from ohmgrad.devices.base import draw
from users import Bent

# n = 160,000 sees an error of 2.5 % of a standard deviation in a mean, and of 3.5 % in a variance.
SHAPE = (400, 400)


def planes(seed: int, **fields: float | bool) -> dict:
    return draw(SoftBounds(**fields), torch.tensor(seed), SHAPE, torch.float64)


@pytest.mark.parametrize("up_down", [0.2, 0.0, -0.3])
def test_steps(seed, up_down):
    params = planes(seed, dw_min=0.01, dw_min_dtod=0.1, up_down_dtod=0.05, up_down=up_down)
    std = (0.1**2 + 0.05**2) ** 0.5
    for name, mean in (("dw_up", 1.0 + min(up_down, 0.0)), ("dw_down", 1.0 - max(up_down, 0.0))):
        relative = params[name] / 0.01
        assert_mean(relative, mean, std=std)
        assert_variance(relative, std**2, kurtosis=3.0)
    # The gain is common to both directions, the imbalance opposite: (0.1^2 - 0.05^2) / (0.1^2 + 0.05^2) = 0.6.
    assert_correlation(params["dw_up"], params["dw_down"], 0.6)


def test_log_normal_steps(seed):
    params = planes(seed, dw_min=0.01, dw_min_dtod=0.7, dw_min_log_normal=True)
    assert_same_law(params["dw_up"], stats.lognorm(0.7, scale=0.01))
    assert torch.equal(params["dw_up"], params["dw_down"])


def test_a_wide_spread_is_folded_back(seed):
    # At 70 % one draw in 13 is negative: the law is that of |1 + 0.7 xi|.
    params = planes(seed, dw_min_dtod=0.7, w_max_dtod=0.7, w_min_dtod=0.7, w_max=2.0)
    assert_same_law(params["dw_up"] / 1e-3, stats.foldnorm(1.0 / 0.7, scale=0.7))
    assert_same_law(params["w_max"] / 2.0, stats.foldnorm(1.0 / 0.7, scale=0.7))
    assert_same_law(-params["w_min"], stats.foldnorm(1.0 / 0.7, scale=0.7))


def test_bounds(seed):
    params = planes(seed, w_max=0.6, w_min=-0.4, w_max_dtod=0.2, w_min_dtod=0.1, dw_min_dtod=0.1)
    assert_mean(params["w_max"], 0.6, std=0.12)
    assert_variance(params["w_max"], 0.12**2, kurtosis=3.0)
    assert_mean(params["w_min"], -0.4, std=0.04)
    assert_variance(params["w_min"], 0.04**2, kurtosis=3.0)
    # Upper bound, lower bound and step are drawn apart.
    assert_correlation(params["w_max"], params["w_min"])
    assert_correlation(params["w_max"], params["dw_up"])


def test_a_familys_own_number_spreads_relatively(seed):
    # Planted: the spread twice.
    params = draw(Bent(steepness=0.8, steepness_dtod=0.1), torch.tensor(seed), SHAPE, torch.float64)
    assert_same_law(params["steepness"], stats.norm(0.8, 0.08))


def test_neighbours_differ_independently(seed):
    w_max = planes(seed, w_max_dtod=0.2)["w_max"]
    assert_correlation(w_max[1:], w_max[:-1])
    assert_correlation(w_max[:, 1:], w_max[:, :-1])


@pytest.mark.parametrize("family", DEVICES)
@pytest.mark.parametrize("replicas", [(), (2,)])
def test_large_arrays_are_drawn_in_blocks_with_the_same_numbers(monkeypatch, family, replicas):
    # Planted: each block drawn as the first rows.
    device = family(dw_min_dtod=0.3, dw_min_log_normal=True, up_down_dtod=0.1, w_max_dtod=0.2, w_min_dtod=0.2)
    seeds = random.seed_tensor(5, replicas)
    whole = draw(device, seeds, (11, 7), torch.float32)
    monkeypatch.setattr(random, "CACHED", 3 * 7 * seeds.numel())
    for name, value in draw(device, seeds, (11, 7), torch.float32).items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(whole[name])), name


@pytest.mark.parametrize("family", DEVICES)
def test_the_mean_device_has_no_spread(family):
    device = family(dw_min_dtod=0.3, up_down_dtod=0.1, w_max_dtod=0.2, up_down=0.5)
    assert device.nominal() == family(up_down=0.5).nominal()
