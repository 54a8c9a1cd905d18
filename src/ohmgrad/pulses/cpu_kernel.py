"""The kernel of `cpu`: one for each device family, compiled by Numba with the family's response inside.

Crosspoints are taken line by line: rows and in each the columns (its lanes), or the other way round where that
leaves more to skip: a sample costs nothing at a line that it leaves silent. For each sample that fires, one pass over
the lanes counts coincidences, one applies the trains where the law lets all their pulses act at once (`merge`), and the
rest follow pulse by pulse. What a line needs lies side by side, so that these passes run over wide registers.

Functions without a decorator are templates, see `cpu.kernel_of`. Arrays are indexed where they are, not sliced: each
view of an array counts its references.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ohmgrad import random
from ohmgrad.pulses import cpu_trains, merge
from ohmgrad.pulses.cpu_trains import (
    MEAN_COUNT,
    STOCHASTIC,
    bits,
    exact,
    f32,
    fold0,
    fold1,
    inline,
    is_firing,
    key_of,
    u32,
    uniform,
)
from ohmgrad.pulses.numba_target import FAST, NUMBA, float_of_bits, matrix_at, njit, popcount
from ohmgrad.vocabulary import retarget

quick_normal = retarget(random.quick_normal, NUMBA, words=True)
inverse, rate, longest, multiplicative, additive, is_mergeable, one_pulse = (
    retarget(getattr(merge, name), NUMBA)
    for name in ("inverse", "rate", "longest", "multiplicative", "additive", "is_mergeable", "pulse")
)
minimum, maximum, where = (NUMBA.namespace[name] for name in ("minimum", "maximum", "where"))
fast = njit(**FAST)
STRIP, TILE = 16, 1024  # lines and lanes whose planes are loaded together
# Rows of `own`, over the lanes of one line. Of up and, in the next row, of down pulses C and S over 1 + S, 1 + S,
# rate, the most pulses that merge; then a sample's pulses, and those that are left. Of lanes that take theirs one by
# one: weight, pulses, whether these go up.
C, S, ONE, H, MOST, N, LEFT, FEW, SORTED, UP, N_OWN = 0, 2, 4, 6, 8, 10, 11, 12, 13, 14, 15


# The family's own, which `cpu.kernel_of` puts into the templates: step(w, up, params, k, t), the signed change by one
# noise-free pulse of the element at lane t of line k, and whether it is affine in w.
step: Any = None
IS_AFFINE: Any = None


def pulse(share, n_shares, x_at, d_at, batch, lr, options, numbers, sigma, keys, w, planes, cycle, counts, moved):
    """Apply a mini-batch to a share of the lines of w, (out, in) but flat, in place; the pulses, or -1 for NaN or inf.

    x_at, d_at: addresses of (batch, in) and (batch, out), of w's dtype. options, numbers: see `prepare`; options[5:]:
    whether noise is additive, whether pulses may merge, in, out, and which way to go (`cpu.ALONG`). sigma: noise. keys:
    (4, 2), base keys of input and error lines, of pulses and of counts. planes: w_min, w_max, dw_up, dw_down and what
    else the response takes, each as w or one number. counts: int64, to which pulses are added; moved: uint8, set where
    pulses arrived; both as w or empty. Of several threads each makes the trains and takes a share.
    """
    n_in, n_out = options[7], options[8]
    x, d = matrix_at(x_at, batch, n_in, w), matrix_at(d_at, batch, n_out, w)
    law = (sigma, options[5] != 0, options[6] != 0)
    length, x_on, d_on, is_finite = cpu_trains.prepare(x, d, lr, options, numbers, keys, cycle)
    if not is_finite:
        return np.int64(-1)
    n_planes, total = len(planes), np.int64(0)
    by_row = options[9] == 1 if options[9] else cpu_trains.is_by_row(x_on, d_on)
    line_on, lane_on, to_line, to_lane = (d_on, x_on, n_in, 1) if by_row else (x_on, d_on, 1, n_in)
    first, last = line_on.shape[2] * share // n_shares, line_on.shape[2] * (share + 1) // n_shares
    lane = cpu_trains.lanes_of(lane_on)
    on, sign = _tiles(lane_on, lane)
    size = on.shape[3]
    n_strip = 1 if by_row and on.shape[0] > 1 else STRIP  # a row of several tiles is followed to its end
    # One piece of memory: for a small crossbar, asking for it costs as much as the work.
    n = n_planes * size
    room = np.empty((n_strip + 1) * n + (2 * n_strip + N_OWN) * size, w.dtype)
    params, few_params = room[: n_strip * n].reshape((n_strip, n_planes, size)), room[-n:].reshape((1, n_planes, size))
    rest = room[n_strip * n : -n]
    weights = rest[: n_strip * size].reshape((n_strip, 1, size))
    stage = rest[-n_strip * size :].reshape((size, n_strip))
    own = rest[n_strip * size : (n_strip + N_OWN) * size].reshape((N_OWN, size))
    index, ways = np.empty((3, size), np.uint32), np.empty(n_strip, np.uint8)
    at, place, hit = index[0], index[1], index[2]
    for top in range(first, last, n_strip):
        n_lines = min(n_strip, last - top)
        for tile in range(on.shape[0]):
            m = min(size, lane.size - tile * size)
            if not _ways(top, n_lines, line_on, sign[tile], lr < 0.0, ways):
                continue
            for t in range(m):
                at[t] = lane[tile * size + t] * u32(to_lane)
            for k in range(n_planes):
                _load(planes[k], top, to_line, n_lines, ways, at, m, stage, params, k)
            _load(w, top, to_line, n_lines, ways, at, m, stage, weights, 0)
            for k in range(n_lines):
                if ways[k]:
                    for t in range(m):
                        place[t] = u32((top + k) * to_line) + at[t]
                    total += _line(
                        top + k, k, tile, m, ways[k], options[0], length, line_on, on, sign, lr < 0.0, law, keys, cycle,
                        place, weights, params, own, few_params, hit, counts, moved,
                    )  # fmt: skip
            _store(weights, top, to_line, n_lines, ways, at, m, w)
    return total


@fast
def _tiles(lane_on, lane):
    """Bits of the lanes that take part, (tiles, batch, words + 1, lanes), and the side of 0 on which a sample lies."""
    batch, n_words, size = lane_on.shape[0], lane_on.shape[1] - 1, min(TILE, lane.size)
    n_tiles = (lane.size + TILE - 1) // TILE
    on, sign = np.empty((n_tiles, batch, n_words + 1, size), np.uint32), np.empty((n_tiles, batch), np.int8)
    for tile in range(n_tiles):
        start, m = tile * size, min(size, lane.size - tile * size)
        for i in range(batch):
            for word in range(n_words + 1):
                for t in range(m):
                    on[tile, i, word, t] = lane_on[i, word, lane[start + t]]
            n_below, n_above = u32(0), u32(0)
            for t in range(m):
                n_below += on[tile, i, n_words, t] >> u32(1)
                n_above += on[tile, i, n_words, t] & u32(1)
            sign[tile, i] = 1 if n_below == 0 else (-1 if n_above == 0 else 0)
    return on, sign


@fast
def _ways(top, n_lines, line_on, sign, is_back, ways):
    """For each line, whether samples send it pulses: 1 for up, 2 for down, 3 for both, else 0; and all of these."""
    together = 0
    for k in range(n_lines):
        way = 0
        for i in range(sign.size):
            if is_firing(line_on, i, top + k):
                up = 1 if is_back != (line_on[i, -1, top + k] == u32(2)) else 2  # at lanes above 0
                way |= 3 if sign[i] == 0 else (up if sign[i] > 0 else 3 - up)
        ways[k] = way
        together |= way
    return together


@fast
def _load(plane, top, to_line, n_lines, ways, at, m, stage, out, row):
    """Some lines of a plane, or its one number, into out[:, row]; at: the lanes' places in a line."""
    if plane.size > 1 and to_line == 1:  # columns, of which a cache line holds some: each is fetched once
        for t in range(m):
            near = plane[top + at[t] :]
            for k in range(n_lines):
                stage[t, k] = near[k]
    for k in range(n_lines):
        if plane.size == 1:
            for t in range(m):
                out[k, row, t] = plane[0]
        elif ways[k] and to_line == 1:
            for t in range(m):
                out[k, row, t] = stage[t, k]
        elif ways[k] and at[m - 1] - at[0] == u32(m - 1):
            near = plane[(top + k) * to_line + at[0] :]
            for t in range(m):
                out[k, row, t] = near[t]
        elif ways[k]:
            near = plane[(top + k) * to_line :]
            for t in range(m):
                out[k, row, t] = near[at[t]]


@fast
def _store(weights, top, to_line, n_lines, ways, at, m, w):
    """The way back of `_load`."""
    if to_line == 1:
        for t in range(m):
            near = w[top + at[t] :]
            for k in range(n_lines):
                if ways[k]:
                    near[k] = weights[k, 0, t]
        return
    for k in range(n_lines):
        near = w[(top + k) * to_line :]
        if ways[k] and at[m - 1] - at[0] == u32(m - 1):
            near = near[at[0] :]
            for t in range(m):
                near[t] = weights[k, 0, t]
        elif ways[k]:
            for t in range(m):
                near[at[t]] = weights[k, 0, t]


def _line(
    line, k, tile, m, ways, kind, length, line_on, on, sign, is_back, law, keys, cycle, place,
    weights, params, own, few_params, hit, counts, moved,
):  # fmt: skip
    """All samples at the m lanes of a line, whose weights and parameters stand in row k of theirs; the pulses."""
    total, is_merged = np.int64(0), IS_AFFINE and law[2]
    if is_merged:
        for side in range(2):
            if ways & (1 << side):
                _parts(params, k, m, own, side, law[0])
    for i in range(length.size):
        if not is_firing(line_on, i, line):
            continue
        if kind == STOCHASTIC:
            _coincidences(line_on, i, line, on, tile, m, own)
        else:
            k0, k1 = key_of(keys, 3, cycle + i)
            _round_counts(k0, k1, kind == MEAN_COUNT, length[i], line_on[i, 0, line], on, tile, i, place, m, own)
        n, most = _tally(own, place, m, counts, moved)
        if not n:
            continue
        total += n
        is_line_back, left = is_back != (line_on[i, -1, line] == u32(2)), N
        k0, k1 = key_of(keys, 2, cycle + i)
        if is_merged:
            left = LEFT
            if sign[tile, i]:
                side = 0 if is_line_back == (sign[tile, i] > 0) else 1
                most = _merged(weights, params, k, own, side, place, m, law, k0, k1, most)
            else:
                most = _merged_mixed(weights, params, k, own, is_line_back, on, tile, i, place, m, law, k0, k1, most)
        if most:
            r = _sort(own, left, m, most, hit)
            for q in range(r):
                t = hit[q]
                own[FEW, q] = weights[k, 0, t]
                own[UP, q] = 1.0 if is_line_back != (on[tile, i, -1, t] == u32(2)) else 0.0
            for row in range(params.shape[1]):
                for q in range(r):
                    few_params[0, row, q] = params[k, row, hit[q]]
            _one_by_one(r, place, hit, law, k0, k1, own, few_params)
            for q in range(r):
                weights[k, 0, hit[q]] = own[FEW, q]
    return total


@fast
def _coincidences(line_on, i, line, on, tile, m, own):
    """Pulses of sample i at the lanes of a line, into N."""
    for t in range(m):
        own[N, t] = f32(0.0)
    for word in range(on.shape[2] - 1):
        line_word = line_on[i, word, line]
        if line_word:
            for t in range(m):
                own[N, t] += f32(np.int32(popcount(u32(on[tile, i, word, t] & line_word))))


@exact
def _round_counts(k0, k1, is_random, length, line_p, on, tile, i, place, m, own):
    """Mean numbers of coincidences, rounded to the nearest or at random, into N."""
    p = float(float_of_bits(line_p))
    for t in range(m):
        u = uniform(bits(k0, k1, place[t])) if is_random else 0.5
        own[N, t] = np.floor(length * (p * float(float_of_bits(on[tile, i, 0, t]))) + u)


@fast
def _tally(own, place, m, counts, moved):
    """The sum and the largest of a sample's pulses at a line."""
    total, most = np.int32(0), np.int32(0)
    for t in range(m):
        n = np.int32(own[N, t])
        total, most = np.int32(total + n), max(most, n)
    if counts.size:
        for t in range(m):
            counts[place[t]] += np.int64(own[N, t])
    if moved.size:
        for t in range(m):
            if own[N, t] > f32(0.0):
                moved[place[t]] = 1
    return total, most


def _parts(params, k, m, own, side, sigma):
    """What merging needs to know of up (side 0) or down pulses."""
    zero, one, up = own.dtype.type(0.0), own.dtype.type(1.0), side == 0
    for t in range(m):
        c = step(zero, up, params, k, t)
        s = step(one, up, params, k, t) - c
        shrink = inverse(s)
        own[C + side, t], own[S + side, t], own[ONE + side, t] = c * shrink, s * shrink, one + s
        own[H + side, t], own[MOST + side, t] = rate(s), longest(s * shrink, sigma)


@fast
def _merged(weights, params, k, own, side, place, m, law, k0, k1, most):
    """Trains of one direction at once, where the law allows; LEFT gets the pulses of the others; the most of those."""
    c, s, one, h, longest_, is_single = C + side, S + side, ONE + side, H + side, MOST + side, most == 1
    most = np.int32(0)
    if is_single:
        for t in range(m):
            z, dw = own.dtype.type(quick_normal(k0, k1, place[t])), params[k, 2 + side, t]
            weights[k, 0, t], left = _single(
                weights[k, 0, t], own[N, t], own[c, t], own[s, t], own[one, t], own[longest_, t], dw, params[k, 0, t],
                params[k, 1, t], law, z,
            )  # fmt: skip
            own[LEFT, t] = left
            most = max(most, np.int32(left))
        return most
    for t in range(m):
        z, dw = own.dtype.type(quick_normal(k0, k1, place[t])), params[k, 2 + side, t]
        weights[k, 0, t], left = _train(
            weights[k, 0, t], own[N, t], own[c, t], own[s, t], own[one, t], own[h, t], own[longest_, t], dw,
            params[k, 0, t], params[k, 1, t], law, z,
        )  # fmt: skip
        own[LEFT, t] = left
        most = max(most, np.int32(left))
    return most


@fast
def _merged_mixed(weights, params, k, own, is_back, on, tile, i, place, m, law, k0, k1, most):
    """`_merged` where each lane has a direction of its own."""
    last, is_single, most = on.shape[2] - 1, most == 1, np.int32(0)
    if is_single:
        for t in range(m):
            z, up = own.dtype.type(quick_normal(k0, k1, place[t])), is_back != (on[tile, i, last, t] == u32(2))
            c, s = where(up, own[C, t], own[C + 1, t]), where(up, own[S, t], own[S + 1, t])
            one, longest_ = where(up, own[ONE, t], own[ONE + 1, t]), where(up, own[MOST, t], own[MOST + 1, t])
            low, high, dw = params[k, 0, t], params[k, 1, t], where(up, params[k, 2, t], params[k, 3, t])
            weights[k, 0, t], left = _single(
                weights[k, 0, t], own[N, t], c, s, one, longest_, dw, low, high, law, z
            )  # fmt: skip
            own[LEFT, t] = left
            most = max(most, np.int32(left))
        return most
    for t in range(m):
        z, up = own.dtype.type(quick_normal(k0, k1, place[t])), is_back != (on[tile, i, last, t] == u32(2))
        c, s = where(up, own[C, t], own[C + 1, t]), where(up, own[S, t], own[S + 1, t])
        one, longest_ = where(up, own[ONE, t], own[ONE + 1, t]), where(up, own[MOST, t], own[MOST + 1, t])
        low, high, dw = params[k, 0, t], params[k, 1, t], where(up, params[k, 2, t], params[k, 3, t])
        h = where(up, own[H, t], own[H + 1, t])
        weights[k, 0, t], left = _train(weights[k, 0, t], own[N, t], c, s, one, h, longest_, dw, low, high, law, z)
        own[LEFT, t] = left
        most = max(most, np.int32(left))
    return most


@inline
def _one(w, c, s, one, dw, low, high, law, z):
    """The weight after one pulse."""
    change = (c + s * w) * one
    return one_pulse(w, change, law[0] * (dw if law[1] else change), z, low, high)


@inline
def _single(w, n, c, s, one, longest_, dw, low, high, law, z):
    """`_train` where there is one pulse at most."""
    after, is_fine = _one(w, c, s, one, dw, low, high, law, z), n <= longest_
    return after if is_fine & (n > f32(0.0)) else w, f32(0.0) if is_fine else n


@inline
def _train(w, n, c, s, one, h, longest_, dw, low, high, law, z):
    """The weight after a train of n pulses, and the pulses that are still to be applied one by one."""
    n_t = maximum(n, f32(1.0))
    if law[1]:
        change, stray, spread = additive(w, n_t, c, s, h, dw, law[0], z)
    else:
        change, stray, spread = multiplicative(w, n_t, c, s, h, law[0], z)
    is_fine = is_mergeable(w, change, spread, n_t, longest_, low, high)
    after = minimum(maximum(w + (change + stray), low), high)
    # One pulse as `_single` has it, whatever the longest train beside it.
    after = after if n > f32(1.0) else _one(w, c, s, one, dw, low, high, law, z)
    return after if is_fine & (n > f32(0.0)) else w, f32(0.0) if is_fine else n


@fast
def _sort(own, row, m, most, hit):
    """The lanes that have pulses to take, with the most first, into hit, their pulses into SORTED; their number."""
    first = np.zeros(most + 2, np.int32)
    for t in range(m):
        first[most - np.int32(own[row, t]) + 1] += 1
    for k in range(1, most + 1):
        first[k] += first[k - 1]
    for t in range(m):
        k = most - np.int32(own[row, t])
        if k < most:
            hit[first[k]], own[SORTED, first[k]] = t, own[row, t]
            first[k] += 1
    return first[most - 1]


def _one_by_one(r, place, hit, law, k0, k1, own, params):
    """One pulse after the other at r elements, of which each has at least as many to take as the next."""
    for k in range(int(own[SORTED, 0])):
        q0, q1 = fold0(k0, u32(k + 1)), fold1(k1, u32(k + 1))
        while own[SORTED, r - 1] <= k:
            r -= 1
        for q in range(r):
            w, up, z = own[FEW, q], own[UP, q] > f32(0.0), own.dtype.type(quick_normal(q0, q1, place[hit[q]]))
            change = step(w, up, params, 0, q)
            unit = (params[0, 2, q] if up else params[0, 3, q]) if law[1] else change
            own[FEW, q] = one_pulse(w, change, law[0] * unit, z, params[0, 0, q], params[0, 1, q])
