"""Analog SGD: exact without noise (E4), held back by noise in proportion to the asymmetry (E6)."""

import math

import pytest
import torch

from chance import assert_mean
from exact import assert_within_ulps
from ohmgrad import AnalogSGD, Dense, TikiTaka, Tile
from ohmgrad.devices.presets import asymmetric_linear


def scalar(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def tile(weight: torch.Tensor, algorithm, tau: float = 1.0) -> Tile:
    return Tile(weight, algorithm=algorithm, crossbar={"device": asymmetric_linear(tau)})


@pytest.mark.parametrize("start", [0.0, 0.7])
def test_without_noise_there_is_no_error(start):
    # E4. f = (w - 0.4)^2 / 2, tau = 0.8, lr = 0.1: from below pulses go up, and the distance shrinks by 1 - lr (1 - w /
    # tau) a step, half as fast at w = 0.4 as on an ideal device; from above by 1 - lr (1 + w / tau).
    t = tile(scalar(start), AnalogSGD(), tau=0.8)
    for _ in range(600):
        w = t.weight
        t.algorithm.update(t.state, Dense(w - 0.4), 0.1)
        sign = 1.0 if start < 0.4 else -1.0
        expected = (w - 0.4) * (1.0 - 0.1 * (1.0 - sign * w / 0.8))
        # Roundings are those of w, near 0.4.
        assert abs((t.weight - 0.4) - expected) < 4 * 2.0**-53
    assert abs(t.weight - 0.4) < 1e-12


def test_noise_drifts_to_the_symmetric_point_and_tiki_taka_drifts_beta_times_less(rng):
    # E6 (Wu et al. 2024, eq. 11-12). At the optimum g is all noise; one step moves W by -(alpha / tau) E|g| W in the
    # mean, one step of Tiki-Taka by beta times that. n = 10^6 draws see 1 % of the drift.
    alpha, beta, tau, sigma = 0.1, 0.2, 2.0, 0.5
    noise = torch.as_tensor(rng.normal(0.0, sigma, (1000, 1000)))
    W = torch.full_like(noise, 1.5)
    slow = {"transfer_lr": alpha, "n_reads": None, "scale_fast_lr": False, "scale_transfer_lr": False}
    sgd, tiki = tile(W, AnalogSGD(), tau), tile(W, TikiTaka(fast_lr=beta, **slow), tau)
    sgd.algorithm.update(sgd.state, Dense(noise), alpha)
    tiki.algorithm.update(tiki.state, Dense(noise), alpha)
    drift = -(alpha / tau) * sigma * math.sqrt(2.0 / math.pi) * 1.5
    assert_mean(sgd.weight - W, drift)
    assert_mean(tiki.weight - W, beta * drift)
    # From P = 0 the ratio is beta draw by draw. Roundings are those of W.
    assert ((tiki.weight - W) - beta * (sgd.weight - W)).abs().max() < 4 * 2.0**-52


def test_one_step_on_a_matrix():
    # W <- W - lr g - lr |g| W / tau, the formula of eq. 8 without devices or crossbars.
    g = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    W = 0.1 * g.flip(0)
    t = tile(W, AnalogSGD(), tau=0.5)
    t.algorithm.update(t.state, Dense(g), 0.05)
    assert_within_ulps(t.weight, W - 0.05 * g - 0.05 * g.abs() * W / 0.5, ulps=4)
