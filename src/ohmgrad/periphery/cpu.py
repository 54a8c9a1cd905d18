"""The fused way of a read on the CPU: one kernel before the matrix product and one after it."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from numba import typeof
from torch import Tensor

from ohmgrad import random
from ohmgrad.periphery.fused import CONSTANT, Read, need_vectors, numbers_of, way_of_scale
from ohmgrad.periphery.product import ADC, DAC, INPUT, OUTPUT, WEIGHT, Lines
from ohmgrad.periphery.settings import IO
from ohmgrad.pulses.cpu_trains import bits, key_of, u32, uniform
from ohmgrad.pulses.numba_target import NUMBA, matrix_at, specialised
from ohmgrad.vocabulary import retarget

quick_normal = retarget(random.quick_normal, NUMBA, words=True)
# Rows of `keys`.
KINDS = (INPUT, WEIGHT, OUTPUT, DAC, ADC)


def launcher(io: IO, lines: Lines, seed: int, direction: int, w: Tensor, vectors: Tensor) -> Read:
    """`product.product` of one replica, with all that does not change from call to call.

    Args:
        w: (out, in), of the shape and dtype that each call has.
        vectors: () int64, how many were read, to which each read adds its own.
    """
    n_out, n_in = w.shape
    dtype = np.float32 if w.dtype == torch.float32 else np.float64
    numbers = np.array(numbers_of(io), dtype)
    flags = io.inp_sto_round, io.out_sto_round, io.bm_test_negative_bound, io.out_noise > 0
    options = np.array([n_in, n_out, way_of_scale(io), *flags], np.int64)
    noise = torch.as_tensor(lines.out_noise, dtype=w.dtype).expand(1, n_out)[0].contiguous().numpy()
    into, out_of, words = _kernels(w.dtype)
    is_repeated = io.bound_management == "iterative"

    past: Any = memoryview(vectors.view(-1).numpy())  # type: ignore[arg-type]  # a tenth of a tensor's time

    def read(w: Tensor, x: Tensor, scale: Tensor | None) -> Tensor:
        need_vectors(x, n_in, w)
        x = (x.resolve_neg() if x.is_neg() else x).contiguous()
        n, number, first, keys = x.shape[0], 0, past[0], _keys(seed, direction, 0)
        past[0] = first + n
        room = np.empty(3 * n)
        if scale is not None:
            room[:n] = scale[:, 0].numpy()
        u = torch.empty_like(x)
        x_at = x.data_ptr()
        into(x_at, u.data_ptr(), room, n, first, number, options, numbers, keys, words)
        y = torch.nn.functional.linear(u, w)
        y_at = y.data_ptr()
        n = out_of(y_at, y_at, room, n, first, number, options, numbers, keys, noise)
        while n and is_repeated and 2.0**number <= io.bm_limit:
            number += 1
            keys, u = _keys(seed, direction, number), torch.empty(n, n_in, dtype=w.dtype)
            into(x_at, u.data_ptr(), room, n, first, number, options, numbers, keys, words)
            v = torch.nn.functional.linear(u, w)
            n = out_of(v.data_ptr(), y_at, room, n, first, number, options, numbers, keys, noise)
        return y

    return read


@lru_cache(maxsize=4096)
def _keys(seed: int, direction: int, number: int) -> np.ndarray:
    """For each kind of noise the words that (seed, direction, kind, round) fold to, (5, 2)."""
    return np.array([random.root(seed, random.Stream.READ, direction, k << 16 | number) for k in KINDS], np.uint32)


@cache
def _kernels(dtype: torch.dtype) -> tuple[Any, Any, np.ndarray]:
    """Compiled for that dtype: what Numba calls once it has looked at the types of all arguments."""
    numbers = np.empty(0, np.float32 if dtype == torch.float32 else np.float64)
    given = np.empty(0), 1, 1, 1, np.empty(0, np.int64), numbers, _keys(0, 0, 0)
    words = np.empty(0, f"uint{8 * numbers.itemsize}")
    into, out_of = (
        specialised(f, f.__name__).compile(tuple(typeof(a) for a in (0, 0, *given, last)))
        for f, last in ((convert_in, words), (convert_out, numbers))
    )
    return into, out_of, words


def convert_in(x_at, u_at, room, n_rows, first, number, options, numbers, keys, words):
    """DAC of some rows of x, (batch, in): u = clip(round(x / (s r))) + noise, into u, (n_rows, in).

    room: for each vector its scale s, then for each row of u what its weights' noise is, then the row of x that it is.
    number: of the round, in which r is 2**number. The first round finds scales, and takes all rows in turn.
    """
    n, batch, step, bound = options[0], room.size // 3, numbers[0], numbers[1]
    scale, length, rows = room[:batch], room[batch : 2 * batch], room[2 * batch :]
    x, x_bits = matrix_at(x_at, batch, n, numbers), matrix_at(x_at, batch, n, words)
    u, cell = matrix_at(u_at, n_rows, n, numbers), np.empty(1, numbers.dtype)
    for k in range(n_rows):
        if number == 0:
            rows[k] = k
            if options[2]:
                scale[k] = scale_of(x_bits[k], cell, options[2], numbers[7])
        i = int(rows[k])
        s = numbers.dtype.type(scale[i]) * numbers.dtype.type(2.0**number)
        s = s if s > 0 else numbers.dtype.type(1.0)
        to_volts(x[i], s, step, bound, options[3], keys, first + i, u[k])
        if numbers[2] > 0:
            add_noise(u[k], numbers[2], keys, 0, first + i)
        length[k] = numbers[3] * size_of(u[k]) if numbers[3] > 0 else 0.0


def convert_out(v_at, y_at, room, n_rows, first, number, options, numbers, keys, noise):
    """ADC of v, (n_rows, out), in place, into the rows of y, (batch, out): y = s r clip(round(v + noise)).

    Returns how many rows met their bound, which then stand first in `room`.
    """
    n, batch, hits = options[1], room.size // 3, 0
    scale, length, rows = room[:batch], room[batch : 2 * batch], room[2 * batch :]
    v, y, step, bound = matrix_at(v_at, n_rows, n, numbers), matrix_at(y_at, batch, n, numbers), numbers[4], numbers[5]
    for k in range(n_rows):
        i = int(rows[k])
        s = numbers.dtype.type(scale[i])
        if length[k] > 0:
            add_noise(v[k], numbers.dtype.type(length[k]), keys, 1, first + i)
        if options[6]:
            add_line_noise(v[k], noise, keys, first + i)
        if step > 0:
            to_steps(v[k], step, options[4], keys, first + i)
        is_hit = to_numbers(v[k], bound, options[5], s * numbers.dtype.type(2.0**number), numbers[6])
        if s <= 0:
            v[k] = 0.0
        if number:
            y[i] = v[k]
        rows[hits] = i
        hits += 1 if is_hit else 0
    return hits


def scale_of(x, cell, kind, given):
    """Noise management: the largest size, at most `given` if that is > 0, or `given` for all; NaN if none is finite.

    x: the vector's bits, whole numbers: sizes are in the same order, and compilers find the largest many at a time.
    cell: room for one number.
    """
    largest, sizes = x.dtype.type(0), x.dtype.type((1 << (8 * x.itemsize - 1)) - 1)
    for t in range(x.size):
        size = x.dtype.type(x[t] & sizes)
        largest = size if size > largest else largest
    cell.view(x.dtype)[0] = largest
    if not cell[0] < np.inf:
        return np.nan
    if kind == CONSTANT or 0 < given < cell[0]:
        return given
    return cell[0]


def to_volts(x, s, step, bound, is_random, keys, vector, u):
    """u = x / s in multiples of a step (half to even, or at random; of none if 0), between the bounds."""
    half = x.dtype.type(0.5)
    if not step > 0:
        for t in range(u.size):
            u[t] = min(max(x[t] / s, -bound), bound)
    elif is_random:
        k0, k1 = key_of(keys, 3, vector)
        for t in range(u.size):
            dither = x.dtype.type(uniform(bits(k0, k1, u32(t)))) - half
            u[t] = min(max(np.rint(x[t] / s / step + dither) * step, -bound), bound)
    else:
        for t in range(u.size):
            u[t] = min(max(np.rint(x[t] / s / step) * step, -bound), bound)


def to_steps(v, step, is_random, keys, vector):
    """v in multiples of a step, half to even, or at random."""
    half = v.dtype.type(0.5)
    if is_random:
        k0, k1 = key_of(keys, 4, vector)
        for t in range(v.size):
            dither = v.dtype.type(uniform(bits(k0, k1, u32(t)))) - half
            v[t] = np.rint(v[t] / step + dither) * step
    else:
        for t in range(v.size):
            v[t] = np.rint(v[t] / step) * step


def add_noise(a, sigma, keys, kind, vector):
    k0, k1 = key_of(keys, kind, vector)
    for t in range(a.size):
        a[t] += sigma * a.dtype.type(quick_normal(k0, k1, u32(t)))


def add_line_noise(a, sigma, keys, vector):
    k0, k1 = key_of(keys, 2, vector)
    for t in range(a.size):
        a[t] += sigma[t] * a.dtype.type(quick_normal(k0, k1, u32(t)))


def size_of(u):
    power = u.dtype.type(0.0)
    for t in range(u.size):
        power += u[t] * u[t]
    return np.sqrt(power)


def to_numbers(v, bound, is_either_side, s, factor):
    """s v factor, with v between the bounds; returns whether it was not: above, or on either side."""
    n_beyond = np.int32(0)
    for t in range(v.size):
        size = abs(v[t]) if is_either_side else v[t]
        n_beyond |= np.int32(1 if size > bound else 0)
        v[t] = min(max(v[t], -bound), bound) * s * factor
    return n_beyond != 0
