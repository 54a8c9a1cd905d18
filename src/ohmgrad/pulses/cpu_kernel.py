"""The kernels of `cpu`, compiled by Numba: `prepare` makes the trains of a mini-batch, `rows` applies them to weights.

`rows` and what it calls without a decorator are templates, compiled for each device family with its response inside. For each row and block of samples
it counts the coincidences of the line bits, takes all pulses at once where the law allows (`merge`), and the rest one
by one. Only the columns that get bits in a block take part; all that a row needs of them lies side by side in
`own`, so that the inner loops run over wide registers.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ohmgrad import random
from ohmgrad.devices.base import response_arguments
from ohmgrad.pulses import merge
from ohmgrad.pulses.numba_target import FAST, INLINE, NUMBA, float_of_bits, kernel, njit, popcount, specialised
from ohmgrad.vocabulary import fingerprint, retarget

fold0, fold1, bits, quick_normal = (
    retarget(f, NUMBA, words=True) for f in (random.fold0, random.fold1, random.bits, random.quick_normal)
)
inverse, rate, longest, multiplicative, additive, is_mergeable, one_pulse = (
    retarget(f, NUMBA)
    for f in (
        merge.inverse,
        merge.rate,
        merge.longest,
        merge.multiplicative,
        merge.additive,
        merge.is_mergeable,
        merge.pulse,
    )
)
minimum, maximum = NUMBA.namespace["minimum"], NUMBA.namespace["maximum"]
inline, fast = njit(**INLINE), njit(**FAST)
# No fused products where pulses are counted: counts are the same everywhere.
exact = njit(error_model="numpy")
f32, u32 = np.float32, np.uint32
STOCHASTIC, MEAN_COUNT, DETERMINISTIC = range(3)
# Rows of `own`, over the columns that take part, and of `few`, over some of these. Of up and, in the next row, of down
# pulses C and S over 1 + S, 1 + S, rate, the most pulses that merge, dw; from NOW on, one row each, those of one sample.
# Then the weights, the sample's pulses, bounds, and the pulses that are left.
C, S, ONE, H, MOST, DW, NOW = 0, 2, 4, 6, 8, 10, 12
W, N, LOW, HIGH, LEFT, N_OWN = 18, 19, 20, 21, 22, 23


@kernel()
def prepare(
    x,
    d,
    lr,
    granularity,
    options,
    base_x,
    base_d,
    cycle,
    first,
    last,
    length,
    x_on,
    d_on,
    sign,
):
    """Trains of samples first ... last - 1 of a mini-batch.

    x: (batch, in), d: (batch, out). options: (train, longest, update and bit-length management, resolution, stochastic
    rounding). length, sign: (batch,) int32 and int8, slots and the side of 0 on which all inputs lie, or 0. x_on:
    (batch, words + 1, in), d_on: (batch, words, out), uint32, zeroed: line bits, or in word 0 the probabilities of
    other trains; then whether x is negative.
    Returns 1 where x holds NaN or infinity, 2 where d does, else 0.
    """
    for i in range(first, last):
        slots = _trains(x[i], d[i], lr, granularity, options, base_x, base_d, cycle + i, x_on[i], d_on[i])
        if slots < 0:
            return -slots
        length[i], sign[i] = slots, _sign(x[i], x_on[i, -1])
    return 0


@kernel()
def compact(x_on, column, active, n_active):
    """Find the columns that take part in a mini-batch, and in each of its samples; the number of the former.

    column: (in,) uint32. Unless most have bits, x_on then holds theirs side by side. active: (batch, in) uint32 and
    n_active: (batch,) int32, places of a sample's bits among them, where they are few.
    """
    n_in, n_words = x_on.shape[2], x_on.shape[1] - 1
    is_on = np.zeros((x_on.shape[0] + 1, n_in), np.uint32)
    for i in range(x_on.shape[0]):
        for word in range(n_words):
            for j in range(n_in):
                is_on[i, j] |= x_on[i, word, j]
        for j in range(n_in):
            is_on[-1, j] |= is_on[i, j]
    m = _places(is_on[-1], column)
    if 2 * m > n_in:
        m = n_in
        for j in range(n_in):
            column[j] = j
    else:
        for i in range(x_on.shape[0]):
            for word in range(n_words + 1):
                for t in range(m):
                    x_on[i, word, t] = x_on[i, word, column[t]]
            for t in range(m):
                is_on[i, t] = is_on[i, column[t]]
    for i in range(x_on.shape[0]):
        n_active[i] = _places(is_on[i, :m], active[i])
    return m


@exact
def _places(is_on, place):
    m = 0
    for j in range(is_on.size):
        place[m] = j
        m += 1 if is_on[j] else 0
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


@inline
def _key(base, word):
    """Key of a 64-bit place under a base key."""
    low, high = u32(word), u32(word >> 32)
    k0, k1 = fold0(base[0], low), fold1(base[1], low)
    return fold0(k0, high), fold1(k1, high)


@exact
def _line(values, amplitude, length, options, base, cycle, words):
    """Bits, or the probability, of each line that is not 0."""
    n, m = values.size, 0
    place = np.empty(n, np.uint32)
    for j in range(n):
        place[m] = j
        m += 1 if values[j] != 0.0 else 0
    p, key = np.empty(m, np.float32), _key(base, cycle)
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
def _sign(x, is_negative):
    """1 or -1 where all inputs of a sample are on one side of 0, else 0; is_negative tells of each."""
    above, below = 0, 0
    for j in range(x.size):
        is_negative[j] = u32(1) if x[j] < 0.0 else u32(0)
        above += x[j] > 0.0
        below += x[j] < 0.0
    return 1 if below == 0 else (-1 if above == 0 else 0)


def step(w, up, params, t):
    """Signed change by one noise-free pulse of the element at t; a placeholder for a family's own."""
    raise NotImplementedError


IS_AFFINE = True


def rows(w, first, last, d, lr, trains, column, planes, strides, law, keys, cycle, counts):
    """Apply the trains of a mini-batch to rows first ... last - 1 of w, (out, in), in place; returns the pulses.

    trains: (length, x_on, d_on, sign, active, n_active) of `prepare` and `compact`. column: those that take part.
    planes: w_min, w_max, dw_up, dw_down and what else the response takes; flat, with strides. law: (noise, whether it is
    additive, whether pulses may merge, kind of train). keys: base keys of pulses and of counts. counts: (out, in) int64,
    to which pulses are added, or with no rows.
    """
    m, n_planes, total = column.size, len(planes), np.int64(0)
    own, params = np.empty((N_OWN, m), w.dtype), np.empty((n_planes, m), w.dtype)
    few, few_params = np.empty((N_OWN, m), w.dtype), np.empty((n_planes, m), w.dtype)
    every, hit, way = np.empty(m, np.uint32), np.empty(m, np.uint32), np.empty(m, np.uint32)
    for t in range(m):
        every[t] = t
    length, x_on, d_on, sign, active, n_active = trains
    for row in range(first, last):
        ways = _ways(row, d, lr, sign, d_on)
        if not ways:
            continue
        for k in range(n_planes):
            _load(planes[k], row * strides[k, 0], strides[k, 1], w.shape[1], column, params[k])
        _load(w[row], 0, 1, w.shape[1], column, own[W])
        if IS_AFFINE and law[2]:
            for t in range(m):
                own[LOW, t], own[HIGH, t] = params[0, t], params[1, t]
            for side in range(2):
                if ways & (1 << side):
                    _parts(params, own, side, law[0])
        pulses = np.int64(0)
        for i in range(length.size):
            if _fires(d_on[i], row):
                at = active[i, : n_active[i]] if 3 * n_active[i] < m else every
                is_back = (d[i, row] < 0.0) != (lr < 0.0)
                k0, k1 = _key(keys[0], cycle + i)
                key = fold0(k0, u32(row)), fold1(k1, u32(row))
                _count(row, i, at, m, trains, law, keys, cycle, column, own[N])
                pulses += _sample(at, is_back, sign[i], x_on[i, -1], law, key, column, own, params, few, few_params, hit, way)
                _tally(own[N], at, column, row, counts)
        if pulses:
            total += pulses
            _store(own[W], column, w[row])
    return total


@inline
def _ways(row, d, lr, sign, d_on):
    """Whether samples send pulses to the row: 1 for up, 2 for down, 3 for both; else 0."""
    ways = 0
    for i in range(sign.size):
        if _fires(d_on[i], row):
            up = 1 if (d[i, row] < 0.0) != (lr < 0.0) else 2  # for x > 0
            ways |= 3 if sign[i] == 0 else (up if sign[i] > 0 else 3 - up)
    return ways


@inline
def _fires(d_on, row):
    """Whether the row's line has a bit in any slot (of other trains: a probability)."""
    any_word = u32(0)
    for word in range(d_on.shape[0]):
        any_word |= d_on[word, row]
    return any_word != u32(0)


@inline
def _load(plane, start, stride, n_in, column, out):
    """A row of a plane at those columns, or its one number."""
    m = column.size
    if not stride:
        for t in range(m):
            out[t] = plane[0]
        return
    row = plane[start : start + n_in]
    if m == n_in:
        for t in range(m):
            out[t] = row[t]
    else:
        for t in range(m):
            out[t] = row[column[t]]


@inline
def _store(values, column, row):
    if column.size == row.size:
        for t in range(row.size):
            row[t] = values[t]
    else:
        for t in range(column.size):
            row[column[t]] = values[t]


@inline
def _tally(n, at, column, row, counts):
    if counts.shape[0]:
        for q in range(at.size):
            counts[row, column[at[q]]] += int(n[q])


@inline
def _count(row, i, at, m, trains, law, keys, cycle, column, n):
    """The pulses of sample i at some of a row's columns, into n."""
    _, x_on, d_on, _, _, _ = trains
    for q in range(at.size):
        n[q] = f32(0.0)
    if law[3] != STOCHASTIC:
        for q in range(at.size):
            n[q] = _rounded(row, i, trains, law, keys, cycle, column, at[q])
        return
    for word in range(d_on.shape[1]):
        d_word, x_words = d_on[i, word, row], x_on[i, word]
        if d_word and at.size == m:
            for t in range(m):
                n[t] += f32(np.int32(popcount(u32(x_words[t] & d_word))))
        elif d_word:
            for q in range(at.size):
                n[q] += f32(np.int32(popcount(u32(x_words[at[q]] & d_word))))


@exact
def _rounded(row, i, trains, law, keys, cycle, column, t):
    """Mean number of coincidences, rounded to the nearest or at random."""
    length, x_on, d_on, _, _, _ = trains
    u = 0.5
    if law[3] == MEAN_COUNT:
        k0, k1 = _key(keys[1], cycle + i)
        k0, k1 = fold0(k0, u32(row)), fold1(k1, u32(row))
        u = (float(bits(k0, k1, u32(column[t])) >> u32(9)) + 0.5) / 8388608.0
    p_d, p_x = float_of_bits(d_on[i, 0, row]), float_of_bits(x_on[i, 0, t])
    return f32(np.floor(float(length[i]) * (float(p_d) * float(p_x)) + u))


def _parts(params, own, way, sigma):
    """What merging needs to know of up (way 0) or down pulses."""
    zero, one, up = own.dtype.type(0.0), own.dtype.type(1.0), way == 0
    for t in range(params.shape[1]):
        c = step(zero, up, params, t)
        s = step(one, up, params, t) - c
        shrink = inverse(s)
        own[C + way, t], own[S + way, t], own[ONE + way, t] = c * shrink, s * shrink, one + s
        own[H + way, t], own[MOST + way, t] = rate(s), longest(s * shrink, sigma)
        own[DW + way, t] = params[2 + way, t]


def _sample(at, is_back, sign, is_negative, law, key, column, own, params, few, few_params, hit, way):
    """The pulses of one sample at a row; their number. Weights are in `own`, its pulses at places `at` too."""
    total, most = np.int32(0), np.int32(0)
    for q in range(at.size):
        n = np.int32(own[N, q])
        total, most = np.int32(total + n), max(most, n)
    left = N
    if most and IS_AFFINE and law[2]:
        left = LEFT
        if at.size < column.size:
            _gather(at, is_back, is_negative, column, own, few, hit, way)
            most = _merged(few, NOW, 1, hit[: at.size], law, key, most)
            for q in range(at.size):
                own[W, at[q]], own[LEFT, q] = few[W, q], few[LEFT, q]
        elif sign:
            most = _merged(own, 0 if is_back == (sign > 0) else 1, 2, column, law, key, most)
        else:
            _choose(is_back, is_negative, own)
            most = _merged(own, NOW, 1, column, law, key, most)
    if most:
        _one_by_one(at, own[left], is_back, is_negative, law, key, column, own, params, few, few_params, hit)
    return total


@fast
def _choose(is_back, is_negative, own):
    """What merging needs to know of each column's own direction."""
    for k in range(6):
        for t in range(own.shape[1]):
            own[NOW + k, t] = own[2 * k, t] if is_back != (is_negative[t] != u32(0)) else own[2 * k + 1, t]


@fast
def _gather(at, is_back, is_negative, column, own, few, hit, way):
    """All that merging needs to know of few columns, side by side."""
    for q in range(at.size):
        hit[q] = column[at[q]]
        way[q] = u32(0) if is_back != (is_negative[at[q]] != u32(0)) else u32(1)
    for k in range(6):
        for q in range(at.size):
            few[NOW + k, q] = own[2 * k + way[q], at[q]]
    for q in range(at.size):
        few[N, q] = own[N, q]
    for q in range(at.size):
        few[W, q], few[LOW, q], few[HIGH, q] = own[W, at[q]], own[LOW, at[q]], own[HIGH, at[q]]


@fast
def _merged(own, first, stride, column, law, key, most):
    """Trains at once, where the law allows; LEFT gets the pulses of the others; returns the most of those.

    The rows of `own` with C, S, ... begin with `first` and are `stride` apart. most: pulses of the longest train.
    """
    sigma, is_additive, _, _ = law
    w, n, left, low, high = own[W], own[N], own[LEFT], own[LOW], own[HIGH]
    c, s, one, h = own[first], own[first + stride], own[first + 2 * stride], own[first + 3 * stride]
    longest_, dw = own[first + 4 * stride], own[first + 5 * stride]
    if most == 1:
        for t in range(column.size):
            z = w.dtype.type(quick_normal(key[0], key[1], u32(column[t])))
            change = (c[t] + s[t] * w[t]) * one[t]
            unit = dw[t] if is_additive else change
            after = one_pulse(w[t], change, sigma * unit, z, low[t], high[t])
            w[t] = after if n[t] > f32(0.0) else w[t]
        return np.int32(0)
    if is_additive:
        for t in range(column.size):
            z, n_t = w.dtype.type(quick_normal(key[0], key[1], u32(column[t]))), maximum(n[t], f32(1.0))
            change, stray, spread = additive(w[t], n_t, c[t], s[t], h[t], dw[t], sigma, z)
            w[t], left[t] = _settle(w[t], n[t], n_t, change, stray, spread, longest_[t], low[t], high[t])
    else:
        for t in range(column.size):
            z, n_t = w.dtype.type(quick_normal(key[0], key[1], u32(column[t]))), maximum(n[t], f32(1.0))
            change, stray, spread = multiplicative(w[t], n_t, c[t], s[t], h[t], sigma, z)
            w[t], left[t] = _settle(w[t], n[t], n_t, change, stray, spread, longest_[t], low[t], high[t])
    most = np.int32(0)
    for t in range(column.size):
        most = max(most, np.int32(left[t]))
    return most


@inline
def _settle(w, n, n_t, change, stray, spread, longest_, low, high):
    """The weight after a train of n pulses, and the pulses that are still to be applied one by one."""
    is_fine = is_mergeable(w, change, spread, n_t, longest_, low, high)
    after = minimum(maximum(w + (change + stray), low), high)
    return after if is_fine & (n > f32(0.0)) else w, f32(0.0) if is_fine else n


def _one_by_one(at, left, is_back, is_negative, law, key, column, own, params, few, few_params, hit):
    """The pulses left at places `at`, each with its own noise."""
    r = _sort(left, at, few[1], hit)
    for q in range(r):
        few[0, q] = own[W, hit[q]]
        few[2, q] = 1.0 if is_back != (is_negative[hit[q]] != u32(0)) else 0.0
    for k in range(len(params)):
        for q in range(r):
            few_params[k, q] = params[k, hit[q]]
    _pulses(r, column, hit, law, key, few, few_params)
    for q in range(r):
        own[W, hit[q]] = few[0, q]


@fast
def _sort(n, at, n_hit, hit):
    """The places of those that have pulses to take, with the most first; their number."""
    most = 0
    for q in range(at.size):
        most = max(most, int(n[q]))
    first = np.zeros(most + 2, np.int32)
    for q in range(at.size):
        first[most - int(n[q]) + 1] += 1
    for k in range(1, most + 1):
        first[k] += first[k - 1]
    for q in range(at.size):
        k = most - int(n[q])
        if k < most:
            hit[first[k]], n_hit[first[k]] = at[q], n[q]
            first[k] += 1
    return first[most - 1] if most else 0


def _pulses(r, column, hit, law, key, few, params):
    """One pulse after the other at r elements, of which each has at least as many to take as the next."""
    w, n, up = few[0], few[1], few[2]
    for k in range(int(n[0]) if r else 0):
        q0, q1 = fold0(key[0], u32(k + 1)), fold1(key[1], u32(k + 1))
        while n[r - 1] <= k:
            r -= 1
        for q in range(r):
            is_up, z = up[q] > f32(0.0), w.dtype.type(quick_normal(q0, q1, u32(column[hit[q]])))
            change = step(w[q], is_up, params, q)
            unit = (params[2, q] if is_up else params[3, q]) if law[1] else change
            w[q] = one_pulse(w[q], change, law[0] * unit, z, params[0, q], params[1, q])


PLANES = ("w_min", "w_max", "dw_up", "dw_down")  # the first planes; then what else the response takes


@cache
def rows_of(family):
    """`rows` with the response of a device family inside."""
    response = retarget(family.response, NUMBA)
    places = (*PLANES, *family.own_parameters())
    given = ("dw" if name == "dw_min" else f"params[{places.index(name)}, t]" for name in response_arguments(family))
    source = f"""
def step(w, up, params, t):
    dw = params[2, t] if up else params[3, t]
    return params.dtype.type(response(w, up, {", ".join(given)}))
"""
    scope = {"response": response}
    exec(source, scope)  # a call with the family's own arguments
    name = f"rows_{family.__name__}_{fingerprint(family.response)}"
    return specialised(rows, name, step=inline(scope["step"]), IS_AFFINE=family.is_affine)
