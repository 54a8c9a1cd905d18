"""The kernel of `cpu` that applies trains to weights: one for each device family, compiled by Numba with its response.

Crosspoints are taken line by line: rows and in each the columns (its lanes), or the other way round where that
leaves more to skip: a sample costs nothing at a line that it leaves silent. For each sample that fires, one pass over
the lanes counts coincidences, one applies the trains where the law lets all their pulses act at once (`merge`), and the
rest follow pulse by pulse. What a line needs lies side by side in `own`, so that these passes run over wide registers.

Functions without a decorator are templates: `kernel_of` compiles them with the response of a family inside.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ohmgrad import random
from ohmgrad.devices.base import response_arguments
from ohmgrad.pulses import merge
from ohmgrad.pulses.cpu_trains import MEAN_COUNT, STOCHASTIC, bits, exact, f32, fold0, fold1, inline, key_of, u32
from ohmgrad.pulses.numba_target import FAST, NUMBA, float_of_bits, njit, popcount, specialised
from ohmgrad.vocabulary import fingerprint, retarget

quick_normal = retarget(random.quick_normal, NUMBA, words=True)
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
minimum, maximum, where = (NUMBA.namespace[name] for name in ("minimum", "maximum", "where"))
fast = njit(**FAST)
STRIP, TILE = 16, 1024  # lines and lanes whose planes are loaded together
# Rows of `own`, over the lanes of one line. Of up and, in the next row, of down pulses C and S over 1 + S, 1 + S, rate,
# the most pulses that merge; then bounds, a sample's pulses, and those that are left.
C, S, ONE, H, MOST, N, LEFT, N_OWN = 0, 2, 4, 6, 8, 10, 11, 12


def step(w, up, params, t):
    """Signed change by one noise-free pulse of the element at t; a placeholder for a family's own."""
    raise NotImplementedError


IS_AFFINE = True


def lines(first, last, w, trains, lane, planes, stride, law, keys, cycle, counts, moved):
    """Apply the trains of a mini-batch to lines first ... last - 1 of w, flat, in place; returns the pulses.

    trains: (length, line_on, lane_on, sign, whether lr < 0) of `prepare` and `arrange`. lane: the lanes that take part.
    planes: w_min, w_max, dw_up, dw_down and what else the response takes, each flat or one number. stride: from line to
    line and from lane to lane. law: (noise, whether it is additive, whether pulses may merge, kind of train). keys: base
    keys of pulses and of counts. counts: int64, to which pulses are added; moved: uint8, set where pulses arrived; both
    as w or empty.
    """
    n_planes, total, m = len(planes), np.int64(0), min(TILE, lane.size)
    params, weights = np.empty((STRIP, n_planes, m), w.dtype), np.empty((STRIP, 1, m), w.dtype)
    space = (np.empty((N_OWN, m), w.dtype), np.empty((3, m), w.dtype), np.empty((n_planes, m), w.dtype))
    at, place, hit = np.empty(m, np.uint32), np.empty(m, np.uint32), np.empty(m, np.uint32)
    ways = np.empty(STRIP, np.uint8)
    for top in range(first, last, STRIP):
        n_lines = min(STRIP, last - top)
        if not _ways(top, n_lines, trains, ways):
            continue
        for start in range(0, lane.size, TILE):
            size = min(TILE, lane.size - start)
            for t in range(size):
                at[t] = lane[start + t] * u32(stride[1])
            for k in range(n_planes):
                _load(planes[k], top * stride[0], stride[0], ways[:n_lines], at[:size], params, k)
            _load(w, top * stride[0], stride[0], ways[:n_lines], at[:size], weights, 0)
            for l in range(n_lines):
                if ways[l]:
                    for t in range(size):
                        place[t] = u32((top + l) * stride[0]) + at[t]
                    total += _line(
                        top + l, start, ways[l], trains, law, keys, cycle, place[:size],
                        weights[l, 0], params[l], space, hit, counts, moved,
                    )  # fmt: skip
                    _store(weights[l, 0], at[:size], w[(top + l) * stride[0] :])
    return total


@fast
def _ways(top, n_lines, trains, ways):
    """For each line, whether samples send it pulses: 1 for up, 2 for down, 3 for both, else 0; and all of these."""
    _, line_on, _, sign, is_back = trains
    together = 0
    for l in range(n_lines):
        way = 0
        for i in range(sign.size):
            if _fires(line_on, i, top + l):
                up = 1 if is_back != (line_on[i, -1, top + l] == u32(2)) else 2  # at lanes above 0
                way |= 3 if sign[i] == 0 else (up if sign[i] > 0 else 3 - up)
        ways[l] = way
        together |= way
    return together


@inline
def _fires(line_on, i, line):
    """Whether the line has a bit in any slot (of other trains: a probability)."""
    word = u32(0)
    for v in range(line_on.shape[1] - 1):
        word |= line_on[i, v, line]
    return word != u32(0)


@fast
def _load(plane, start, to_line, ways, at, out, k):
    """Some lines of a plane, or its one number, into out[:, k]; at: the lanes' distances from the first."""
    m = at.size
    for l in range(ways.size):
        one = out[l, k]
        if plane.size == 1:
            for t in range(m):
                one[t] = plane[0]
        elif ways[l]:
            line = plane[start + l * to_line :]
            if at[m - 1] - at[0] == u32(m - 1):
                near = line[at[0] :]
                for t in range(m):
                    one[t] = near[t]
            else:
                for t in range(m):
                    one[t] = line[at[t]]


@fast
def _store(values, at, line):
    m = at.size
    if at[m - 1] - at[0] == u32(m - 1):
        near = line[at[0] :]
        for t in range(m):
            near[t] = values[t]
    else:
        for t in range(m):
            line[at[t]] = values[t]


def _line(line, start, ways, trains, law, keys, cycle, place, w, params, space, hit, counts, moved):
    """All samples at a line, or a tile of it that begins with lane `start`; the pulses."""
    length, line_on, lane_on, sign, is_back = trains
    own, few, few_params = space
    m, total = place.size, np.int64(0)
    if IS_AFFINE and law[2]:
        for side in range(2):
            if ways & (1 << side):
                _parts(params, own, m, side, law[0])
    for i in range(length.size):
        if not _fires(line_on, i, line):
            continue
        most, lanes = (
            _count(i, line, start, length[i], line_on, lane_on, law, keys, cycle, place, own[N]),
            lane_on[i, -1],
        )
        if not most:
            continue
        total += _tally(own[N], place, counts, moved)
        is_line_back, side_of = is_back != (line_on[i, -1, line] == u32(2)), lanes[start : start + m]
        key, left = key_of(keys[0], cycle + i), N
        if IS_AFFINE and law[2]:
            left = LEFT
            if sign[i]:
                most = _merged(w, own, params, 0 if is_line_back == (sign[i] > 0) else 1, place, law, key, most)
            else:
                most = _merged_mixed(w, own, params, is_line_back, side_of, place, law, key, most)
        if most:
            r = _sort(own[left], m, few[1], hit)
            for q in range(r):
                few[0, q] = w[hit[q]]
                few[2, q] = 1.0 if is_line_back != (side_of[hit[q]] == u32(2)) else 0.0
            for k in range(len(params)):
                for q in range(r):
                    few_params[k, q] = params[k, hit[q]]
            _one_by_one(r, place, hit, law, key, few, few_params)
            for q in range(r):
                w[hit[q]] = few[0, q]
    return total


@fast
def _count(i, line, start, length, line_on, lane_on, law, keys, cycle, place, n):
    """The pulses of sample i at the lanes of a line, into n; the largest."""
    m = place.size
    if law[3] == STOCHASTIC:
        for t in range(m):
            n[t] = f32(0.0)
        for word in range(lane_on.shape[1] - 1):
            line_word, lane_words = line_on[i, word, line], lane_on[i, word, start : start + m]
            if line_word:
                for t in range(m):
                    n[t] += f32(np.int32(popcount(u32(lane_words[t] & line_word))))
    else:
        k0, k1 = key_of(keys[1], cycle + i)
        is_random, lane_p = law[3] == MEAN_COUNT, lane_on[i, 0, start : start + m]
        _round_counts(k0, k1, is_random, float(length), line_on[i, 0, line], lane_p, place, n)
    most = np.int32(0)
    for t in range(m):
        most = max(most, np.int32(n[t]))
    return most


@exact
def _round_counts(k0, k1, is_random, length, line_p, lane_p, place, n):
    """Mean numbers of coincidences, rounded to the nearest or at random."""
    p = float(float_of_bits(line_p))
    for t in range(place.size):
        u = (float(bits(k0, k1, place[t]) >> u32(9)) + 0.5) / 8388608.0 if is_random else 0.5
        n[t] = np.floor(length * (p * float(float_of_bits(lane_p[t]))) + u)


@fast
def _tally(n, place, counts, moved):
    total = np.int32(0)
    for t in range(place.size):
        total += np.int32(n[t])
    if counts.size:
        for t in range(place.size):
            counts[place[t]] += np.int64(n[t])
    if moved.size:
        for t in range(place.size):
            if n[t] > f32(0.0):
                moved[place[t]] = 1
    return total


def _parts(params, own, m, side, sigma):
    """What merging needs to know of up (side 0) or down pulses."""
    zero, one, up = own.dtype.type(0.0), own.dtype.type(1.0), side == 0
    for t in range(m):
        c = step(zero, up, params, t)
        s = step(one, up, params, t) - c
        shrink = inverse(s)
        own[C + side, t], own[S + side, t], own[ONE + side, t] = c * shrink, s * shrink, one + s
        own[H + side, t], own[MOST + side, t] = rate(s), longest(s * shrink, sigma)


@fast
def _merged(w, own, params, side, place, law, key, most):
    """Trains of one direction at once, where the law allows; LEFT gets the pulses of the others; the most of those."""
    m, is_additive, sigma, n, left = place.size, law[1], law[0], own[N], own[LEFT]
    c, s, one, h, longest_ = own[C + side], own[S + side], own[ONE + side], own[H + side], own[MOST + side]
    low, high, dw = params[0], params[1], params[2 + side]
    if most == 1:
        for t in range(m):
            z = w.dtype.type(quick_normal(key[0], key[1], place[t]))
            w[t], left[t] = _single(
                w[t], n[t], c[t], s[t], one[t], longest_[t], dw[t], low[t], high[t], is_additive, sigma, z
            )
        return _most(left, m)
    for t in range(m):
        z = w.dtype.type(quick_normal(key[0], key[1], place[t]))
        w[t], left[t] = _train(
            w[t], n[t], c[t], s[t], one[t], h[t], longest_[t], dw[t], low[t], high[t], is_additive, sigma, z
        )
    return _most(left, m)


@fast
def _merged_mixed(w, own, params, is_back, side_of, place, law, key, most):
    """`_merged` where each lane has a direction of its own."""
    m, is_additive, sigma, n, left = place.size, law[1], law[0], own[N], own[LEFT]
    low, high = params[0], params[1]
    if most == 1:
        for t in range(m):
            z, up = w.dtype.type(quick_normal(key[0], key[1], place[t])), is_back != (side_of[t] == u32(2))
            c, s = where(up, own[C, t], own[C + 1, t]), where(up, own[S, t], own[S + 1, t])
            one, dw = where(up, own[ONE, t], own[ONE + 1, t]), where(up, params[2, t], params[3, t])
            longest_ = where(up, own[MOST, t], own[MOST + 1, t])
            w[t], left[t] = _single(w[t], n[t], c, s, one, longest_, dw, low[t], high[t], is_additive, sigma, z)
        return _most(left, m)
    for t in range(m):
        z, up = w.dtype.type(quick_normal(key[0], key[1], place[t])), is_back != (side_of[t] == u32(2))
        c, s = where(up, own[C, t], own[C + 1, t]), where(up, own[S, t], own[S + 1, t])
        one, h = where(up, own[ONE, t], own[ONE + 1, t]), where(up, own[H, t], own[H + 1, t])
        longest_, dw = where(up, own[MOST, t], own[MOST + 1, t]), where(up, params[2, t], params[3, t])
        w[t], left[t] = _train(w[t], n[t], c, s, one, h, longest_, dw, low[t], high[t], is_additive, sigma, z)
    return _most(left, m)


@inline
def _one(w, c, s, one, dw, low, high, is_additive, sigma, z):
    """The weight after one pulse."""
    change = (c + s * w) * one
    return one_pulse(w, change, sigma * (dw if is_additive else change), z, low, high)


@inline
def _single(w, n, c, s, one, longest_, dw, low, high, is_additive, sigma, z):
    """`_train` where there is one pulse at most."""
    after, is_fine = _one(w, c, s, one, dw, low, high, is_additive, sigma, z), n <= longest_
    return after if is_fine & (n > f32(0.0)) else w, f32(0.0) if is_fine else n


@inline
def _train(w, n, c, s, one, h, longest_, dw, low, high, is_additive, sigma, z):
    """The weight after a train of n pulses, and the pulses that are still to be applied one by one."""
    n_t = maximum(n, f32(1.0))
    if is_additive:
        change, stray, spread = additive(w, n_t, c, s, h, dw, sigma, z)
    else:
        change, stray, spread = multiplicative(w, n_t, c, s, h, sigma, z)
    is_fine = is_mergeable(w, change, spread, n_t, longest_, low, high)
    after = minimum(maximum(w + (change + stray), low), high)
    # One pulse as `_single` has it, whatever the longest train beside it.
    after = after if n > f32(1.0) else _one(w, c, s, one, dw, low, high, is_additive, sigma, z)
    return after if is_fine & (n > f32(0.0)) else w, f32(0.0) if is_fine else n


@inline
def _most(left, m):
    most = np.int32(0)
    for t in range(m):
        most = max(most, np.int32(left[t]))
    return most


@fast
def _sort(n, m, n_hit, hit):
    """The lanes that have pulses to take, with the most first; their number."""
    most = 0
    for t in range(m):
        most = max(most, int(n[t]))
    first = np.zeros(most + 2, np.int32)
    for t in range(m):
        first[most - int(n[t]) + 1] += 1
    for k in range(1, most + 1):
        first[k] += first[k - 1]
    for t in range(m):
        k = most - int(n[t])
        if k < most:
            hit[first[k]], n_hit[first[k]] = t, n[t]
            first[k] += 1
    return first[most - 1]


def _one_by_one(r, place, hit, law, key, few, params):
    """One pulse after the other at r elements, of which each has at least as many to take as the next."""
    w, n, up = few[0], few[1], few[2]
    for k in range(int(n[0])):
        q0, q1 = fold0(key[0], u32(k + 1)), fold1(key[1], u32(k + 1))
        while n[r - 1] <= k:
            r -= 1
        for q in range(r):
            is_up, z = up[q] > f32(0.0), w.dtype.type(quick_normal(q0, q1, place[hit[q]]))
            change = step(w[q], is_up, params, q)
            unit = (params[2, q] if is_up else params[3, q]) if law[1] else change
            w[q] = one_pulse(w[q], change, law[0] * unit, z, params[0, q], params[1, q])


PLANES = ("w_min", "w_max", "dw_up", "dw_down")  # the first planes; then what else the response takes


@cache
def kernel_of(family):
    """`lines` with the response of a device family inside."""
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
    kind = "affine" if family.is_affine else "other"
    name = f"lines_{family.__name__}_{kind}_{fingerprint(family.response)}"
    return specialised(lines, name, step=inline(scope["step"]), IS_AFFINE=family.is_affine)
