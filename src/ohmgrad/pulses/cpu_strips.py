"""What the kernel of `cpu` keeps at hand: the bits of a tile's lanes, and some lines, copied to lie side by side."""

from __future__ import annotations

import numpy as np

from ohmgrad.pulses.cpu_trains import inline, is_firing, u32
from ohmgrad.pulses.numba_target import FAST, njit

fast = njit(**FAST)
u64 = np.uint64  # the index that is not asked whether it is negative
STRIP, TILE = 16, 1024  # lines and lanes whose planes are loaded together


@fast
def tiles(lane_on, lane):
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
def firing(top, n_lines, line_on, n_firing):
    """For each line, how many samples it fires in; and for all of them together."""
    together = 0
    for k in range(n_lines):
        n = 0
        for i in range(line_on.shape[0]):
            n += 1 if is_firing(line_on, i, top + k) else 0
        n_firing[k] = n
        together += n
    return together


@fast
def load(plane, top, to_line, n_lines, n_firing, at, m, stage, out, row):
    """Some lines of a plane, or its one number, into out[:, row]; at: the lanes' places in a line."""
    if plane.size > 1 and to_line == 1:  # columns, of which a cache line holds some: each is fetched once
        for t in range(m):
            start = u64(top) + u64(at[t])
            for k in range(n_lines):
                stage[t, k] = plane[start + u64(k)]
    for k in range(n_lines):
        start = u64((top + k) * to_line)
        if plane.size == 1:
            for t in range(m):
                out[k, row, t] = plane[0]
        elif n_firing[k] and to_line == 1:
            for t in range(m):
                out[k, row, t] = stage[t, k]
        elif n_firing[k] and is_dense(at, m):
            start += u64(at[0])
            for t in range(m):
                out[k, row, t] = plane[start + u64(t)]
        elif n_firing[k]:
            for t in range(m):
                out[k, row, t] = plane[start + u64(at[t])]


@fast
def store(weights, top, to_line, n_lines, n_firing, at, m, stage, w):
    """The way back of `load`; stage: as that left it."""
    for k in range(n_lines):
        start = u64((top + k) * to_line)
        if n_firing[k] and to_line == 1:
            for t in range(m):
                stage[t, k] = weights[k, 0, t]
        elif n_firing[k] and is_dense(at, m):
            start += u64(at[0])
            for t in range(m):
                w[start + u64(t)] = weights[k, 0, t]
        elif n_firing[k]:
            for t in range(m):
                w[start + u64(at[t])] = weights[k, 0, t]
    if to_line == 1:
        for t in range(m):
            start = u64(top) + u64(at[t])
            for k in range(n_lines):
                w[start + u64(k)] = stage[t, k]


@inline
def is_dense(at, m):
    """Whether lanes lie side by side."""
    return at[m - 1] - at[0] == u32(m - 1)
