"""The fused way of a read on a GPU: one Triton kernel before the matrix product, one after it, no word to the host.

Bound management would ask the host whether any vector is to be read again. Here a third kernel does that: a program
for each vector, which ends at once where no output met its bound, and otherwise repeats the whole read of its vector,
the product too, until none does. So a read has the same launches whatever its numbers, and can stand in a CUDA graph;
`vectors`, which tells the noise of one replay from the next, stays on the GPU.

Products and sums do not fuse and quotients are rounded, as in `product`; only its matrix product adds in another order.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ohmgrad import random
from ohmgrad.periphery import product
from ohmgrad.periphery.fused import CONSTANT, GIVEN, Read, need_vectors, numbers_of, way_of_scale
from ohmgrad.periphery.product import Lines
from ohmgrad.periphery.settings import IO
from ohmgrad.pulses.gpu_trains import bits, fold0, fold1, key, uniform
from ohmgrad.pulses.triton_target import TRITON, jit
from ohmgrad.vocabulary import retarget

quick_normal = retarget(random.quick_normal, TRITON, words=True)
# Kinds of noise, and ways to find a scale.
INPUT, WEIGHT, OUTPUT, DAC, ADC = (
    tl.constexpr(k) for k in (product.INPUT, product.WEIGHT, product.OUTPUT, product.DAC, product.ADC)
)
NO_SCALE, ONE_SCALE = tl.constexpr(GIVEN), tl.constexpr(CONSTANT)
# Ways to round: not at all, to the nearest, at random.
NEAREST, AT_RANDOM = tl.constexpr(1), tl.constexpr(2)
# Lines that a program converts at a time; weights of a block in a product of `again`.
LINES, OUT, IN = 1024, 32, 64


def is_fused(io: IO) -> bool:
    """Whether these settings, of those that `fused.is_fused` knows, have an end to bound management."""
    return io.bound_management == "none" or math.isfinite(io.bm_limit)


def launcher(io: IO, lines: Lines, seed: int, direction: int, w: Tensor, vectors: Tensor) -> Read:
    """`product.product` of one replica, with all that does not change from call to call.

    Args:
        w: (out, in), of the shape and dtype that each call has.
        vectors: () int64 on the GPU: how many were read, to which each read adds its own.
    """
    n_out, n_in = w.shape
    like: dict[str, Any] = {"dtype": w.dtype, "device": w.device}
    numbers = torch.tensor(numbers_of(io), **like)
    noise = torch.as_tensor(lines.out_noise, **like).expand(1, n_out)[0].contiguous()
    root = torch.tensor(random.root(seed, random.Stream.READ, direction), dtype=torch.int64, device=w.device)
    dac = _rounding(io.inp_step, io.inp_sto_round), io.inp_noise > 0
    adc = _rounding(io.out_step, io.out_sto_round), io.out_noise > 0, io.bm_test_negative_bound
    has_w_noise = io.w_noise > 0
    n_rounds = math.floor(math.log2(io.bm_limit)) + 1 if io.bound_management == "iterative" and io.bm_limit >= 1 else 0
    sizes = {"IN": min(IN, triton.next_power_of_2(n_in)), "OUT": min(OUT, triton.next_power_of_2(n_out))}
    in_lines, out_lines = (min(LINES, triton.next_power_of_2(n)) for n in (n_in, n_out))

    def read(w: Tensor, x: Tensor, scale: Tensor | None) -> Tensor:
        need_vectors(x, n_in, w)
        x, batch = (x.resolve_neg() if x.is_neg() else x).contiguous(), len(x)
        u, length = torch.empty_like(x), torch.empty(batch, **like)
        s = torch.empty(batch, **like) if scale is None else scale[:, 0].contiguous()
        is_hit = torch.empty(batch, dtype=torch.int32, device=w.device)
        given = numbers, root, vectors, s, length
        grid, options = (batch,), {"enable_fp_fusion": False}
        if batch:
            convert_in[grid](x, u, n_in, *given, way_of_scale(io), *dac, has_w_noise, in_lines, **options)
        y = torch.nn.functional.linear(u, w)
        if batch:
            convert_out[grid](y, is_hit, n_out, *given, noise, *adc, has_w_noise, out_lines, **options)
        if batch and n_rounds:
            shape = n_in, n_out, *w.stride(), n_rounds
            flags = *dac, *adc, has_w_noise
            again[grid](x, u, w, y, is_hit, *shape, *given, noise, *flags, in_lines, **sizes, **options)
        vectors.add_(batch)
        return y

    return read


def _rounding(step: float, is_random: bool) -> int:
    if not step:
        return 0
    return AT_RANDOM.value if is_random else NEAREST.value


@jit
def convert_in(
    x,
    u,
    n_in,
    numbers,
    root,
    vectors,
    scale,
    length,
    SCALE: tl.constexpr,
    ROUNDING: tl.constexpr,
    IS_NOISY: tl.constexpr,
    HAS_W_NOISE: tl.constexpr,
    LINES: tl.constexpr,
):
    """DAC of vector i of x, (batch, in), into u; its scale, and what its weights' noise is, into scale and length."""
    i = tl.program_id(0).to(tl.int64)
    if SCALE == NO_SCALE:
        s = tl.load(scale + i)
    else:
        s = _scale_of(x + i * n_in, n_in, tl.load(numbers + 7), SCALE, LINES)
        tl.store(scale + i, s)
    size = _volts(
        x + i * n_in, u + i * n_in, n_in, s, numbers, root, 0, tl.load(vectors) + i, ROUNDING, IS_NOISY, HAS_W_NOISE,
        LINES,
    )  # fmt: skip
    tl.store(length + i, size)


@jit
def convert_out(
    y,
    is_hit,
    n_out,
    numbers,
    root,
    vectors,
    scale,
    length,
    noise,
    ROUNDING: tl.constexpr,
    IS_NOISY: tl.constexpr,
    IS_EITHER_SIDE: tl.constexpr,
    HAS_W_NOISE: tl.constexpr,
    LINES: tl.constexpr,
):
    """ADC of vector i of y, (batch, out), in place; is_hit: whether one of its outputs met its bound."""
    i = tl.program_id(0).to(tl.int64)
    s, size, vector, most = tl.load(scale + i), tl.load(length + i), tl.load(vectors) + i, tl.zeros((), tl.int32)
    for start in range(0, n_out, LINES):
        j = start + tl.arange(0, LINES)
        v = tl.load(y + i * n_out + j, mask=j < n_out, other=0.0)
        value, n_beyond = _digits(
            v, j, n_out, s, s, size, numbers, root, 0, vector, noise, ROUNDING, IS_NOISY, IS_EITHER_SIDE,
            HAS_W_NOISE,
        )  # fmt: skip
        tl.store(y + i * n_out + j, value, mask=j < n_out)
        most = tl.maximum(most, n_beyond)
    tl.store(is_hit + i, most)


@jit
def again(
    x,
    u,
    w,
    y,
    is_hit,
    n_in,
    n_out,
    out_stride,
    in_stride,
    n_rounds,
    numbers,
    root,
    vectors,
    scale,
    length,
    noise,
    DAC_ROUNDING: tl.constexpr,
    IS_IN_NOISY: tl.constexpr,
    ROUNDING: tl.constexpr,
    IS_NOISY: tl.constexpr,
    IS_EITHER_SIDE: tl.constexpr,
    HAS_W_NOISE: tl.constexpr,
    LINES: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
):
    """Bound management: vector i again with inputs halved, up to n_rounds times, while an output meets its bound."""
    i = tl.program_id(0).to(tl.int64)
    s, vector, most = tl.load(scale + i), tl.load(vectors) + i, tl.load(is_hit + i)
    factor = tl.zeros_like(s) + 1.0
    for number in range(1, n_rounds + 1):
        if most > 0:
            factor = factor * 2.0
            size = _volts(
                x + i * n_in, u + i * n_in, n_in, s * factor, numbers, root, number, vector, DAC_ROUNDING,
                IS_IN_NOISY, HAS_W_NOISE, LINES,
            )  # fmt: skip
            tl.debug_barrier()  # all of u is written before any thread reads it
            most = most * 0
            for start in range(0, n_out, OUT):
                j = start + tl.arange(0, OUT)
                v = _product(u + i * n_in, w, j, n_in, n_out, out_stride, in_stride, IN, OUT)
                value, n_beyond = _digits(
                    v, j, n_out, s, s * factor, size, numbers, root, number, vector, noise, ROUNDING, IS_NOISY,
                    IS_EITHER_SIDE, HAS_W_NOISE,
                )  # fmt: skip
                tl.store(y + i * n_out + j, value, mask=j < n_out)
                most = tl.maximum(most, n_beyond)
            tl.debug_barrier()  # and all have read it before the next round


@jit
def _product(u, w, j, n_in, n_out, out_stride, in_stride, IN: tl.constexpr, OUT: tl.constexpr):
    """Some outputs of W u."""
    v = tl.zeros((OUT,), w.dtype.element_ty)
    for start in range(0, n_in, IN):
        t = start + tl.arange(0, IN)
        at = j.to(tl.int64)[:, None] * out_stride + t.to(tl.int64)[None, :] * in_stride
        part = tl.load(w + at, mask=(j < n_out)[:, None] & (t < n_in)[None, :], other=0.0)
        v += tl.sum(part * tl.load(u + t, mask=t < n_in, other=0.0)[None, :], 1)
    return v


@jit
def _scale_of(x, n, given, SCALE: tl.constexpr, LINES: tl.constexpr):
    """Noise management: the largest size, at most `given` if that is > 0, or `given` for all; NaN if none is finite."""
    largest, n_bad = tl.zeros_like(given), tl.zeros((), tl.int32)
    for start in range(0, n, LINES):
        j = start + tl.arange(0, LINES)
        size = tl.abs(tl.load(x + j, mask=j < n, other=0.0))
        is_fine = size < float("inf")
        n_bad = tl.maximum(n_bad, tl.max((~is_fine).to(tl.int32)))
        largest = tl.maximum(largest, tl.max(tl.where(is_fine, size, 0.0)))
    if SCALE == ONE_SCALE:
        s = given
    else:
        s = tl.where((given > 0.0) & (given < largest), given, largest)
    return tl.where(n_bad > 0, float("nan"), s)


@jit
def _volts(
    x,
    u,
    n,
    s,
    numbers,
    root,
    number,
    vector,
    ROUNDING: tl.constexpr,
    IS_NOISY: tl.constexpr,
    HAS_W_NOISE: tl.constexpr,
    LINES: tl.constexpr,
):
    """Into u what the DAC makes of a vector x at scale s; returns the deviation of its weights' noise."""
    step, bound, sigma = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    s = tl.where(s > 0.0, s, 1.0)
    power = tl.zeros_like(s)
    for start in range(0, n, LINES):
        j = start + tl.arange(0, LINES)
        a = _quotient(tl.load(x + j, mask=j < n, other=0.0), s)
        a = _rounded(a, step, root, DAC, number, vector, j, ROUNDING)
        a = tl.minimum(tl.maximum(a, -bound), bound)
        if IS_NOISY:
            a = a + sigma * _normal(root, INPUT, number, vector, j).to(a.dtype)
        tl.store(u + j, a, mask=j < n)
        if HAS_W_NOISE:
            power += tl.sum(tl.where(j < n, a * a, 0.0))
    return tl.load(numbers + 3) * tl.sqrt(power)


@jit
def _digits(
    v,
    j,
    n,
    s,
    s_now,
    size,
    numbers,
    root,
    number,
    vector,
    noise,
    ROUNDING: tl.constexpr,
    IS_NOISY: tl.constexpr,
    IS_EITHER_SIDE: tl.constexpr,
    HAS_W_NOISE: tl.constexpr,
):
    """What the ADC makes of outputs v of lines j, and whether (1 or 0) one of them was beyond its bound."""
    step, bound, factor = tl.load(numbers + 4), tl.load(numbers + 5), tl.load(numbers + 6)
    if HAS_W_NOISE:
        v = v + size * _normal(root, WEIGHT, number, vector, j).to(v.dtype)
    if IS_NOISY:
        sigma = tl.load(noise + j, mask=j < n, other=0.0)
        v = v + sigma * _normal(root, OUTPUT, number, vector, j).to(v.dtype)
    v = _rounded(v, step, root, ADC, number, vector, j, ROUNDING)
    far = tl.abs(v) if IS_EITHER_SIDE else v
    n_beyond = tl.max(((far > bound) & (j < n)).to(tl.int32))
    value = tl.minimum(tl.maximum(v, -bound), bound) * s_now * factor
    return tl.where(s <= 0.0, 0.0, value), n_beyond


@jit
def _rounded(a, step, root, what: tl.constexpr, number, vector, j, ROUNDING: tl.constexpr):
    """To multiples of a step, half to even, or at random."""
    if ROUNDING > 0:
        a = _quotient(a, step)
        if ROUNDING == AT_RANDOM:
            k0, k1 = _key(root, what, number, vector)
            a = a + (uniform(bits(k0, k1, j.to(tl.uint32))).to(a.dtype) - 0.5)
        a = _nearest(a) * step
    return a


@jit
def _nearest(a):
    """The nearest whole number, half to even: beside `whole` a float has no room for fractions."""
    whole = 4503599627370496.0 if a.dtype == tl.float64 else 8388608.0
    size = tl.abs(a)
    size = tl.where(size < whole, (size + whole) - whole, size)
    return tl.where(a < 0.0, -size, size)


@jit
def _quotient(a, b):
    """a / b, rounded to the nearest: in float32 Triton's own is not."""
    if a.dtype == tl.float64:
        q = a / b
    else:
        q = tl.div_rn(a, b)
    return q


@jit
def _normal(root, what: tl.constexpr, number, vector, j):
    k0, k1 = _key(root, what, number, vector)
    return quick_normal(k0, k1, j.to(tl.uint32))


@jit
def _key(root, what: tl.constexpr, number, vector):
    """Key of one kind of noise of one vector, in one round of bound management."""
    k0, k1 = key(root, tl.zeros((), tl.int64) + what * 65536 + number)
    low, high = vector.to(tl.uint32), (vector >> 32).to(tl.uint32)
    return fold0(fold0(k0, low), high), fold1(fold1(k1, low), high)
