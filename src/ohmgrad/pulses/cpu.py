"""The pulsed update on the CPU: the law of `eager`, compiled by Numba.

Threads take rows; a row's weights stay in cache over the whole mini-batch, and its columns go through wide registers.
An affine device enters as the numbers C + S w of its steps (from its response, by `eager.affine`), so that one kernel,
compiled once and cached on disk, serves all of them.

For each sample and row: count the coincidences of the line bits, apply the train of every column at once where the law
allows (`merge`), and the rest pulse by pulse. Where most columns get no pulse, the few that do are gathered first.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.devices.base import Device, Params
from ohmgrad.pulses import merge
from ohmgrad.pulses.eager import affine
from ohmgrad.pulses.numba_target import INLINE, NUMBA, kernel, njit, popcount
from ohmgrad.pulses.settings import PulsedUpdate
from ohmgrad.vocabulary import retarget

fold0, fold1, bits, normal_pair = (
    retarget(f, NUMBA, words=True) for f in (random.fold0, random.fold1, random.bits, random.normal_pair)
)
drift, multiplicative, additive, is_mergeable, one_pulse = (
    retarget(f, NUMBA) for f in (merge.drift, merge.multiplicative, merge.additive, merge.is_mergeable, merge.pulse)
)
f32, u32 = np.float32, np.uint32
# No fused products where pulses are counted: counts are the same everywhere.
exact, fast = kernel(), kernel(fastmath={"contract", "nsz"})

# Crosspoint-samples below which a second thread costs more than it brings.
SMALL = 200_000

Launch = Callable[[Tensor, Tensor, Tensor, float, int, Tensor | None], int]


def launcher(device: Device, params: Params, settings: PulsedUpdate, seed: int, like: Tensor) -> Launch:
    """The kernel with all that does not change from call to call.

    Args:
        device: an affine one. params: its elements' parameters, numbers or planes (out, in).
        settings: a stochastic train without resolution; `is_supported` tells.
        like: the weight, (out, in): its shape and dtype.

    Returns:
        launch(w, x, d, lr, cycle, counts) -> pulses: as `eager.pulse`; w, x, d contiguous and of one dtype; counts,
        (out, in) int64 or None, is added to.
    """
    steps = affine(device, params, like)
    values = [
        *(part[k] for k in (0, 1) for part in steps),
        *(params[k] for k in ("dw_up", "dw_down", "w_min", "w_max")),
    ]
    flat = [torch.as_tensor(v, dtype=like.dtype).contiguous().numpy().reshape(-1) for v in values]
    # Rows and columns of a plane are one number apart, or none where devices do not differ: one kernel serves both.
    planes = (tuple(flat), np.array([(like.shape[1], 1) if f.size > 1 else (0, 0) for f in flat]))
    keys = [np.array(random.root(seed, s), np.uint32) for s in (random.Stream.X_BITS, random.Stream.D_BITS)]
    key = np.array(random.root(seed, random.Stream.PULSE), np.uint32)
    none = np.empty((0, 0), np.int64)
    n_out, n_in = like.shape
    options = (settings.bit_length, settings.update_management, settings.bit_length_management)
    law = (device.dw_min_ctoc, device.ctoc == "additive", settings.merge, key)
    n_words = -(-settings.bit_length // 32)

    def launch(w: Tensor, x: Tensor, d: Tensor, lr: float, cycle: int, counts: Tensor | None) -> int:
        w_, x_, d_ = w.numpy(), x.numpy(), d.numpy()
        batch = len(x_)
        length = np.empty(batch, np.int32)
        x_bits = np.zeros((batch, n_words, n_in), np.uint32)
        d_bits = np.zeros((batch, n_words, n_out), np.uint32)
        fault = prepare(x_, d_, lr, device.granularity, *options, *keys, cycle, length, x_bits, d_bits)
        if fault:
            raise ValueError(f"{'xd'[fault - 1]} needs finite numbers, got NaN or infinity")
        counts_ = none if counts is None else counts.numpy()
        threads = torch.get_num_threads() if batch * n_out * n_in > SMALL else 1

        def part(first: int, last: int) -> int:
            return rows(w_, first, last, x_, d_, lr, length, x_bits, d_bits, *planes, *law, cycle, counts_)

        if threads == 1:
            return part(0, n_out)
        edges = [n_out * k // threads for k in range(threads + 1)]
        return sum(_pool(threads).map(part, edges[:-1], edges[1:]))

    return launch


def is_supported(device: Device, settings: PulsedUpdate) -> bool:
    """Whether the kernel knows this device and train; `eager` knows all."""
    return device.is_affine and settings.train == "stochastic" and settings.resolution == 0.0


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="ohmgrad")


@exact
def prepare(x, d, lr, granularity, longest, is_um, is_ublm, base_x, base_d, cycle, length, x_bits, d_bits):
    """Bit length and line bits of each sample.

    x: (batch, in), d: (batch, out). length: (batch,) int32. x_bits, d_bits: (batch, words, lines) uint32, zeroed.
    Returns 1 where x holds NaN or infinity, 2 where d does, else 0.
    """
    for i in range(x.shape[0]):
        x_max, d_max = _largest(x[i]), _largest(d[i])
        if not x_max < np.inf:
            return 1
        if not d_max < np.inf:
            return 2
        wanted = abs(lr) * x_max * d_max / granularity
        n = float(longest)
        if is_ublm:
            n = min(np.ceil(wanted), n)
        if not wanted > 0.0:
            n = 0.0
        length[i] = int(n)
        if n < 1.0:
            continue
        a = np.sqrt(abs(lr) / (granularity * n))
        b = a
        if is_um or is_ublm:
            clipped = longest / wanted if wanted > longest else 1.0
            ratio = np.sqrt(x_max / (d_max * clipped))
            a, b = a * ratio, b / ratio
        _line_bits(x[i], b, length[i], base_x, cycle + i, x_bits[i])
        _line_bits(d[i], a, length[i], base_d, cycle + i, d_bits[i])
    return 0


@njit(**INLINE)
def _largest(values):
    largest = 0.0
    for value in values:
        size = abs(float(value))
        if not size <= largest:
            largest = size
    return largest


@njit(**INLINE)
def _key(base, word):
    """Key of a 64-bit place under a base key."""
    low, high = u32(word), u32(word >> 32)
    k0, k1 = fold0(base[0], low), fold1(base[1], low)
    return fold0(k0, high), fold1(k1, high)


@exact
def _line_bits(values, amplitude, length, base, cycle, words):
    n = values.size
    threshold, is_on = np.empty(n, np.uint32), np.empty(n, np.uint32)
    for j in range(n):
        p = f32(min(abs(float(values[j])) * amplitude, 1.0))
        threshold[j] = u32(max(float(p) * 4294967296.0 - 1.0, 0.0))
        is_on[j] = u32(1) if p > f32(0.0) else u32(0)
    k0, k1 = _key(base, cycle)
    for slot in range(length):
        s0, s1 = fold0(k0, u32(slot)), fold1(k1, u32(slot))
        word, shift = words[slot // 32], u32(slot % 32)
        for j in range(n):
            hit = u32(1) if bits(s0, s1, u32(j)) <= threshold[j] else u32(0)
            word[j] |= u32((hit & is_on[j]) << shift)


@fast
def rows(
    w,
    first,
    last,
    x,
    d,
    lr,
    length,
    x_bits,
    d_bits,
    planes,
    strides,
    sigma,
    is_additive,
    is_merged,
    base,
    cycle,
    counts,
):
    """Apply the trains of a mini-batch to rows first ... last - 1 of w, (out, in), in place; returns the pulses.

    planes: for up and down c, s (of the steps c + s w) and dw (the noise's unit), then the bounds; flat, with strides.
    counts: (out, in) int64, to which pulses are added, or with no rows.
    """
    n_in, total = w.shape[1], 0
    # The row's planes; 4 and 5 are dw where noise is additive, else 1 / (1 + s).
    own = np.empty((8, n_in), w.dtype)
    chosen = np.empty((5, n_in), w.dtype)  # c, s, noise, low, high of this sample's directions, or of its few columns
    n, few_w, few_n = np.empty(n_in, w.dtype), np.empty(n_in, w.dtype), np.empty(n_in, w.dtype)
    z, is_left, column = np.empty(n_in + 1, np.float32), np.empty(n_in, np.uint8), np.empty(n_in, np.int32)
    for row in range(first, last):
        for k in range(8):
            _load(planes[k], row * strides[k, 0], strides[k, 1], own[k])
        if not is_additive:
            for side in range(2):
                for j in range(n_in):
                    own[4 + side, j] = f32(1.0) / (f32(1.0) + own[2 + side, j])
        for i in range(x.shape[0]):
            d_i = -d[i, row] if lr < 0 else d[i, row]
            if d_i == 0.0 or length[i] == 0:
                continue
            pulses, n_hit, is_one_way = _count(x_bits[i], d_bits[i], row, x[i], n)
            if pulses == 0:
                continue
            total += pulses
            if counts.shape[0]:
                for j in range(n_in):
                    counts[row, j] += int(n[j])
            k0, k1 = _key(base, cycle + i)
            k0, k1 = fold0(k0, u32(row)), fold1(k1, u32(row))
            if 4 * n_hit < n_in:
                m = _gather(w[row], x[i], d_i, n, own, chosen, few_w, few_n, column)
                _normals_at(k0, k1, column, m, z)
                n_left = _train(
                    m,
                    few_w,
                    few_n,
                    chosen[0],
                    chosen[1],
                    chosen[2],
                    chosen[3],
                    chosen[4],
                    z,
                    sigma,
                    is_additive,
                    is_merged,
                    is_left,
                )
                for t in range(m):
                    w[row, column[t]] = few_w[t]
            else:
                m = n_in
                _normals(k0, k1, n_in, z)
                if is_one_way:
                    way = 1 if (d_i > 0.0) == (is_one_way > 0) else 0
                    n_left = _train(
                        m,
                        w[row],
                        n,
                        own[way],
                        own[2 + way],
                        own[4 + way],
                        own[6],
                        own[7],
                        z,
                        sigma,
                        is_additive,
                        is_merged,
                        is_left,
                    )
                else:
                    _choose(x[i], d_i, own, chosen)
                    n_left = _train(
                        m,
                        w[row],
                        n,
                        chosen[0],
                        chosen[1],
                        chosen[2],
                        own[6],
                        own[7],
                        z,
                        sigma,
                        is_additive,
                        is_merged,
                        is_left,
                    )
            if n_left:
                for t in range(m):
                    if is_left[t]:
                        j = column[t] if 4 * n_hit < n_in else t
                        way = 1 if d_i * x[i, j] > 0.0 else 0
                        w[row, j] = _one_by_one(
                            w[row, j],
                            int(n[j]),
                            own[way, j],
                            own[2 + way, j],
                            own[4 + way, j],
                            own[6, j],
                            own[7, j],
                            sigma,
                            is_additive,
                            k0,
                            k1,
                            j,
                        )
    return total


@fast
def _load(plane, start, stride, row):
    if stride:
        row[:] = plane[start : start + row.size]
    else:
        row[:] = plane[0]


@fast
def _count(x_bits, d_bits, row, x, n):
    """Coincidences of a row with every column, into n; their sum, the columns hit, and the sign if x has but one."""
    n_in, total, n_hit = x.size, 0, 0
    for j in range(n_in):
        n[j] = f32(0.0)
    for word in range(x_bits.shape[0]):
        bits_d = d_bits[word, row]
        if bits_d:
            bits_x = x_bits[word]
            for j in range(n_in):
                n[j] += f32(np.int32(popcount(u32(bits_x[j] & bits_d))))
    above, below = 0, 0
    for j in range(n_in):
        total += np.int32(n[j])
        n_hit += np.int32(n[j] > f32(0.0))
        above += np.int32(x[j] > 0.0)
        below += np.int32(x[j] < 0.0)
    return total, n_hit, 1 if below == 0 else (-1 if above == 0 else 0)


@fast
def _choose(x, d_i, own, chosen):
    """Step and noise parameters of each column in its own direction."""
    for j in range(x.size):
        is_down = d_i * x[j] > 0.0
        for k in range(3):
            up, down = own[2 * k, j], own[2 * k + 1, j]
            chosen[k, j] = down if is_down else up


@fast
def _gather(w, x, d_i, n, own, chosen, few_w, few_n, column):
    """The columns that got pulses, with all that their trains need, side by side; returns how many."""
    m = 0
    for j in range(w.size):
        column[m] = j
        m += np.int32(n[j] > 0)
        if m == w.size:
            break
    for t in range(m):
        j = column[t]
        way = 1 if d_i * x[j] > 0.0 else 0
        few_w[t], few_n[t] = w[j], n[j]
        for k in range(3):
            chosen[k, t] = own[2 * k + way, j]
        chosen[3, t], chosen[4, t] = own[6, j], own[7, j]
    return m


@fast
def _normals(k0, k1, n, z):
    for pair in range((n + 1) // 2):
        z[2 * pair], z[2 * pair + 1] = normal_pair(k0, k1, u32(pair))


@fast
def _normals_at(k0, k1, column, m, z):
    for t in range(m):
        even, odd = normal_pair(k0, k1, u32(column[t] >> 1))
        z[t] = odd if column[t] & 1 else even


@fast
def _train(m, w, n, c, s, a, low, high, z, sigma, is_additive, is_merged, is_left):
    """The trains of m columns at once, where the law allows; marks and counts the others."""
    n_left = 0
    for t in range(m):
        w_t, n_t, c_t, s_t = w[t], max(n[t], f32(1.0)), c[t], s[t]
        change = drift(w_t, n_t, c_t, s_t)
        if is_additive:
            noise, spread = additive(n_t, s_t, a[t], sigma, z[t])
        else:
            noise, spread = multiplicative(w_t, n_t, c_t, s_t, a[t], sigma, z[t])
        is_fine = is_merged & is_mergeable(w_t, change, spread, n_t, s_t, sigma, low[t], high[t])
        has_pulses = n[t] > f32(0.0)
        after = min(max(w_t + (change + noise), low[t]), high[t])
        w[t] = after if is_fine & has_pulses else w_t
        is_left[t] = np.uint8(has_pulses & (not is_fine))
        n_left += np.int32(is_left[t])
    return n_left


@fast
def _one_by_one(w, n, c, s, a, low, high, sigma, is_additive, k0, k1, j):
    """The train of one column, pulse by pulse, each with its own noise."""
    for k in range(n):
        even, odd = normal_pair(fold0(k0, u32(k + 1)), fold1(k1, u32(k + 1)), u32(j >> 1))
        step = c + s * w
        w = one_pulse(w, step, sigma * (a if is_additive else step), odd if j & 1 else even, low, high)
    return w
