"""The fused way of a read on the CPU: DAC and ADC with their noise in one pass each, around one matrix product.

For the settings that are in use everywhere (`is_fused`); all others, and all other processors, go by `product`, which
has the same numbers.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.periphery import product
from ohmgrad.periphery.product import ADC, DAC, INPUT, OUTPUT, WEIGHT, Lines
from ohmgrad.periphery.settings import IO
from ohmgrad.pulses.cpu_trains import bits, key_of, u32, uniform
from ohmgrad.pulses.numba_target import NUMBA, specialised
from ohmgrad.vocabulary import retarget

quick_normal = retarget(random.quick_normal, NUMBA, words=True)
# Rows of `keys`.
KINDS = (INPUT, WEIGHT, OUTPUT, DAC, ADC)


def is_fused(io: IO, w: Tensor) -> bool:
    """Whether a read with these settings goes the fused way."""
    return (
        w.device.type == "cpu"
        and io.mv_type == "one-pass"
        and io.bound_management in ("none", "iterative")
        and io.w_noise_type == "additive-constant"
        and not (io.ir_drop or io.v_offset_std or io.r_series or io.out_nonlinearity)
        and not (io.inp_asymmetry or io.out_asymmetry)
    )


def largest_size(x: Tensor) -> Tensor:
    """As `product.largest_size`, of contiguous x (batch, in): torch is slow where rows are short."""
    if x.shape[1] > 64:
        return product.largest_size(x)
    largest = torch.empty(x.shape[0], 1, dtype=x.dtype)
    _kernels()[2](x.numpy(), largest.numpy())
    return largest


def fused(w: Tensor, x: Tensor, io: IO, lines: Lines, seed: int, direction: int, first: int, scale: Tensor) -> Tensor:
    """As `product.product`, of one replica: w (out, in), x (batch, in), scale (batch, 1); vectors from `first` on."""
    into, out_of, _ = _kernels()
    y = torch.empty(x.shape[0], w.shape[0], dtype=x.dtype)
    a, s, rows, factor, number = x.numpy(), scale[:, 0].contiguous().numpy(), np.arange(x.shape[0]), 1.0, 0
    numbers, flags = _settings(io, x.dtype)
    noise = torch.as_tensor(lines.out_noise, dtype=x.dtype).expand(1, w.shape[0])[0].contiguous().numpy()
    while rows.size:
        keys, r = _keys(seed, direction, number), numbers.dtype.type(factor)
        u, length = torch.empty(rows.size, x.shape[1], dtype=x.dtype), np.empty(rows.size, numbers.dtype)
        into(a, s, r, rows, first, numbers, flags, keys, u.numpy(), length)
        v = u @ w.mT
        is_hit = out_of(v.numpy(), s, r, rows, first, numbers, flags, keys, noise, length, y.numpy())
        if io.bound_management == "none" or factor > io.bm_limit:
            break
        rows, factor, number = rows[is_hit], 2.0 * factor, number + 1
    return y


@lru_cache(maxsize=256)
def _settings(io: IO, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """What the kernels want to know."""
    numbers = [io.inp_step, io.inp_bound, io.inp_noise, io.w_noise, io.out_step, io.out_bound, io.out_scale]
    flags = np.array([io.inp_sto_round, io.out_sto_round, io.bm_test_negative_bound, io.out_noise > 0])
    return np.array(numbers, np.float32 if dtype == torch.float32 else np.float64), flags


@lru_cache(maxsize=4096)
def _keys(seed: int, direction: int, number: int) -> np.ndarray:
    """For each kind of noise the words that (seed, direction, kind, round) fold to, (5, 2)."""
    return np.array([random.root(seed, random.Stream.READ, direction, k << 16 | number) for k in KINDS], np.uint32)


@cache
def _kernels() -> tuple[Any, Any, Any]:
    return tuple(specialised(f, f.__name__) for f in (convert_in, convert_out, find_largest))


def find_largest(x, largest):
    """Into largest, (batch, 1), the largest size of each row of x; NaN where a number is not finite."""
    for i in range(x.shape[0]):
        a, rest = x.dtype.type(0.0), x.dtype.type(0.0)
        for t in range(x.shape[1]):
            size = abs(x[i, t])
            a = size if size > a else a
            rest += size - size  # NaN once a number is infinite or NaN
        largest[i, 0] = a + rest


def convert_in(x, scale, factor, rows, first, numbers, flags, keys, u, length):
    """DAC: u = clip(round(x / (s r))) + noise of some rows of x, (batch, in); length: of each u, for weight noise."""
    step, bound, sigma, half = numbers[0], numbers[1], numbers[2], numbers.dtype.type(0.5)
    for i in range(rows.size):
        s, n = scale[rows[i]] * factor, x.shape[1]
        if not s > 0:
            s = numbers.dtype.type(1.0)
        d0, d1 = key_of(keys, 3, first + rows[i])
        z0, z1 = key_of(keys, 0, first + rows[i])
        for t in range(n):
            a = x[rows[i], t] / s
            if step > 0:
                a = a / step
                if flags[0]:
                    a += numbers.dtype.type(uniform(bits(d0, d1, u32(t)))) - half
                a = np.rint(a) * step
            u[i, t] = min(max(a, -bound), bound)
        if sigma > 0:
            for t in range(n):
                u[i, t] += sigma * numbers.dtype.type(quick_normal(z0, z1, u32(t)))
        power = numbers.dtype.type(0.0)
        if numbers[3] > 0:
            for t in range(n):
                power += u[i, t] * u[i, t]
        length[i] = numbers[3] * np.sqrt(power)


def convert_out(v, scale, factor, rows, first, numbers, flags, keys, noise, length, y):
    """ADC: y = s r clip(round(v + noise)) into some rows of y, (batch, out); which met their bound."""
    step, bound, half = numbers[4], numbers[5], numbers.dtype.type(0.5)
    is_hit = np.zeros(rows.size, np.bool_)
    for i in range(rows.size):
        s, n = scale[rows[i]], v.shape[1]
        d0, d1 = key_of(keys, 4, first + rows[i])
        z0, z1 = key_of(keys, 2, first + rows[i])
        w0, w1 = key_of(keys, 1, first + rows[i])
        if length[i] > 0:
            for t in range(n):
                v[i, t] += length[i] * numbers.dtype.type(quick_normal(w0, w1, u32(t)))
        if flags[3]:
            for t in range(n):
                v[i, t] += noise[t] * numbers.dtype.type(quick_normal(z0, z1, u32(t)))
        above, below = numbers.dtype.type(0.0), numbers.dtype.type(0.0)
        for t in range(n):
            a = v[i, t]
            if step > 0:
                a = a / step
                if flags[1]:
                    a += numbers.dtype.type(uniform(bits(d0, d1, u32(t)))) - half
                a = np.rint(a) * step
            above, below = max(above, a), min(below, a)
            a = min(max(a, -bound), bound) * (s * factor) * numbers[6]
            y[rows[i], t] = numbers.dtype.type(0.0) if s <= 0 else a
        is_hit[i] = above > bound or (flags[2] and -below > bound)
    return is_hit
