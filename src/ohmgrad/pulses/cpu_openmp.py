"""Kernels on torch's own threads.

Those of OpenMP, on which torch makes its products, wait awake for a while after each: they take a share at once, where
to wake a thread takes 0.1 ms. A pool of our own between two products would find the processors held by them, and hold
these itself when the next product wants them.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import int64, void
from numba import types as numba_types
from numba.core import cgutils

from ohmgrad.pulses.numba_target import (
    COUNTS,
    FAST,
    address_of,
    call_at,
    intrinsic,
    matrix_at,
    njit,
    pause,
    specialised,
    vector_at,
)

LINE = 8  # whole numbers in a cache line, for threads not to write to each other's
AWAKE = 1000  # pauses that the caller waits for others before it lets them have its processor, about 20 us
MASK = 16  # whole numbers of a set of processors


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
    """Addresses that `share` finds, of `NAMES` and `member`, or 0.

    The first is 0 where torch's threads are not those of GNU's OpenMP, nor of one that can stand for it.
    """
    try:
        maps = Path("/proc/self/maps").read_text().splitlines()
        loaded = {line.split(maxsplit=5)[5] for line in maps if "/" in line}
        paths = {path for path in loaded if Path(path).name.startswith(("libgomp", "libiomp5", "libomp"))}
        (path,) = {path for path in paths if path.startswith(str(Path(torch.__file__).parent))} or paths
        library = ctypes.CDLL(path)
        functions = [getattr(library, name) for name in NAMES]
    except (OSError, ValueError, AttributeError):  # no such file, library or function, or several
        return np.zeros(len(NAMES) + 1, np.int64)
    addresses = [ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions]
    return np.array([*addresses, _member().address], np.int64)


NAMES = (
    "GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads",
    "sched_getcpu", "sched_yield", "sched_getaffinity", "sched_setaffinity",
)  # fmt: skip

# A child process has none of its parent's threads, and would wait for them.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: openmp().fill(0) if openmp.cache_info().currsize else None)


@cache
def _member() -> Any:
    return specialised(member, "member", void(int64))


@njit(**FAST)
def share(openmp_at, n_threads, kernel_at, arguments_at):
    """The sum of kernel(k, n, arguments_at), a C function of int64, over all threads k of n."""
    openmp = vector_at(openmp_at, 8, COUNTS)
    if n_threads == 1 or openmp[0] == 0:
        return ask_at(kernel_at, (0, 1, arguments_at))
    sums = np.zeros((n_threads, LINE), np.int64)
    block = np.array((openmp_at, kernel_at, arguments_at, address_of(sums), ask_at(openmp[3], ())))
    call_at(openmp[0], (openmp[7], address_of(block), n_threads, 0))
    return sums[:, 0].sum() + 0 * block[0]  # both arrays are in use until here


def member(block_at):
    """What each thread does with the block of `share`: its share; the caller then waits for the others."""
    block = vector_at(block_at, 5, COUNTS)
    openmp = vector_at(block[0], 8, COUNTS)
    k, n = ask_at(openmp[1], ()) & 0xFFFFFFFF, ask_at(openmp[2], ()) & 0xFFFFFFFF
    if k:
        keep_apart(openmp, block[4])
    sums = matrix_at(block[3], n, LINE, COUNTS)
    sums[k, 0] = ask_at(block[1], (k, n, block[2]))
    sums[k, 1] = 1
    n_pauses = 0  # OpenMP waits next, but on a processor that it keeps for milliseconds
    while k == 0 and n_pauses < 3 * AWAKE and sums[:, 1].sum() < n:
        pause()
        n_pauses += 1
        if n_pauses % AWAKE == 0:
            ask_at(openmp[4], ())


def keep_apart(openmp, cpu):
    """Leave the processor that the caller was on, where Linux often puts the threads that it wakes."""
    if (ask_at(openmp[3], ()) ^ cpu) & 0xFFFFFFFF:
        return
    masks = np.zeros((2, MASK), np.int64)
    size, cpu = 8 * MASK, cpu & 0xFFFFFFFF
    if cpu >= 8 * size or (ask_at(openmp[5], (0, size, address_of(masks[0]))) & 0xFFFFFFFF) >> 31:
        return
    masks[1] = masks[0]
    masks[1, cpu // 64] &= ~(1 << (cpu % 64))
    if masks[1].any():
        ask_at(openmp[6], (0, size, address_of(masks[1])))
        ask_at(openmp[6], (0, size, address_of(masks[0])))  # it may move again
    masks[0, 0] += 0  # in use until here
