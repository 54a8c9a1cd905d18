"""The pulsed update on a GPU: one Triton kernel that takes a mini-batch to the weights.

Each program holds a block of weights, and what their devices need, in registers over the whole mini-batch. Per sample
it counts the pulses of each crosspoint, applies the trains at once where the law allows (`merge`), and the rest pulse
by pulse, up to the most that any of its crosspoints still has to take.

A device enters by its response, compiled into the kernel. An affine one is asked twice before the first sample, for the
numbers C and S of its steps C + S w, any other at each pulse.
"""

from __future__ import annotations

import triton.language as tl

from ohmgrad import random
from ohmgrad.pulses import merge
from ohmgrad.pulses.gpu_trains import MEAN_COUNT, STOCHASTIC, bits, fold0, fold1, key, uniform
from ohmgrad.pulses.triton_target import TRITON, jit, popcount
from ohmgrad.vocabulary import retarget

quick_normal = retarget(random.quick_normal, TRITON, words=True)
rate, longest, spread_of, multiplicative, additive, is_mergeable, move = (
    retarget(getattr(merge, name), TRITON)
    for name in ("rate", "longest", "noise", "multiplicative", "additive", "is_mergeable", "move")
)


@jit
def rows(
    w,
    x_lines,
    d_lines,
    batch,
    n_in,
    n_out,
    n_words,
    lr,
    numbers,
    keys,
    cycle,
    length,
    pulses,
    counts,
    w_min,
    w_max,
    dw_up,
    dw_down,
    before,
    after,
    tables,
    PLANES: tl.constexpr,
    RESPONSE: tl.constexpr,
    NOISE: tl.constexpr,
    HAS_STEP: tl.constexpr,
    IS_AFFINE: tl.constexpr,
    IS_MERGED: tl.constexpr,
    IS_ADDITIVE: tl.constexpr,
    IS_NOISY: tl.constexpr,
    TRAIN: tl.constexpr,
    TOTAL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Apply the trains of a mini-batch to a block of w, (out, in), in place.

    x_lines, d_lines, length: of `prepare`. numbers: granularity, noise. before, after: what the response takes before
    and after its step, and its tables. NOISE: the family's own, or None. pulses: their sum is added. counts: (out, in)
    or None, to which each crosspoint's are added.
    """
    n_blocks = tl.cdiv(n_in, COLUMNS)
    row = tl.program_id(0) // n_blocks * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(0) % n_blocks * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    at, mask = row.to(tl.int64) * n_in + column, (row < n_out) & (column < n_in)
    number = at.to(tl.uint32)  # of the crosspoint, modulo 2**32, as `train.places`
    # Lanes outside the array take the parameters of their neighbours inside: nothing that a response could choke on.
    near = tl.minimum(row, n_out - 1).to(tl.int64) * n_in + tl.minimum(column, n_in - 1)
    state = tl.load(w + near)
    sigma = tl.load(numbers + 1).to(state.dtype)
    low, high = _load(w_min, near, state, PLANES, 0), _load(w_max, near, state, PLANES, 1)
    up_dw, down_dw = _load(dw_up, near, state, PLANES, 2), _load(dw_down, near, state, PLANES, 3)
    first = _load_all(before, near, PLANES, 4)
    last = _load_all(after, near, PLANES, 4 + len(before)) + tables
    up_part, down_part = (state, state, state, state), (state, state, state, state)
    if IS_AFFINE:
        up_part = _affine(RESPONSE, True, up_dw, first, last, HAS_STEP, sigma, IS_MERGED)
        down_part = _affine(RESPONSE, False, down_dw, first, last, HAS_STEP, sigma, IS_MERGED)
    is_back, start = tl.load(lr) < 0.0, tl.load(cycle)
    total = tl.zeros((ROWS, COLUMNS), TOTAL)
    for i in range(batch):
        sample = tl.cast(i, tl.int64)
        first_x, first_d = x_lines + sample * n_words * n_in, d_lines + sample * n_words * n_out
        n_slots = tl.load(length + i)
        n, is_opposite = _pulses(
            first_x, first_d, n_words, n_in, n_out, row, column, n_slots, keys + 6, start, sample, number, TRAIN
        )
        if tl.max(n) > 0:
            total += n.to(TOTAL)
            up = is_opposite != is_back
            dw = tl.where(up, up_dw, down_dw)
            k0, k1 = key(keys + 4, start + sample)
            left = n
            c, s = tl.where(up, up_part[0], down_part[0]), tl.where(up, up_part[1], down_part[1])
            if IS_MERGED:
                h, most = tl.where(up, up_part[2], down_part[2]), tl.where(up, up_part[3], down_part[3])
                y, many = h * s, n.to(state.dtype)
                z = _normal(k0, k1, number, state, IS_NOISY)
                if IS_ADDITIVE:
                    mean, change, spread = additive(state, many, c, s, h, y, sigma * dw, z)
                else:
                    v, curvature = spread_of(s, sigma)
                    mean, change, spread = multiplicative(state, many, c, s, h, y, v, curvature, sigma, z)
                is_fine = (n < 2) | is_mergeable(state, mean, spread, many, most, low, high)
                settled = tl.minimum(tl.maximum(state + change, low), high)
                state = tl.where(is_fine & (n > 0), settled, state)
                left = tl.where(is_fine, 0, n)
            n_left = tl.max(left)
            if n_left > 0:
                for k in range(n_left):
                    if IS_AFFINE:
                        step = c + s * state
                    else:
                        step = _step(RESPONSE, state, up, dw, first, last, HAS_STEP)
                    now = tl.cast(k + 1, tl.uint32)
                    z = _normal(fold0(k0, now), fold1(k1, now), number, state, IS_NOISY)
                    if NOISE is not None:
                        noise = sigma * _noise(NOISE, state, up, step, dw, first, last, HAS_STEP)
                    else:
                        noise = sigma * dw if IS_ADDITIVE else sigma * step
                    state = tl.where(left > k, move(state, step + noise * z, low, high), state)
    tl.store(w + at, state, mask=mask)
    if counts is not None:
        tl.store(counts + at, tl.load(counts + at, mask=mask, other=0) + total, mask=mask)
    tl.atomic_add(pulses, tl.sum(total.to(tl.int64)).to(tl.float64), sem="relaxed")


@jit
def _pulses(
    x_lines, d_lines, n_words, n_in, n_out, row, column, n_slots, base, start, sample, number, TRAIN: tl.constexpr
):
    """Pulses of one sample at each crosspoint, int32, and whether x and d have opposite signs there."""
    end = n_words - 1
    of_x = tl.load(x_lines + end.to(tl.int64) * n_in + column, mask=column < n_in, other=0)
    of_d = tl.load(d_lines + end.to(tl.int64) * n_out + row, mask=row < n_out, other=0)
    if TRAIN == STOCHASTIC:
        n = popcount((of_x & of_d & 0x7FFFFFFF).to(tl.uint32, bitcast=True)).to(tl.int32)
        for word in range(tl.minimum(end, tl.cdiv(n_slots, 32))):
            on_x = tl.load(x_lines + tl.cast(word, tl.int64) * n_in + column, mask=column < n_in, other=0)
            on_d = tl.load(d_lines + tl.cast(word, tl.int64) * n_out + row, mask=row < n_out, other=0)
            n += popcount((on_x & on_d).to(tl.uint32, bitcast=True)).to(tl.int32)
    else:
        p_x = tl.abs(of_x.to(tl.float32, bitcast=True)).to(tl.float64)
        p_d = tl.abs(of_d.to(tl.float32, bitcast=True)).to(tl.float64)
        u = 0.5
        if TRAIN == MEAN_COUNT:
            k0, k1 = key(base, start + sample)
            u = uniform(bits(k0, k1, number))
        n = tl.floor(n_slots.to(tl.float64) * (p_d * p_x) + u).to(tl.int32)
    return n, (of_x ^ of_d) < 0


@jit
def _affine(
    RESPONSE: tl.constexpr,
    IS_UP: tl.constexpr,
    dw,
    first,
    last,
    HAS_STEP: tl.constexpr,
    sigma,
    IS_MERGED: tl.constexpr,
):
    """(C, S) of one direction's steps; for merging with their `rate` and the `longest` train."""
    zero, one = tl.zeros_like(dw), tl.zeros_like(dw) + 1.0
    up = one > 0.0 if IS_UP else one < 0.0
    c = _step(RESPONSE, zero, up, dw, first, last, HAS_STEP)
    s = _step(RESPONSE, one, up, dw, first, last, HAS_STEP) - c
    part = c, s, c, s
    if IS_MERGED:
        part = c, s, rate(s), longest(s, sigma)
    return part


@jit
def _load(plane, at, like, PLANES: tl.constexpr, k: tl.constexpr):
    """A block of a plane, or of its one number."""
    return tl.zeros_like(like) + _load_as_is(plane, at, PLANES, k)


@jit
def _load_as_is(plane, at, PLANES: tl.constexpr, k: tl.constexpr):
    """A block of a plane, or its one number, which takes one register."""
    if (PLANES >> k) & 1:
        value = tl.load(plane + at)
    else:
        value = tl.load(plane)
    return value


@jit
def _load_all(planes, at, PLANES: tl.constexpr, first: tl.constexpr):
    values = ()
    for k in tl.static_range(len(planes)):
        values = values + (_load_as_is(planes[k], at, PLANES, first + k),)  # noqa: RUF005  # no stars in Triton
    return values


@jit
def _step(RESPONSE: tl.constexpr, w, up, dw, first, last, HAS_STEP: tl.constexpr):
    """Signed change of w by one noise-free pulse, of the weight's shape and dtype."""
    if HAS_STEP:
        change = RESPONSE(w, up, *first, dw, *last)
    else:
        change = RESPONSE(w, up, *first, *last)
    return (tl.zeros_like(w) + change).to(w.dtype)


@jit
def _noise(NOISE: tl.constexpr, w, up, change, dw, first, last, HAS_STEP: tl.constexpr):
    """Standard deviation of that change in units of the noise, of the weight's shape and dtype."""
    if HAS_STEP:
        spread = NOISE(w, up, change, *first, dw, *last)
    else:
        spread = NOISE(w, up, change, *first, *last)
    return (tl.zeros_like(w) + spread).to(w.dtype)


@jit
def _normal(k0, k1, number, like, IS_NOISY: tl.constexpr):
    """Standard normals of the crosspoints; 0 where there is no noise to multiply them by."""
    z = tl.zeros_like(like)
    if IS_NOISY:
        z = quick_normal(k0, k1, number).to(like.dtype)
    return z
