"""The theorems on Analog SGD as functions of measured quantities: upper and lower bounds on the mean of ||grad f||^2.

Means are over the K steps of a run. Outside its assumptions a function warns by the assumption's name and returns what
is true of anything: infinity for an upper bound, 0 for a lower one.

    T0 digital SGD     2 (f0 - f*) / (lr K) + lr L sigma^2                                  P24, eq. 5
    T1 weights         |W_k| <= tau                                                         P24, Thm. 1
    T2 Analog SGD      transient / (1 - W_max^2/tau^2) + sigma^2 S_K                        P24, Thm. 2
    T3 lower bound     sigma^2 S_K on one instance                                          P24, Thm. 3
    T5 no noise        2 L (f0 - f*) F_max^2 / (K M_min)                                    P24, Thm. 9; P25, Thm. 6
    T7 any response    (2 (f0 - f*)/(lr K) + lr L q_max^2 sigma^2 + sigma^2 S_K) / min M/F  P25, Thm. 2

P24: Wu et al. 2024 (arXiv 2406.12774); P25: Wu et al. 2025 (arXiv 2502.06309). P24 prints 4 sigma^2 S_K in T2 and T3;
its own proofs give 1 (docs/lower-bound.md, with the derivation of the constants used here). Bounds for the other
algorithms are in `ohmgrad.theory.transfer_bounds`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ohmgrad.theory.assumptions import assume, need_numbers
from ohmgrad.theory.response import ResponseRange


@dataclass(frozen=True)
class Bound:
    """A bound and what it is the sum of, by name.

    is_order: the theorem leaves the constant of each term open, O(.) or Theta(.); the terms then stand without one, and
    there is no value.
    """

    terms: Mapping[str, float]
    is_order: bool = False

    @property
    def value(self) -> float:
        """The sum of the terms. Raises ValueError where the theorem gives no constants."""
        if self.is_order:
            raise ValueError(f"this theorem gives orders without constants: {', '.join(self.terms)}")
        return sum(self.terms.values())


def digital_sgd_bound(*, gap: float, L: float, sigma_squared: float, lr: float, steps: int) -> Bound:
    """T0, of SGD on ideal devices: mean E||grad f||^2 <= 2 (f0 - f*) / (lr K) + lr L sigma^2.

    Args:
        gap: f(W_0) - f*, >= 0. L: smoothness, > 0. sigma_squared: E||noise||^2. lr: the step. steps: K.

    Source: Wu et al. 2024, eq. 5. Assumes: A1 (L holds everywhere), A2, A3; checks lr <= 1/L.

    >>> digital_sgd_bound(gap=1.0, L=1.0, sigma_squared=0.5, lr=0.5, steps=16).value
    0.5
    """
    need_numbers("digital_sgd_bound", {"L": L, "lr": lr, "steps": steps}, {"gap": gap, "sigma_squared": sigma_squared})
    holds = assume(lr <= 1.0 / L, f"A1: lr = {lr:g} is above 1/L = {1.0 / L:g}")
    return _upper({"transient": 2.0 * gap / (lr * steps), "noise": lr * L * sigma_squared}, holds)


def bounded_weight(*, tau: float, start: float, largest_increment: float) -> float:
    """T1, on the asymmetric linear device: max|W_k| <= tau at every step, whatever the algorithm sends.

    Args:
        start: max|W_0|. largest_increment: the largest |increment| that a step asks of a device, lr |g|.

    Source: Wu et al. 2024, Thm. 1. Assumes: F = 1, G = w / tau; checks max|W_0| <= tau and |increment| <= tau, and
    returns infinity otherwise.

    >>> bounded_weight(tau=0.6, start=0.3, largest_increment=0.1)
    0.6
    """
    need_numbers("bounded_weight", {"tau": tau}, {"start": start, "largest_increment": largest_increment})
    holds = assume(start <= tau, f"Theorem 1: max|W_0| = {start:g} is above tau = {tau:g}")
    holds &= assume(
        largest_increment <= tau, f"Theorem 1: an increment of {largest_increment:g} is above tau = {tau:g}"
    )
    return tau if holds else math.inf


def saturation_sum(weights: Tensor, tau: float) -> float:
    """S_K: the mean over steps of (W^2/tau^2) / (1 - W^2/tau^2), W = max|W_k|.

    Args:
        weights: max|W_k| at each step, (steps,).

    Source: Wu et al. 2024, Thm. 2. Assumes: A4, checked; infinite otherwise. `asymmetry` is its term for any device.

    >>> import torch
    >>> round(saturation_sum(torch.tensor([0.6, 0.0]), tau=1.0), 5)
    0.28125
    """
    share = weights.double().abs() / tau
    if not _is_unsaturated(float(weights.abs().max()), tau):
        return math.inf
    return float((share.square() / (1.0 - share.square())).mean())


def analog_sgd_bound(
    *, gap: float, L: float, sigma_squared: float, tau: float, W_max: float, S_K: float, steps: int
) -> Bound:
    """T2 as it is printed, on the asymmetric linear device, at lr = sqrt((f0 - f*) / (sigma^2 L K)):

        mean E||grad f||^2 <= 4 sqrt((f0 - f*) sigma^2 L / K) / (1 - W_max^2/tau^2) + 4 sigma^2 S_K

    The 4 before S_K is loose, see docs/lower-bound.md; `generic_analog_sgd_bound` has the smaller constants, at any lr.

    Args:
        gap, L, sigma_squared, steps: as of `digital_sgd_bound`. tau: range. W_max: max|W_k| of the run.
        S_K: `saturation_sum` of the run.

    Source: Wu et al. 2024, Thm. 2. Assumes: A1 to A3, an unsaturated device that is F = 1, G = w / tau; checks A4 and
    that the theorem's lr is at most 1/L.
    """
    need_numbers(
        "analog_sgd_bound",
        {"L": L, "tau": tau, "steps": steps, "sigma_squared": sigma_squared},
        {"gap": gap, "W_max": W_max, "S_K": S_K},
    )
    lr = math.sqrt(gap / (sigma_squared * L * steps))
    holds = assume(lr <= 1.0 / L, f"A1: the theorem's lr = {lr:g} is above 1/L = {1.0 / L:g}; K = {steps} is too small")
    holds &= _is_unsaturated(W_max, tau)
    if not holds:
        return _upper({"transient": 0.0, "asymmetry": 0.0}, False)
    transient = 4.0 * math.sqrt(gap * sigma_squared * L / steps) / (1.0 - (W_max / tau) ** 2)
    return Bound({"transient": transient, "asymmetry": 4.0 * sigma_squared * S_K})


def analog_sgd_lower_bound(*, L: float, sigma: float, tau: float, w_star: float, size: int, S_K: float) -> Bound:
    """T3, of the instance `LowerBound` at lr -> 0: mean E||grad f||^2 = sigma^2 S_K; printed as 4 sigma^2 S_K.

    At lr > 0 a term Theta(lr), without a constant in the theorem, is added.

    Args:
        L, sigma, tau, w_star, size: of the instance. S_K: `saturation_sum` of its run.

    Source: Wu et al. 2024, Thm. 3; the constant: docs/lower-bound.md. Assumes: the device is F = 1, G = w / tau; checks
    |w*| <= tau/4 and sigma <= tau L sqrt(D) / (4 sqrt 3), and returns 0 otherwise.
    """
    need_numbers("analog_sgd_lower_bound", {"L": L, "tau": tau, "size": size, "sigma": sigma}, {"S_K": S_K})
    most = tau * L * math.sqrt(size) / (4.0 * math.sqrt(3.0))
    holds = assume(abs(w_star) <= tau / 4.0, f"Theorem 3: |w*| = {abs(w_star):g} is above tau/4 = {tau / 4.0:g}")
    holds &= assume(sigma <= most, f"Theorem 3: sigma = {sigma:g} is above tau L sqrt(D) / (4 sqrt 3) = {most:g}")
    return Bound({"asymmetry": sigma**2 * S_K if holds else 0.0})


def analog_gd_bound(*, gap: float, L: float, steps: int, response: ResponseRange) -> Bound:
    """T5, no gradient noise, at lr = 1 / (L F_max): mean ||grad f||^2 <= 2 L (f0 - f*) F_max^2 / (K M_min).

    It goes to 0 with K: asymmetry alone leaves no error. Asymmetric linear device: 2 L gap / (K (1 - W^2/tau^2)).

    Args:
        gap, L, steps: as of `digital_sgd_bound`. response: `response_range` over the states of the run, one replica.

    Source: Wu et al. 2024, Thm. 9; Wu et al. 2025, Thm. 6. Assumes: A1, A2, no noise; checks q_min > 0.
    """
    need_numbers("analog_gd_bound", {"L": L, "steps": steps}, {"gap": gap})
    holds = _is_responsive(response)
    M_min = float(response.M_min) if holds else 1.0
    return _upper({"transient": 2.0 * L * gap * float(response.F_max) ** 2 / (steps * M_min)}, holds)


def generic_analog_sgd_bound(
    *, gap: float, L: float, sigma_squared: float, lr: float, steps: int, response: ResponseRange, S_K: float
) -> Bound:
    """T7 with its constants, for any response and lr <= 1 / (L F_max):

        mean E||grad f||^2 <= (2 (f0 - f*)/(lr K) + lr L q_max^2 sigma^2 + sigma^2 S_K) / min(M/F)

    with S_K the mean over steps of max_i G^2/F. On the asymmetric linear device the last term is
    sigma^2 mean(W^2/tau^2) / (1 - W_max^2/tau^2): the constant of T2 and T3 is 1.

    Args:
        gap, L, sigma_squared, lr, steps: as of `digital_sgd_bound`.
        response: `response_range` over the states of the run, one replica. S_K: the mean over steps of its `drift`.

    Source: Wu et al. 2025, Thm. 2, printed as an order; the constants: docs/lower-bound.md. Assumes: A1 to A3; checks
    lr <= 1 / (L F_max) and q_min > 0, which is A4.
    """
    need_numbers(
        "generic_analog_sgd_bound",
        {"L": L, "lr": lr, "steps": steps},
        {"gap": gap, "sigma_squared": sigma_squared, "S_K": S_K},
    )
    largest_lr = 1.0 / (L * float(response.F_max))
    holds = assume(lr <= largest_lr, f"A1: lr = {lr:g} is above 1 / (L F_max) = {largest_lr:g}")
    holds &= _is_responsive(response)
    share = float(response.M_over_F_min) if holds else 1.0
    terms = {
        "transient": 2.0 * gap / (lr * steps) / share,
        "noise": lr * L * float(response.q_max) ** 2 * sigma_squared / share,
        "asymmetry": sigma_squared * S_K / share,
    }
    return _upper(terms, holds)


def _upper(terms: Mapping[str, float], holds: bool) -> Bound:
    """An upper bound; outside its assumptions, none."""
    return Bound(terms if holds else dict.fromkeys(terms, math.inf))


def _is_unsaturated(W_max: float, tau: float) -> bool:
    return assume(W_max < tau, f"A4: max|W| = {W_max:g} is not below tau = {tau:g}", depth=1)


def _is_responsive(response: ResponseRange) -> bool:
    """On soft bounds this is A4."""
    q_min = float(response.q_min)
    return assume(q_min > 0.0, f"A4: q_min = {q_min:g} is not above 0, a device is at a bound", depth=1)
