"""The kernel of `cpu`, compiled by Numba, which calls a device family's own functions (`cpu_family`).

A mini-batch goes one of three ways, whichever costs least. Line by line: rows and in each the columns (its lanes), or
the other way round where that leaves more to skip; a line's weights and parameters are loaded once, and a sample costs
nothing at a line that it leaves silent. Or sample by sample, at those crosspoints alone that pulses reach (`cpu_hits`).
"""

from __future__ import annotations

import numpy as np

from ohmgrad.pulses import cpu_strips, cpu_trains
from ohmgrad.pulses.cpu_family import N_OWN, N
from ohmgrad.pulses.cpu_hits import PLANES, by_hits
from ohmgrad.pulses.cpu_law import BOTH, apply, bare, note, tally
from ohmgrad.pulses.cpu_openmp import share
from ohmgrad.pulses.cpu_trains import (
    BY_COLUMNS,
    BY_HITS,
    BY_ROWS,
    MEAN_COUNT,
    STOCHASTIC,
    bits,
    exact,
    f32,
    inline,
    is_firing,
    key_of,
    u32,
    uniform,
)
from ohmgrad.pulses.numba_target import (
    COUNTS,
    KEYS,
    MOVED,
    NUMBERS,
    address_of,
    bits_of_float,
    float_of_bits,
    matrix_at,
    popcount,
    vector_at,
)

LIKE = np.empty(0)  # of a template: an array of the weight's dtype


def run(openmp_at, n_threads, kernel_at, x_at, d_at, batch, lr, cycle, trains_at, counts_at, moved_at, options_at,
        n_options, sigma_at):  # fmt: skip
    """`trains` or `pulse`, shared among threads: the pulses, or below 0 for NaN or inf."""
    given = np.array((
        x_at, d_at, batch, np.int64(bits_of_float(lr)), cycle, trains_at, counts_at, moved_at, options_at, n_options,
        sigma_at,
    ))  # fmt: skip
    return share(openmp_at, n_threads, kernel_at, address_of(given)) + 0 * given[0]  # which is in use until here


def run_few(plan_at, x_at, d_at, batch, lr, cycle):
    """`run` with `pulse` on one thread, for an update so small that to read more arguments takes a part of its time.

    plan_at: address of int64: the kernel, and the last three arguments of `run`.
    """
    plan = vector_at(plan_at, 4, COUNTS)
    return run(0, 1, plan[0], x_at, d_at, batch, lr, cycle, 0, 0, 0, plan[1], plan[2], plan[3])


def _given(given_at):
    """x, d, lr, options, numbers and keys of `run`, its array, whose words stand at an address, and sigma."""
    given = vector_at(given_at, 11, COUNTS)
    options, sigma = vector_at(given[8], given[9], COUNTS), vector_at(given[10], 1, LIKE)
    x, d = matrix_at(given[0], given[2], options[7], sigma), matrix_at(given[1], given[2], options[8], sigma)
    numbers, keys = vector_at(options[11], 2, NUMBERS), matrix_at(options[12], 4, 2, KEYS)
    return given, x, d, float_of_bits(given[3]), options, numbers, keys, sigma


def trains(k_share, n_shares, given_at):
    """Make the trains of a share of a mini-batch's samples for `pulse`; 0, or -1 for NaN or inf."""
    given, x, d, lr, options, numbers, keys, _ = _given(given_at)
    made, batch = _trains_at(given[5], x, d, cpu_trains.words_of(options)), given[2]
    first, last = batch * k_share // n_shares, batch * (k_share + 1) // n_shares
    return np.int64(0 if cpu_trains.prepare(first, last, x, d, lr, options, numbers, keys, given[4], *made) else -1)


def pulse(k_share, n_shares, given_at):
    """Apply a mini-batch to a share of the lines of w, (out, in) but flat, in place; the pulses, or -1 for NaN or inf.

    given_at: address of int64: addresses of x, (batch, in), and d, (batch, out), of w's dtype, batch, the bits of
    lr, float64, the number of the first sample, addresses of the words of `trains`, or 0, of int64 as w to which
    pulses are added, or 0, of uint8 as w set where pulses arrived, or 0, of options, with their number, and of the
    noise, (1,) of w's dtype. Options, int64: first those of `prepare`, from 5 on the kind of noise, whether pulses
    may merge, in, out, which way to go (`cpu.ALONG`), whether there are crossed planes, the addresses of numbers
    and keys (of `prepare`, then the base keys of pulses and counts), of w, of the family's `parts`, `everywhere`
    and `one_by_one`, of its tables with their length; then address, address when crossed, and size of each plane:
    w_min, w_max, dw_up, dw_down and what else the response takes, each (out, in), crossed (in, out), or one number.
    Where there are no trains yet, each of several threads makes all of them for itself.
    """
    given, x, d, lr, options, numbers, keys, sigma = _given(given_at)
    batch, cycle, trains_at, counts_at, moved_at, n_options = given[2], given[4], given[5], given[6], given[7], given[9]
    n_in, n_out, n_all = options[7], options[8], options[7] * options[8]
    w, counts = vector_at(options[13], n_all, sigma), vector_at(counts_at, n_all if counts_at else 0, COUNTS)
    moved = vector_at(moved_at, n_all if moved_at else 0, MOVED)
    family = (options[14], options[15], options[16], options[17], options[18])
    law = (sigma[0], options[5], options[6] != 0, address_of(sigma), *family)
    length, x_on, d_on = _trains_at(trains_at, x, d, cpu_trains.words_of(options))
    if not trains_at and not cpu_trains.prepare(
        0, batch, x, d, lr, options, numbers, keys, cycle, length, x_on, d_on
    ):  # fmt: skip
        return np.int64(-1)
    n_planes, total = (n_options - PLANES) // 3, np.int64(0)
    way = options[9] if options[9] else cpu_trains.cheapest_way(x_on, d_on, length, options[0], options[10] != 0)
    if way == BY_HITS:
        return by_hits(
            k_share, n_shares, x_on, d_on, options, n_planes, sigma, lr < 0.0, law, keys, cycle, w, counts, moved
        )
    by_row = way == BY_ROWS
    is_crossed = way == BY_COLUMNS and options[10] != 0  # down a column, the elements of a crossed plane are neighbours
    line_on, lane_on, to_line, to_lane = (d_on, x_on, n_in, 1) if by_row else (x_on, d_on, 1, n_in)
    first, last = line_on.shape[2] * k_share // n_shares, line_on.shape[2] * (k_share + 1) // n_shares
    lane = cpu_trains.lanes_of(lane_on)
    on, sign = cpu_strips.tiles(lane_on, lane)
    size = on.shape[3]
    n_strip = 1 if by_row and on.shape[0] > 1 else cpu_strips.STRIP  # a row of several tiles is followed to its end
    # One piece of memory: for a small crossbar, asking for it costs as much as the work.
    n = n_planes * size
    room = np.empty((n_strip + 1) * n + (2 * n_strip + N_OWN) * size, w.dtype)
    params, few_params = room[: n_strip * n].reshape((n_strip, n_planes, size)), room[-n:].reshape((1, n_planes, size))
    rest = room[n_strip * n : -n]
    weights = rest[: n_strip * size].reshape((n_strip, 1, size))
    stage = rest[-n_strip * size :].reshape((size, n_strip))
    own = rest[n_strip * size : (n_strip + N_OWN) * size].reshape((N_OWN, size))
    index, n_firing = np.empty(4 * size + options[1] + 2, np.uint32), np.empty(n_strip, np.int64)
    at, place, hit = index[:size], index[size : 2 * size], index[2 * size :]
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
                where_ = PLANES + 3 * k
                plane = vector_at(options[where_ + 1 if is_crossed else where_], options[where_ + 2], sigma)
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


@inline
def _trains_at(address, x, d, n_words):
    """Trains that stand at an address, or room for them where it is 0."""
    n = cpu_trains.room_for(x.shape[0], n_words, x.shape[1], d.shape[1])
    room = vector_at(address, n, KEYS) if address else np.empty(n, np.uint32)
    return cpu_trains.trains_in(room, x.shape[0], n_words, x.shape[1], d.shape[1])


@bare
def _line(
    line, k, tile, m, kind, length, line_on, on, sign, is_back, law, keys, cycle, place,
    weights, params, own, few_params, hit, counts, moved,
):  # fmt: skip
    """All samples at the m lanes of a line, whose weights and parameters stand in row k of theirs; the pulses."""
    total, ready = np.int64(0), 0
    for i in range(length.size):
        if not is_firing(line_on, i, line):
            continue
        if kind == STOCHASTIC:
            n, most = _coincidences(line_on, i, line, on, tile, m, own)
        else:
            k0, k1 = key_of(keys, 3, cycle + i)
            _round_counts(k0, k1, kind == MEAN_COUNT, length[i], line_on[i, 0, line], on, tile, i, place, m, own)
            n, most = tally(own, m)
        if n:
            total += n
            note(own, place, m, counts, moved)
            is_line_back, side = is_back != (line_on[i, -1, line] == u32(2)), BOTH
            if sign[tile, i]:
                side = 0 if is_line_back == (sign[tile, i] > 0) else 1
            k0, k1 = key_of(keys, 2, cycle + i)
            ready = apply(
                weights, params, k, m, own, side, ready, most, is_line_back, on, tile, i, place, law, k0, k1, hit,
                few_params,
            )  # fmt: skip
    return total


@bare
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
    return tally(own, m)


@exact
def _round_counts(k0, k1, is_random, length, line_p, on, tile, i, place, m, own):
    """Mean numbers of coincidences, rounded to the nearest or at random, into N."""
    p = float(float_of_bits(line_p))
    for t in range(m):
        u = uniform(bits(k0, k1, place[t])) if is_random else 0.5
        own[N, t] = np.floor(length * (p * float(float_of_bits(on[tile, i, 0, t]))) + u)
