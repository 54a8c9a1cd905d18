"""The trains of a mini-batch on the CPU: bit lengths and line bits, as `train` makes them, compiled by Numba."""

from __future__ import annotations

import numpy as np

from ohmgrad import random
from ohmgrad.pulses.numba_target import INLINE, NUMBA, kernel, njit
from ohmgrad.pulses.train import HUGE
from ohmgrad.vocabulary import retarget

fold0, fold1, bits = (retarget(f, NUMBA, words=True) for f in (random.fold0, random.fold1, random.bits))
inline = njit(**INLINE)
# No fused products where pulses are counted: counts are the same everywhere.
exact = njit(error_model="numpy")
f32, u32 = np.float32, np.uint32
STOCHASTIC, MEAN_COUNT, DETERMINISTIC = range(3)
BAD_D, BAD_X = 1, 1 << 16  # of any number of threads' answers, the sum tells both


@kernel()
def prepare(first, last, x, d, lr, granularity, options, base_x, base_d, cycle, length, x_on, d_on):
    """Trains of samples first ... last - 1 of a mini-batch.

    x: (batch, in), d: (batch, out). options: (train, longest, update and bit-length management, resolution, stochastic
    rounding). length: (batch,) int32, slots. x_on, d_on: (batch, words + 1, lines) uint32: line bits, or in
    word 0 the probabilities of other trains; in the last word 1 of lines above 0 and 2 of those below.
    Returns BAD_X where x holds NaN or infinity, BAD_D where d does, else 0.
    """
    for i in range(first, last):
        _clear(x_on[i])
        _clear(d_on[i])
        slots = _trains(x[i], d[i], lr, granularity, options, base_x, base_d, cycle + i, x_on[i], d_on[i])
        if slots < 0:
            return BAD_X if slots == -1 else BAD_D
        length[i] = slots
        _signs(x[i], x_on[i, -1])
        _signs(d[i], d_on[i, -1])
    return 0


@kernel()
def arrange(x_on, d_on, lane, sign):
    """Whether to take the mini-batch row by row or column by column, and how many columns or rows then take part.

    These, the lanes, stand in `lane`, and their bits side by side in x_on or d_on. sign: (batch,) int8, the side of 0
    on which all values of a sample's lanes lie, or 0.
    """
    rows, columns = _firing(d_on), _firing(x_on)
    is_by_row = _cost(rows, columns, 6.0, 4.0) <= _cost(columns, rows, 18.0, 5.0)
    return is_by_row, _gather(x_on if is_by_row else d_on, lane, sign)


@exact
def _firing(on):
    """How many lines fire in any sample, and in how many samples each does, in sum."""
    lines, fires = 0, 0
    for j in range(on.shape[2]):
        before = fires
        for i in range(on.shape[0]):
            word = u32(0)
            for v in range(on.shape[1] - 1):
                word |= on[i, v, j]
            fires += 1 if word else 0
        lines += 1 if fires > before else 0
    return lines, fires


@exact
def _cost(lines, lanes, load, apply):
    """Of a mini-batch taken line by line. load, apply: cycles to load a crosspoint and to apply a train to it."""
    return (lanes[0] + 15) // 16 * (lines[0] * load + lines[1] * apply)


@exact
def _gather(on, lane, sign):
    """The lines that have bits in any sample, side by side, or all where most have some; their number."""
    batch, n_words, n = on.shape[0], on.shape[1] - 1, on.shape[2]
    is_on, m = np.zeros(n, np.uint32), 0
    for i in range(batch):
        for word in range(n_words):
            for j in range(n):
                is_on[j] |= on[i, word, j]
    for j in range(n):
        lane[m] = j
        m += 1 if is_on[j] else 0
        if m == n:
            break
    if 3 * m > 2 * n:
        m = n
        for j in range(n):
            lane[j] = j
    else:
        for i in range(batch):
            for word in range(n_words + 1):
                for t in range(m):
                    on[i, word, t] = on[i, word, lane[t]]
    for i in range(batch):
        n_below, n_above = u32(0), u32(0)
        for t in range(m):
            n_below += on[i, n_words, t] >> u32(1)
            n_above += on[i, n_words, t] & u32(1)
        sign[i] = 1 if n_below == 0 else (-1 if n_above == 0 else 0)
    return m


@exact
def _trains(x, d, lr, granularity, options, base_x, base_d, cycle, x_on, d_on):
    """Slots of one sample's trains, which it makes; -1 where x, -2 where d holds NaN or infinity."""
    _, longest, is_managed, is_shortened, _, _ = options
    x_max, d_max = _largest(x), _largest(d)
    if not x_max < np.inf:
        return -1
    if not d_max < np.inf:
        return -2
    wanted = abs(lr) * x_max * d_max / granularity
    n = float(longest)
    if is_shortened:
        n = min(np.ceil(wanted), n)
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
    _line(x, b, int(n), options, base_x, cycle, x_on)
    _line(d, a, int(n), options, base_d, cycle, d_on)
    return int(n)


@inline
def _largest(values):
    """The largest size, infinity where a value is not finite."""
    largest, rest = 0.0, 0.0
    for value in values:
        size = abs(float(value))
        largest = size if size > largest else largest
        rest += size - size  # NaN once a value is infinite or NaN
    return largest if rest == 0.0 else np.inf


@exact
def _line(values, amplitude, length, options, base, cycle, words):
    """Bits, or the probability, of each line that is not 0."""
    n, m = values.size, 0
    place = np.empty(n, np.uint32)
    for j in range(n):
        place[m] = j
        m += 1 if values[j] != 0.0 else 0
    p, key = np.empty(m, np.float32), key_of(base, cycle)
    for t in range(m):
        p[t] = f32(min(abs(float(values[place[t]])) * amplitude, 1.0))
    if options[4] > 0.0:
        _round(values, amplitude, options[4], options[5], key, place, p)
    if options[0] == STOCHASTIC:
        _bits(p, place, length, key, words)
    else:
        for t in range(m):
            words[0, place[t]] = p.view(np.uint32)[t]


@exact
def _round(values, amplitude, resolution, is_random, key, place, p):
    """Probabilities in steps of the resolution; the draw stands in the slot after the last."""
    k0, k1 = fold0(key[0], u32(0xFFFFFFFF)), fold1(key[1], u32(0xFFFFFFFF))
    for t in range(p.size):
        u = (float(bits(k0, k1, u32(place[t])) >> u32(9)) + 0.5) / 8388608.0 if is_random else 0.5
        steps = min(abs(float(values[place[t]])) * amplitude, 1.0) / resolution
        p[t] = f32(min(np.floor(steps + u) * resolution, 1.0))


@exact
def _bits(p, place, length, key, words):
    m = p.size
    threshold, is_on, found = np.empty(m, np.uint32), np.empty(m, np.uint32), np.empty(m, np.uint32)
    for t in range(m):
        threshold[t] = u32(max(float(p[t]) * 4294967296.0 - 1.0, 0.0))
        is_on[t] = u32(1) if p[t] > f32(0.0) else u32(0)
    for word in range((length + 31) // 32):
        found[:] = u32(0)
        for slot in range(32 * word, min(32 * word + 32, length)):
            s0, s1, shift = fold0(key[0], u32(slot)), fold1(key[1], u32(slot)), u32(slot % 32)
            for t in range(m):
                hit = is_on[t] if bits(s0, s1, u32(place[t])) <= threshold[t] else u32(0)
                found[t] |= u32(hit << shift)
        for t in range(m):
            words[word, place[t]] = found[t]


@exact
def _clear(words):
    for v in range(words.shape[0] - 1):
        for j in range(words.shape[1]):
            words[v, j] = u32(0)


@exact
def _signs(values, out):
    for j in range(values.size):
        out[j] = u32(1) if values[j] > 0.0 else (u32(2) if values[j] < 0.0 else u32(0))


@inline
def key_of(base, word):
    """Key of a 64-bit place under a base key."""
    low, high = u32(word), u32(word >> 32)
    k0, k1 = fold0(base[0], low), fold1(base[1], low)
    return fold0(k0, high), fold1(k1, high)
