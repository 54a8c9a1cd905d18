"""The vocabulary for Numba: the same sources as scalar functions that the compiler inlines and vectorises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numba.extending
import numpy as np
from llvmlite import ir
from numba import types

from ohmgrad.vocabulary import Target

njit: Any = numba.njit  # its own types lose the signature of what it compiles
intrinsic: Any = numba.extending.intrinsic

# Products and sums may fuse; NaN, infinity and the order of operations stay as written.
INLINE: dict[str, Any] = {"forceinline": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}


@intrinsic
def _float_of_bits(typing: Any, a: Any) -> Any:
    return types.float32(types.uint32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.FloatType())


@intrinsic
def _bits_of_float(typing: Any, a: Any) -> Any:
    return types.uint32(types.float32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.IntType(32))


@intrinsic
def popcount(typing: Any, a: Any) -> Any:
    """Set bits of a 32-bit word."""
    return types.uint32(types.uint32), lambda context, builder, sig, args: builder.ctpop(args[0])


def _inline(function: Callable[..., Any]) -> Any:
    return njit(**INLINE)(function)


NUMBA = Target(
    namespace={
        "where": _inline(lambda condition, a, b: a if condition else b),
        "minimum": _inline(lambda a, b: a if a < b else b),
        "maximum": _inline(lambda a, b: a if a > b else b),
        "absolute": _inline(lambda a: abs(a)),
        "exp": _inline(lambda a: math.exp(a)),
        "log": _inline(lambda a: math.log(a)),
        "sqrt": _inline(lambda a: math.sqrt(a)),
        "power": _inline(lambda a, b: a**b),
        "u32": _inline(lambda a: np.uint32(a)),
        "to_float": _inline(lambda a: np.float32(np.int32(a))),
        "signed": _inline(lambda a: np.float32(np.int32(a))),
        "as_word": _inline(lambda a: _bits_of_float(np.float32(a))),
        "as_float": _inline(lambda a: _float_of_bits(np.uint32(a))),
    },
    number=np.float32,
    word=np.uint32,
    compile=_inline,
)
