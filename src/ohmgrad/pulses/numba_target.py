"""The vocabulary for Numba: the same sources as scalar functions that the compiler inlines and vectorises."""

from __future__ import annotations

import atexit
import hashlib
import math
import os
import shutil
import tempfile
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numba.core.config
import numba.extending
import numpy as np
from llvmlite import ir
from numba import types as numba_types

from ohmgrad import random
from ohmgrad.vocabulary import Target

njit: Any = numba.njit  # its own types lose the signature of what it compiles
intrinsic: Any = numba.extending.intrinsic
config: Any = numba.core.config
carray: Any = numba.carray  # type: ignore[reportPrivateImportUsage]  # numba names no exports

# Products and sums may fuse; NaN, infinity and the order of operations stay as written.
FAST: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "nsz"}}
INLINE: dict[str, Any] = {"forceinline": True, **FAST}


@intrinsic
def float_of_bits(typing: Any, a: Any) -> Any:
    """The float32 number of these 32 bits."""
    return numba_types.float32(numba_types.uint32), lambda context, builder, sig, args: builder.bitcast(
        args[0], ir.FloatType()
    )


@intrinsic
def _bits_of_float(typing: Any, a: Any) -> Any:
    return numba_types.uint32(numba_types.float32), lambda context, builder, sig, args: builder.bitcast(
        args[0], ir.IntType(32)
    )


@intrinsic
def _pointer(typing: Any, address: Any, like: Any) -> Any:
    pointer = numba_types.CPointer(like.dtype)
    return pointer(address, like), lambda context, builder, sig, args: builder.inttoptr(
        args[0], context.get_value_type(pointer)
    )


@njit(inline="always")
def matrix_at(address: Any, rows: Any, columns: Any, like: Any) -> Any:
    """The contiguous matrix at an address, of the dtype of `like`: a tensor's address costs less than its array."""
    return carray(_pointer(address, like), (rows, columns))


# Arrays that tell a kernel the dtype of what stands at an address.
COUNTS, MOVED, NUMBERS, KEYS = (np.empty(0, dtype) for dtype in (np.int64, np.uint8, np.float64, np.uint32))


@njit(inline="always")
def vector_at(address: Any, size: Any, like: Any) -> Any:
    """The numbers at an address, of the dtype of `like`."""
    return matrix_at(address, 1, size, like)[0]


@intrinsic
def popcount(typing: Any, a: Any) -> Any:
    """Set bits of a 32-bit word."""
    return numba_types.uint32(numba_types.uint32), lambda context, builder, sig, args: builder.ctpop(args[0])


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
        "popcount": popcount,
        "u32": _inline(lambda a: np.uint32(a)),
        "to_float": _inline(lambda a: np.float32(np.int32(a))),
        "signed": _inline(lambda a: np.float32(np.int32(a))),
        "as_word": _inline(lambda a: _bits_of_float(np.float32(a))),
        "as_float": _inline(lambda a: float_of_bits(np.uint32(a))),
    },
    number=np.float32,
    word=np.uint32,
    compile=_inline,
)


@cache
def cache_directory() -> str:
    """Where compiled kernels stay between processes: in the user's cache, a directory for each state of the sources.

    Numba itself looks at the date of the one file that a kernel stands in, and would run old code after a change of
    what the kernel calls.
    """
    root = Path(random.__file__).parent
    sources = [*sorted(root.glob("pulses/*.py")), *sorted(root.glob("periphery/*.py"))]
    sources += [root / "random.py", root / "vocabulary.py"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        directory = home / "ohmgrad" / digest
        directory.mkdir(parents=True, exist_ok=True)
        if os.access(directory, os.W_OK | os.X_OK):
            return str(directory)
    except OSError:
        pass
    # A read-only home: compiled anew in each process.
    own = tempfile.mkdtemp(prefix="ohmgrad-")
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


def specialised(template: types.FunctionType, name: str, **given: Any) -> Any:
    """A kernel from a template: a plain function, in whose module the names of `given` take these values.

    Plain functions of the same package that it calls are templates too. Compiled when first called, without the
    interpreter's lock, and kept on disk under `name`, which must tell everything of `given`.
    """

    package = template.__module__.rpartition(".")[0]

    def build(function: types.FunctionType, compile_: Callable[..., Any]) -> Any:
        scope = dict(function.__globals__)
        for used in function.__code__.co_names:
            value = scope.get(used)
            if used in given:
                scope[used] = given[used]
            elif isinstance(value, types.FunctionType) and value.__module__.rpartition(".")[0] == package:
                scope[used] = build(value, njit(**INLINE))
        copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
        copy.__qualname__ = copy.__name__ = name if function is template else function.__name__
        return compile_(copy)

    before, config.CACHE_DIR = config.CACHE_DIR, cache_directory()
    try:
        return build(template, njit(cache=True, nogil=True, **FAST))
    finally:
        config.CACHE_DIR = before
