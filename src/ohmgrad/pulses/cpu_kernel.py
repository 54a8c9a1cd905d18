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
from ohmgrad.pulses import cpu_strips, cpu_trains, merge
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
STRIP = cpu_strips.STRIP
# Rows of `own`, over the lanes of one line. Of up pulses and, in the next row, of down pulses: C and S, the mean step,
# rate and inverse, the most pulses that merge. Then a sample's pulses, and those that are left. Of lanes that take
# theirs one by one: weight, pulses, whether these go up.
C, S, DW, H, V, MOST, N, LEFT, FEW, SORTED, UP, N_OWN = 0, 2, 4, 6, 8, 10, 12, 13, 14, 15, 16, 17
BOTH = 2  # the side of a sample whose lanes go up and down


# The family's own, which `cpu.kernel_of` puts into the templates: step(w, up, params, k, t), the signed change by one
# noise-free pulse of the element at lane t of line k, and whether it is affine in w.
step: Any = None
IS_AFFINE: Any = None


COUNTS, MOVED, NUMBERS, KEYS = (np.empty(0, t) for t in (np.int64, np.uint8, np.float64, np.uint32))  # dtypes


@njit(inline="always")
def _at(address, size, like):
    """The numbers at an address, of the dtype of `like`."""
    return matrix_at(address, 1, size, like)[0]


def pulse(share, n_shares, x_at, d_at, batch, lr, cycle, counts_at, moved_at, options_at, n_options, sigma):
    """Apply a mini-batch to a share of the lines of w, (out, in) but flat, in place; the pulses, or -1 for NaN or inf.

    x_at, d_at: addresses of (batch, in) and (batch, out), of w's dtype. counts_at, moved_at: addresses as w, or 0, of
    int64 to which pulses are added and of uint8 set where pulses arrived. sigma: noise, (1,) of w's dtype. options_at:
    address of int64: first those of `prepare`, from 5 on whether noise is additive, whether pulses may merge, in, out,
    which way to go (`cpu.ALONG`), whether there are crossed planes, the addresses of numbers and keys (of `prepare`,
    then the base keys of pulses and counts) and of w; then address, address when crossed, and size of each plane:
    w_min, w_max, dw_up, dw_down and what else the response takes, each (out, in), crossed (in, out), or one number. Of
    several threads each makes the trains and takes a share.
    """
    options = _at(options_at, n_options, COUNTS)
    numbers, keys = _at(options[11], 2, NUMBERS), matrix_at(options[12], 4, 2, KEYS)
    n_in, n_out, n_all = options[7], options[8], options[7] * options[8]
    x, d = matrix_at(x_at, batch, n_in, sigma), matrix_at(d_at, batch, n_out, sigma)
    w, counts = _at(options[13], n_all, sigma), _at(counts_at, n_all if counts_at else 0, COUNTS)
    moved = _at(moved_at, n_all if moved_at else 0, MOVED)
    law = (sigma[0], options[5] != 0, options[6] != 0)
    length, x_on, d_on, is_finite = cpu_trains.prepare(x, d, lr, options, numbers, keys, cycle)
    if not is_finite:
        return np.int64(-1)
    n_planes, total = (n_options - 14) // 3, np.int64(0)
    by_row = options[9] == 1 if options[9] else cpu_trains.is_by_row(x_on, d_on, options[10] != 0)
    is_crossed = not by_row and options[10] != 0  # along a column, the elements of a crossed plane are neighbours
    line_on, lane_on, to_line, to_lane = (d_on, x_on, n_in, 1) if by_row else (x_on, d_on, 1, n_in)
    first, last = line_on.shape[2] * share // n_shares, line_on.shape[2] * (share + 1) // n_shares
    lane = cpu_trains.lanes_of(lane_on)
    on, sign = cpu_strips.tiles(lane_on, lane)
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
    index, n_firing = np.empty((3, size), np.uint32), np.empty(n_strip, np.int64)
    at, place, hit = index[0], index[1], index[2]
    for top in range(first, last, n_strip):
        n_lines = min(n_strip, last - top)
        for tile in range(on.shape[0]):
            m = min(size, lane.size - tile * size)
            if not cpu_strips.firing(top, n_lines, line_on, n_firing):
                continue
            for t in range(m):
                at[t] = lane[tile * size + t] * u32(to_lane)
            near, to_next = (lane[tile * size : tile * size + m], n_out) if is_crossed else (at[:m], to_line)
            for k in range(n_planes):
                where_ = 14 + 3 * k
                plane = _at(options[where_ + 1 if is_crossed else where_], options[where_ + 2], sigma)
                cpu_strips.load(plane, top, to_next, n_lines, n_firing, near, m, stage, params, k)
            cpu_strips.load(w, top, to_line, n_lines, n_firing, at, m, stage, weights, 0)
            for k in range(n_lines):
                if n_firing[k]:
                    for t in range(m):
                        place[t] = u32((top + k) * to_line) + at[t]
                    total += _line(
                        top + k, k, tile, m, options[0], length, line_on, on, sign, lr < 0.0, law, keys,
                        cycle, place, weights, params, own, few_params, hit, counts, moved,
                    )  # fmt: skip
            cpu_strips.store(weights, top, to_line, n_lines, n_firing, at, m, stage, w)
    return total


def _line(
    line, k, tile, m, kind, length, line_on, on, sign, is_back, law, keys, cycle, place,
    weights, params, own, few_params, hit, counts, moved,
):  # fmt: skip
    """All samples at the m lanes of a line, whose weights and parameters stand in row k of theirs; the pulses."""
    total, ready, is_merged = np.int64(0), 0, IS_AFFINE and law[2]
    for i in range(length.size):
        if not is_firing(line_on, i, line):
            continue
        if kind == STOCHASTIC:
            n, most = _coincidences(line_on, i, line, on, tile, m, own)
        else:
            k0, k1 = key_of(keys, 3, cycle + i)
            _round_counts(k0, k1, kind == MEAN_COUNT, length[i], line_on[i, 0, line], on, tile, i, place, m, own)
            n, most = _tally(own, m)
        if not n:
            continue
        total += n
        _note(own, place, m, counts, moved)
        is_line_back = is_back != (line_on[i, -1, line] == u32(2))
        k0, k1 = key_of(keys, 2, cycle + i)
        if is_merged:
            if sign[tile, i]:
                side = 0 if is_line_back == (sign[tile, i] > 0) else 1
                ready = _make_ready(ready, side, most > 1, params, k, m, own, law[0])
            else:
                side = BOTH
                for one in range(2):
                    ready = _make_ready(ready, one, most > 1, params, k, m, own, law[0])
            if most == 1:
                _singles(weights, params, k, own, side, is_line_back, on, tile, i, place, m, law, k0, k1)
                continue
            most = _trains(weights, params, k, own, side, is_line_back, on, tile, i, place, m, law, k0, k1)
        if most:
            r = _sort(own, LEFT if is_merged else N, m, most, hit)
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
    """Pulses of sample i at the lanes of a line, into N; their sum and the largest."""
    if on.shape[2] == 2:
        total, most, line_word = np.int32(0), np.int32(0), line_on[i, 0, line]
        for t in range(m):
            n = np.int32(popcount(u32(on[tile, i, 0, t] & line_word)))
            own[N, t] = f32(n)
            total, most = np.int32(total + n), max(most, n)
        return total, most
    for t in range(m):
        own[N, t] = f32(0.0)
    for word in range(on.shape[2] - 1):
        line_word = line_on[i, word, line]
        if line_word:
            for t in range(m):
                own[N, t] += f32(np.int32(popcount(u32(on[tile, i, word, t] & line_word))))
    return _tally(own, m)


@exact
def _round_counts(k0, k1, is_random, length, line_p, on, tile, i, place, m, own):
    """Mean numbers of coincidences, rounded to the nearest or at random, into N."""
    p = float(float_of_bits(line_p))
    for t in range(m):
        u = uniform(bits(k0, k1, place[t])) if is_random else 0.5
        own[N, t] = np.floor(length * (p * float(float_of_bits(on[tile, i, 0, t]))) + u)


@fast
def _tally(own, m):
    """The sum and the largest of a sample's pulses at a line."""
    total, most = np.int32(0), np.int32(0)
    for t in range(m):
        n = np.int32(own[N, t])
        total, most = np.int32(total + n), max(most, n)
    return total, most


@fast
def _note(own, place, m, counts, moved):
    """Add a sample's pulses to what is kept of each crosspoint."""
    if counts.size:
        for t in range(m):
            counts[place[t]] += np.int64(own[N, t])
    if moved.size:
        for t in range(m):
            if own[N, t] > f32(0.0):
                moved[place[t]] = 1


def _make_ready(ready, side, is_long, params, k, m, own, sigma):
    """See to the parts of up (side 0) or down pulses; bits of ready: C, S and DW are there, and (4 <<) the rest."""
    if not ready & (1 << side):
        zero, one, up = own.dtype.type(0.0), own.dtype.type(1.0), side == 0
        for t in range(m):
            own[C + side, t], own[S + side, t] = step(zero, up, params, k, t), step(one, up, params, k, t)
            own[DW + side, t] = params[k, 2 + side, t]
        _difference(m, own, side)
    if is_long and not ready & (4 << side):
        _long_parts(m, own, side, sigma)
    return ready | (1 << side) | (4 << side if is_long else 0)


@fast
def _difference(m, own, side):
    """S, in a loop of its own: fused with products of the response it would be rounded in several ways."""
    for t in range(m):
        own[S + side, t] -= own[C + side, t]


@fast
def _long_parts(m, own, side, sigma):
    """What the law of trains needs to know of steps C + S w."""
    for t in range(m):
        s = own[S + side, t]
        v = inverse(s)
        own[V + side, t], own[H + side, t], own[MOST + side, t] = v, rate(s), longest(s * v, sigma)


@fast
def _singles(weights, params, k, own, side, is_back, on, tile, i, place, m, law, k0, k1):
    """One pulse, where there is one."""
    c, s, dw, last = C + side, S + side, DW + side, on.shape[2] - 1
    if side != BOTH:
        for t in range(m):
            w, z = weights[k, 0, t], own.dtype.type(quick_normal(k0, k1, place[t]))
            after = _one(w, own[c, t], own[s, t], own[dw, t], params[k, 0, t], params[k, 1, t], law, z)
            weights[k, 0, t] = after if own[N, t] > f32(0.0) else w
        return
    for t in range(m):
        w, z = weights[k, 0, t], own.dtype.type(quick_normal(k0, k1, place[t]))
        up = is_back != (on[tile, i, last, t] == u32(2))
        after = _one(
            w, _of(up, own, C, t), _of(up, own, S, t), _of(up, own, DW, t), params[k, 0, t], params[k, 1, t], law, z
        )
        weights[k, 0, t] = after if own[N, t] > f32(0.0) else w


@fast
def _trains(weights, params, k, own, side, is_back, on, tile, i, place, m, law, k0, k1):
    """Trains at once, where the law allows; LEFT gets the pulses of the others; the most of those."""
    most, c, s, dw, h, v, long = np.int32(0), C + side, S + side, DW + side, H + side, V + side, MOST + side
    if side != BOTH:
        for t in range(m):
            z = own.dtype.type(quick_normal(k0, k1, place[t]))
            weights[k, 0, t], own[LEFT, t] = _train(
                weights[k, 0, t], own[N, t], own[c, t], own[s, t], own[dw, t], own[h, t], own[v, t], own[long, t],
                params[k, 0, t], params[k, 1, t], law, z,
            )  # fmt: skip
            most = max(most, np.int32(own[LEFT, t]))
        return most
    last = on.shape[2] - 1
    for t in range(m):
        z, up = own.dtype.type(quick_normal(k0, k1, place[t])), is_back != (on[tile, i, last, t] == u32(2))
        weights[k, 0, t], own[LEFT, t] = _train(
            weights[k, 0, t], own[N, t], _of(up, own, C, t), _of(up, own, S, t), _of(up, own, DW, t),
            _of(up, own, H, t), _of(up, own, V, t), _of(up, own, MOST, t), params[k, 0, t], params[k, 1, t], law, z,
        )  # fmt: skip
        most = max(most, np.int32(own[LEFT, t]))
    return most


@inline
def _of(up, own, row, t):
    """The part of its direction."""
    return where(up, own[row, t], own[row + 1, t])


@inline
def _one(w, c, s, dw, low, high, law, z):
    """The weight after one pulse."""
    change = c + s * w
    return one_pulse(w, change, law[0] * (dw if law[1] else change), z, low, high)


@inline
def _train(w, n, c, s, dw, h, v, longest_, low, high, law, z):
    """The weight after a train of n pulses, and the pulses that are still to be applied one by one."""
    if law[1]:
        change, stray, spread = additive(w, n, c, s, h, dw, law[0], z)
    else:
        change, stray, spread = multiplicative(w, n, c, s, h, v, law[0], z)
    is_fine = is_mergeable(w, change, spread, n, longest_, low, high)
    after = minimum(maximum(w + (change + stray), low), high)
    one = _one(w, c, s, dw, low, high, law, z)
    after = after if is_fine else w
    return (after if n > f32(1.0) else (one if n > f32(0.0) else w)), (
        n if (n > f32(1.0)) & (not is_fine) else f32(0.0)
    )


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
