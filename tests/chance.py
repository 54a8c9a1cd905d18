"""Statistical assertions that state their false-alarm rate.

Each fails with probability about `alpha` when the claim is true, whatever the seed: at the default 1e-6
(4.9 standard errors), 500 of them alarm falsely in 1 of 2,000 runs. Write beside each use what its n can
see: a mean that is off by d standard deviations is found, almost surely, from n = (10 / d)^2 samples on.

`samples` are tensors, arrays or sequences of any shape, and are taken as independent.
"""

import math
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats

ALPHA = 1e-6
Samples = ArrayLike | torch.Tensor


@runtime_checkable
class Law(Protocol):
    """A continuous distribution, such as scipy.stats.norm(0, 1)."""

    def cdf(self, x: np.ndarray) -> np.ndarray: ...


def assert_mean(samples: Samples, mean: float, *, std: float | None = None, alpha: float = ALPHA) -> None:
    """The samples come from a law of that mean.

    std: the law's standard deviation if known; else it is estimated (then take n >= 1,000 for a skewed law).
    """
    x = _flat(samples)
    spread = x.std(ddof=1) if std is None else std
    z = _z(x.mean() - mean, spread / math.sqrt(x.size))
    p = 2.0 * (stats.t.sf(abs(z), x.size - 1) if std is None else stats.norm.sf(abs(z)))
    _judge("mean", expected=mean, got=x.mean(), detail=f"n={x.size}, z={z:+.2f}", p=p, alpha=alpha)


def assert_variance(samples: Samples, variance: float, *, kurtosis: float | None = None, alpha: float = ALPHA) -> None:
    """The samples come from a law of that variance.

    kurtosis: the law's E[(x - mean)^4] / variance^2 if known (3 for a Gaussian, 1.8 for a uniform law), else
    estimated. The estimate of a variance is itself skewed: take n >= 10,000, more for heavy tails.
    """
    x = _flat(samples)
    got = x.var(ddof=1)
    # Under the claim if the kurtosis is known, else from the samples: Var(s^2) = (m4 - variance^2) / n.
    excess = np.mean((x - x.mean()) ** 4) - got**2 if kurtosis is None else (kurtosis - 1.0) * variance**2
    z = _z(got - variance, math.sqrt(max(excess, 0.0) / x.size))
    p = 2.0 * stats.norm.sf(abs(z))
    _judge("variance", expected=variance, got=got, detail=f"n={x.size}, z={z:+.2f}", p=p, alpha=alpha)


def assert_counts(count: Samples, n: Samples, p: Samples, *, alpha: float = ALPHA) -> None:
    """`count` of n independent trials succeeded, each with probability p: exact binomial, two-sided.

    Arrays broadcast; alpha then holds for all entries together (each is tested at alpha / entries).
    """
    count, n, p = np.broadcast_arrays(*(np.atleast_1d(_array(value)) for value in (count, n, p)))
    if np.any((count < 0) | (count > n) | (count != np.rint(count))):
        raise ValueError("assert_counts needs whole counts in 0 ... n")
    tail = np.minimum(stats.binom.cdf(count, n, p), stats.binom.sf(count - 1, n, p))
    worst = np.unravel_index(np.argmin(tail), tail.shape)
    _judge(
        "count" if count.size == 1 else f"count{[int(i) for i in worst]}, the least likely of {count.size},",
        expected=n[worst] * p[worst],
        got=count[worst],
        detail=f"n={n[worst]:.0f}, probability={p[worst]:.6g}",
        p=min(1.0, 2.0 * tail[worst] * count.size),
        alpha=alpha,
    )


def assert_same_law(samples: Samples, law: Samples | Law, *, alpha: float = ALPHA) -> None:
    """The samples come from that continuous law (Kolmogorov-Smirnov).

    law: a frozen scipy distribution, or other samples (two-sample test). Discrete laws: `assert_counts`.
    """
    x = _flat(samples)
    if hasattr(law, "pmf"):
        raise ValueError("assert_same_law needs a continuous law; test a discrete one with assert_counts")
    if isinstance(law, Law):
        result, size = stats.kstest(x, law.cdf), f"n={x.size}"
    else:
        y = _flat(law)
        result, size = stats.ks_2samp(x, y), f"n={x.size} and {y.size}"
    detail = f"{size}, at x={result.statistic_location:.6g}"
    _judge("KS distance", expected=0.0, got=result.statistic, detail=detail, p=result.pvalue, alpha=alpha)


def assert_correlation(a: Samples, b: Samples, rho: float = 0.0, *, alpha: float = ALPHA) -> None:
    """The pairs (a, b) come from a law of that correlation.

    rho = 0 is tested for independent pairs of any law (n >= 1,000); another rho for jointly Gaussian pairs.
    """
    x, y = _flat(a), _flat(b)
    if x.size != y.size:
        raise ValueError(f"assert_correlation needs pairs, got {x.size} and {y.size} samples")
    if x.std() == 0.0 or y.std() == 0.0:
        raise AssertionError("correlation: one side is constant")
    r = float(np.corrcoef(x, y)[0, 1])
    # Fisher's transformation; r = +-1 would be infinite.
    z = (np.arctanh(np.clip(r, -1.0 + 1e-15, 1.0 - 1e-15)) - np.arctanh(rho)) * math.sqrt(x.size - 3)
    p = 2.0 * stats.norm.sf(abs(z))
    _judge("correlation", expected=rho, got=r, detail=f"n={x.size}, z={z:+.2f}", p=p, alpha=alpha)


def _array(samples: Samples) -> np.ndarray:
    """Samples as float64."""
    if isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu().numpy()
    return np.asarray(samples, dtype=np.float64)


def _flat(samples: Samples) -> np.ndarray:
    """Samples as one row of finite numbers, at least ten."""
    x = _array(samples).ravel()
    if x.size < 10:
        raise ValueError(f"needs at least 10 samples, got {x.size}")
    if not np.isfinite(x).all():
        raise AssertionError(f"{np.count_nonzero(~np.isfinite(x))} of {x.size} samples are not finite")
    return x


def _z(difference: float, error: float) -> float:
    """Difference in standard errors; of a constant, 0 or infinite."""
    if error > 0.0:
        return float(difference / error)
    return 0.0 if difference == 0.0 else math.copysign(math.inf, difference)


def _judge(what: str, *, expected: float, got: float, detail: str, p: float, alpha: float) -> None:
    """Fail with one line of figures if the p-value is below alpha."""
    __tracebackhide__ = True
    if not p >= alpha:
        raise AssertionError(f"{what}: expected {expected:.6g}, got {got:.6g} ({detail}, p={p:.1e} < {alpha:.0e})")
