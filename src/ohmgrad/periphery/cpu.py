"""The fused way of a read on the CPU: DAC and ADC with their noise in one pass each, around one matrix product.

For the settings that are in use everywhere (`is_fused`); all others, and all other processors, go by `product`, which
has the same numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.periphery.product import ADC, DAC, INPUT, OUTPUT, WEIGHT, Lines
from ohmgrad.periphery.settings import IO
from ohmgrad.pulses.cpu_trains import bits, fold0, fold1, u32
from ohmgrad.pulses.numba_target import NUMBA, specialised
from ohmgrad.vocabulary import retarget

quick_normal = retarget(random.quick_normal, NUMBA, words=True)
# Rows of `keys`: for each kind of noise the words that (seed, direction, kind, round) fold to.
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


def fused(w: Tensor, x: Tensor, io: IO, lines: Lines, seed: int, direction: int, first: int, scale: Tensor) -> Tensor:
    """As `product.product`, of one replica: w (out, in), x (batch, in), scale (batch, 1); vectors from `first` on."""
    into, out_of = _kernels()
    x, scale = x.contiguous(), scale[:, 0].contiguous()
    y = torch.empty(x.shape[0], w.shape[0], dtype=x.dtype)
    rows, factor = np.arange(x.shape[0]), 1.0
    limit = min(io.max_bm_factor, io.max_bm_res / io.inp_step) if io.inp_step else io.max_bm_factor
    numbers = np.array(
        [io.inp_step, io.inp_bound, io.inp_noise, io.w_noise, io.out_step, io.out_bound, io.out_scale], _dtype(x)
    )
    noise = torch.as_tensor(lines.out_noise, dtype=x.dtype).expand(1, w.shape[0])[0].contiguous().numpy()
    flags = np.array([io.inp_sto_round, io.out_sto_round, io.bm_test_negative_bound, bool(noise.any())])
    number = 0
    while rows.size:
        keys = np.array([random.root(seed, random.Stream.READ, direction, k << 16 | number) for k in KINDS], np.uint32)
        u, length = torch.empty(rows.size, x.shape[1], dtype=x.dtype), np.empty(rows.size, _dtype(x))
        into(
            x.numpy(), scale.numpy(), x.numpy().dtype.type(factor), rows, first, numbers, flags, keys, u.numpy(), length
        )
        v = u @ w.mT
        is_hit = out_of(
            v.numpy(), scale.numpy(), x.numpy().dtype.type(factor), rows, first, numbers, flags, keys, noise, length,
            y.numpy(),
        )  # fmt: skip
        if io.bound_management == "none" or factor > limit:
            break
        rows, factor, number = rows[is_hit], 2.0 * factor, number + 1
    return y


def _dtype(x: Tensor) -> Any:
    return np.float32 if x.dtype == torch.float32 else np.float64


@cache
def _kernels() -> tuple[Any, Any]:
    return specialised(convert_in, "convert_in"), specialised(convert_out, "convert_out")


def convert_in(x, scale, factor, rows, first, numbers, flags, keys, u, length):
    """DAC: u = clip(round(x / (s r))) + noise of some rows of x, (batch, in); length: of each u, for weight noise."""
    step, bound, sigma, half = numbers[0], numbers[1], numbers[2], numbers.dtype.type(0.5)
    for i in range(rows.size):
        s, n = scale[rows[i]] * factor, x.shape[1]
        if not s > 0:
            s = numbers.dtype.type(1.0)
        d0, d1 = _row_key(keys, 3, first + rows[i])
        z0, z1 = _row_key(keys, 0, first + rows[i])
        for t in range(n):
            a = x[rows[i], t] / s
            if step > 0:
                a = a / step
                if flags[0]:
                    a += _uniform(bits(d0, d1, u32(t))) - half
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
        d0, d1 = _row_key(keys, 4, first + rows[i])
        z0, z1 = _row_key(keys, 2, first + rows[i])
        w0, w1 = _row_key(keys, 1, first + rows[i])
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
                    a += _uniform(bits(d0, d1, u32(t))) - half
                a = np.rint(a) * step
            above, below = max(above, a), min(below, a)
            a = min(max(a, -bound), bound) * (s * factor) * numbers[6]
            y[rows[i], t] = a if s > 0 else numbers.dtype.type(0.0)
        is_hit[i] = above > bound or (flags[2] and -below > bound)
    return is_hit


def _row_key(keys, kind, vector):
    k0, k1 = fold0(keys[kind, 0], u32(vector)), fold1(keys[kind, 1], u32(vector))
    return fold0(k0, u32(vector >> 32)), fold1(k1, u32(vector >> 32))


def _uniform(word):
    return (np.float32(word >> u32(9)) + np.float32(0.5)) * np.float32(1.0 / 8388608.0)
