"""Matched pulse noise: mean and variance of a stochastic pulse train (reference 2.1), without the train.

A train of BL slots in which a crosspoint is hit with odds p moves it by n = BL p steps in the mean, with variance
n (step^2 (1 - p) + ctoc^2), the second term per pulse.
"""

import pytest
import torch
from scipy import stats

from chance import assert_correlation, assert_mean, assert_same_law, assert_variance
from ohmgrad import Crossbar, Dense, ExpectedUpdate, Outer
from ohmgrad.devices import ConstantStep, Ideal, SoftBounds

# n = 160,000 sees a mean that is off by 2.5 % of the noise, and a variance that is off by 3.5 %.
SIDE = 400
INNER = (slice(1, None), slice(1, None))


def change(device, *, seed: int, weight: float = 0.0, lr: float = 0.01) -> torch.Tensor:
    """What one sample with x = (1, .7, .7, ...), d = -(1, .9, .9, ...) changes beyond the first row and column.

    dw = 0.0063, of 0.01 at the largest crosspoint: with dw_min = 1e-3, BL = 10 slots, p = 0.63, n = 6.3.
    """
    start = torch.full((SIDE, SIDE), weight, dtype=torch.float64)
    update = ExpectedUpdate(noise=True)
    bar = Crossbar((SIDE, SIDE), device=device, seed=seed, weight=start, dtype=torch.float64, update=update)
    x, d = torch.full((SIDE,), 0.7, dtype=torch.float64), torch.full((SIDE,), -0.9, dtype=torch.float64)
    x[0], d[0] = 1.0, -1.0
    bar.pulse(x, d, lr)
    return (bar.weight - start)[INNER]


def test_ideal_steps(seed):
    # Reference 2.1, with these very numbers: mean 6.300e-3, variance 2.331e-6.
    moved = change(Ideal(), seed=seed)
    assert_mean(moved, 6.3e-3, std=2.331e-6**0.5)
    assert_variance(moved, 6.3e-6 * 0.37, kurtosis=3.0)
    assert_same_law(moved, stats.norm(6.3e-3, 2.331e-6**0.5))


@pytest.mark.parametrize("ctoc", ["multiplicative", "additive"])
def test_soft_bounds_with_cycle_to_cycle_noise(seed, ctoc):
    # At w = 0.5 of 1 an up step is half of dw_min; multiplicative noise is halved with it, additive noise is not.
    moved = change(SoftBounds(dw_min_ctoc=0.3, ctoc=ctoc), seed=seed, weight=0.5)
    per_pulse = (0.3 * (0.5 if ctoc == "multiplicative" else 1.0)) ** 2
    variance = 6.3e-6 * (0.25 * 0.37 + per_pulse)
    assert_mean(moved, 6.3e-3 / 2.0, std=variance**0.5)
    assert_variance(moved, variance, kurtosis=3.0)


def test_a_clipped_train_keeps_only_cycle_noise(seed):
    # lr = 0.1 asks for 63 pulses of the 31 slots: every slot hits, and the count varies no more.
    moved = change(ConstantStep(dw_min_ctoc=0.3), seed=seed, lr=0.1)
    assert_mean(moved, 0.063, std=(63e-6 * 0.09) ** 0.5)
    assert_variance(moved, 63e-6 * 0.09, kurtosis=3.0)
    assert change(ConstantStep(), seed=seed, lr=0.1).sub(0.063).abs().max() < 1e-15


def test_no_request_no_noise():
    bar = Crossbar((2, 2), device=SoftBounds(dw_min_ctoc=1.0), update=ExpectedUpdate(noise=True))
    bar.write(Dense(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), lr=0.1)
    assert (bar.weight[0, 1], bar.weight[1, 0]) == (0.0, 0.0) and (bar.weight.diagonal() != 0.0).all()


def test_noise_is_fresh_at_each_write_and_each_sample(seed):
    x, d = torch.ones(1, SIDE, dtype=torch.float64), torch.ones(1, SIDE, dtype=torch.float64)
    update = ExpectedUpdate(noise=True)
    bar = Crossbar((SIDE, SIDE), device=Ideal(dw_min_ctoc=1.0), seed=seed, dtype=torch.float64, update=update)
    bar.pulse(x, d, 0.01)
    first = bar.weight.clone()
    bar.pulse(x, d, 0.01)
    second = bar.weight - first
    assert_correlation(first, second)
    # Columns of a transfer, rows of a plane: neighbours differ too.
    assert_correlation(first[1:], first[:-1])
    assert_correlation(first[:, 1:], first[:, :-1])
    # The same two samples as one batch, one after the other, are the same two cycles.
    update = ExpectedUpdate(noise=True, per_sample=True)
    batch = Crossbar((SIDE, SIDE), device=Ideal(dw_min_ctoc=1.0), seed=seed, dtype=torch.float64, update=update)
    batch.write(Outer(d.expand(2, -1), x.expand(2, -1)), 0.01)
    assert torch.equal(batch.weight, bar.weight)
