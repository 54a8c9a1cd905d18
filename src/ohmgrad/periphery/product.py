"""The imperfect matrix-vector product in plain torch, effect by effect: slow, and the reference for the kernel.

    s  noise management: the scale that brings an input vector into the DAC's range
    u  = DAC(x / (s r)), clipped, with its noise
    v  = W u in the array, with voltage drops, offsets and the weights' noise
    y  = s r ADC(v), with noise; where outputs meet their bound, again with r doubled (bound management)

Source: aihwkit `rpu_forward_backward_pass.cpp`; Rasch et al. 2021. Vectors are the last dimension, of any batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.periphery.settings import IO

# Bound management that reads again.
REPEATED = ("iterative", "iterative-worst-case")
# What noise is drawn for, within a read.
INPUT, WEIGHT, OUTPUT, DAC, ADC, NEGATIVE = range(6)
# noise(what, round, like) -> numbers as `like`: standard normals, or for DAC and ADC uniform on (-1/2, 1/2).
Noise = Callable[[int, int, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Lines:
    """What differs from line to line, fixed at construction: numbers, or (*replica, 1, out), last (*replica, out, in).

    out_noise: deviation of each output's noise. slope: of its non-linearity. offset: of its voltage. asymmetry:
    relative change of each weight read with negative inputs.
    """

    out_noise: Tensor | float = 0.0
    slope: Tensor | float = 0.0
    offset: Tensor | float = 0.0
    asymmetry: Tensor | None = None


def product(w: Tensor, x: Tensor, io: IO, lines: Lines, noise: Noise, scale: Tensor) -> Tensor:
    """W x through the converters.

    Args:
        w: (*replica, out, in). x: (*replica, batch, in).
        scale: of `input_scale`, (*replica, batch, 1).

    Returns:
        (*replica, batch, out); exactly 0 where the scale is 0, whatever the noise: the scale is the digital factor of
        what the ADC gives, so that noise shrinks with the vector and there is none left of a vector of zeros.
    """
    if io.is_perfect:
        return x @ w.mT * io.out_scale
    y, is_hit = _pass(w, x, scale, io, lines, noise, 0)
    from_worst = io.bound_management == "iterative-worst-case" and io.noise_management != "abs-max-np-sum"
    now, factor, number = scale, 1.0, 0
    while io.bound_management in REPEATED and is_hit.any() and factor <= io.bm_limit:
        number += 1
        if number == 1 and from_worst:
            now = worst_case_scale(x, io)
        else:
            factor *= 2.0
        again, still = _pass(w, x, now * factor, io, lines, noise, number)
        y, is_hit = torch.where(is_hit, again, y), is_hit & still
    return torch.where(scale <= 0, 0.0, y * io.out_scale)


def largest_size(x: Tensor) -> Tensor:
    """The largest size of each vector's inputs, (*replica, batch, 1); NaN where one is not finite."""
    largest = x.abs().amax(-1, keepdim=True)
    return torch.where(largest < torch.inf, largest, torch.nan)


def input_scale(x: Tensor, io: IO, largest: Tensor) -> Tensor:
    """Noise management: the scale of each input vector, (*replica, batch, 1), the running average aside.

    largest: of `largest_size`; where it is NaN, so is the scale, lest converters make numbers of what is none.
    """
    none = largest * 0.0
    if io.noise_management == "none":
        return none + 1.0
    if io.noise_management == "constant":
        return none + (io.nm_thres or 1.0)
    if io.noise_management == "abs-max-np-sum":
        return worst_case_scale(x, io)
    if io.noise_management == "max":
        largest = x.amax(-1, keepdim=True) + none
    return largest.clamp(max=io.nm_thres) if io.nm_thres > 0 else largest


def worst_case_scale(x: Tensor, io: IO) -> Tensor:
    """Noise management "abs-max-np-sum": at least the largest size, more where sums may drive outputs to the bound.

    nm_thres > 0 limits the largest size first.
    """
    largest = largest_size(x)
    largest = largest.clamp(max=io.nm_thres) if io.nm_thres > 0 else largest
    sums = torch.maximum(x.clamp(min=0).sum(-1, keepdim=True), -x.clamp(max=0).sum(-1, keepdim=True))
    wanted = sums * io.nm_assumed_wmax / io.out_unit
    if io.inp_step:
        wanted = torch.minimum(wanted, largest / io.inp_step * io.max_bm_res)
    return torch.maximum(largest, wanted)


def running_average(largest: Tensor, average: Tensor, decay: float) -> Tensor:
    """Noise management "average-abs-max": the average after each vector, (*replica, batch, 1).

    average: (*replica,), before them; NaN where there was none: then it starts at the first vector.
    """
    after, now = [], average
    for size in largest[..., 0].unbind(-1):
        now = torch.where(now.isnan(), size, now + decay * (size - now))
        after.append(now)
    return torch.stack(after, -1)[..., None] if after else largest


def average_so_far(largest: Tensor, average: Tensor, decay: float) -> Tensor:
    """The same in evaluation, which leaves the average as it is: one scale for all vectors, (*replica, batch, 1).

    Where there is none, vectors are scaled as those of a first batch; NaN where a vector's own size is.
    """
    fixed = torch.where(largest.isnan(), largest, average[..., None, None])
    return torch.where(average.isnan()[..., None, None], running_average(largest, average, decay), fixed)


def _pass(
    w: Tensor, x: Tensor, scale: Tensor, io: IO, lines: Lines, noise: Noise, number: int
) -> tuple[Tensor, Tensor]:
    """One reading with the given scales, and which vectors had an output at its bound, (*replica, batch, 1)."""
    u = x / torch.where(scale > 0, scale, 1.0)
    u = _convert(u, io.inp_step, noise(DAC, number, u) if io.inp_sto_round else None)
    u = u.clamp(-io.inp_bound, io.inp_bound)
    if io.inp_noise:
        u = u + io.inp_noise * noise(INPUT, number, u)
    u = _less_below_zero(u, io.inp_asymmetry)
    if io.mv_type == "one-pass":
        v, is_hit = _sense(_array(w, u, io, lines, noise, number), io, lines, noise, number)
    else:
        back = w if lines.asymmetry is None else w * (1.0 + lines.asymmetry)
        above = _array(w, u.clamp(min=0), io, lines, noise, number)
        below = _array(back, u.clamp(max=0), io, lines, _other(noise), number)
        if io.mv_type == "pos-neg-separate":
            v, is_hit = _sense(above + below, io, lines, noise, number)
        else:
            (v, is_hit), (less, is_low) = (
                _sense(above, io, lines, noise, number),
                _sense(below, io, lines, _other(noise), number),
            )
            v, is_hit = v + less, is_hit | is_low
    return v * scale, is_hit


def _array(w: Tensor, u: Tensor, io: IO, lines: Lines, noise: Noise, number: int) -> Tensor:
    """What the array makes of input voltages u, before it is sensed."""
    v = u @ w.mT
    if io.ir_drop:
        v = v - _ir_drop(w, u, io)
    if io.v_offset_std or io.r_series:
        v = _offset(v, u, io, lines.offset)
    if io.w_noise:
        # Noise of each weight, independent from read to read, adds up to one normal number at the line's end.
        power = u.square() @ w.abs().mT if io.w_noise_type == "pcm-read" else u.square().sum(-1, keepdim=True)
        v = v + io.w_noise * power.sqrt() * noise(WEIGHT, number, v)
    return v


def _ir_drop(w: Tensor, u: Tensor, io: IO) -> Tensor:
    """Loss by the wires' resistance: a polynomial in the current; the first inputs, at the far end, lose most."""
    n = w.shape[-1]
    a = (u.abs() @ w.abs().mT) * (n / io.ir_drop_g_ratio)
    c = a * (0.5 - 0.2 * a + 0.05 * a.square())
    near = torch.arange(n, dtype=w.dtype, device=w.device) / n
    return io.ir_drop * c * ((u * (1.0 - (1.0 - near).square())) @ w.mT)


def _offset(v: Tensor, u: Tensor, io: IO, offset: Tensor | float) -> Tensor:
    """Voltage offsets of the lines and series resistance, beside a reference line of conductance -v_offset_w_min."""
    r = io.r_series
    if io.v_offset_w_min == 0.0:
        return (1.0 - offset) * v / (1.0 + r * v.abs())
    ref = -io.v_offset_w_min * u.sum(-1, keepdim=True)
    above = v + ref
    return (1.0 - offset) * above / (1.0 + r * above.abs()) - (1.0 + offset) * ref / (1.0 + r * ref.abs())


def _sense(v: Tensor, io: IO, lines: Lines, noise: Noise, number: int) -> tuple[Tensor, Tensor]:
    """From the lines' ends to digital numbers; and which vectors had one at its bound."""
    if io.out_nonlinearity or (io.slope_calibration and io.r_series):
        mean = lines.slope.mean(-1, keepdim=True) if isinstance(lines.slope, Tensor) else lines.slope
        gain = (1.0 + (mean + io.r_series) * io.slope_calibration * io.out_unit) ** 2
        v = gain * v / (1.0 + (lines.slope * v).abs())
    v = _less_below_zero(v, io.out_asymmetry)
    if io.out_noise:
        v = v + lines.out_noise * noise(OUTPUT, number, v)
    v = _convert(v, io.out_step, noise(ADC, number, v) if io.out_sto_round else None)
    if io.bound_management == "shift":
        v = v + (io.out_bound - v.amax(-1, keepdim=True)).clamp(max=0.0)
    far = v.abs() if io.bm_test_negative_bound else v
    return v.clamp(-io.out_bound, io.out_bound), far.amax(-1, keepdim=True) > io.out_bound


def _convert(u: Tensor, step: float, dither: Tensor | None) -> Tensor:
    """To multiples of a step, half to even, or at random."""
    if not step:
        return u
    u = u / step
    return torch.round(u if dither is None else u + dither) * step


def _less_below_zero(u: Tensor, asymmetry: float) -> Tensor:
    return torch.where(u < 0, u * (1.0 - asymmetry), u) if asymmetry else u


def _other(noise: Noise) -> Noise:
    """Noise of its own for negative inputs."""
    return lambda what, number, like: noise(what + NEGATIVE, number, like)


def noise_of(seed: Tensor, direction: int, first: int) -> Noise:
    """Noise as a function of (seed, direction of the read, number of the vector, line), from vector `first` on.

    seed: (*replica,).
    """

    def noise(what: int, number: int, like: Tensor) -> Tensor:
        key = random.root(seed.reshape(*seed.shape, 1, 1), random.Stream.READ, direction, what << 16 | number)
        vector = torch.arange(first, first + like.shape[-2], device=like.device).reshape(-1, 1)
        key = random.fold(random.fold(key, vector), vector >> 32)
        line = torch.arange(like.shape[-1], device=like.device)
        if what % NEGATIVE in (DAC, ADC):
            return random.uniform(random.bits(*key, line), like.dtype) - 0.5
        return random.quick_normal(*key, line).to(like.dtype)

    return noise
