"""The likelihood of readings under a device: a filter of its state from pulse to pulse, compiled with its response.

State and reading, in units of w, with s the response, d the direction of pulse k, xi and eta standard normals:

    v_k = clip(v_{k-1} + s(v_{k-1}, d_k) + noise_k xi_k),    y_k = v_k + write_noise dw_min eta_k

the element of `ohmgrad.devices` pulse by pulse: noise_k is the device's: of its step, of dw_min, or its own. What
is known of v is kept as a normal law; a step moves its mean by s and its variance by (1 + s')^2, the bounds cut it, a
reading narrows it (the extended Kalman filter; exact for affine responses away from the bounds). Each reading then has
a mean and a variance given all before it, whose product of normal densities is the likelihood. The response is the
device's own, from its source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ohmgrad.devices.base import CTOC, Device, response_arguments
from ohmgrad.fitting.readings import Readings
from ohmgrad.pulses.numba_target import INLINE, NUMBA, njit, specialised
from ohmgrad.vocabulary import Target, fingerprint, retarget

FLOAT64 = Target(namespace=NUMBA.namespace, number=float, word=NUMBA.word, compile=NUMBA.compile)
MULTIPLICATIVE, ADDITIVE, OWN = range(3)  # kinds of noise, by their places in CTOC
PLACES = ("w_min", "w_max", "dw_up", "dw_down")


@dataclass(frozen=True)
class Prediction:
    """Of each reading, given all before it: mean and variance, (n,)."""

    mean: np.ndarray
    variance: np.ndarray


def predict(device: Device, readings: Readings) -> Prediction:
    """What the mean device says of each reading, given all before it."""
    params = device.nominal()
    names = (*PLACES, *type(device).own_parameters())
    numbers = np.array([float(params[name]) for name in names])
    rows = [(len(params[k]) - 1, *params[k], params[k][-1]) for k in type(device).tables]  # see its `interpolate`
    tables = np.array(rows, np.float64).reshape(len(rows), -1 if rows else 0)
    amount = np.array([device.dw_min_ctoc, device.write_noise * device.dw_min])
    mean, variance = np.empty_like(readings.y), np.empty_like(readings.y)
    run, kind = kernel_of(type(device)), CTOC.index(device.ctoc)
    run(readings.y, readings.up, readings.first, numbers, tables, amount, kind, mean, variance)
    return Prediction(mean, variance)


def template(y, up, first, params, tables, amount, kind, mean, variance):
    """`predict` on arrays; amount: dw_min_ctoc, and the standard deviation of a reading; kind: of noise, as in CTOC."""
    low, high, reading = params[0], params[1], amount[1] * amount[1]
    m, p = 0.0, 0.0
    for k in range(y.size):
        if first[k]:
            m, p = min(max(y[k], low), high), reading
            mean[k], variance[k] = y[k], 1.0
            continue
        s = step(m, up[k], params, tables)
        h = 1e-4 * (abs(m) + abs(s) + 1e-3)
        slope = (step(m + h, up[k], params, tables) - step(m - h, up[k], params, tables)) / (2.0 * h)
        unit = s
        if kind == ADDITIVE:
            unit = params[2] if up[k] else params[3]
        elif kind == OWN:
            unit = noise(m, up[k], s, params, tables)
        spread = amount[0] * amount[0] * (unit * unit + (slope * slope * p if kind == MULTIPLICATIVE else 0.0))
        m, p = cut(m + s, (1.0 + slope) * (1.0 + slope) * p + spread, low, high)
        mean[k], variance[k] = m, max(p + reading, 1e-18)
        if not np.isnan(y[k]):
            gain = p / variance[k]
            m = min(max(m + gain * (y[k] - m), low), high)
            p *= 1.0 - gain


def cut(m, p, low, high):
    """Mean and variance of a normal law whose tails are put on the bounds."""
    sd = math.sqrt(p)
    if sd == 0.0 or (m - low > 6.0 * sd and high - m > 6.0 * sd):
        return min(max(m, low), high), p
    a, b = max((low - m) / sd, -40.0), min((high - m) / sd, 40.0)
    below, above = 0.5 * math.erfc(-a * ROOT_HALF), 0.5 * math.erfc(b * ROOT_HALF)
    at_a, at_b = DENSITY * math.exp(-0.5 * a * a), DENSITY * math.exp(-0.5 * b * b)
    one = a * below + b * above + at_a - at_b
    two = a * a * below + b * b * above + (1.0 - below - above) + a * at_a - b * at_b
    return min(max(m + sd * one, low), high), p * max(two - one * one, 0.0)


ROOT_HALF, DENSITY = math.sqrt(0.5), 1.0 / math.sqrt(2.0 * math.pi)


@cache
def kernel_of(family: type[Device]) -> Any:
    """The filter with the response of a family inside, in float64."""
    places = (*PLACES, *family.own_parameters())
    given = ", ".join(
        "dw" if k == "dw_min" else f"(tables, {family.tables.index(k)}, 0)" if k in family.tables
        else f"params[{places.index(k)}]" for k in response_arguments(family)
    )  # fmt: skip
    source = f"""
def step(w, up, params, tables):
    dw = params[2] if up else params[3]
    return response(w, up, {given})


def noise(w, up, change, params, tables):
    dw = params[2] if up else params[3]
    return spread(w, up, change, {given})
"""
    scope: dict[str, Any] = {"response": retarget(family.response, FLOAT64)}
    if family.noise:
        scope["spread"] = retarget(family.noise, FLOAT64)
    exec(source, scope)  # calls with the family's own arguments
    own = {"step": njit(**INLINE)(scope["step"]), "noise": njit(**INLINE)(scope["noise"]) if family.noise else no_noise}
    parts = [fingerprint(f) for f in (family.response, family.noise) if f]
    return specialised(template, "_".join(["filter", family.__name__, *parts]), **own)


@njit(**INLINE)
def no_noise(w, up, change, params, tables):
    """Of a family that has none of its own; `Device` allows it no such kind."""
    return change


# Of `template`: signed change by a noise-free pulse, and the noise of the family's own. `kernel_of` puts them in place.
step: Any = None
noise: Any = None
