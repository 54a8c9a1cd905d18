"""Kernels on torch's own threads.

Those of OpenMP, on which torch makes its products, wait awake for a while after each. A pool of our own between two
products would find the processors held by them, and hold these itself when the next product wants them.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import int64, void
from numba import types as numba_types
from numba.core import cgutils

from ohmgrad.pulses.numba_target import COUNTS, FAST, address_of, call_at, intrinsic, njit, specialised, vector_at

LINE = 8  # whole numbers in a cache line, for threads not to write to each other's


@intrinsic
def ask_at(typing: Any, address: Any, arguments: Any) -> Any:
    """As `call_at`, of a function that returns a whole number, of 64 bits or in the lower 32."""
    word = ir.IntType(64)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        function = builder.inttoptr(given[0], ir.FunctionType(word, [word] * len(arguments)).as_pointer())
        return builder.call(function, cgutils.unpack_tuple(builder, given[1]) if len(arguments) else [])

    return int64(int64, numba_types.Tuple([int64] * len(arguments))), generate


@cache
def openmp() -> np.ndarray:
    """Addresses that `share` finds: of GOMP_parallel, omp_get_thread_num, omp_get_num_threads and `member`.

    The first is 0 where torch's threads are not those of GNU's OpenMP.
    """
    try:
        maps = Path("/proc/self/maps").read_text().splitlines()
        paths = {line.split(maxsplit=5)[5] for line in maps if "libgomp" in line}
        (path,) = {path for path in paths if path.startswith(str(Path(torch.__file__).parent))} or paths
        library = ctypes.CDLL(path)
        functions = library.GOMP_parallel, library.omp_get_thread_num, library.omp_get_num_threads
    except (OSError, ValueError, AttributeError):  # no such file, library or function, or several
        return np.zeros(4, np.int64)
    addresses = [ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions]
    return np.array([*addresses, _member().address], np.int64)


@cache
def _member() -> Any:
    return specialised(member, "member", void(int64))


@njit(**FAST)
def share(openmp_at, n_threads, kernel_at, arguments_at):
    """The sum of kernel(k, n, arguments_at), a C function of int64, over all threads k of n."""
    openmp = vector_at(openmp_at, 4, COUNTS)
    if n_threads == 1 or openmp[0] == 0:
        return ask_at(kernel_at, (0, 1, arguments_at))
    sums = np.zeros(n_threads * LINE, np.int64)
    block = np.array((openmp[1], openmp[2], kernel_at, arguments_at, address_of(sums)))
    call_at(openmp[0], (openmp[3], address_of(block), n_threads, 0))
    return sums.sum() + 0 * block[0]  # both arrays are in use until here


def member(block_at):
    """What each thread does with the block of `share`."""
    block = vector_at(block_at, 5, COUNTS)
    k, n = ask_at(block[0], ()) & 0xFFFFFFFF, ask_at(block[1], ()) & 0xFFFFFFFF
    vector_at(block[4], (k + 1) * LINE, COUNTS)[k * LINE] = ask_at(block[2], (k, n, block[3]))
