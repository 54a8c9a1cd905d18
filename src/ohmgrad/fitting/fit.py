"""A device family fitted to readings by maximum likelihood, with standard errors.

The likelihood is that of `filter`. It is climbed by Fisher's scoring: with e_k and S_k the error and variance of each
reading given those before it and t a parameter, the information is

    I_ij = sum_k  de_k/dt_i de_k/dt_j / S_k  +  dS_k/dt_i dS_k/dt_j / (2 S_k^2)

and its inverse, at the top, the covariance of the estimates. Parameters are those of the family's dataclass: steps,
bounds, noise, and every number of its own. A family that wants some of its own kept, or in a range, says so in
`fitted`; nothing else here knows of families.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import optimize

from ohmgrad.devices.base import Device
from ohmgrad.fitting.filter import Prediction, predict
from ohmgrad.fitting.readings import Readings

SHARED = tuple(f.name for f in dataclasses.fields(Device))
NOTHING = (-math.inf, math.inf)
STEP = 1e-6  # of the differences that stand for derivatives, in units of a coordinate
BEYOND = 100.0  # bounds at most: readings lie in -1 ... 1, and farther ones would be the same law
SHORT, LONG = 12, 150  # steps of a climb: from a start, and from the best end of several guesses
NEAR = 0.02  # standard errors from the top: near enough
SHARES = (0.01, 0.1, 0.3, 0.6, 0.9)  # of noise that may be the readings'
FAR = 25.0  # coordinates are logarithms: nothing is that far


@dataclass(frozen=True)
class Coordinate:
    """One number of a device that is free, on a scale without ends: its inverse sinh, its logarithm, or its logit.

    index: of which entry, where the field is a tuple.
    """

    name: str
    low: float
    high: float
    index: int | None = None

    def value(self, x: float) -> float:
        """The number at coordinate x."""
        x = min(max(x, -FAR), FAR)
        if self.low > -math.inf and self.high < math.inf:
            return self.low + (self.high - self.low) / (1.0 + math.exp(-x))
        if self.low > -math.inf:
            return self.low + math.exp(x)
        return self.high - math.exp(-x) if self.high < math.inf else math.sinh(x)

    def place(self, value: float) -> float:
        """The coordinate of a number; of one at an end, where nothing would move it, a place within."""
        above, below = value - self.low, self.high - value
        if above < math.inf and below < math.inf:
            share = above / (above + below)
            share = share if 1e-6 < share < 1.0 - 1e-6 else min(max(share, 1e-2), 1.0 - 1e-2)
            return math.log(share / (1.0 - share))
        if above < math.inf:
            return math.log(above if above > 1e-9 else 0.3)
        return -math.log(below if below > 1e-9 else 0.3) if below < math.inf else math.asinh(value)


@dataclass(frozen=True)
class Fit:
    """A fitted device.

    device: with the estimates. errors: standard errors by field (entries of tables as name[i]), and of the two steps,
    dw_up and dw_down; infinite where the readings say nothing. log_likelihood: of all scored readings. n_free: free
    parameters. n: scored readings.
    """

    device: Device
    errors: dict[str, float]
    log_likelihood: float
    n_free: int
    n: int


def fit(family: type[Device] | Device, readings: Readings, start: Sequence[Device] | None = None) -> Fit:
    """The family's most likely device.

    Args:
        family: or one of its devices, whose fields that are not free (its kind of noise, say) are kept.
        start: devices to start from; else guesses from the readings.

    Raises:
        ValueError: the family cannot be fitted: it has nothing to fit, or no start has a finite likelihood.
    """
    base = family() if isinstance(family, type) else family
    if not (starts := list(start or guesses(base, readings))):
        raise ValueError(
            f"{type(base).__name__} cannot be fitted: its own numbers allow no bounds as wide as the readings"
        )
    space = Space(starts[0], coordinates(starts[0], readings))
    places = [x for device in starts if math.isfinite(_loss(space, readings, x := space.place(device)))]
    if not places:
        raise ValueError(f"{type(base).__name__} cannot be fitted: no start has a finite likelihood")
    ends = sorted((_climb(space, readings, x, SHORT) for x in places), key=lambda end: end[1])
    if start is None:
        best = {space.signs(x): x for x, _ in ends[::-1]}  # of each shape the likeliest
        ends = [_climb(space, readings, x, LONG) for x in best.values()]
    x = min(ends, key=lambda end: end[1])[0]
    loss, _, information = _score(space, readings, x)
    covariance = np.linalg.pinv(information, rcond=1e-13, hermitian=True)
    weak = np.diag(information) <= 1e-9  # flat: pinv would call it exact
    return Fit(
        device=space.device(x),
        errors=_errors(space, x, covariance, weak),
        log_likelihood=-loss - 0.5 * float(readings.is_scored.sum()) * math.log(2.0 * math.pi),
        n_free=len(x),
        n=int(readings.is_scored.sum()),
    )


def coordinates(device: Device, readings: Readings) -> list[Coordinate]:
    """What of a device is free. Tables say nothing of states beyond all readings, so their bounds lie within."""
    family, positive, own = type(device), (0.0, math.inf), _own(device)
    free: list[Coordinate] = []
    low, high = -BEYOND, BEYOND
    if family.tables:
        low, high = min(float(np.nanmin(readings.y)), -0.01), max(float(np.nanmax(readings.y)), 0.01)
    else:  # of tables they would only multiply the entries
        free = [Coordinate("dw_up", *positive), Coordinate("dw_down", *positive)]
    ranges = {"w_max": (0.0, high), "w_min": (low, 0.0)}
    free += [Coordinate(name, *ends) for name, ends in ranges.items() if math.isfinite(getattr(device, name))]
    for name in own:
        value, (low, high) = getattr(device, name), (family.fitted or {}).get(name, NOTHING)
        entries = range(len(value)) if isinstance(value, tuple) else [None]
        free += [Coordinate(name, low, high, i) for i in entries]
    if device.ctoc != "own" or not family.tables:
        free.append(Coordinate("dw_min_ctoc", *positive))
    return [*free, Coordinate("write_noise", *positive)]


def _own(device: Device) -> list[str]:
    """Numbers of the family's own that a fit may change."""
    family = type(device)
    hints = typing.get_type_hints(family)
    kinds = (float, tuple[float, ...])
    own = [f.name for f in dataclasses.fields(device) if f.name not in SHARED and hints[f.name] in kinds]
    own = [name for name in own if not name.endswith(("_dtod", "_std"))]
    return own if family.fitted is None else [name for name in own if name in family.fitted]


@dataclass(frozen=True)
class Space:
    """Devices of one family as vectors."""

    base: Device
    free: list[Coordinate]

    def device(self, x: np.ndarray) -> Device:
        """The device at x. Raises ValueError where it breaks a rule."""
        values = [c.value(v) for c, v in zip(self.free, x, strict=True)]
        fields: dict[str, Any] = {}
        for c, value in zip(self.free, values, strict=True):
            if c.index is None:
                fields[c.name] = value
            else:
                fields[c.name] = (*fields.get(c.name, ()), value)
        up, down = fields.pop("dw_up", None), fields.pop("dw_down", None)
        if up is not None:
            fields |= {"dw_min": max(up, down), "up_down": 1.0 - down / up if up > down else up / down - 1.0}
        return dataclasses.replace(self.base, **fields)

    def place(self, device: Device) -> np.ndarray:
        """The vector of a device."""
        steps = {
            "dw_up": device.dw_min * (1.0 + min(device.up_down, 0.0)),
            "dw_down": device.dw_min * (1.0 - max(device.up_down, 0.0)),
        }
        values: list[Any] = [steps[c.name] if c.name in steps else getattr(device, c.name) for c in self.free]
        pairs = zip(self.free, values, strict=True)
        return np.array([c.place(v if c.index is None else v[c.index]) for c, v in pairs])

    def signs(self, x: np.ndarray) -> tuple[float, ...]:
        """Of all numbers: what a climb from here seldom changes, and what makes the kind of shape."""
        return tuple(math.copysign(1.0, c.value(v)) for c, v in zip(self.free, x, strict=True))

    def numbers(self, x: np.ndarray) -> dict[str, float]:
        """What errors are stated of, by field; entries of tuples as name[i]."""
        device, names = self.device(x), {}
        for c in self.free:
            if c.name == "dw_up":
                names |= {"dw_min": device.dw_min, "up_down": device.up_down}
            if c.name in ("dw_up", "dw_down"):
                names[c.name] = c.value(x[self.free.index(c)])
            else:
                value = getattr(device, c.name)
                names[c.name if c.index is None else f"{c.name}[{c.index}]"] = (
                    value if c.index is None else value[c.index]
                )
        return names


def guesses(base: Device, readings: Readings) -> list[Device]:
    """Devices to start from: bounds at the ramps' ends and beyond, steps by least squares of the differences, noise
    from what that leaves; of own numbers with the same signs, which make one kind of shape, those that leave least."""
    change = np.diff(readings.y, prepend=np.nan)
    change[readings.first] = np.nan
    found: list[Device] = []
    for bounds in _bounds(base, readings):
        best: dict[tuple[float, ...], tuple[float, Device, np.ndarray]] = {}
        for own in _own_starts(base, bounds):
            try:
                device, rest = _stepping(dataclasses.replace(base, up_down=0.0, **bounds, **own), readings, change)
            except ValueError:  # a rule that ties its numbers to its bounds
                continue
            signs, misfit = tuple(float(np.sign(v)) for v in own.values()), float(np.nansum(rest**2))
            if signs not in best or misfit < best[signs][0]:
                best[signs] = misfit, device, rest
        found += [_noisy(device, rest, readings) for _, device, rest in best.values()]
    return found


def _noisy(device: Device, rest: np.ndarray, readings: Readings) -> Device:
    """With noise of steps and of readings that explain what is left of each difference: shared so that the readings
    are likeliest. (How differences go together does not tell: a response that is wrong yet makes them all stray alike.)
    """
    variance = max(float(np.nanvar(rest)), 1e-16)
    pairs = [(math.sqrt((1.0 - s) * variance), math.sqrt(s * variance / 2.0)) for s in SHARES]
    made = [
        dataclasses.replace(device, dw_min_ctoc=step / device.dw_min, write_noise=reading / device.dw_min)
        for step, reading in pairs
    ]
    return min(made, key=lambda one: _misfit(one, readings))


def _bounds(base: Device, readings: Readings) -> list[dict[str, float]]:
    """Bounds to start from: where ramps end, and a tenth of the range beyond; those of tables, where readings end."""
    y, up = readings.y, readings.up
    if type(base).tables:  # with their noise and without
        ends = [(float(np.nanquantile(y, 1.0 - q)), float(np.nanquantile(y, q))) for q in (0.0, 0.02)]
    else:
        turns = np.flatnonzero(np.append(readings.first[1:] | (up[1:] != up[:-1]), True))
        top, bottom = (float(np.nanmedian(y[turns[up[turns] == is_up]])) for is_up in (True, False))
        beyond = 0.1 * (top - bottom)
        ends = [(top, bottom), (top + beyond, bottom - beyond)]
    wide = [{"w_max": max(float(top), 0.01), "w_min": min(float(bottom), -0.01)} for top, bottom in ends]
    return [{name: v for name, v in bounds.items() if math.isfinite(getattr(base, name))} for bounds in wide]


def _stepping(device: Device, readings: Readings, change: np.ndarray) -> tuple[Device, np.ndarray]:
    """With steps of the size that fits the differences best, up and down; and what is left of each difference.

    Differences at the bound, which say nothing of the step, do not count for its size.
    """
    steps, rest = [], np.full_like(change, np.nan)
    for up in (True, False):
        own = np.flatnonzero(~np.isnan(change) & (readings.up == up))
        y, last = change[own], np.clip(readings.y[own - 1], device.w_min, device.w_max)
        shape = device.step(torch.from_numpy(last), up).numpy() / device.dw_min
        room = (device.w_max if up else device.w_min) - last
        inside = np.abs(room) > 0.05 * (device.w_max - device.w_min)
        x = np.where(inside, shape, 0.0)
        size = float(x @ y) / max(float(x @ x), 1e-12)
        steps.append(max(size, 1e-3 * float(np.abs(y).mean()), 1e-9))
        said = steps[-1] * shape
        rest[own] = y - np.where(np.abs(said) < np.abs(room), said, room)
    up, down = steps
    balance = 1.0 - down / up if up > down else up / down - 1.0
    return dataclasses.replace(device, dw_min=max(up, down), up_down=balance), rest


def _own_starts(base: Device, bounds: dict[str, float]) -> list[dict[str, Any]]:
    """Numbers of the family's own to start from: its defaults; those that it gives for these bounds; else from small to
    large ones where only a lower end is given."""
    names = [name for name in _own(base) if name not in type(base).tables]
    ranges = {name: (type(base).fitted or {}).get(name, NOTHING) for name in names}
    lows = {name: low for name, (low, high) in ranges.items() if low > -math.inf and high == math.inf}
    try:
        given = list(dataclasses.replace(base, **bounds).starts())
    except ValueError:  # its defaults allow no such bounds
        given = []
    return [{}, *(given or ({name: low + x for name, low in lows.items()} for x in (0.03, 0.1, 0.3, 1.0, 3.0) if lows))]


def _climb(space: Space, readings: Readings, x: np.ndarray, steps: int) -> tuple[np.ndarray, float]:
    """The top of the likelihood near x, and minus its logarithm."""
    seen: dict[bytes, tuple[float, np.ndarray, np.ndarray]] = {}

    def at(v: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        key = v.tobytes()
        if key not in seen:
            seen.clear()
            try:
                seen[key] = _score(space, readings, v)
            except (ValueError, OverflowError):  # no device is there; the loss says so too
                seen[key] = math.inf, np.zeros_like(v), np.eye(len(v))
        return seen[key]

    def stop_near_the_top(intermediate_result: optimize.OptimizeResult) -> None:
        _, gradient, information = at(intermediate_result.x)
        if gradient @ np.linalg.lstsq(information, gradient, rcond=1e-13)[0] < NEAR**2:
            raise StopIteration

    options = {"gtol": 1e-6, "maxiter": steps, "initial_trust_radius": 0.3, "max_trust_radius": 1.0}
    found = optimize.minimize(
        lambda v: _loss(space, readings, v), x, jac=lambda v: at(v)[1], hess=lambda v: at(v)[2],
        method="trust-exact", options=options, callback=stop_near_the_top,
    )  # fmt: skip
    return found.x, float(found.fun)


def _loss(space: Space, readings: Readings, x: np.ndarray) -> float:
    """Minus the logarithm of the likelihood, but for a constant."""
    try:
        return _misfit(space.device(x), readings)
    except (ValueError, OverflowError):
        return math.inf


def _misfit(device: Device, readings: Readings) -> float:
    """The same of a device."""
    with np.errstate(all="ignore"):
        terms = log_terms(predict(device, readings), readings)
    return float(-terms.sum()) if np.isfinite(terms).all() else math.inf


def log_terms(p: Prediction, readings: Readings, where: np.ndarray | None = None) -> np.ndarray:
    """Logarithm of the density of each scored reading, but for -log(2 pi)/2."""
    at = readings.is_scored if where is None else where
    return -0.5 * (np.log(p.variance[at]) + (readings.y[at] - p.mean[at]) ** 2 / p.variance[at])


def _score(space: Space, readings: Readings, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Minus the logarithm of the likelihood, its gradient, and Fisher's information."""
    at = readings.is_scored

    def law(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = predict(space.device(v), readings)
        return p.mean[at], p.variance[at]

    mean, variance = law(x)
    d_mean, d_variance = np.empty((len(x), at.sum())), np.empty((len(x), at.sum()))
    for i in range(len(x)):
        moved = x.copy()
        moved[i] += STEP
        m, s = law(moved)
        d_mean[i], d_variance[i] = (m - mean) / STEP, (s - variance) / STEP / variance
    error = readings.y[at] - mean
    loss = 0.5 * float((np.log(variance) + error**2 / variance).sum())
    gradient = -d_mean @ (error / variance) + 0.5 * d_variance @ (1.0 - error**2 / variance)
    information = (d_mean / variance) @ d_mean.T + 0.5 * d_variance @ d_variance.T
    return loss, gradient, information


def _errors(space: Space, x: np.ndarray, covariance: np.ndarray, weak: np.ndarray) -> dict[str, float]:
    """Standard errors of the device's numbers: the covariance through the derivatives of each."""
    numbers = space.numbers(x)
    slopes = np.zeros((len(numbers), len(x)))
    for i in range(len(x)):
        moved = x.copy()
        moved[i] += STEP
        slopes[:, i] = [(b - a) / STEP for a, b in zip(numbers.values(), space.numbers(moved).values(), strict=True)]
    errors = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", slopes, covariance, slopes), 0.0))
    errors[(np.abs(slopes[:, weak]) > 0.0).any(1)] = np.inf
    return dict(zip(numbers, map(float, errors), strict=True))
