"""The n pulses of one train at once, for devices whose response is affine in w; written once for all targets.

The pulses of a train at one crosspoint have one direction. With a step C + S w per pulse they compose to

    w_n = w + (C + S w) ((1 + S)^n - 1) / S,    (1 + S)^n = e^y,  y = n log(1 + S)

Multiplicative noise makes the distance u = w + C/S from the fixed point a product of independent factors,
u_n = u prod_k (1 + S)(1 + a xi_k) with a = s S / (1 + S), which up to terms of relative order a^2 n is
u (1 + S)^n (1 + a sqrt(n) z + a^2 (n - 1) (z^2 - 1) / 2) with one standard normal z, right in mean, variance and
skewness. Additive noise adds up, exactly, to one normal of variance
s^2 dw^2 ((1 + S)^2n - 1) / ((1 + S)^2 - 1).

Where a train may come near a hard bound, where n |S / (1 + S)| > 1/5 (the series below) or |a| sqrt(n) > 1/20 (the
terms left out), its pulses are applied one by one instead. The choice depends on the state and the number of pulses,
never on the noise. A train of one pulse is that pulse, to the bit.

Products and comparisons limit the kernels' speed, so that what does not depend on w and n is made beforehand
(`parts`). No sum here has two products to choose from: a compiler that fuses one of them would round the same train in
two ways.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ohmgrad.vocabulary import absolute, maximum, minimum, sqrt, where

if TYPE_CHECKING:
    from ohmgrad.devices.base import Device

REACH = 6.5  # standard deviations that a train is allowed to stray; no noise goes farther


def is_exact(device: Device) -> bool:
    """Whether the trains of such devices have this form at all."""
    return device.is_affine and device.ctoc != "own"


def parts(s, sigma):
    """What the law of steps C + S w needs of S and the noise: (h, y, v, k, most)."""
    h = rate(s)
    return h, h * s, *noise(s, sigma), longest(s, sigma)


def noise(s, sigma):
    """sigma / (1 + S), and half of a."""
    v = sigma / (1.0 + s)
    return v, 0.5 * s * v


def rate(s):
    """h = log(1 + S) / S, to 1e-7 for |S| <= 1/4: twice the series of the area tangent."""
    half = 1.0 / (2.0 + s)
    q = s * half * (s * half)
    return 2.0 * half * (1.0 + q * (0.33333334 + q * (0.2 + q * 0.14285715)))


def longest(s, sigma):
    """The most pulses that may be merged, far from the bounds."""
    r = (1.0 + s) / maximum(absolute(s), 1e-30)
    return r * minimum(0.2, 0.0025 / maximum(sigma * sigma, 1e-30) * r)


def growth(y):
    """(e^y - 1) / y for |y| <= 0.22, to 6e-8 of it."""
    return 1.0 + y * (0.4999989 + y * (0.1666664 + y * (0.04175324 + y * 0.00834817)))


def multiplicative(w, n, c, s, h, y, v, k, sigma, z):
    """Mean change of w by n >= 0 pulses, the change, its spread, when each step's noise is sigma times the step.

    c, s: C and S. h, y, v, k: of `parts`, y = h s.
    """
    is_many, step, total = n > 1.0, c + s * w, n * y
    mean = step * where(is_many, n * h * growth(total), n)
    scale = where(is_many, v, sigma) * (step + where(is_many, s, 0.0) * mean)
    curvature, root = where(is_many, k, 0.0), sqrt(n)
    curvature = curvature * n - curvature
    return mean, mean + scale * (z * (root + curvature * z) - curvature), absolute(scale) * root


def additive(w, n, c, s, h, y, noise, z):
    """Mean change of w by n >= 0 pulses, the change, its spread, when each step's noise is `noise`."""
    is_many, step, total = n > 1.0, c + s * w, n * y
    p = growth(total)
    squares = n * p * (1.0 + 0.5 * total * p) * (1.0 - y * (1.0 - 0.33333334 * y))
    spread = noise * sqrt(where(is_many, squares, n))
    mean = step * where(is_many, n * h * p, n)
    return mean, mean + spread * z, spread


def is_mergeable(w, mean, spread, n, most, low, high):
    """Whether the law of n > 1 pulses at once is that of n pulses one by one; most: of `parts`."""
    reach = absolute(mean) + REACH * spread
    return (n <= most) & (w + reach <= high) & (w - reach >= low)


def move(w, change, low, high):
    """The weight moved by a change, within the hard bounds."""
    return minimum(maximum(w + change, low), high)
