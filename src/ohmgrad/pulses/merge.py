"""n pulses at once, for devices whose response is affine in w; written once for all targets.

With a step C + S w per pulse, noise-free trains compose to

    w_n = w + n (C + S w) phi(n, S),    phi(n, S) = ((1 + S)^n - 1) / (n S)

phi is the binomial series, exact for n <= 6. Multiplicative noise makes the distance u = w + C/S from the fixed point a
product of independent factors, u_n = u prod_k (1 + S)(1 + a xi_k) with a = s S / (1 + S), which up to terms of
relative order a^2 is u (1 + S)^n (1 + a sqrt(n) z + a^2 (n - 1) (z^2 - 1) / 2) with one standard normal z: exact for
n = 1, and right in mean, variance and skewness. Additive noise adds up to one normal of variance
s^2 dw^2 n phi(n, 2 S + S^2), exactly.

Where a train may meet a hard bound, where |n S| > 1/4 (the series) or |s S| > 1/20 (the terms left out), the pulses are
applied one by one instead; the choice depends on the state and the number of pulses alone, never on the noise. A
single pulse is itself.
"""

from __future__ import annotations

from ohmgrad.vocabulary import absolute, maximum, minimum, sqrt

REACH = 6.5  # standard deviations that a train is allowed to stray; beyond them lie 8e-11 of all trains


def phi(n, s):
    """((1 + s)^n - 1) / (n s) for n >= 1: binomial series, exact for n <= 6."""
    tail = 1.0 + (n - 5.0) * s * 0.16666667
    tail = 1.0 + (n - 4.0) * s * 0.2 * tail
    tail = 1.0 + (n - 3.0) * s * 0.25 * tail
    tail = 1.0 + (n - 2.0) * s * 0.33333334 * tail
    return 1.0 + (n - 1.0) * s * 0.5 * tail


def drift(w, n, c, s):
    """Noise-free change of w by n pulses of step c + s w."""
    return n * (c + s * w) * phi(n, s)


def multiplicative(w, n, c, s, inverse, sigma, z):
    """Noise of n pulses when each step's noise is sigma times the step, and its spread; inverse is 1 / (1 + s)."""
    root = sqrt(n)
    scale = (1.0 + n * s * phi(n, s)) * inverse * (c + s * w) * sigma
    curvature = 0.5 * sigma * s * inverse * (n - 1.0)
    return scale * (root * z + curvature * (z * z - 1.0)), absolute(scale) * root


def additive(n, s, dw, sigma, z):
    """Noise of n pulses when each step's noise is sigma times dw, and its spread."""
    spread = sigma * dw * sqrt(n * phi(n, s * (2.0 + s)))
    return spread * z, spread


def is_mergeable(w, change, spread, n, s, sigma, low, high):
    """Whether the law of n pulses at once is that of n pulses one by one."""
    top = maximum(w, w + change) + REACH * spread
    bottom = minimum(w, w + change) - REACH * spread
    is_small = (absolute(n * s) <= 0.25) & (absolute(sigma * s) <= 0.05)
    return (n <= 1.0) | (is_small & (top <= high) & (bottom >= low))


def pulse(w, step, noise, z, low, high):
    """One pulse with its noise, then the hard bounds."""
    return minimum(maximum(w + (step + noise * z), low), high)
