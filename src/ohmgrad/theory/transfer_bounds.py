"""The theorems on algorithms with more than one crossbar. Most give orders: their terms stand without a constant.

    T4  Tiki-Taka           O(sqrt((f0 - f*) sigma^2 L / K) / (1 - 33 P_max^2/tau^2)): exact     P24, Thm. 4
    T8  residual learning   O(sqrt(sigma^2 / K) + sigma^2 S_K), S_K of the fast crossbar         P25, Thm. 3
    C1  ... exact           O(sqrt(sigma^2 L / K)) if G(0) = 0 and gamma >= Omega(q_min^(-2/5))  P25, Cor. 1
    T9  ... rates           1 / (1 - 33 P^2/tau^2) without, 1 / (1 - P^2/tau^2) with gamma       P25, Table 2
    T10 Analog SGD, pulses  O(R_T sqrt(2 (f0 - f*) sigma^2 / T) + sigma^2 S_T + R_T dw_min)      MT, Thm. 1, 2
    T11 multi-tile          limsup E||W* - W||^2 <= Theta(gamma^(2N/3) (sigma dw_min)^(2/3))     MT, Cor. 1
    T13 RIDER               O(kappa_1 kappa_2^5 / sqrt K) + Theta(dw_min)                        SP26, Thm. 3.7

P24, P25 as in `ohmgrad.theory.bounds`; MT: arXiv 2510.02516; SP26: arXiv 2602.21321. T12, zero-shifting, is in
`ohmgrad.theory.zero_shift`.
"""

from __future__ import annotations

import math

from ohmgrad.theory.assumptions import assume, need_numbers
from ohmgrad.theory.bounds import Bound

GAMMA_MOST = 1.0 / math.sqrt(6.0)


def tiki_taka_residual(*, L: float, sigma: float, tau: float, size: int, c: float = math.sqrt(2.0 / math.pi)) -> float:
    """P_max^2 of T4: E||P||^2_inf <= 41 L^2 tau^4 D / (c^2 sigma^2).

    Args:
        size: D. c: with E|g + noise| >= c sigma for every g; for Gaussian noise sqrt(2/pi) times the share of an entry.

    Source: Wu et al. 2024, Thm. 4. Assumes: A1 to A5, not checked. The bound is loose: T4's condition
    33 P_max^2 < tau^2 asks for sigma > 37 L tau sqrt(D) / c.

    >>> round(tiki_taka_residual(L=1.0, sigma=1.0, tau=0.1, size=1, c=1.0), 6)
    0.0041
    """
    need_numbers("tiki_taka_residual", {"L": L, "sigma": sigma, "tau": tau, "size": size, "c": c})
    return 41.0 * L**2 * tau**4 * size / (c * sigma) ** 2


def tiki_taka_bound(
    *, gap: float, L: float, sigma: float, tau: float, W_max: float, P_max_squared: float, steps: int
) -> Bound:
    """T4, an order without its constant: mean E||grad f(W)||^2 <= O(sqrt(gap sigma^2 L / K) / (1 - 33 P_max^2/tau^2)).

    There is no asymptotic error: the one term goes to 0 with K.

    Args:
        gap: f(W_0) - f*. W_max: max|W_k|. P_max_squared: E||P||^2_inf, measured or `tiki_taka_residual`.

    Source: Wu et al. 2024, Thm. 4, steps alpha = O(1 / sqrt(sigma^2 K)), beta = 8 alpha L. Assumes: A1 to A3, A5, both
    crossbars F = 1, G = w / tau; checks A4 and 33 P_max^2 < tau^2.
    """
    need_numbers(
        "tiki_taka_bound",
        {"L": L, "sigma": sigma, "tau": tau, "steps": steps},
        {"gap": gap, "W_max": W_max, "P_max_squared": P_max_squared},
    )
    share = 33.0 * P_max_squared / tau**2
    holds = assume(W_max < tau, f"A4: max|W| = {W_max:g} is not below tau = {tau:g}")
    holds &= assume(share < 1.0, f"Theorem 4: 33 P_max^2 / tau^2 = {share:g} is not below 1")
    transient = math.sqrt(gap * sigma**2 * L / steps) / (1.0 - share) if holds else math.inf
    return Bound({"transient": transient}, is_order=True)


def residual_learning_bound(*, mu: float, sigma: float, q_min: float, S_K: float, steps: int) -> Bound:
    """T8, an order without constants: E_K <= O(sqrt(sigma^2 / K) + sigma^2 S_K).

    E_K is the mean of ||grad f(Wbar)||^2 + O(||P - P*(W)||^2) + O(||W - W*||^2), Wbar = W + gamma P.

    Args:
        mu: strong convexity. q_min: smallest response factor of the states in use. S_K: mean over steps of max G^2/F of
            the fast crossbar (`response_range`, `drift`).

    Source: Wu et al. 2025, Thm. 3. Assumes: smooth f, unbiased noise of bounded variance; checks mu > 0 and q_min > 0.
    """
    need_numbers("residual_learning_bound", {"steps": steps}, {"sigma": sigma, "S_K": S_K})
    holds = _is_strongly_convex(mu)
    holds &= assume(q_min > 0.0, f"Definition 1: q_min = {q_min:g} is not above 0")
    terms = {"noise": sigma / math.sqrt(steps), "asymmetry": sigma**2 * S_K}
    return Bound(terms if holds else dict.fromkeys(terms, math.inf), is_order=True)


def exact_residual_learning_bound(
    *, mu: float, L: float, sigma: float, q_min: float, symmetric_point: float, gamma: float, steps: int
) -> Bound:
    """C1, an order without its constant: E_K of T8 <= O(sqrt(sigma^2 L / K)), no asymptotic error.

    Args:
        symmetric_point: of the fast crossbar, has to be 0. gamma: share of the fast crossbar in the weight.

    Source: Wu et al. 2025, Cor. 1. Assumes: as T8; checks G(0) = 0 and gamma >= q_min^(-2/5), the theorem's
    Omega(q_min^(-2/5)) with 1 for the constant that it leaves open.
    """
    need_numbers("exact_residual_learning_bound", {"L": L, "steps": steps}, {"sigma": sigma, "gamma": gamma})
    holds = _is_strongly_convex(mu)
    holds &= assume(
        symmetric_point == 0.0, f"G(0) = 0: the fast crossbar's symmetric point is {symmetric_point:g}, not 0"
    )
    holds &= assume(q_min > 0.0, f"Definition 1: q_min = {q_min:g} is not above 0")
    least = q_min**-0.4 if q_min > 0.0 else math.inf
    holds &= assume(gamma >= least, f"Corollary 1: gamma = {gamma:g} is below q_min^(-2/5) = {least:g}")
    return Bound({"noise": sigma * math.sqrt(L / steps) if holds else math.inf}, is_order=True)


def rate_factors(*, P_max_squared: float, tau: float) -> tuple[float, float]:
    """T9: what saturation of P multiplies the rate by, without (gamma = 0) and with a share of P in the weight.

        1 / (1 - 33 P_max^2/tau^2),    1 / (1 - P_max^2/tau^2)

    Source: Wu et al. 2025, Table 2, of linear responses; the two rest on different assumptions. Assumes: A4; checks
    that each denominator is above 0, and gives infinity otherwise.

    >>> rate_factors(P_max_squared=0.0, tau=1.0)
    (1.0, 1.0)
    """
    need_numbers("rate_factors", {"tau": tau}, {"P_max_squared": P_max_squared})
    share = P_max_squared / tau**2
    without = assume(33.0 * share < 1.0, f"Theorem 4: 33 P_max^2 / tau^2 = {33.0 * share:g} is not below 1")
    with_gamma = assume(share < 1.0, f"A4: P_max^2 / tau^2 = {share:g} is not below 1")
    return 1.0 / (1.0 - 33.0 * share) if without else math.inf, 1.0 / (1.0 - share) if with_gamma else math.inf


def granular_sgd_bound(
    *, gap: float, L: float, mu: float, sigma: float, tau: float, W_max: float, S_T: float, dw_min: float, steps: int
) -> Bound:
    """T10, orders without constants, of Analog SGD by pulses of dw_min: mean E||W* - W||^2 <= O(the sum of the terms).

    Args:
        S_T: as S_K of `saturation_sum`. W_max: max|W_k|; R_T = 2L / (1 - W_max^2/tau^2) stands for its mean over steps.

    Source: arXiv 2510.02516, Thm. 1, and Thm. 2: the last two terms are a lower bound too; there 4 sigma^2 S_T.
    Assumes: smooth f, unbiased noise of bounded variance; checks mu > 0 and A4.
    """
    need_numbers(
        "granular_sgd_bound",
        {"L": L, "tau": tau, "steps": steps},
        {"gap": gap, "sigma": sigma, "W_max": W_max, "S_T": S_T, "dw_min": dw_min},
    )
    holds = _is_strongly_convex(mu)
    holds &= assume(W_max < tau, f"A4: max|W| = {W_max:g} is not below tau = {tau:g}")
    R_T = 2.0 * L / (1.0 - (W_max / tau) ** 2) if holds else math.inf
    terms = {
        "transient": R_T * math.sqrt(2.0 * gap * sigma**2 / steps),
        "asymmetry": sigma**2 * S_T,
        "granularity": R_T * dw_min,
    }
    return Bound(terms if holds else dict.fromkeys(terms, math.inf), is_order=True)


def multi_tile_bound(*, mu: float, sigma: float, gamma: float, n_tiles: int, dw_min: float) -> Bound:
    """T11, an order without its constant: limsup E||W* - Wbar||^2 <= Theta(gamma^(2N/3) (sigma dw_min)^(2/3)).

    Each tile more divides the bound by gamma^(-2/3). How fast it is reached, (1 - rho)^(gamma^(2N) t), needs a rho that
    the theorem does not name.

    Args:
        n_tiles: N + 1. gamma: weight of a tile relative to the next coarser one.

    Source: arXiv 2510.02516, Thm. 3 and Cor. 1. Assumes: smooth f, unbiased noise, G(w) = 0 only at 0, clocks of the
    tiles far enough apart (T_n >= Theta(1/gamma)), which is not checked; checks mu > 0 and gamma <= 1 / sqrt 6.
    """
    need_numbers("multi_tile_bound", {"gamma": gamma, "n_tiles": n_tiles}, {"sigma": sigma, "dw_min": dw_min})
    holds = _is_strongly_convex(mu)
    holds &= assume(gamma <= GAMMA_MOST, f"Theorem 3: gamma = {gamma:g} is above 1 / sqrt 6 = {GAMMA_MOST:.4g}")
    floor = gamma ** (2.0 * (n_tiles - 1) / 3.0) * (sigma * dw_min) ** (2.0 / 3.0)
    return Bound({"granularity": floor if holds else math.inf}, is_order=True)


def rider_bound(
    *,
    L: float,
    mu: float,
    sigma: float,
    q_min: float,
    q_max: float,
    dw_min: float,
    mean_abs_gradient: float,
    steps: int,
) -> Bound:
    """T13, orders without constants: E_K <= O(kappa_1 kappa_2^5 / sqrt K) + Theta(dw_min).

    With kappa_1 = L / mu and kappa_2 = q_max / q_min, our reading of names that the theorem does not define. No term is
    due to the symmetric point, wherever it lies.

    Args:
        mean_abs_gradient: the smallest E|g| of an entry along the run.

    Source: arXiv 2602.21321, Thm. 3.7. Assumes: smooth f, unbiased noise, alpha = Theta(1 / sqrt K); checks mu > 0,
    q_min > 0 and mean_abs_gradient >= C* = 4 sqrt 2 (sigma / mu) (q_max / q_min)^(3/2).
    """
    need_numbers(
        "rider_bound",
        {"L": L, "q_max": q_max, "steps": steps},
        {"sigma": sigma, "dw_min": dw_min, "mean_abs_gradient": mean_abs_gradient},
    )
    holds = _is_strongly_convex(mu)
    holds &= assume(q_min > 0.0, f"Definition 1: q_min = {q_min:g} is not above 0")
    if not holds:
        return Bound({"transient": math.inf, "granularity": math.inf}, is_order=True)
    least = 4.0 * math.sqrt(2.0) * sigma / mu * (q_max / q_min) ** 1.5
    holds = assume(mean_abs_gradient >= least, f"Theorem 3.7: E|g| = {mean_abs_gradient:g} is below C* = {least:g}")
    terms = {"transient": L / mu * (q_max / q_min) ** 5 / math.sqrt(steps), "granularity": dw_min}
    return Bound(terms if holds else dict.fromkeys(terms, math.inf), is_order=True)


def calibration_pulses(*, delta: float, dw_min: float) -> dict[str, float]:
    """Orders of all pulses until E_K is delta: RIDER's, and those of zero-shifting first and then training.

        "tracking": delta^-2,    "two stages": delta^-2 + delta^-1 dw_min^-1

    Source: arXiv 2602.21321, Cor. 3.9. Assumes: those of T13; checks delta >= dw_min, below which neither gets.

    >>> calibration_pulses(delta=0.5, dw_min=0.25)
    {'tracking': 4.0, 'two stages': 12.0}
    """
    need_numbers("calibration_pulses", {"delta": delta, "dw_min": dw_min})
    holds = assume(delta >= dw_min, f"Corollary 3.9: delta = {delta:g} is below dw_min = {dw_min:g}")
    orders = {"tracking": delta**-2, "two stages": delta**-2 + 1.0 / (delta * dw_min)}
    return orders if holds else dict.fromkeys(orders, math.inf)


def _is_strongly_convex(mu: float) -> bool:
    return assume(mu > 0.0, f"strong convexity: mu = {mu:g} is not above 0", depth=1)
