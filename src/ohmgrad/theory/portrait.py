"""What a device looks like: ramps, response, symmetric points, and what of it will limit training, in words."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.devices.base import Device, draw, noise
from ohmgrad.pulses.settings import ExpectedUpdate
from ohmgrad.theory.error import asymmetry

SHOWN = 8  # devices whose ramps are simulated
DRAWN = 1000  # devices whose symmetric points are found
READINGS = 200  # of a ramp, at most
SHARES = (0.25, 0.5, 0.75)  # of the way from the symmetric point to a bound, at which asymmetry is stated
# From where on something is said to limit training.
FEW_STATES, ASYMMETRIC, SCATTERED, NOISY, BLURRED = 100, 0.01, 0.02, 3.0, 0.02


@dataclass(frozen=True)
class Portrait:
    """Figures of a device.

    w: states, (n,) from bound to bound. q_up, q_down, F, G: of the mean device, (n,). pulses: (m,) of a ramp so far.
    up, down: ramps of `SHOWN` devices, (m, SHOWN), with all noise. symmetric_points: of devices that have one, (k,),
    and n_without, of DRAWN. point: of the mean device, NaN if it has none. n_states: range over the step. step_noise:
    standard deviation of a pulse's step over the step, at the symmetric point or else at 0. write_noise: of what is
    read, over half the range. asymmetries: S of the paper at SHARES, the factor of the gradient's noise where Analog
    SGD ends.
    """

    w: Tensor
    q_up: Tensor
    q_down: Tensor
    F: Tensor
    G: Tensor
    pulses: np.ndarray
    up: np.ndarray
    down: np.ndarray
    symmetric_points: np.ndarray
    n_without: int
    point: float
    n_states: float
    step_noise: float
    write_noise: float
    asymmetries: tuple[float, ...]

    @property
    def scatter(self) -> float:
        """Standard deviation of the symmetric points over half of the mean device's range; 0 for too few."""
        n = len(self.symmetric_points)
        return float(self.symmetric_points.std()) / self.half_range if n > 1 else 0.0

    @property
    def half_range(self) -> float:
        """Half of what lies between the bounds; of an unbounded device, of the states shown."""
        return float(self.w[-1] - self.w[0]) / 2.0


def portrait(device: Device, seed: int = 0) -> Portrait:
    """The figures of a device; ramps and symmetric points are of devices drawn from the seed."""
    nominal = device.nominal()
    low, high = max(float(nominal["w_min"]), -2.0 * _span(device)), min(float(nominal["w_max"]), 2.0 * _span(device))
    w = torch.linspace(low, high, 401, dtype=torch.float64)
    point = _point(device)
    pulses, up, down = _ramps(device, seed, low, high)
    points, n_without = _symmetric_points(device, seed)
    return Portrait(
        w=w,
        q_up=device.q_up(w),
        q_down=device.q_down(w),
        F=device.F(w),
        G=device.G(w),
        pulses=pulses,
        up=up,
        down=down,
        symmetric_points=points,
        n_without=n_without,
        point=point,
        n_states=device.n_states,
        step_noise=_step_noise(device, point),
        write_noise=device.write_noise * device.dw_min / ((high - low) / 2.0),
        asymmetries=_asymmetries(device, point, low, high),
    )


def _span(device: Device) -> float:
    """Half of the range that is shown of an unbounded side."""
    return 0.5 if math.isinf(device.n_states) else max(abs(b) for b in (device.w_min, device.w_max))


def _point(device: Device) -> float:
    try:
        return round(float(device.symmetric_point()), 12)  # bisection leaves 1e-17 of a 0
    except ValueError:
        return math.nan


def _step_noise(device: Device, point: float) -> float:
    """Mean of both directions, whatever the kind of noise."""
    w = torch.full((2,), 0.0 if math.isnan(point) else point, dtype=torch.float64)
    up, params = torch.tensor([True, False]), device.nominal()
    change = device.step(w, up, params)
    stray = device.dw_min_ctoc * noise(device, w, up, change, params).abs().mean()
    return float(stray / change.abs().mean().clamp(min=1e-300)) if device.dw_min_ctoc else 0.0


def _asymmetries(device: Device, point: float, low: float, high: float) -> tuple[float, ...]:
    if math.isnan(point):
        return tuple(math.inf for _ in SHARES)
    pairs = [[point + s * (high - point), point + s * (low - point)] for s in SHARES]
    return tuple(float(asymmetry(device, torch.tensor([pair], dtype=torch.float64))) for pair in pairs)


def _ramps(device: Device, seed: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pulses, and states after them, of devices that start at one bound and are driven to the other.

    By the expected update with the noise of its pulses: of fine-grained devices, several pulses at a time.
    """
    n_pulses = int(min(max(2.0 * (high - low) / device.granularity, 20), 1e15))  # counted in 64 bits
    every, ones = -(-n_pulses // READINGS), torch.ones(1, SHOWN, dtype=torch.float64)
    ramps = []
    for up in (True, False):
        bar = Crossbar((1, SHOWN), device=device, update=ExpectedUpdate(noise=True), seed=seed, dtype=ones.dtype)
        bar.set_weight(ones * (low if up else high))
        states = [bar.weight[0].clone()]
        for _ in range(n_pulses // every):
            bar.pulse(ones, -ones[:, :1] if up else ones[:, :1], lr=every * device.granularity)
            states.append(bar.weight[0].clone())
        ramps.append(torch.stack(states).numpy())
    return np.arange(len(ramps[0])) * every, *ramps


def _symmetric_points(device: Device, seed: int) -> tuple[np.ndarray, int]:
    """Of devices drawn one by one, as a device without a point would hide those of the others."""
    params = draw(device, torch.tensor(seed), (1, DRAWN), torch.float64)
    if not any(isinstance(v, Tensor) for v in params.values()):
        point = _point(device)
        return (np.empty(0), DRAWN) if math.isnan(point) else (np.full(DRAWN, point), 0)
    ends = [
        torch.as_tensor(params[k], dtype=torch.float64).expand(1, DRAWN).clamp(-1e6, 1e6) for k in ("w_min", "w_max")
    ]
    g_low, g_high = (device.G(end, params) for end in ends)
    has_one = (torch.sign(g_low) * torch.sign(g_high) <= 0)[0]
    if not has_one.any():
        return np.empty(0), DRAWN
    own = {k: v[:, has_one] if isinstance(v, Tensor) else v for k, v in params.items()}
    return device.symmetric_point(own)[0].numpy(), int((~has_one).sum())


def limits(figures: Portrait, device: Device) -> list[str]:
    """What will limit training on such devices, in words; the thresholds are this module's constants."""
    found = []
    half = figures.asymmetries[1]
    if math.isnan(figures.point):
        found.append(
            "No symmetric point: up and down pulses cancel at no state, so noise drives every weight to a bound. "
            "Use it in pairs, one device for each sign."
        )
    elif half > ASYMMETRIC:
        stops = f"stops at a squared gradient norm of {half:.2g} times the gradient's noise"
        stays = "holds no weight, since up and down pulses lead the same way"
        found.append(
            f"Asymmetry: half of the way to a bound, Analog SGD {stops if half < math.inf else stays}. "
            "Tiki-Taka, whose fast crossbar rests at its symmetric point, does not stop there."
        )
    offset = abs(figures.point) / figures.half_range if math.isfinite(figures.point) else 0.0
    if max(offset, figures.scatter) > SCATTERED:
        found.append(
            f"Symmetric points lie at {figures.point:.2g}, and {figures.scatter:.1%} of half the range apart between "
            "devices: Tiki-Taka takes that for a gradient, unless a reference takes it away (zero-shifting)."
        )
    if figures.n_without and math.isfinite(figures.point):
        found.append(f"{figures.n_without / DRAWN:.1%} of the devices have no symmetric point.")
    if figures.n_states < FEW_STATES:
        found.append(
            f"Few states: {figures.n_states:.0f} steps from bound to bound, so a weight is known to "
            f"{1.0 / figures.n_states:.1%} of its range; sum gradients digitally before they are written."
        )
    if figures.step_noise > NOISY:
        found.append(
            f"Step noise: a pulse strays by {figures.step_noise:.1f} of its own steps, and the direction of a change "
            f"shows only after some {figures.step_noise**2:.0f} pulses."
        )
    if figures.write_noise > BLURRED:
        found.append(f"Write noise: what is read strays by {figures.write_noise:.1%} of half the range.")
    if device.lifetime:
        found.append(f"Decay: a state forgets in {device.lifetime:g} mini-batches.")
    return found or ["Nothing here should limit training: it is fine-grained, symmetric and quiet."]


def numbers(figures: Portrait, device: Device) -> dict[str, float]:
    """The figures that are single numbers, by name."""
    plain = {f.name: getattr(figures, f.name) for f in dataclasses.fields(figures)}
    named = {k: float(v) for k, v in plain.items() if isinstance(v, float | int)}
    named |= {"w_min": device.w_min, "w_max": device.w_max, "dw_min": device.dw_min, "up_down": device.up_down}
    named["symmetric_point_scatter"] = figures.scatter
    return named | {f"asymmetry_at_{s:g}": a for s, a in zip(SHARES, figures.asymmetries, strict=True)}
