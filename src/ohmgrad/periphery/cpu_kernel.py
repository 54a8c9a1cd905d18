"""The kernels of `cpu`: what stands before the matrix product and after it, compiled by Numba.

Rows are often short. So they are taken many at a time, step by step, in loops over all their numbers or over whole
registers: these run over a row's end, into the next, which is written later.
"""

from __future__ import annotations

import numpy as np

from ohmgrad import random
from ohmgrad.periphery.fused import CONSTANT
from ohmgrad.pulses.cpu_openmp import share
from ohmgrad.pulses.cpu_trains import LANES, bits, key_of, padded, u32, uniform
from ohmgrad.pulses.numba_target import (
    BARE,
    COUNTS,
    KEYS,
    NUMBA,
    Apart,
    address_of,
    float_of_bits,
    keep_whole,
    matrix_at,
    njit,
    vector_at,
)
from ohmgrad.vocabulary import retarget

quick_normal = retarget(random.quick_normal, NUMBA, words=True)
loop = njit(pipeline_class=Apart, **BARE)
# Most numbers that take one step before they take the next: rows, one at the least.
BLOCK = 2048
LIKE = WORDS = np.empty(0)  # of a template: an array of the matrix's dtype, and one of words as wide
IN_TURN = np.arange(BLOCK, dtype=np.float64)


def run(openmp_at, n_threads, kernel_at, from_at, to_at, room, n_rows, first, number, keys_at, options_at):
    """`convert_in` or `convert_out`, shared among threads; room as there."""
    given = np.array((from_at, to_at, address_of(room), room.size // 3, n_rows, first, number, keys_at, options_at))
    return share(openmp_at, n_threads, kernel_at, address_of(given)) + 0 * given[0]  # which is in use until here


def convert_in(k_share, n_shares, given_at):
    """DAC of a share of some rows of x, (batch, in): u = clip(round(x / (s r))) + noise, into u, (n_rows, in).

    given_at: address of int64: addresses of x, u and room, batch, n_rows, the number of the first vector, that of the
    round, in which r is 2**number, addresses of keys (kinds, 2) and options: in, out, way of scale, two for random
    rounding, whether both signs count at the bound, whether there is output noise, whether rows that meet the bound are
    read again, addresses of `numbers_of` and of each line's noise. room: for each vector its scale s, then for each row
    of u what its weights' noise is, then the row of x that it is. The first round finds scales, and takes all in turn.
    """
    given = vector_at(given_at, 9, COUNTS)
    batch, n_rows, first, number = given[3], given[4], given[5], given[6]
    keys, options = matrix_at(given[7], 5, 2, KEYS), vector_at(given[8], 10, COUNTS)
    n, numbers = options[0], vector_at(options[8], 8, LIKE)
    x, u = vector_at(given[0], batch * n, LIKE), vector_at(given[1], n_rows * n, LIKE)
    room = matrix_at(given[2], 3, batch, IN_TURN)
    scale, length, rows = room[0], room[1], room[2]  # to unpack them would leave arrays whose strides are unknown
    start, end = n_rows * k_share // n_shares, n_rows * (k_share + 1) // n_shares
    most = rows_at_once(n, end - start)
    own = np.empty((3, most * n + LANES), LIKE.dtype)
    copied, over, z = own[0], own[1], own[2]
    key, sizes = np.empty((2, most), np.uint32), np.empty(padded(n), WORDS.dtype)
    mask(sizes, n)
    for top in range(start, end, most):
        last = min(top + most, end)
        row, volts = rows[top:last], u[top * n : last * n]
        if number == 0:
            count(row, top)
        if number == 0 and last * n + LANES <= x.size:
            near = x[top * n :]
        else:
            near = copied
            copy_rows(x, n, row, near)
        if number == 0 and options[2]:
            find_scales(near.view(WORDS.dtype), sizes, n, options[2], numbers[7], row, scale, over)
        else:
            spread(over, n, scale, row, LIKE.dtype.type(2.0**number), 1.0)
        if options[3]:
            dithers(z, n, keys, 3, row, first, key)
        to_volts(near, over, z, numbers[0], numbers[1], options[3], volts)
        if numbers[2] > 0:
            normals(z, n, keys, 0, row, first, key)
            over[:] = numbers[2]
            add(volts, over, z)
        if numbers[3] > 0:
            find_lengths(volts, n, numbers[3], length[top:])
    return 0


def convert_out(k_share, n_shares, given_at):
    """ADC of a share of v, (n_rows, out), in place, into the rows of y, (batch, out): y = s r clip(round(v + noise)).

    given_at: as for `convert_in`, with v and y. Returns how many rows are to be read again, which then stand first
    among the share's in `room`, and after them -1.
    """
    given = vector_at(given_at, 9, COUNTS)
    batch, n_rows, first, number = given[3], given[4], given[5], given[6]
    keys, options = matrix_at(given[7], 5, 2, KEYS), vector_at(given[8], 10, COUNTS)
    n, numbers = options[1], vector_at(options[8], 8, LIKE)
    v, y = vector_at(given[0], n_rows * n, LIKE), vector_at(given[1], batch * n, LIKE)
    noise, factor = vector_at(options[9], n, LIKE), LIKE.dtype.type(2.0**number)
    room = matrix_at(given[2], 3, batch, IN_TURN)
    scale, length, rows = room[0], room[1], room[2]  # to unpack them would leave arrays whose strides are unknown
    start, end = n_rows * k_share // n_shares, n_rows * (k_share + 1) // n_shares
    most, n_again = rows_at_once(n, end - start), 0
    own = np.empty((4, most * n + LANES), LIKE.dtype)
    sigma, over, z, copied = own[0], own[1], own[2], own[3]
    key, hits, farthest = np.empty((2, most), np.uint32), np.empty(most), np.empty(padded(n), LIKE.dtype)
    for k in range(most):
        sigma[k * n : (k + 1) * n] = noise
    is_usual = options[6] and numbers[4] > 0 and not options[4] and not numbers[3] > 0
    for top in range(start, end, most):
        last, n_hits = min(top + most, end), 0
        row, now = rows[top:last], v[top * n : last * n]
        is_done = False
        if is_usual:
            near = v[top * n :]
            if last * n + LANES > v.size:
                near = copied
                copy(now, near[: now.size])
            keys_of(keys, 2, row, first, key)
            is_far = at_once(near, n, sigma, key, row, scale, factor, numbers, options[5], farthest, z)
            is_done = not (is_far and options[7])
        if is_done:
            copy(z, now)
        else:
            if numbers[3] > 0:
                normals(z, n, keys, 1, row, first, key)
                spread(over, n, length[top:], IN_TURN[: row.size], LIKE.dtype.type(1.0), 0.0)
                add(now, over, z)
            if options[6]:
                normals(z, n, keys, 2, row, first, key)
                add(now, sigma, z)
            if options[4]:
                dithers(z, n, keys, 4, row, first, key)
            if to_steps(now, z, numbers[4], options[4], numbers[5], options[5]) and options[7]:
                n_hits = hits_of(now, n, numbers[5], options[5], row, hits)
            spread(over, n, scale, row, factor, 0.0)
            to_numbers(now, over, numbers[5], numbers[6])
        if number:
            put(now, n, row, y)
        rows[start + n_again : start + n_again + n_hits] = hits[:n_hits]
        n_again += n_hits
    rows[start + n_again : end] = -1.0
    return n_again


def rows_at_once(n, m):
    """Of m rows of n numbers, those of about a block; a multiple of 64 where many: wide loops then leave no rest."""
    rows = max(1, BLOCK // max(1, n))
    return max(1, min(rows - rows % 64 if rows > 64 else rows, m))


@loop
def mask(sizes, n):
    """Of the bits of a number's size, and 0 beyond the row's end."""
    keep_whole()
    for t in range(sizes.size):
        sizes[t] = (1 << (8 * sizes.itemsize - 1)) - 1 if t < n else 0


@loop
def count(row, top):
    keep_whole()
    for k in range(row.size):
        row[k] = top + k


@loop
def copy(a, b):
    keep_whole()
    for t in range(b.size):
        b[t] = a[t]


@loop
def copy_rows(x, n, row, near):
    """The rows of x with these numbers."""
    keep_whole()
    for k in range(row.size):
        a, b = x[int(row[k]) * n :], near[k * n :]
        for t in range(n):
            b[t] = a[t]


@loop
def find_scales(x, sizes, n, kind, given, row, scale, over):
    """Noise management: the largest size, at most `given` if that is > 0, or `given` for all; NaN if none is finite.

    x: the vectors' bits, whole numbers: sizes are in the same order, and compilers find the largest many at a time.
    over: takes each row's scale at all of its numbers, or 1 for none, as `spread`.
    """
    keep_whole()
    for k in range(row.size):
        a, b, largest = x[k * n :], over[k * n :], x.dtype.type(0)
        for t in range(sizes.size):
            size = x.dtype.type(a[t] & sizes[t])
            largest = size if size > largest else largest
        s = float_of_bits(largest)
        if not s < np.inf:
            s = over.dtype.type(np.nan)
        elif kind == CONSTANT or 0 < given < s:
            s = given
        scale[int(row[k])] = s
        divisor = over.dtype.type(1.0) if s <= 0 else s
        for t in range(sizes.size):
            b[t] = divisor


@loop
def spread(a, n, values, row, factor, least):
    """Each row's value, times a factor, at all of its numbers; another for what is not above 0."""
    keep_whole()
    for k in range(row.size):
        b, value = a[k * n :], a.dtype.type(values[int(row[k])]) * factor
        value = a.dtype.type(least) if value <= 0 else value
        for t in range(padded(n)):
            b[t] = value


@loop
def to_volts(x, s, dither, step, bound, is_random, u):
    """u = x / s in multiples of a step (half to even, or at random; of none if 0), between the bounds."""
    keep_whole()
    if not step > 0:
        for t in range(u.size):
            u[t] = min(max(x[t] / s[t], -bound), bound)
    elif is_random:
        for t in range(u.size):
            u[t] = min(max(np.rint(x[t] / s[t] / step + dither[t]) * step, -bound), bound)
    else:
        for t in range(u.size):
            u[t] = min(max(np.rint(x[t] / s[t] / step) * step, -bound), bound)


@loop
def at_once(v, n, sigma, key, row, scale, factor, numbers, is_either_side, farthest, y):
    """All of the way out in the usual case: output noise and steps without chance; whether any is beyond the bound.

    v and y: rows with LANES numbers after them, which y loses.
    """
    keep_whole()
    step, bound, out_scale = numbers[4], numbers[5], numbers[6]
    for t in range(padded(n)):
        farthest[t] = 0.0
    for k in range(row.size):
        a, b, k0, k1 = v[k * n :], y[k * n :], key[0, k], key[1, k]
        s = y.dtype.type(scale[int(row[k])]) * factor
        s = y.dtype.type(0.0) if s <= 0 else s
        for t in range(padded(n)):
            number = a[t] + sigma[t] * y.dtype.type(quick_normal(k0, k1, u32(t)))
            number = np.rint(number / step) * step
            size = abs(number) if is_either_side else number
            farthest[t] = size if size > farthest[t] else farthest[t]
            b[t] = min(max(number, -bound), bound) * s * out_scale
    n_beyond = np.int32(0)
    for t in range(n):
        n_beyond = np.int32(n_beyond | np.int32(farthest[t] > bound))
    return n_beyond != 0


@loop
def to_steps(v, dither, step, is_random, bound, is_either_side):
    """v in multiples of a step, half to even, or at random (of none if 0); whether any is then beyond the bound."""
    keep_whole()
    low, n_beyond = -bound if is_either_side else v.dtype.type(-np.inf), np.int32(0)
    if not step > 0:
        for t in range(v.size):
            n_beyond = np.int32(n_beyond | np.int32(v[t] > bound) | np.int32(v[t] < low))
    elif is_random:
        for t in range(v.size):
            v[t] = np.rint(v[t] / step + dither[t]) * step
            n_beyond = np.int32(n_beyond | np.int32(v[t] > bound) | np.int32(v[t] < low))
    else:
        for t in range(v.size):
            v[t] = np.rint(v[t] / step) * step
            n_beyond = np.int32(n_beyond | np.int32(v[t] > bound) | np.int32(v[t] < low))
    return n_beyond != 0


@loop
def hits_of(v, n, bound, is_either_side, row, hits):
    """Rows that have a number above the bound, or on either side of it; how many they are."""
    keep_whole()
    m = 0
    for k in range(row.size):
        is_hit = False
        for t in range(k * n, (k + 1) * n):
            is_hit = is_hit or v[t] > bound or (is_either_side and v[t] < -bound)
        hits[m] = row[k]
        m += 1 if is_hit else 0
    return m


@loop
def to_numbers(v, s, bound, factor):
    """s v factor, with v between the bounds."""
    keep_whole()
    for t in range(v.size):
        v[t] = min(max(v[t], -bound), bound) * s[t] * factor


@loop
def put(v, n, row, y):
    """Rows of v into those of y."""
    keep_whole()
    for k in range(row.size):
        a, b = v[k * n :], y[int(row[k]) * n :]
        for t in range(n):
            b[t] = a[t]


@loop
def keys_of(keys, kind, row, first, key):
    """Keys of some vectors, many at a time."""
    keep_whole()
    for k in range(row.size):
        key[0, k], key[1, k] = key_of(keys, kind, first + np.int64(row[k]))


@loop
def normals(z, n, keys, kind, row, first, key):
    """A standard normal for each number of some rows."""
    keep_whole()
    keys_of(keys, kind, row, first, key)
    for k in range(row.size):
        a, k0, k1 = z[k * n :], key[0, k], key[1, k]
        for t in range(padded(n)):
            a[t] = z.dtype.type(quick_normal(k0, k1, u32(t)))


@loop
def dithers(z, n, keys, kind, row, first, key):
    """A uniform number between -1/2 and 1/2 for each number of some rows."""
    keep_whole()
    keys_of(keys, kind, row, first, key)
    for k in range(row.size):
        a, k0, k1 = z[k * n :], key[0, k], key[1, k]
        for t in range(padded(n)):
            a[t] = z.dtype.type(uniform(bits(k0, k1, u32(t)))) - z.dtype.type(0.5)


@loop
def add(v, sigma, z):
    keep_whole()
    for t in range(v.size):
        v[t] += sigma[t] * z[t]


@loop
def find_lengths(u, n, noise, length):
    keep_whole()
    for k in range(u.size // max(1, n)):
        power = u.dtype.type(0.0)
        for t in range(k * n, (k + 1) * n):
            power += u[t] * u[t]
        length[k] = noise * np.sqrt(power)
