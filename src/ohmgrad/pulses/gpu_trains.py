"""Pulse trains on a GPU: what `train` does for a mini-batch, as one Triton kernel.

In float64 and without fused products, as in `train`, so that pulses are counted as everywhere. Each line of each sample
becomes 32-bit words that carry all that a crosspoint has to know of it. Of a stochastic train they are the line's bits,
slot by slot, with the sign of x or d in the top bit of the last word, which no slot takes; of any other train it is one
word, the line's probability as a float32 with that sign.
"""

from __future__ import annotations

import triton.language as tl

from ohmgrad import random
from ohmgrad.pulses import train
from ohmgrad.pulses.triton_target import TRITON, jit
from ohmgrad.vocabulary import retarget

fold0, fold1, bits = (retarget(f, TRITON, words=True) for f in (random.fold0, random.fold1, random.bits))

STOCHASTIC, MEAN_COUNT, DETERMINISTIC = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
HUGE, WHOLE = tl.constexpr(train.HUGE), tl.constexpr(train.WHOLE)
NO_SLOT = tl.constexpr(0xFFFFFFFF)  # stands for the slot in the key of a probability's rounding


@jit
def prepare(
    x,
    d,
    n_in,
    n_out,
    n_words,
    lr,
    numbers,
    keys,
    cycle,
    length,
    x_lines,
    d_lines,
    pulses,
    LONGEST: tl.constexpr,
    IS_MANAGED: tl.constexpr,
    IS_SHARED: tl.constexpr,
    TRAIN: tl.constexpr,
    IS_STEPPED: tl.constexpr,
    IS_ROUNDED: tl.constexpr,
    LINES: tl.constexpr,
):
    """Bit length of sample i, and word `word` of a block of its input lines or, further on, of its error lines.

    x: (batch, in), d: (batch, out). numbers: granularity, noise, resolution. length: (batch,). x_lines, d_lines:
    (batch, words, lines). pulses: NaN after a sample that is not finite, which sends nothing.
    """
    i, block, word = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    x_max, d_max = _largest(x + i * n_in, n_in, LINES), _largest(d + i * n_out, n_out, LINES)
    size, granularity = tl.abs(tl.load(lr)), tl.load(numbers)
    longest = tl.full((), LONGEST, tl.float64)
    is_finite = (x_max < float("inf")) & (d_max < float("inf"))
    wanted = size * tl.where(is_finite, x_max, 0.0) * tl.where(is_finite, d_max, 0.0) / granularity
    n = longest
    if IS_MANAGED:
        n = tl.minimum(tl.ceil(wanted * WHOLE), n)
    is_on = wanted > 0.0
    n = tl.where(is_on, n, 0.0)
    a = tl.sqrt(size / (granularity * tl.maximum(n, 1.0)))
    b = a
    if IS_SHARED:
        clipped = longest / tl.maximum(wanted, longest)
        ratio = tl.sqrt(tl.where(is_on, x_max, 1.0) / (tl.where(is_on, d_max, 1.0) * clipped))
        a, b = a * ratio, b / ratio
        is_huge = wanted > HUGE
        a = tl.where(is_huge, HUGE / tl.where(is_on, d_max, 1.0), a)
        b = tl.where(is_huge, 1.0 / tl.where(is_on, x_max, 1.0), b)
    n_slots = n.to(tl.int32)
    if (block == 0) & (word == 0):
        tl.store(length + i, n_slots)
        if not is_finite:
            tl.atomic_add(pulses, tl.full((), float("nan"), tl.float64))
    n_blocks, moment = tl.cdiv(n_in, LINES), tl.load(cycle) + i
    to, resolution = i * n_words + word, tl.load(numbers + 2)
    if block < n_blocks:
        k0, k1 = key(keys, moment)
        j = block * LINES + tl.arange(0, LINES)
        x_j = tl.load(x + i * n_in + j, mask=j < n_in, other=0.0).to(tl.float64)
        made = _line(x_j, b, n_slots, k0, k1, j, resolution, word, n_words, LINES, TRAIN, IS_STEPPED, IS_ROUNDED)
        tl.store(x_lines + to * n_in + j, made, mask=j < n_in)
    else:
        k0, k1 = key(keys + 2, moment)
        j = (block - n_blocks) * LINES + tl.arange(0, LINES)
        d_j = tl.load(d + i * n_out + j, mask=j < n_out, other=0.0).to(tl.float64)
        made = _line(d_j, a, n_slots, k0, k1, j, resolution, word, n_words, LINES, TRAIN, IS_STEPPED, IS_ROUNDED)
        tl.store(d_lines + to * n_out + j, made, mask=j < n_out)


@jit
def key(base, word):
    """Key of a 64-bit place under the base key that stands at `base`."""
    low, high = word.to(tl.uint32), (word >> 32).to(tl.uint32)
    k0, k1 = tl.load(base).to(tl.uint32), tl.load(base + 1).to(tl.uint32)
    return fold0(fold0(k0, low), high), fold1(fold1(k1, low), high)


@jit
def uniform(word):
    """As `random.uniform`, in float64."""
    return ((word >> 9).to(tl.float64) + 0.5) * 1.1920928955078125e-07


@jit
def _largest(values, n, LINES: tl.constexpr):
    """The largest |value|, float64; infinity where one is NaN."""
    largest = tl.zeros((LINES,), tl.float64)
    for start in range(0, n, LINES):
        j = start + tl.arange(0, LINES)
        size = tl.abs(tl.load(values + j, mask=j < n, other=0.0).to(tl.float64))
        largest = tl.maximum(largest, tl.where(size < float("inf"), size, float("inf")))
    return tl.max(largest)


@jit
def _line(
    value,
    amplitude,
    n_slots,
    k0,
    k1,
    j,
    resolution,
    word,
    n_words,
    LINES: tl.constexpr,
    TRAIN: tl.constexpr,
    IS_STEPPED: tl.constexpr,
    IS_ROUNDED: tl.constexpr,
):
    """Word `word` of lines j, int32, for a sample whose key is (k0, k1)."""
    is_on = (n_slots > 0) & (tl.abs(value) > 0.0) & (tl.abs(value) < float("inf"))
    exact = tl.where(is_on, tl.minimum(tl.abs(value) * amplitude, 1.0), 0.0)
    if IS_STEPPED:
        u = 0.5
        if IS_ROUNDED:
            u = uniform(
                bits(fold0(k0, tl.cast(NO_SLOT, tl.uint32)), fold1(k1, tl.cast(NO_SLOT, tl.uint32)), j.to(tl.uint32))
            )
        exact = tl.minimum(tl.floor(exact / resolution + u) * resolution, 1.0)
    p = exact.to(tl.float32)
    if TRAIN == STOCHASTIC:
        wide = p.to(tl.float64)
        threshold = tl.maximum(wide * 4294967296.0 - 1.0, 0.0).to(tl.int64).to(tl.uint32)
        found = tl.zeros((LINES,), tl.uint32)
        for slot in range(word * 32, tl.minimum(word * 32 + 32, n_slots)):
            now = tl.cast(slot, tl.uint32)
            hit = (bits(fold0(k0, now), fold1(k1, now), j.to(tl.uint32)) <= threshold) & (p > 0.0)
            found = found | (hit.to(tl.uint32) << (now & 31))
        sign = (value < 0.0) & (word == n_words - 1)
        made = (found | (sign.to(tl.uint32) << 31)).to(tl.int32, bitcast=True)
    else:
        made = tl.where(value < 0.0, -p, p).to(tl.int32, bitcast=True)
    return made
