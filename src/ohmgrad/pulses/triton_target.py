"""The vocabulary for Triton: the same sources as functions inside a kernel, compiled or run by its interpreter.

Triton reads the text of a function, so its literals need no narrowing: they take the precision of the tensor that they
meet, on a float64 weight as written. Which of the two it will be, a GPU's compiler or (TRITON_INTERPRET=1) the
interpreter on the CPU, Triton decides when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton
import triton.knobs
import triton.language as tl
from triton.language.extra import libdevice

from ohmgrad.vocabulary import Target

jit: Any = triton.jit  # its own types lose the signature of what it compiles
is_interpreted: bool = triton.knobs.runtime.interpret


@jit
def where(condition, a, b):
    return tl.where(condition, a, b)


@jit
def minimum(a, b):
    return tl.minimum(a, b)


@jit
def maximum(a, b):
    return tl.maximum(a, b)


@jit
def absolute(a):
    return tl.abs(a)


@jit
def exp(a):
    return tl.exp(a)


@jit
def log(a):
    return tl.log(a)


@jit
def sqrt(a):
    return tl.sqrt(a)


@jit
def power(a, b):
    """exp2(b log2 a), to some ulps: Triton has no power that its interpreter knows."""
    is_plain = a > 0.0
    value = tl.exp2(b * tl.log2(tl.where(is_plain, a, 1.0)))
    end = tl.where(b == 0.0, 1.0, tl.where(b > 0.0, 0.0, float("inf")))
    return tl.where(is_plain, value, end)


@jit
def interpolate(table, x):
    """Of a table in memory that begins with its length - 1 and has its last number twice: none lacks a next one."""
    last = tl.load(table)
    y = tl.minimum(tl.maximum(x * last, 0.0), last)
    i = tl.minimum(tl.maximum(y.to(tl.int32), 0), tl.maximum(last - 1.0, 0.0).to(tl.int32))
    a = tl.load(table + 1 + i)
    b = tl.load(table + 2 + i)
    return a + (y - i.to(y.dtype)) * (b - a)


@jit
def u32(a):
    return a.to(tl.uint32)


@jit
def to_float(a):
    return a.to(tl.int32).to(tl.float32)


@jit
def signed(a):
    return a.to(tl.int32, bitcast=True).to(tl.float32)


@jit
def as_word(a):
    return a.to(tl.float32).to(tl.uint32, bitcast=True)


@jit
def as_float(a):
    return a.to(tl.uint32).to(tl.float32, bitcast=True)


@jit
def _popcount(a):
    a = a - ((a >> 1) & 0x55555555)
    a = (a & 0x33333333) + ((a >> 2) & 0x33333333)
    return (((a + (a >> 4)) & 0x0F0F0F0F) * 0x01010101) >> 24


@jit
def _popcount_at_once(a):
    """One instruction, which Triton's compiler does not make of the sums above; its interpreter does not know it."""
    return libdevice.popc(a.to(tl.int32, bitcast=True)).to(tl.uint32, bitcast=True)


popcount = _popcount if is_interpreted else _popcount_at_once


def _constant(value: float) -> Any:
    # A number outside the function's text: the compiler takes only constexpr, the interpreter only plain ones.
    return value if is_interpreted else tl.constexpr(value)


def _compile(function: Callable[..., Any]) -> Any:
    function.__globals__["triton_language"] = tl  # the interpreter looks for it among what a function sees
    return jit(function)


TRITON = Target(
    namespace={
        "where": where,
        "minimum": minimum,
        "maximum": maximum,
        "absolute": absolute,
        "exp": exp,
        "log": log,
        "sqrt": sqrt,
        "power": power,
        "interpolate": interpolate,
        "popcount": popcount,
        "u32": u32,
        "to_float": to_float,
        "signed": signed,
        "as_word": as_word,
        "as_float": as_float,
    },
    number=_constant,
    word=_constant,
    compile=_compile,
)
