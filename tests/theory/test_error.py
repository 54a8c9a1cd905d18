"""The theory against closed forms, and against runs that theory is about.

On the asymmetric linear device (F = 1, G = w / tau) with f = (w - w_star)^2 / 2 (reference 6.2-6.3):

    S(w)   = (w / tau)^2 / (1 - (w / tau)^2)                        Wu et al. 2024, Thm. 2

The theorems themselves, E1 to E18, are experiments: `experiments/verify`.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from quadratic import rest
from scipy import optimize, stats

from chance import assert_mean
from exact import assert_within_ulps
from ohmgrad import AnalogSGD, Crossbar
from ohmgrad.devices import ConstantStep, Ideal, LinearStep, SoftBounds
from ohmgrad.devices.presets import asymmetric_linear
from ohmgrad.theory import asymmetry, asymptotic_error, balanced_gradient, saturation


@given(share=st.floats(-0.99, 0.99), tau=st.floats(0.01, 100.0))
def test_asymmetry_of_the_asymmetric_linear_device(share, tau):
    w = torch.tensor([[0.0, share * tau]], dtype=torch.float64)
    expected = share**2 / (1.0 - share**2)
    # 1 - share^2 loses up to two digits; G is a difference of two numbers near 1.
    assert asymmetry(asymmetric_linear(tau), w).item() == pytest.approx(expected, rel=1e-13, abs=1e-15 * abs(share))


def test_asymmetry_is_the_worst_device_of_each_replica():
    w = torch.tensor([[[0.1, -0.6], [0.3, 0.0]], [[0.0, 0.0], [0.0, 0.8]]], dtype=torch.float64)
    expected = torch.tensor([0.36 / 0.64, 0.64 / 0.36], dtype=torch.float64)
    assert_within_ulps(asymmetry(asymmetric_linear(), w), expected, ulps=8)


def test_asymmetry_at_the_ends():
    zero, bound = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    assert asymmetry(asymmetric_linear(), zero) == 0.0
    assert asymmetry(asymmetric_linear(), bound) == math.inf
    for device in (Ideal(), ConstantStep()):
        assert asymmetry(device, bound) == 0.0


def test_asymmetry_of_each_device_with_its_own_bounds():
    # G / F of soft bounds: (1/w_max - 1/w_min) w / (2 - (1/w_max + 1/w_min) w), which is 1/3 here: S = (1/9) / (8/9).
    params = {"w_max": torch.tensor([[1.0]]), "w_min": torch.tensor([[-0.5]]), "dw_up": 1e-3, "dw_down": 1e-3}
    w = torch.tensor([[2.0 / 8.0]])
    assert asymmetry(SoftBounds(), w, params).item() == pytest.approx(1.0 / 8.0, rel=1e-6)


def test_asymptotic_error_is_the_mean_over_the_run():
    S = torch.tensor([[0.1, 0.5], [0.3, 0.7]], dtype=torch.float64)
    assert asymptotic_error(2.0, S).tolist() == pytest.approx([0.4, 1.2])


def test_saturation():
    params = {"w_max": torch.tensor([0.5, 1.0, 2.0, math.inf]), "w_min": torch.tensor([-1.0, -0.5, -2.0, -math.inf])}
    assert saturation(torch.tensor([0.25, -0.25, 0.0, 3.0]), params).tolist() == [0.5, 0.5, 0.0, 0.0]


def test_balanced_gradient_by_hand():
    # G / F = 0.4 at w = 0.2 of tau = 0.5; none on a symmetric device.
    w, modulus = torch.tensor([[0.2, -0.2]], dtype=torch.float64), torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    expected = torch.tensor([[-1.2, 0.4]], dtype=torch.float64)
    assert_within_ulps(balanced_gradient(asymmetric_linear(0.5), w, modulus), expected, ulps=4)
    assert balanced_gradient(Ideal(), w, modulus).abs().max() == 0.0


@pytest.mark.parametrize(
    ("device", "ratio"),
    [
        # G / F = a w / (1 - b w), of the slopes up and down: a, b = (up - down) / 2, (up + down) / 2.
        pytest.param(SoftBounds(w_max=0.8, w_min=-2.0), lambda w: 0.875 * w / (1.0 - 0.375 * w), id="SoftBounds"),
        pytest.param(
            LinearStep(w_max=1.0, w_min=-0.5, gamma_up=0.8, gamma_down=0.2),
            lambda w: 0.6 * w / (1.0 - 0.2 * w),
            id="LinearStep",
        ),
    ],
)
def test_pulses_balance_on_devices_whose_mean_step_depends_on_the_state(device, ratio, seed):
    # From the closed form, with E|N(m, 0.3^2)|; terms of order lr are taken out. n = 10,000 runs see 2 % of the
    # gradient.
    def modulus(w: float) -> float:
        return stats.foldnorm(abs(w - 0.4) / 0.3, scale=0.3).mean()

    w = optimize.brentq(lambda w: w - 0.4 + modulus(w) * ratio(w), 0.0, 0.4)
    run = {"w_star": 0.4, "std": 0.3, "start": w, "seed": seed}
    at = {lr: rest(AnalogSGD(), device, lr=lr, settle=round(4 / lr), steps=round(4 / lr), **run) for lr in (0.04, 0.02)}
    params = Crossbar((1, 1), device=device).params
    gap = {lr: r.weight - 0.4 - balanced_gradient(device, r.weight, r.modulus, params) for lr, r in at.items()}
    assert_mean(2.0 * gap[0.02] - gap[0.04], 0.0)
    assert_mean(2.0 * at[0.02].weight - at[0.04].weight, w)
    state, mean = (torch.tensor([[v]], dtype=torch.float64) for v in (w, modulus(w)))
    assert balanced_gradient(device, state, mean).item() == pytest.approx(w - 0.4, rel=1e-9)
