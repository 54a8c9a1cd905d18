"""The kernels of `cpu`: line bits, and a row's trains over a whole mini-batch; compiled by Numba, see there.

For each sample and row: count the coincidences of the line bits, apply the train of every column at once where the law
allows (`merge`), and the rest pulse by pulse. Where few columns get pulses, those are gathered first.
"""

from __future__ import annotations

import numpy as np

from ohmgrad import random
from ohmgrad.pulses import merge
from ohmgrad.pulses.numba_target import INLINE, NUMBA, kernel, njit, popcount
from ohmgrad.vocabulary import retarget

fold0, fold1, bits, normal_pair = (
    retarget(f, NUMBA, words=True) for f in (random.fold0, random.fold1, random.bits, random.normal_pair)
)
drift, multiplicative, additive, is_mergeable, one_pulse = (
    retarget(f, NUMBA) for f in (merge.drift, merge.multiplicative, merge.additive, merge.is_mergeable, merge.pulse)
)
minimum, maximum = NUMBA.namespace["minimum"], NUMBA.namespace["maximum"]
inline = njit(**INLINE)
f32, u32 = np.float32, np.uint32
# No fused products where pulses are counted: counts are the same everywhere.
exact, fast = kernel(), kernel(fastmath={"contract", "nsz"})


@exact
def prepare(
    x, d, lr, granularity, longest, is_um, is_ublm, base_x, base_d, cycle, length, x_bits, d_bits, active, n_active
):
    """Bit length and line bits of each sample.

    x: (batch, in), d: (batch, out). length, n_active: (batch,) int32. x_bits, d_bits: (batch, words, lines) uint32,
    zeroed. active: (batch, in) int32: the columns with bits, and then x_bits holds theirs side by side; where most have
    some, all columns stay in place.
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
        length[i], n_active[i] = int(n), 0
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
        n_active[i] = _compact(x_bits[i], active[i])
    return 0


@exact
def _compact(bits_x, active):
    n_in, m = bits_x.shape[1], 0
    for j in range(n_in):
        word = u32(0)
        for v in range(bits_x.shape[0]):
            word |= bits_x[v, j]
        active[m] = j
        m += 1 if word else 0
        if m == n_in:
            break
    if 2 * m > n_in:
        return n_in
    for v in range(bits_x.shape[0]):
        for t in range(m):
            bits_x[v, t] = bits_x[v, active[t]]
    return m


@inline
def _largest(values):
    """The largest size, infinity where a value is not finite."""
    largest, rest = 0.0, 0.0
    for value in values:
        size = abs(float(value))
        largest = size if size > largest else largest
        rest += size - size  # NaN once a value is infinite or NaN
    return largest if rest == 0.0 else np.inf


@inline
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
    active,
    n_active,
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
    # The row's planes, up and down: c, s, and dw where noise is additive, else 1 / (1 + s); then low and high.
    own = np.empty((8, n_in), w.dtype)
    few = np.empty((7, n_in), w.dtype)  # c, s, noise, low, high, w, n of this sample's directions or few columns
    n, left = np.empty(n_in, w.dtype), np.empty(n_in, w.dtype)
    z, column = np.empty(n_in + 1, np.float32), np.empty(n_in, np.int32)
    sign = np.empty(x.shape[0], np.int8)
    for i in range(x.shape[0]):
        sign[i] = _sign(x[i])
    for row in range(first, last):
        for k in range(8):
            _load(planes[k], row * strides[k, 0], strides[k, 1], own[k])
        if not is_additive:
            for side in range(2):
                for j in range(n_in):
                    own[4 + side, j] = f32(1.0) / (f32(1.0) + own[2 + side, j])
        for i in range(x.shape[0]):
            d_i = -d[i, row] if lr < 0 else d[i, row]
            m, n_bits = n_active[i], _n_bits(d_bits[i], row)
            if d_i == 0.0 or length[i] == 0 or n_bits == 0:
                continue
            pulses, n_hit = _count(x_bits[i], d_bits[i], row, m, n)
            if pulses == 0:
                continue
            total += pulses
            k0, k1 = _key(base, cycle + i)
            k0, k1 = fold0(k0, u32(row)), fold1(k1, u32(row))
            law = (sigma, is_additive, is_merged, n_bits)
            is_gathered = m < n_in or 4 * n_hit < n_in
            if is_gathered:
                m = _gather(w[row], x[i], d_i, n, m, active[i], n_in, own, few, column)
                _normals_at(k0, k1, column, m, z)
                n_left = _train(m, few[5], few[6], few[0], few[1], few[2], few[3], few[4], z, law, left)
                for t in range(m):
                    w[row, column[t]] = few[5, t]
            else:
                _normals(k0, k1, n_in, z)
                if sign[i]:
                    way = 1 if (d_i > 0.0) == (sign[i] > 0) else 0
                    c, s, a = own[way], own[2 + way], own[4 + way]
                else:
                    _choose(x[i], d_i, own, few)
                    c, s, a = few[0], few[1], few[2]
                n_left = _train(m, w[row], n, c, s, a, own[6], own[7], z, law, left)
            if n_left:
                _finish(m, w[row], x[i], d_i, left, column, is_gathered, own, sigma, is_additive, k0, k1)
            if counts.shape[0]:
                for t in range(m):
                    if is_gathered:
                        counts[row, column[t]] += int(few[6, t])
                    else:
                        counts[row, t] += int(n[t])
    return total


@fast
def _n_bits(d_bits, row):
    """Slots in which the row's line fires."""
    n = 0
    for v in range(d_bits.shape[0]):
        n += np.int32(popcount(d_bits[v, row]))
    return n


@fast
def _load(plane, start, stride, row):
    if stride:
        row[:] = plane[start : start + row.size]
    else:
        row[:] = plane[0]


@fast
def _count(x_bits, d_bits, row, m, n):
    """Coincidences of a row with the m active columns, into n; their sum and the number of columns hit."""
    n[:m] = f32(0.0)
    for v in range(x_bits.shape[0]):
        bits_d = d_bits[v, row]
        if bits_d:
            bits_x = x_bits[v]
            for t in range(m):
                n[t] += f32(np.int32(popcount(u32(bits_x[t] & bits_d))))
    total, hit = np.int32(0), np.int32(0)
    for t in range(m):
        n_t = np.int32(n[t])
        total, hit = np.int32(total + n_t), np.int32(hit + (np.int32(1) if n_t else np.int32(0)))
    return total, hit


@fast
def _sign(x):
    """1 or -1 where all of a sample's inputs are on one side of 0, else 0."""
    n_above, n_below = 0, 0
    for x_j in x:
        n_above += x_j > 0.0
        n_below += x_j < 0.0
    return 1 if n_below == 0 else (-1 if n_above == 0 else 0)


@fast
def _choose(x, d_i, own, few):
    """Step and noise parameters of each column in its own direction."""
    for j in range(x.size):
        is_down = d_i * x[j] > 0.0
        for k in range(3):
            up, down = own[2 * k, j], own[2 * k + 1, j]
            few[k, j] = down if is_down else up


@fast
def _gather(w, x, d_i, n, n_active, active, n_in, own, few, column):
    """The columns that got pulses, with all that their trains need, side by side; returns how many."""
    m = 0
    for t in range(n_active):
        column[m] = active[t] if n_active < n_in else t
        few[6, m] = n[t]
        m += np.int32(n[t] > 0)
        if m == n_in:
            break
    for t in range(m):
        j = column[t]
        way = 1 if d_i * x[j] > 0.0 else 0
        for k in range(3):
            few[k, t] = own[2 * k + way, j]
        few[3, t], few[4, t], few[5, t] = own[6, j], own[7, j], w[j]
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
def _train(m, w, n, c, s, a, low, high, z, law, left):
    """The trains of m columns at once, where the law allows; left gets the pulses of the others; returns their sum.

    law: (noise, whether it is additive, whether trains may merge, the most pulses that a column got).
    """
    sigma, is_additive, is_merged, longest = law
    if not is_merged:
        left[:m] = n[:m]
    elif longest == 1:
        for t in range(m):
            step = c[t] + s[t] * w[t]
            noise = a[t] if is_additive else step
            w[t] = one_pulse(w[t], step, sigma * noise, z[t], low[t], high[t]) if n[t] > f32(0.0) else w[t]
        return f32(0.0)
    elif is_additive:
        for t in range(m):
            n_t = maximum(n[t], f32(1.0))
            change = drift(w[t], n_t, c[t], s[t])
            noise, spread = additive(n_t, s[t], a[t], sigma, z[t])
            w[t], left[t] = _settle(w[t], n[t], n_t, change, noise, spread, s[t], sigma, low[t], high[t])
    else:
        for t in range(m):
            n_t = maximum(n[t], f32(1.0))
            change = drift(w[t], n_t, c[t], s[t])
            noise, spread = multiplicative(w[t], n_t, c[t], s[t], a[t], sigma, z[t])
            w[t], left[t] = _settle(w[t], n[t], n_t, change, noise, spread, s[t], sigma, low[t], high[t])
    total = f32(0.0)
    for t in range(m):
        total += f32(left[t])
    return total


@inline
def _settle(w, n, n_t, change, noise, spread, s, sigma, low, high):
    """The weight after a train of n pulses, and the pulses that are still to be applied one by one."""
    is_fine = is_mergeable(w, change, spread, n_t, s, sigma, low, high)
    after = minimum(maximum(w + (change + noise), low), high)
    is_done = is_fine & (n > f32(0.0))
    return after if is_done else w, f32(0.0) if is_fine else n


@fast
def _finish(m, w, x, d_i, left, column, is_gathered, own, sigma, is_additive, k0, k1):
    """The trains that could not be merged, pulse by pulse, each with its own noise."""
    for t in range(m):
        if left[t]:
            j = column[t] if is_gathered else t
            way = 1 if d_i * x[j] > 0.0 else 0
            for k in range(int(left[t])):
                even, odd = normal_pair(fold0(k0, u32(k + 1)), fold1(k1, u32(k + 1)), u32(j >> 1))
                step = own[way, j] + own[2 + way, j] * w[j]
                noise = sigma * (own[4 + way, j] if is_additive else step)
                w[j] = one_pulse(w[j], step, noise, odd if j & 1 else even, own[6, j], own[7, j])
