"""The vocabulary for Numba: the same sources as scalar functions that the compiler inlines and vectorises."""

from __future__ import annotations

import atexit
import hashlib
import math
import os
import platform
import shutil
import tempfile
import types
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numba.core.compiler
import numba.core.config
import numba.extending
import numpy as np
from llvmlite import ir
from numba import types as numba_types
from numba.core import cgutils

from ohmgrad import random
from ohmgrad.vocabulary import Target

njit: Any = numba.njit  # its own types lose the signature of what it compiles
intrinsic: Any = numba.extending.intrinsic
config: Any = numba.core.config
carray: Any = numba.carray  # type: ignore[reportPrivateImportUsage]  # numba names no exports

# Products and sums may fuse; NaN, infinity and the order of operations stay as written.
FAST: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "nsz"}}
INLINE: dict[str, Any] = {"forceinline": True, **FAST}
# Of functions that make no arrays: those that they are given are not counted in and out.
BARE: dict[str, Any] = {"_nrt": False, **FAST}


@intrinsic
def float_of_bits(typing: Any, a: Any) -> Any:
    """The floating-point number of these 32 or 64 bits."""
    kind: Any = numba_types.float32 if a.bitwidth == 32 else numba_types.float64
    return kind(a), lambda context, builder, sig, args: builder.bitcast(args[0], context.get_value_type(kind))


@intrinsic
def bits_of_float(typing: Any, a: Any) -> Any:
    """The bits of a float32 or float64 number: sizes are in the same order, with NaN beyond infinity."""
    kind: Any = numba_types.uint32 if a.bitwidth == 32 else numba_types.uint64
    return kind(a), lambda context, builder, sig, args: builder.bitcast(args[0], ir.IntType(kind.bitwidth))


@intrinsic
def _pointer(typing: Any, address: Any, like: Any) -> Any:
    pointer = numba_types.CPointer(like.dtype)
    return pointer(address, like), lambda context, builder, sig, args: builder.inttoptr(
        args[0], context.get_value_type(pointer)
    )


@njit(inline="always")
def array_at(address: Any, shape: Any, like: Any) -> Any:
    """The contiguous array at an address, of the dtype of `like`: an address costs less than a counted array."""
    return carray(_pointer(address, like), shape)


@njit(inline="always")
def matrix_at(address: Any, rows: Any, columns: Any, like: Any) -> Any:
    """As `array_at`."""
    return array_at(address, (rows, columns), like)


@intrinsic
def address_of(typing: Any, array: Any) -> Any:
    """Where an array's numbers stand; `ctypes.data` makes an object of it first."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.ptrtoint(context.make_array(array)(context, builder, given[0]).data, ir.IntType(64))

    return numba_types.int64(array), generate


@intrinsic
def call_at(typing: Any, address: Any, arguments: Any) -> Any:
    """Call the C function at an address, of a tuple of whole numbers as int64, that returns nothing."""
    word = ir.IntType(64)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [word] * len(arguments))
        function = builder.inttoptr(given[0], kind.as_pointer())
        builder.call(function, cgutils.unpack_tuple(builder, given[1]))
        return context.get_dummy_value()

    return numba_types.void(numba_types.int64, numba_types.UniTuple(numba_types.int64, len(arguments))), generate


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


@intrinsic
def keep_whole(typing: Any) -> Any:
    """The function that calls this is not put into the midst of those that call it, so that its arrays stay apart."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return numba_types.void(), generate


@intrinsic
def pause(typing: Any) -> Any:
    """A moment's rest in a loop that waits for memory to change, which is read anew after it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("acquire")
        if platform.machine() in ("x86_64", "AMD64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), kind), [])
        return context.get_dummy_value()

    return numba_types.void(), generate


def _inline(function: Callable[..., Any]) -> Any:
    return njit(**INLINE)(function)


_unfused = njit(forceinline=True, error_model="numpy", fastmath=False)  # left out, callers' fastmath is taken over

# The polynomials below are in pairs of terms, which a processor takes side by side: it would wait for term after term.
ROUND = np.float32(12582912.0)  # 1.5 2^23: of float32, a sum with it is whole, and its low bits are that number


@_unfused
def _rounded(a, b):
    """a b, which no sum takes in: of a sum of two products the compiler would choose one to fuse."""
    return a * b


@_inline
def _scaled(p, t):
    """p 2^k for t = k + ROUND and p in 1/2 ... 2, 1 for k = -127 and 128: there that is 0 and infinity."""
    return float_of_bits(np.uint32(bits_of_float(p) + np.uint32(bits_of_float(t) << np.uint32(23))))


@_inline
def _exp32(a):
    """e^a of float32, to 3e-7 of it: 2^k e^r with |r| <= ln(2)/2, without a call, so that it goes wide."""
    a = min(max(a, np.float32(-87.0)), np.float32(88.0))
    t = a * np.float32(1.4426950408889634) + ROUND
    k = t - ROUND
    r = (a - k * np.float32(0.693359375)) + k * np.float32(2.12194440e-4)  # ln 2 in two parts
    q = r * r
    low = np.float32(0.49999231) + r * np.float32(0.16667114)
    high = np.float32(0.041890122) + r * np.float32(0.0083125243)
    return _scaled((np.float32(1.0) + r) + q * (low + q * high), t)


@_inline
def _exp2(y):
    """2^y of float32, -127 <= y <= 128."""
    t = y + ROUND
    r = y - (t - ROUND)
    q = r * r
    p = np.float32(0.055507337) + r * np.float32(0.0096715128) + q * np.float32(0.0013264727)
    return _scaled((np.float32(1.0) + r * np.float32(0.69314698)) + q * (np.float32(0.24022242) + r * p), t)


@_inline
def _log2(a):
    """The binary logarithm of normal float32 > 0, k + log2(m) with m between sqrt(1/2) and sqrt(2)."""
    word = np.uint32(bits_of_float(a) - np.uint32(0x3F3504F3))
    k = np.int32(word) >> 23
    f = float_of_bits(np.uint32(np.uint32(word & np.uint32(0x7FFFFF)) + np.uint32(0x3F3504F3))) - np.float32(1.0)
    q = f * f
    p1 = np.float32(-0.72134735) + f * np.float32(0.48091064)
    p2 = np.float32(-0.36070368) + f * np.float32(0.28791625)
    p3 = np.float32(-0.23894481) + f * np.float32(0.21571561)
    p4 = np.float32(-0.20726981338479514) + f * np.float32(0.12583708)
    tail = _rounded(q, (p1 + q * p2) + (q * q) * (p3 + q * p4))
    return np.float32(np.int32(k)) + (f * np.float32(1.4426950408889634) + tail)


@_inline
def _log32(a):
    """ln a of normal float32 > 0, to 2e-7 of it or 1e-7."""
    return _rounded(np.float32(0.6931471805599453), _log2(a))


@_inline
def _power32(a, b):
    """a^b of float32 >= 0, to (2 + 2 |b ln a|) 1e-7 of it; 0^b for a < 1.2e-38."""
    y = b * (_log2(a) if a > np.float32(1.2e-38) else np.float32(-3e38))
    return _exp2(min(max(y, np.float32(-127.0)), np.float32(128.0)))


def _by_type(quick: Any, exact: Any) -> Any:
    """A function that is quick where all it takes is float32, and for float64 as exact as the mathematics library."""

    def function(*arguments: Any) -> Any:
        raise NotImplementedError  # the overload below stands for it in compiled code

    @numba.extending.overload(function, jit_options=FAST, strict=False)  # type: ignore[reportArgumentType]  # a dict
    def _(*arguments: Any) -> Any:
        return quick if all(t == numba_types.float32 for t in arguments) else exact

    return function


def _interpolate(table, x):
    """Of table (rows, row, n_nodes): a row holds its last place, its numbers, and the last again.

    n_nodes: how many numbers, if few: to look at one after another costs less than to fetch each element's own; else 0.
    """
    rows, row, n_nodes = table
    last = rows[row, 0]
    y = x * last
    y = y if y > np.float32(0.0) else np.float32(0.0)
    y = y if y < last else last
    i = np.floor(y)
    i = i if i < last - np.float32(1.0) else last - np.float32(1.0)
    if n_nodes:
        a, b = rows[row, 1], rows[row, 2]
        for j in range(1, n_nodes - 1):
            is_here, now, then = i >= np.float32(j), rows[row, j + 1], rows[row, j + 2]  # loaded once, not where needed
            a, b = now if is_here else a, then if is_here else b
    else:
        k = np.uint32(np.int32(i))
        a, b = rows[row, k + np.uint32(1)], rows[row, k + np.uint32(2)]
    return a + (y - i) * (b - a)


_exp = _by_type(lambda a: _exp32(a), lambda a: math.exp(a))
_log = _by_type(lambda a: _log32(a), lambda a: math.log(a))
_power = _by_type(lambda a, b: _power32(a, b), lambda a, b: a**b)

NUMBA = Target(
    namespace={
        "where": _inline(lambda condition, a, b: a if condition else b),
        "minimum": _inline(lambda a, b: a if a < b else b),
        "maximum": _inline(lambda a, b: a if a > b else b),
        "absolute": _inline(lambda a: abs(a)),
        "exp": _inline(lambda a: _exp(a)),
        "log": _inline(lambda a: _log(a)),
        "sqrt": _inline(lambda a: math.sqrt(a)),
        "power": _inline(lambda a, b: _power(a, b)),
        "interpolate": _inline(_interpolate),
        "popcount": popcount,
        "u32": _inline(lambda a: np.uint32(a)),
        "to_float": _inline(lambda a: np.float32(np.int32(a))),
        "signed": _inline(lambda a: np.float32(np.int32(a))),
        "as_word": _inline(lambda a: bits_of_float(np.float32(a))),
        "as_float": _inline(lambda a: float_of_bits(np.uint32(a))),
    },
    number=np.float32,
    word=np.uint32,
    compile=_inline,
)

# For responses: fused, the same step would be rounded in several ways, as its direction is known beforehand or not.
UNFUSED = replace(NUMBA, compile=_unfused)


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


class Apart(numba.core.compiler.Compiler):
    """Numba's compiler, told that the arrays of a function do not overlap."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state.flags = self.state.flags.copy()
        self.state.flags.noalias = True


def apart(template: types.FunctionType) -> types.FunctionType:
    """Mark a template whose arrays do not overlap: else the compiler asks at each call, or, of many, gives up."""
    template.is_apart = True  # type: ignore[attr-defined]  # functions take any attribute
    return template


def specialised(template: types.FunctionType, name: str, signature: Any = None, **given: Any) -> Any:
    """A kernel from a template: a plain function, in whose module the names of `given` take these values.

    Plain functions of the same package that it calls are templates too. Compiled when first called, without the
    interpreter's lock, and kept on disk under `name`, which must tell everything of `given`. With a signature: a C
    function, compiled at once.
    """

    package = template.__module__.rpartition(".")[0]

    def build(function: types.FunctionType, compile_: Callable[..., Any]) -> Any:
        scope = dict(function.__globals__)
        for used in function.__code__.co_names:
            value = scope.get(used)
            if used in given:
                scope[used] = given[used]
            elif isinstance(value, types.FunctionType) and value.__module__.rpartition(".")[0] == package:
                own = {"pipeline_class": Apart} if hasattr(value, "is_apart") else {}
                scope[used] = build(value, njit(**INLINE, **own))
        copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
        copy.__qualname__ = copy.__name__ = name if function is template else function.__name__
        return compile_(copy)

    before, config.CACHE_DIR = config.CACHE_DIR, cache_directory()
    try:
        if signature is not None:
            return build(template, numba.cfunc(signature, cache=True, **FAST))
        return build(template, njit(cache=True, nogil=True, **FAST))
    finally:
        config.CACHE_DIR = before
