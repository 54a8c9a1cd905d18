"""The pulsed update on a GPU: the law of `eager`, compiled by Triton from the same sources.

Two kernels and no word to the host. `prepare` makes each sample's bit length and line bits, in float64 without fused
products, so that pulses are counted as everywhere. In `rows` each program holds a block of weights, and what their
devices need, in registers over the whole mini-batch: per sample it counts the coincidences of the line bits, applies
the trains at once where the law allows (`merge`), and the rest pulse by pulse, up to the most that any of its
crosspoints still has to take.

A device enters by its response, compiled into the kernel. An affine one is asked twice, for the numbers C and S of its
steps C + S w, any other at each pulse.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ohmgrad import random
from ohmgrad.devices.base import Device, Params, response_arguments
from ohmgrad.pulses import merge
from ohmgrad.pulses.settings import PulsedUpdate
from ohmgrad.pulses.triton_target import TRITON, jit, popcount
from ohmgrad.vocabulary import retarget

fold0, fold1, bits, normal_pair = (
    retarget(f, TRITON, words=True) for f in (random.fold0, random.fold1, random.bits, random.normal_pair)
)
drift, multiplicative, additive, is_mergeable, one_pulse = (
    retarget(f, TRITON) for f in (merge.drift, merge.multiplicative, merge.additive, merge.is_mergeable, merge.pulse)
)

# One warp to a block: its votes on how many pulses are left need no barrier. Eight float32 weights to a thread: with
# 141 registers (sm_90, all parameters planes) nothing spills.
ROWS, COLUMNS, WARPS = 4, 64, 1
LINES = 512

Launch = Callable[[Tensor, Tensor, Tensor, float | Tensor, int | Tensor, Tensor | None], Tensor]


def launcher(device: Device, params: Params, settings: PulsedUpdate, seed: int, like: Tensor) -> Launch:
    """The kernels with all that does not change from call to call.

    Args:
        device: of any family whose response's source can be read. params: its elements' parameters, numbers or planes
            (out, in), on the GPU.
        settings: a stochastic train without resolution; `is_supported` tells.
        like: the weight, (out, in): its shape, dtype and GPU.

    Returns:
        launch(w, x, d, lr, cycle, counts) -> pulses: as `eager.pulse`; w, x, d contiguous and of one dtype; counts,
        (out, in) int64 or None, is added to. lr and cycle (int64) may be tensors without dimensions on the GPU: then a
        CUDA graph reads them anew at each replay. pulses is such a tensor too, float64; NaN where x or d held NaN or
        infinity in a sample, which is then left out.
    """
    home = like.device
    n_out, n_in = like.shape
    given = {k: torch.as_tensor(v, dtype=like.dtype, device=home).contiguous() for k, v in params.items()}
    names = response_arguments(type(device))
    at = names.index("dw_min") if "dw_min" in names else len(names)
    shared = tuple(given[k] for k in ("w_min", "w_max", "dw_up", "dw_down"))
    before, after = (tuple(given[k] for k in part) for part in (names[:at], names[at + 1 :]))
    # Bit k is set where the k-th of all these is a plane, not one number for all devices.
    planes = sum((v.numel() > 1) << k for k, v in enumerate((*shared, *before, *after)))
    streams = (random.Stream.X_BITS, random.Stream.D_BITS, random.Stream.PULSE)
    keys = torch.tensor([word for s in streams for word in random.root(seed, s)], dtype=torch.int64, device=home)
    numbers = torch.tensor([device.granularity, device.dw_min_ctoc], dtype=torch.float64, device=home)
    longest, n_words = settings.bit_length, -(-settings.bit_length // 32)
    is_shared = settings.update_management or settings.bit_length_management
    response = _response(type(device))
    most = COLUMNS * 4 // like.element_size()
    columns = min(most, max(2, triton.next_power_of_2(n_in)))
    is_merged = settings.merge and device.is_affine

    def launch(
        w: Tensor, x: Tensor, d: Tensor, lr: float | Tensor, cycle: int | Tensor, counts: Tensor | None
    ) -> Tensor:
        batch = len(x)
        pulses = torch.zeros((), dtype=torch.float64, device=home)
        if not batch or not longest:
            return pulses
        if not isinstance(lr, Tensor):
            lr = torch.full((), lr, dtype=torch.float64, device=home)
        if not isinstance(cycle, Tensor):
            cycle = torch.full((), cycle, dtype=torch.int64, device=home)
        length = torch.empty(batch, dtype=torch.int32, device=home)
        x_bits = torch.empty((batch, n_words, n_in), dtype=torch.int32, device=home)
        d_bits = torch.empty((batch, n_words, n_out), dtype=torch.int32, device=home)
        prepare[(batch, triton.cdiv(n_in, LINES) + triton.cdiv(n_out, LINES), n_words)](
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
            x_bits,
            d_bits,
            pulses,
            longest,
            settings.bit_length_management,
            is_shared,
            LINES,
            enable_fp_fusion=False,
        )
        rows[(triton.cdiv(n_in, columns), triton.cdiv(n_out, ROWS))](
            w,
            x,
            d,
            batch,
            n_in,
            n_out,
            n_words,
            lr,
            numbers,
            keys,
            cycle,
            length,
            x_bits,
            d_bits,
            pulses,
            counts,
            *shared,
            before,
            after,
            planes,
            response,
            at < len(names),
            device.is_affine,
            is_merged,
            device.ctoc == "additive",
            ROWS,
            columns,
            num_warps=WARPS,
            enable_fp_fusion=True,
        )
        return pulses

    return launch


def is_supported(settings: PulsedUpdate) -> bool:
    """Whether the kernels know this train; `eager` knows all."""
    return settings.train == "stochastic" and settings.resolution == 0.0


@cache
def _response(family: type[Device]) -> Any:
    return retarget(family.response, TRITON)


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
    x_bits,
    d_bits,
    pulses,
    LONGEST: tl.constexpr,
    IS_MANAGED: tl.constexpr,
    IS_SHARED: tl.constexpr,
    LINES: tl.constexpr,
):
    """Bit length of sample i, and word `word` of a block of its input lines or, further on, of its error lines.

    x: (batch, in), d: (batch, out). numbers: granularity and noise. length: (batch,). x_bits, d_bits:
    (batch, words, lines); words beyond the length are left as they were. pulses: NaN after a sample that is not finite.
    """
    i, block, word = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    x_max, d_max = _largest(x + i * n_in, n_in, LINES), _largest(d + i * n_out, n_out, LINES)
    size, granularity = tl.abs(tl.load(lr)), tl.load(numbers)
    longest = tl.full((), LONGEST, tl.float64)
    is_finite = (x_max < float("inf")) & (d_max < float("inf"))
    wanted = size * tl.where(is_finite, x_max, 0.0) * tl.where(is_finite, d_max, 0.0) / granularity
    n = longest
    if IS_MANAGED:
        n = tl.minimum(tl.ceil(wanted), n)
    is_on = wanted > 0.0
    n = tl.where(is_on, n, 0.0)
    a = tl.sqrt(size / (granularity * tl.maximum(n, 1.0)))
    b = a
    if IS_SHARED:
        clipped = longest / tl.maximum(wanted, longest)
        ratio = tl.sqrt(tl.where(is_on, x_max, 1.0) / (tl.where(is_on, d_max, 1.0) * clipped))
        a, b = a * ratio, b / ratio
    n_slots = n.to(tl.int32)
    if (block == 0) & (word == 0):
        tl.store(length + i, n_slots)
        if not is_finite:
            tl.atomic_add(pulses, tl.full((), float("nan"), tl.float64))
    place, n_blocks = i * n_words + word, tl.cdiv(n_in, LINES)
    moment = tl.load(cycle) + i
    if block < n_blocks:
        _line_bits(x + i * n_in, n_in, b, n_slots, keys, moment, x_bits + place * n_in, block, word, LINES)
    else:
        _line_bits(
            d + i * n_out, n_out, a, n_slots, keys + 2, moment, d_bits + place * n_out, block - n_blocks, word, LINES
        )


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
def _key(base, word):
    """Key of a 64-bit place under the base key that stands at `base`."""
    low, high = word.to(tl.uint32), (word >> 32).to(tl.uint32)
    k0, k1 = tl.load(base).to(tl.uint32), tl.load(base + 1).to(tl.uint32)
    return fold0(fold0(k0, low), high), fold1(fold1(k1, low), high)


@jit
def _line_bits(values, n, amplitude, n_slots, base, moment, words, block, word, LINES: tl.constexpr):
    j = block * LINES + tl.arange(0, LINES)
    size = tl.abs(tl.load(values + j, mask=j < n, other=0.0).to(tl.float64))
    p = tl.minimum(size * amplitude, 1.0).to(tl.float32).to(tl.float64)
    threshold = tl.maximum(p * 4294967296.0 - 1.0, 0.0).to(tl.int64).to(tl.uint32)
    k0, k1 = _key(base, moment)
    found = tl.zeros((LINES,), tl.uint32)
    first = word * 32
    for slot in range(first, tl.minimum(first + 32, n_slots)):
        now = tl.cast(slot, tl.uint32)
        hit = (bits(fold0(k0, now), fold1(k1, now), j.to(tl.uint32)) <= threshold) & (p > 0.0)
        found = found | (hit.to(tl.uint32) << (now & 31))
    tl.store(words + j, found.to(tl.int32, bitcast=True), mask=j < n)


@jit
def rows(
    w,
    x,
    d,
    batch,
    n_in,
    n_out,
    n_words,
    lr,
    numbers,
    keys,
    cycle,
    length,
    x_bits,
    d_bits,
    pulses,
    counts,
    w_min,
    w_max,
    dw_up,
    dw_down,
    before,
    after,
    PLANES: tl.constexpr,
    RESPONSE: tl.constexpr,
    HAS_STEP: tl.constexpr,
    IS_AFFINE: tl.constexpr,
    IS_MERGED: tl.constexpr,
    IS_ADDITIVE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Apply the trains of a mini-batch to a block of w, (out, in), in place.

    before, after: what the response takes before and after its step. pulses: their sum is added. counts: (out, in) or
    None, to which each crosspoint's are added.
    """
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    pair = (tl.program_id(0) * (COLUMNS // 2) + tl.arange(0, COLUMNS // 2)[None, :]).to(tl.uint32)
    at, mask = row.to(tl.int64) * n_in + column, (row < n_out) & (column < n_in)
    state = tl.load(w + at, mask=mask, other=0.0)
    sigma = tl.load(numbers + 1).to(state.dtype)
    low, high = _load(w_min, at, mask, state, PLANES, 0), _load(w_max, at, mask, state, PLANES, 1)
    up_dw, down_dw = _load(dw_up, at, mask, state, PLANES, 2), _load(dw_down, at, mask, state, PLANES, 3)
    first = _load_all(before, at, mask, state, PLANES, 4)
    last = _load_all(after, at, mask, state, PLANES, 4 + len(before))
    up_c, up_s, down_c, down_s = state, state, state, state  # of an affine device: the parts of its steps
    if IS_AFFINE:
        zero, one = tl.zeros_like(state), tl.zeros_like(state) + 1.0
        up_c = _step(RESPONSE, zero, one > 0.0, up_dw, first, last, HAS_STEP)
        up_s = _step(RESPONSE, one, one > 0.0, up_dw, first, last, HAS_STEP) - up_c
        down_c = _step(RESPONSE, zero, one < 0.0, down_dw, first, last, HAS_STEP)
        down_s = _step(RESPONSE, one, one < 0.0, down_dw, first, last, HAS_STEP) - down_c
    is_back, start = tl.load(lr) < 0.0, tl.load(cycle)
    total = tl.zeros((ROWS, COLUMNS), tl.int32)
    for i in range(batch):
        sample = tl.cast(i, tl.int64)
        n_slots = tl.load(length + i)
        n = tl.zeros((ROWS, COLUMNS), tl.int32)
        for word in range(tl.cdiv(n_slots, 32)):
            place = sample * n_words + word
            on_x = tl.load(x_bits + place * n_in + column, mask=column < n_in, other=0)
            on_d = tl.load(d_bits + place * n_out + row, mask=row < n_out, other=0)
            n += popcount((on_x & on_d).to(tl.uint32, bitcast=True))
        if tl.max(n) > 0:
            total += n
            is_x = tl.load(x + sample * n_in + column, mask=column < n_in, other=0.0) < 0.0
            is_d = tl.load(d + sample * n_out + row, mask=row < n_out, other=0.0) < 0.0
            up = (is_d != is_x) != is_back
            dw = tl.where(up, up_dw, down_dw)
            k0, k1 = _key(keys + 4, start + sample)
            k0, k1 = fold0(k0, row.to(tl.uint32)), fold1(k1, row.to(tl.uint32))
            left = n
            c, s = tl.where(up, up_c, down_c), tl.where(up, up_s, down_s)
            if IS_MERGED:
                many = tl.maximum(n, 1).to(state.dtype)
                z = _normal(k0, k1, pair, state.dtype)
                change = drift(state, many, c, s)
                if IS_ADDITIVE:
                    noise, spread = additive(many, s, dw, sigma, z)
                else:
                    noise, spread = multiplicative(state, many, c, s, 1.0 / (1.0 + s), sigma, z)
                is_fine = is_mergeable(state, change, spread, many, s, sigma, low, high)
                settled = tl.minimum(tl.maximum(state + (change + noise), low), high)
                state = tl.where(is_fine & (n > 0), settled, state)
                left = tl.where(is_fine, 0, n)
            for k in range(tl.max(left)):
                if IS_AFFINE:
                    step = c + s * state
                else:
                    step = _step(RESPONSE, state, up, dw, first, last, HAS_STEP)
                word_k = tl.cast(k + 1, tl.uint32)
                z = _normal(fold0(k0, word_k), fold1(k1, word_k), pair, state.dtype)
                noise = sigma * dw if IS_ADDITIVE else sigma * step
                state = tl.where(left > k, one_pulse(state, step, noise, z, low, high), state)
    tl.store(w + at, state, mask=mask)
    if counts is not None:
        tl.store(counts + at, tl.load(counts + at, mask=mask, other=0) + total, mask=mask)
    tl.atomic_add(pulses, tl.sum(total.to(tl.int64)).to(tl.float64), sem="relaxed")


@jit
def _load(plane, at, mask, like, PLANES: tl.constexpr, k: tl.constexpr):
    """A block of a plane, or its one number. Outside the array steps are 0, and bounds nothing to divide by 0 with."""
    if (PLANES >> k) & 1:
        value = tl.load(plane + at, mask=mask, other=0.0 if k == 2 or k == 3 else 0.5)
    else:
        value = tl.zeros_like(like) + tl.load(plane)
    return value


@jit
def _load_all(planes, at, mask, like, PLANES: tl.constexpr, first: tl.constexpr):
    values = ()
    for k in tl.static_range(len(planes)):
        values = values + (_load(planes[k], at, mask, like, PLANES, first + k),)  # noqa: RUF005  # no stars in Triton
    return values


@jit
def _step(RESPONSE: tl.constexpr, w, up, dw, first, last, HAS_STEP: tl.constexpr):
    """Signed change by one noise-free pulse, of the weight's shape and dtype."""
    if HAS_STEP:
        change = RESPONSE(w, up, *first, dw, *last)
    else:
        change = RESPONSE(w, up, *first, *last)
    return (tl.zeros_like(w) + change).to(w.dtype)


@jit
def _normal(k0, k1, pair, dtype: tl.constexpr):
    """Standard normals: counters 2m and 2m + 1, next to each other, share a pair."""
    even, odd = normal_pair(k0, k1, pair)
    return tl.interleave(even, odd).to(dtype)
