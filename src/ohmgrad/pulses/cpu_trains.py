"""The trains of a mini-batch on the CPU: bit lengths and line bits, as `train` makes them, compiled by Numba."""

from __future__ import annotations

import numpy as np

from ohmgrad import random
from ohmgrad.pulses.numba_target import (
    INLINE,
    NUMBA,
    address_of,
    bits_of_float,
    float_of_bits,
    matrix_at,
    njit,
    popcount,
)
from ohmgrad.pulses.settings import TRAINS
from ohmgrad.pulses.train import HUGE, WHOLE
from ohmgrad.vocabulary import retarget

fold0, fold1, bits = (retarget(f, NUMBA, words=True) for f in (random.fold0, random.fold1, random.bits))
inline = njit(**INLINE)
# No fused products where pulses are counted: counts are the same everywhere.
exact = njit(error_model="numpy", fastmath=False)  # left out, callers' fastmath would be taken over
bare = njit(error_model="numpy", fastmath=False, _nrt=False)  # of functions that make no arrays
f32, u32 = np.float32, np.uint32
BY_ROWS, BY_COLUMNS, BY_HITS = 1, 2, 3  # ways to take a mini-batch to the crosspoints
LANES = 16  # to a multiple of which lines are filled up with 0: what is left of a loop would go one by one
STOCHASTIC, MEAN_COUNT = (TRAINS.index(train) for train in ("stochastic", "mean-count"))


@inline
def words_of(options):
    """32-bit words of bits that a line has."""
    return (options[1] + 31) // 32 if options[0] == STOCHASTIC else 1


@inline
def room_for(batch, n_words, n_in, n_out):
    """Words that the trains of a mini-batch take."""
    return batch * (1 + (n_words + 1) * (n_in + n_out))


@inline
def trains_in(room, batch, n_words, n_in, n_out):
    """Trains that stand in so many words: length, (batch,) int32, the slots of each sample; x_on, d_on.

    x_on, d_on: (batch, words + 1, lines) uint32, line bits, or in word 0 the probabilities of other trains; in the
    last word 1 of lines above 0 and 2 of those below.
    """
    end, size = batch * (n_words + 1) * n_in, room.size - batch
    x_on, d_on = room[:end].reshape((batch, n_words + 1, n_in)), room[end:size].reshape((batch, n_words + 1, n_out))
    return room[size:].view(np.int32), x_on, d_on


@exact
def prepare(first, last, x, d, lr, options, numbers, keys, cycle, length, x_on, d_on):
    """Make the trains of samples first to last of a mini-batch; whether x and d are finite there.

    x: (batch, in), d: (batch, out). options, int64: kind of train, longest, update and bit-length management,
    stochastic rounding. numbers, float64: granularity, resolution. length, x_on, d_on: of `trains_in`.
    """
    n_x, n_d = padded(x.shape[1]), padded(d.shape[1])
    most = max(n_x, n_d)
    values, room = np.zeros(n_x + n_d, x.dtype), np.empty(4 * most, np.uint32)
    x_row, d_row, p = values[:n_x], values[n_x:], room[3 * most :].view(np.float32)
    words = matrix_at(address_of(room), 3, most, room)
    for i in range(first, last):
        _clear(x_on, i)
        _clear(d_on, i)
        _copy(x[i], x_row, x.shape[1])
        _copy(d[i], d_row, d.shape[1])
        length[i] = _trains(x_row, d_row, lr, options, numbers, keys, cycle + i, x_on[i], d_on[i], p, words)
        if length[i] < 0:
            return False
        _signs(x_row, words[0], x_on[i, -1])
        _signs(d_row, words[0], d_on[i, -1])
    return True


@exact
def cheapest_way(x_on, d_on, length, kind, is_crossed):
    """Whether a mini-batch is taken by rows, by columns, whose elements lie apart, or by the crosspoints of pulses."""
    n_in, n_out = x_on.shape[2], d_on.shape[2]
    is_simple = kind == STOCHASTIC and x_on.shape[1] == 2 and n_in <= 4096
    if is_simple and length.size == 1 and n_in * n_out <= 2048:
        return BY_HITS  # to ask would cost more than it saves
    rows, columns = _firing(d_on), _firing(x_on)
    beside = 6.0 if is_most(columns[0], n_in) else 15.0
    apart = 9.0 if is_crossed else (18.0 if n_in < 1024 else 32.0)
    by_rows, by_columns = _cost(rows, columns, n_in, beside), _cost(columns, rows, n_out, apart)
    by_columns += min((n_in + 15) // 16, columns[0]) * n_out * 20.0  # weights come in cache lines of 16 columns
    by_hits = _cost_of_hits(x_on, d_on, length) if is_simple else np.inf
    if by_hits < min(by_rows, by_columns):
        return BY_HITS
    return BY_ROWS if by_rows <= by_columns else BY_COLUMNS


@exact
def _cost_of_hits(x_on, d_on, length):
    """Cycles that a mini-batch costs sample by sample: lines that meet, crosspoints that pulses reach, the law."""
    cost = 0.0
    for i in range(length.size):
        if length[i] > 0:
            x, d = _set_bits(x_on, i), _set_bits(d_on, i)
            meet, pulses = x[0] * d[0], x[1] * d[1] / length[i]
            hits = min(meet, pulses)
            cost += x_on.shape[2] + d[0] * 10.0 + meet * 2.0 + hits * 21.0 + min(hits, 1.0) * 1400.0
    return cost


@exact
def _set_bits(on, i):
    """How many lines have bits in a sample, and how many bits."""
    lines, n = np.int32(0), np.int32(0)
    for j in range(on.shape[2]):
        lines += np.int32(1 if on[i, 0, j] else 0)
        n += np.int32(popcount(on[i, 0, j]))
    return float(lines), float(n)


@inline
def is_most(m, n):
    """Whether so many of n lanes take part that all of them do: these lie side by side."""
    return 3 * m > 2 * n


@exact
def _cost(lines, lanes, n, load):
    """Cycles that a mini-batch costs line by line: to load crosspoints, and to send trains to 16 of them at a time."""
    m = n if is_most(lanes[0], n) else lanes[0]
    send = 82.0 if lanes[2] else 50.0
    return lines[0] * (m * load + 500.0) + lines[1] * ((m + 15) // 16 * send + 200.0)


@exact
def _firing(on):
    """How many lines fire in any sample, in how many samples each does, in sum, and whether both signs occur."""
    n, n_words, fires, lines = on.shape[2], on.shape[1] - 1, 0, 0
    now, ever, signs = np.empty(n, np.uint32), np.zeros(n, np.uint32), u32(0)
    for i in range(on.shape[0]):
        for j in range(n):
            now[j] = on[i, 0, j]
        for word in range(1, n_words):
            for j in range(n):
                now[j] |= on[i, word, j]
        count = np.int32(0)
        for j in range(n):
            count += np.int32(1 if now[j] else 0)
            ever[j] |= now[j]
            signs |= on[i, n_words, j]
        fires += count
    for j in range(n):
        lines += 1 if ever[j] else 0
    return lines, fires, signs == u32(3)


@inline
def is_firing(on, i, line):
    """Whether a line has a bit in any slot of a sample (of other trains: a probability)."""
    word = u32(0)
    for v in range(on.shape[1] - 1):
        word |= on[i, v, line]
    return word != u32(0)


@exact
def lanes_of(on):
    """The lines that have bits in any sample, uint32; or all where most have some, for these lie side by side."""
    n, m = on.shape[2], 0
    is_on, lane = np.zeros(n, np.uint32), np.empty(n, np.uint32)
    for i in range(on.shape[0]):
        for word in range(on.shape[1] - 1):
            for j in range(n):
                is_on[j] |= on[i, word, j]
    for j in range(n):
        lane[m] = j
        m += 1 if is_on[j] else 0
        if m == n:
            break
    if not is_most(m, n):
        return lane[:m]
    for j in range(n):
        lane[j] = j
    return lane


@bare
def padded(n):
    return (n + LANES - 1) // LANES * LANES


@bare
def _clear(on, i):
    for word in range(on.shape[1]):
        for j in range(on.shape[2]):
            on[i, word, j] = u32(0)


@bare
def _copy(a, b, n):
    for j in range(n):
        b[j] = a[j]


@bare
def _trains(x, d, lr, options, numbers, keys, cycle, x_on, d_on, p, words):
    """Slots of one sample's trains, which it makes; -1 where x or d holds NaN or infinity."""
    longest, is_managed, is_shortened, granularity = options[1], options[2] != 0, options[3] != 0, numbers[0]
    x_max, d_max = _largest(x), _largest(d)
    if not (x_max < np.inf and d_max < np.inf):
        return -1
    wanted = abs(lr) * x_max * d_max / granularity
    n = float(longest)
    if is_shortened:
        n = min(np.ceil(wanted * WHOLE), n)
    if n < 1.0 or not wanted > 0.0:
        return 0
    a = np.sqrt(abs(lr) / (granularity * n))
    b = a
    if is_managed or is_shortened:
        clipped = longest / wanted if wanted > longest else 1.0
        ratio = np.sqrt(x_max / (d_max * clipped))
        a, b = a * ratio, b / ratio
        if wanted > HUGE:
            a, b = HUGE / d_max, 1.0 / x_max
    _line(x, b, int(n), options, numbers, key_of(keys, 0, cycle), x_on, p, words)
    _line(d, a, int(n), options, numbers, key_of(keys, 1, cycle), d_on, p, words)
    return int(n)


@bare
def _largest(values):
    """The largest size, or what is not finite: bits are in the order of sizes, and are compared many at a time."""
    largest = bits_of_float(values.dtype.type(0.0))
    for t in range(values.size):
        size = bits_of_float(abs(values[t]))
        largest = size if size > largest else largest
    return float(float_of_bits(largest))


@bare
def _line(values, amplitude, length, options, numbers, key, on, p, words):
    """Bits, or the probability, of each line that is not 0; where most are not, of all, for these lie side by side."""
    place, n, m = words[0], on.shape[1], np.int32(0)
    for t in range(values.size):
        place[t] = u32(t)
        p[t] = f32(min(abs(float(values[t])) * amplitude, 1.0))
        m += np.int32(1 if values[t] != 0.0 else 0)
    is_dense = is_most(m, n)
    m = n if is_dense else _compact(values, p, place)
    if numbers[1] > 0.0:
        _round(values, amplitude, numbers[1], options[4] != 0, key, place, m, p)
    if options[0] == STOCHASTIC:
        _bits(p, place, m, is_dense, length, key, on, words[1], words[2])
    else:
        _put(p.view(np.uint32), place, m, is_dense, on[0])


@bare
def _compact(values, p, place):
    """Bring lines that are not 0 to the front, filled up with p = 0; how many they are."""
    m = 0
    for j in range(values.size):
        place[m], p[m] = u32(j), p[j]
        m += 1 if values[j] != 0.0 else 0
        if m == values.size:
            break
    for j in range(m, padded(m)):
        p[j] = f32(0.0)
    return m


@bare
def _round(values, amplitude, resolution, is_random, key, place, m, p):
    """Probabilities in steps of the resolution; the draw stands in the slot after the last."""
    k0, k1 = fold0(key[0], u32(0xFFFFFFFF)), fold1(key[1], u32(0xFFFFFFFF))
    for t in range(m):
        u = uniform(bits(k0, k1, place[t])) if is_random else 0.5
        steps = min(abs(float(values[place[t]])) * amplitude, 1.0) / resolution
        p[t] = f32(min(np.floor(steps + u) * resolution, 1.0))


@bare
def _bits(p, place, m, is_dense, length, key, on, threshold, found):
    n = padded(m)
    for t in range(n):
        threshold[t] = u32(max(float(p[t]) * 4294967296.0 - 1.0, 0.0))
    for word in range((length + 31) // 32):
        for t in range(n):
            found[t] = u32(0)
        for slot in range(32 * word, min(32 * word + 32, length)):
            s0, s1, shift = fold0(key[0], u32(slot)), fold1(key[1], u32(slot)), u32(slot % 32)
            for t in range(n):
                hit = u32(1) if bits(s0, s1, place[t]) <= threshold[t] else u32(0)
                found[t] |= u32(hit << shift)
        for t in range(n):
            found[t] = found[t] if p[t] > f32(0.0) else u32(0)
        _put(found, place, m, is_dense, on[word])


@bare
def _put(found, place, m, is_dense, on):
    if is_dense:
        _copy(found, on, m)
    else:
        for t in range(m):
            on[place[t]] = found[t]


@bare
def _signs(values, signs, on):
    for t in range(values.size):
        signs[t] = u32(1) if values[t] > 0.0 else (u32(2) if values[t] < 0.0 else u32(0))
    _copy(signs, on, on.size)


@inline
def uniform(word):
    """As `random.uniform`, in float64."""
    return (float(word >> u32(9)) + 0.5) / 8388608.0


@inline
def key_of(keys, kind, word):
    """Key of a 64-bit place under one of the base keys."""
    low, high = u32(word), u32(word >> 32)
    k0, k1 = fold0(keys[kind, 0], low), fold1(keys[kind, 1], low)
    return fold0(k0, high), fold1(k1, high)
