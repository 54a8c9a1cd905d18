"""The way of the kernel of `cpu` for few pulses: sample by sample, at those crosspoints alone that pulses reach.

Crosspoints that pulses reach in a sample are collected from its lines' bits, those that go up and those that go down
apart, until there are many. Then they go through the law side by side.
"""

from __future__ import annotations

import numpy as np

from ohmgrad.pulses.cpu_family import N_OWN, N
from ohmgrad.pulses.cpu_law import apply, bare, note, tally
from ohmgrad.pulses.cpu_trains import f32, key_of, u32
from ohmgrad.pulses.numba_target import COUNTS, FAST, address_of, array_at, matrix_at, njit, popcount, vector_at

PLANES = 19  # where the planes begin among the kernel's options
CHUNK = 512  # crosspoints that go through the law together, and those of one row more


@njit(**FAST)
def by_hits(share, n_shares, x_on, d_on, options, n_planes, sigma, is_back, law, keys, cycle, w, counts, moved):
    """A mini-batch of stochastic trains of one word, at a share of the rows; the pulses. Arguments as in `pulse`."""
    n_in, n_out, total = x_on.shape[2], d_on.shape[2], np.int64(0)
    first, last = n_out * share // n_shares, n_out * (share + 1) // n_shares
    size = CHUNK + n_in + 1
    # Two pieces of memory, seen through addresses: to ask for more and to count their users costs as much as the work.
    n_rows, n_hit = 2 * n_planes + N_OWN + 3, 2 * size + options[1] + 2
    room, words = np.empty(n_rows * size, w.dtype), np.empty(4 + 4 * size + n_hit, np.uint32)
    at, line = address_of(room), size * room.itemsize
    params = array_at(at, (1, n_planes, size), room)
    few_params = array_at(at + n_planes * line, (1, n_planes, size), room)
    own = matrix_at(at + 2 * n_planes * line, N_OWN, size, room)
    weights = array_at(at + (n_rows - 3) * line, (1, 1, size), room)
    found = matrix_at(at + (n_rows - 2) * line, 2, size, room)
    at = address_of(words)
    held, none = vector_at(at, 2, COUNTS), array_at(at, (1, 1, 1, 1), words)
    held[:] = 0
    index = matrix_at(at + 16, 4, size, words)  # of either direction: crosspoints; columns and their bits
    column, word, hit = index[2], index[3], vector_at(at + 16 + 16 * size, n_hit, words)
    for i in range(x_on.shape[0]):
        k0, k1 = key_of(keys, 2, cycle + i)
        above, below = _active(x_on, i, column, word)
        for row in range(first, last + 1):
            for side in range(2):
                if held[side] > (CHUNK if row < last else 0):
                    m, place = held[side], index[side]
                    for t in range(m):
                        own[N, t] = found[side, t]
                    n, most = tally(own, m)
                    total += n
                    note(own, place, m, counts, moved)
                    _gather(options, n_planes, sigma, w, place, m, params, weights)
                    apply(
                        weights, params, 0, m, own, side, 0, most, False, none, 0, 0, place, law, k0, k1, hit,
                        few_params,
                    )  # fmt: skip
                    for t in range(m):
                        w[place[t]] = weights[0, 0, t]
                    held[side] = 0
            if row < last and d_on[i, 0, row]:
                up = 0 if is_back != (d_on[i, 1, row] == u32(2)) else 1  # the side of inputs above 0
                base = u32(row * n_in)
                held[up] = _meet(d_on[i, 0, row], base, column, word, 0, above, index, found, up, held[up])
                held[1 - up] = _meet(
                    d_on[i, 0, row], base, column, word, below, size, index, found, 1 - up, held[1 - up]
                )
    return total + 0 * (room.size + words.size)  # which are in use until here


@bare
def _active(x_on, i, column, word):
    """Columns that have bits in a sample: those above 0 from the front, those below from the back; where these meet."""
    n, last = 0, column.size - 1
    for j in range(x_on.shape[2]):
        bits, is_below = x_on[i, 0, j], x_on[i, 1, j] == u32(2)
        column[n], word[n] = j, bits
        column[last], word[last] = j, bits
        n += 1 if (bits != u32(0)) & (not is_below) else 0
        last -= 1 if (bits != u32(0)) & is_below else 0
    return n, last + 1


@bare
def _meet(line, base, column, word, first, last, index, found, side, m):
    """Crosspoints of a row that pulses reach, and how many pulses, from place m on; the next place."""
    for c in range(first, last):
        n = popcount(u32(word[c] & line))
        index[side, m], found[side, m] = base + column[c], f32(np.int32(n))
        m += 1 if n else 0
    return m


@njit(**FAST)
def _gather(options, n_planes, sigma, w, place, m, params, weights):
    """Weights and parameters of crosspoints."""
    for k in range(n_planes):
        plane = vector_at(options[PLANES + 3 * k], options[PLANES + 2 + 3 * k], sigma)
        if plane.size == 1:
            for t in range(m):
                params[0, k, t] = plane[0]
        else:
            for t in range(m):
                params[0, k, t] = plane[place[t]]
    for t in range(m):
        weights[0, 0, t] = w[place[t]]
