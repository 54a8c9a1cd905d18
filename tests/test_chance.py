"""Each statistical assertion passes on the true law and fails on a planted error."""

import numpy as np
import pytest
import torch
from scipy import stats

from chance import assert_correlation, assert_counts, assert_mean, assert_same_law, assert_variance

N = 100_000


@pytest.mark.parametrize("std", [None, 2.0])
def test_mean_sees_three_hundredths_of_a_standard_deviation(rng, std):
    x = rng.normal(5.0, 2.0, N)
    assert_mean(x, 5.0, std=std)
    with pytest.raises(AssertionError, match=r"mean: expected 5\.06, got 4\.99|mean: expected 5\.06, got 5\.0"):
        assert_mean(x, 5.06, std=std)


@pytest.mark.parametrize("kurtosis", [None, 3.0])
def test_variance_sees_five_per_cent(rng, kurtosis):
    x = rng.normal(5.0, 2.0, N)
    assert_variance(x, 4.0, kurtosis=kurtosis)
    with pytest.raises(AssertionError, match=r"variance: expected 4\.2, got"):
        assert_variance(x, 4.2, kurtosis=kurtosis)


def test_variance_of_a_law_that_is_not_gaussian(rng):
    x = rng.uniform(0.0, 1.0, N)
    assert_variance(x, 1.0 / 12.0, kurtosis=1.8)
    with pytest.raises(AssertionError):
        assert_variance(x, 1.05 / 12.0, kurtosis=1.8)


def test_counts_of_a_rare_event_are_exact():
    # By hand: P(count = 0) = 0.5^20 = 9.5e-7, twice that is 1.9e-6; one trial more is below 1e-6.
    assert_counts(0, 20, 0.5)
    with pytest.raises(AssertionError, match=r"count: expected 10\.5, got 0 \(n=21"):
        assert_counts(0, 21, 0.5)


def test_counts_share_alpha_and_name_the_worst(rng):
    p = np.array([[0.1, 0.5], [0.9, 0.001]])
    count = rng.binomial(N, p)
    assert_counts(count, N, p)
    with pytest.raises(AssertionError, match=r"count\[1, 0\], the least likely of 4"):
        assert_counts(count, N, p - np.array([[0.0, 0.0], [0.01, 0.0]]))
    # 0 of 21 alone is below 1e-6 (see above); beside a count that is as expected, twice 9.5e-7 is not.
    assert_counts([0, 10], 21, 0.5)


@pytest.mark.parametrize(("count", "n"), [(-1, 5), (6, 5), (2.5, 5)])
def test_counts_refuse_what_is_not_a_count(count, n):
    with pytest.raises(ValueError, match="whole counts"):
        assert_counts(count, n, 0.5)


def test_certain_events():
    assert_counts([0, 7], 7, [0.0, 1.0])
    with pytest.raises(AssertionError):
        assert_counts(1, 7, 0.0)


def test_same_law_sees_a_heavier_tail_of_equal_variance(rng):
    x = rng.normal(0.0, 1.0, N)
    y = rng.standard_t(5, N) / np.sqrt(5.0 / 3.0)
    assert_same_law(x, stats.norm(0, 1))
    assert_same_law(x, rng.normal(0.0, 1.0, N // 2))
    for law in (stats.norm(0, 1), x):
        with pytest.raises(AssertionError, match="KS distance"):
            assert_same_law(y, law)


def test_same_law_refuses_a_discrete_law():
    with pytest.raises(ValueError, match="assert_counts"):
        assert_same_law(np.arange(10), stats.binom(10, 0.5))


@pytest.mark.parametrize("rho", [0.0, 0.6, -0.9])
def test_correlation_sees_five_hundredths(rng, rho):
    a, b = rng.multivariate_normal([0.0, 0.0], [[1.0, rho], [rho, 1.0]], N).T
    assert_correlation(a, b, rho)
    with pytest.raises(AssertionError, match="correlation: expected"):
        assert_correlation(a, b, rho + 0.05)


def test_a_repeated_sequence_is_correlated(rng):
    x = rng.uniform(size=N)
    assert_correlation(x[1:], x[:-1])
    with pytest.raises(AssertionError):
        assert_correlation(x, x)


def test_samples_may_be_tensors_of_any_shape_and_type(seed):
    x = torch.rand((100, 10, 10), generator=torch.Generator().manual_seed(seed)).requires_grad_()
    assert_mean(x, 0.5)
    assert_same_law(x, stats.uniform(0, 1))


def test_a_constant_and_a_nan_fail():
    with pytest.raises(AssertionError):
        assert_mean(np.full(100, 0.5), 0.6)
    with pytest.raises(AssertionError):
        assert_variance(np.full(100, 0.5), 0.1)
    with pytest.raises(AssertionError, match="constant"):
        assert_correlation(np.full(100, 0.5), np.arange(100))
    with pytest.raises(AssertionError, match="1 of 100 samples are not finite"):
        assert_mean(np.r_[np.zeros(99), np.nan], 0.0)


def test_an_alpha_of_five_per_cent_alarms_in_five_per_cent(rng):
    """The stated rate is the true one: 1,000 true claims each at alpha = 0.05, so 50 alarms are expected.

    The exact binomial at 1e-6 passes about 20 to 88: a true rate above 13 % or below 1 % is seen.
    """

    def normal() -> np.ndarray:
        return rng.normal(size=500)

    claims = {
        "mean": lambda: assert_mean(normal(), 0.0, alpha=0.05),
        "mean, known spread": lambda: assert_mean(normal(), 0.0, std=1.0, alpha=0.05),
        "variance": lambda: assert_variance(normal(), 1.0, alpha=0.05),
        "variance, known kurtosis": lambda: assert_variance(normal(), 1.0, kurtosis=3.0, alpha=0.05),
        "one law": lambda: assert_same_law(normal(), stats.norm(0, 1), alpha=0.05),
        "two laws": lambda: assert_same_law(normal(), normal(), alpha=0.05),
        "correlation": lambda: assert_correlation(normal(), normal(), alpha=0.05),
        "correlation of 1/2": lambda: assert_correlation(
            *rng.multivariate_normal([0.0, 0.0], [[1.0, 0.5], [0.5, 1.0]], 500).T, 0.5, alpha=0.05
        ),
    }
    for name, claim in claims.items():
        n_alarms = 0
        for _ in range(1_000):
            try:
                claim()
            except AssertionError:
                n_alarms += 1
        print(name, n_alarms)  # pytest shows it on failure
        assert_counts(n_alarms, 1_000, 0.05)
