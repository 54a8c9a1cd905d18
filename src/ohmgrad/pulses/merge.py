"""The n pulses of one train at once, for devices whose response is affine in w; written once for all targets.

The pulses of a train at one crosspoint have one direction. With a step C + S w per pulse they compose to

    w_n = w + (C + S w) ((1 + S)^n - 1) / S,    (1 + S)^n = e^y,  y = n log(1 + S)

Multiplicative noise makes the distance u = w + C/S from the fixed point a product of independent factors,
u_n = u prod_k (1 + S)(1 + a xi_k) with a = s S / (1 + S), which up to terms of relative order a^2 n is
u (1 + S)^n (1 + a sqrt(n) z + a^2 (n - 1) (z^2 - 1) / 2) with one standard normal z, right in mean, variance and
skewness. Additive noise adds up, exactly, to one normal of variance
s^2 dw^2 ((1 + S)^2n - 1) / ((1 + S)^2 - 1).

Where a train may meet a hard bound, where n |S / (1 + S)| > 1/5 (the series below) or |a| sqrt(n) > 1/20 (the terms
left out), its pulses are applied one by one instead. The choice depends on the state and the number of pulses, never on
the noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ohmgrad.vocabulary import absolute, maximum, minimum, sqrt

if TYPE_CHECKING:
    from ohmgrad.devices.base import Device

REACH = 6.5  # standard deviations that a train is allowed to stray; no noise goes farther


def is_exact(device: Device) -> bool:
    """Whether the trains of such devices have this form at all."""
    return device.is_affine and device.ctoc != "own"


def inverse(s):
    """1 / (1 + S)."""
    return 1.0 / (1.0 + s)


def rate(s):
    """log(1 + S) / S, to 1e-7 for |S| <= 1/4: twice the series of the area tangent."""
    half = 1.0 / (2.0 + s)
    q = s * half * (s * half)
    return 2.0 * half * (1.0 + q * (0.33333334 + q * (0.2 + q * 0.14285715)))


def longest(s, sigma):
    """The most pulses that may be merged, far from the bounds; s is over 1 + S."""
    r = 1.0 / maximum(absolute(s), 1e-30)
    return r * minimum(0.2, 0.0025 / maximum(sigma * sigma, 1e-30) * r)


def growth(y):
    """(e^y - 1) / y for |y| <= 1/4, to 2e-7 of it."""
    return 1.0 + y * (0.5 + y * (0.16666667 + y * (0.041666668 + y * 0.008333334)))


def multiplicative(w, n, c, s, h, v, sigma, z):
    """Change of w by n pulses, and its noise and spread, when each step's noise is sigma times the step.

    c, s: C and S; h: `rate`; v: `inverse`.
    """
    g, t = c + s * w, n * h
    y = t * s
    p = growth(y)
    root, scale = sqrt(n), (1.0 + y * p) * g * v * sigma
    curvature = 0.5 * sigma * s * v * (n - 1.0)
    return g * t * p, scale * (root * z + curvature * (z * z - 1.0)), absolute(scale) * root


def additive(w, n, c, s, h, dw, sigma, z):
    """Change of w by n pulses, and its noise and spread, when each step's noise is sigma times dw."""
    t = n * h
    y = t * s
    p = growth(y)
    one = h * s  # log(1 + S)
    squares = n * p * (1.0 + 0.5 * y * p) * (1.0 - one * (1.0 - 0.33333334 * one))
    spread = sigma * dw * sqrt(squares)
    return (c + s * w) * t * p, spread * z, spread


def is_mergeable(w, change, spread, n, most, low, high):
    """Whether the law of n > 1 pulses at once is that of n pulses one by one; most: `longest`."""
    top = maximum(w, w + change) + REACH * spread
    bottom = minimum(w, w + change) - REACH * spread
    return (n <= most) & (top <= high) & (bottom >= low)


def pulse(w, step, noise, z, low, high):
    """One pulse with its noise, then the hard bounds."""
    return minimum(maximum(w + (step + noise * z), low), high)
