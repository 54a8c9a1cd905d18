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
def matrix_at(address: Any, rows: Any, columns: Any, like: Any) -> Any:
    """The contiguous matrix at an address, of the dtype of `like`: a tensor's address costs less than its array."""
    return carray(_pointer(address, like), (rows, columns))


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


@_inline
def _exp32(a):
    """e^a of float32, to 3e-7 of it: 2^k e^r with |r| <= ln(2)/2, without a call, so that it goes wide."""
    a = min(max(a, np.float32(-87.0)), np.float32(88.0))
    k = np.floor(a * np.float32(1.4426950408889634) + np.float32(0.5))
    r = (a - k * np.float32(0.693359375)) + k * np.float32(2.12194440e-4)  # ln 2 in two parts
    p = np.float32(1 / 120) + r * np.float32(1 / 720)
    p = np.float32(1 / 6) + r * (np.float32(1 / 24) + r * p)
    p = np.float32(1.0) + r * (np.float32(1.0) + r * (np.float32(0.5) + r * p))
    return p * float_of_bits(np.uint32(np.uint32(np.int32(k) + 127) << np.uint32(23)))


@_inline
def _log32(a):
    """ln a of normal float32 > 0, to 2e-7 of it or 1e-7: k ln 2 + ln m with m between sqrt(1/2) and sqrt(2)."""
    word = bits_of_float(a)
    k = np.int32(np.uint32(word - np.uint32(0x3F3504F3))) >> 23
    m = float_of_bits(np.uint32(word - np.uint32(np.uint32(k) << np.uint32(23))))
    s = (m - np.float32(1.0)) / (m + np.float32(1.0))
    q = s * s
    tail = q * (np.float32(1 / 3) + q * (np.float32(1 / 5) + q * (np.float32(1 / 7) + q * np.float32(1 / 9))))
    return np.float32(np.int32(k)) * np.float32(0.6931471805599453) + np.float32(2.0) * (s + s * tail)


@_inline
def _power32(a, b):
    """a^b of float32 >= 0, to (2 + 2 |b ln a|) 1e-7 of it."""
    is_plain = a > np.float32(1.2e-38)
    value = _exp32(b * _log32(a if is_plain else np.float32(1.0)))
    end = np.float32(1.0) if b == np.float32(0.0) else (np.float32(0.0) if b > np.float32(0.0) else np.float32(np.inf))
    return value if is_plain else end


def _by_type(quick: Any, exact: Any) -> Any:
    """A function that is quick where all it takes is float32, and for float64 as exact as the mathematics library."""

    def function(*arguments: Any) -> Any:
        raise NotImplementedError  # the overload below stands for it in compiled code

    @numba.extending.overload(function, jit_options=FAST, strict=False)  # type: ignore[reportArgumentType]  # a dict
    def _(*arguments: Any) -> Any:
        return quick if all(t == numba_types.float32 for t in arguments) else exact

    return function


def _interpolate(table, x):
    """Of table (rows, length + 1), row: the first number of a row is for other targets."""
    rows, row = table
    last = np.int32(rows.shape[1] - 2)
    y = x * np.float32(last)
    i = np.int32(y)
    i = max(min(i, last - np.int32(1)), np.int32(0))
    j = min(i + np.int32(1), last)
    t = y - np.float32(i)
    t = t if t > np.float32(0.0) else np.float32(0.0)
    t = t if t < np.float32(1.0) else np.float32(1.0)
    a, b = rows[row, np.uint32(i) + np.uint32(1)], rows[row, np.uint32(j) + np.uint32(1)]
    return a + t * (b - a)


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
