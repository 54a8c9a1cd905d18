"""The fused way of a read on the CPU: one kernel before the matrix product and one after it."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from numba import int64, typeof
from torch import Tensor

from ohmgrad import random
from ohmgrad.periphery import cpu_kernel
from ohmgrad.periphery.fused import Read, need_vectors, numbers_of, way_of_scale
from ohmgrad.periphery.product import ADC, DAC, INPUT, OUTPUT, WEIGHT, Lines
from ohmgrad.periphery.settings import IO
from ohmgrad.pulses.cpu_openmp import openmp
from ohmgrad.pulses.numba_target import specialised

# Rows of `keys`.
KINDS = (INPUT, WEIGHT, OUTPUT, DAC, ADC)
# Numbers from which threads share them, as torch's do.
SHARED = 32768


def launcher(io: IO, lines: Lines, seed: int, direction: int, w: Tensor, vectors: Tensor) -> Read:
    """`product.product` of one replica, with all that does not change from call to call.

    Args:
        w: (out, in), of the shape and dtype that each call has.
        vectors: () int64, how many were read, to which each read adds its own.
    """
    n_out, n_in = w.shape
    numbers = torch.tensor(numbers_of(io), dtype=w.dtype).numpy()
    noise = torch.as_tensor(lines.out_noise, dtype=w.dtype).expand(1, n_out)[0].contiguous().numpy()
    options = np.array([
        n_in, n_out, way_of_scale(io), io.inp_sto_round, io.out_sto_round, io.bm_test_negative_bound, io.out_noise > 0,
        io.bound_management == "iterative", numbers.ctypes.data, noise.ctypes.data,
    ], np.int64)  # fmt: skip
    run, *functions = _kernels(w.dtype)
    into, out_of = (f.address for f in functions)
    threads, fixed = openmp().ctypes.data, options.ctypes.data
    firsts = _keys(seed, direction, 0)
    firsts_at = firsts.ctypes.data
    past: Any = memoryview(vectors.view(-1).numpy())  # type: ignore[arg-type]  # a tenth of a tensor's time

    def read(w: Tensor, x: Tensor, scale: Tensor | None) -> Tensor:
        need_vectors(x, n_in, w)
        x = (x.resolve_neg() if x.is_neg() else x).contiguous()
        n, number, first, keys_at = x.shape[0], 0, past[0], firsts_at
        past[0] = first + n
        room, size = np.empty(3 * n), max(n_in, n_out)
        if scale is not None:
            room[:n] = scale[:, 0].numpy()
        u, y = torch.empty_like(x), None
        while True:  # once, and again for those that met the bound
            n_threads = torch.get_num_threads() if n * size >= SHARED else 1
            run(threads, n_threads, into, x.data_ptr(), u.data_ptr(), room, n, first, number, keys_at, fixed)
            v = torch.nn.functional.linear(u, w)
            y = v if y is None else y
            n = run(threads, n_threads, out_of, v.data_ptr(), y.data_ptr(), room, n, first, number, keys_at, fixed)
            if not n or 2.0**number > io.bm_limit:
                return y
            number += 1
            rows = room[2 * len(x) :]
            rows[:n], rows[n:] = rows[rows >= 0], -1.0
            keys, u = _keys(seed, direction, number), torch.empty(n, n_in, dtype=w.dtype)
            keys_at = keys.ctypes.data

    read.held = numbers, noise, options, firsts  # type: ignore[attr-defined]  # what addresses point to
    return read


@lru_cache(maxsize=4096)
def _keys(seed: int, direction: int, number: int) -> np.ndarray:
    """For each kind of noise the words that (seed, direction, kind, round) fold to, (5, 2)."""
    return np.array([random.root(seed, random.Stream.READ, direction, k << 16 | number) for k in KINDS], np.uint32)


@cache
def _kernels(dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """`run`, as Numba calls it once it has looked at the types of all arguments, and what it runs: C functions."""
    like = torch.empty(0, dtype=dtype).numpy()
    words = np.empty(0, f"uint{8 * like.itemsize}")
    into, out_of = (
        specialised(f, f"{f.__name__}_{like.dtype}", int64(int64, int64, int64), LIKE=like, WORDS=words)
        for f in (cpu_kernel.convert_in, cpu_kernel.convert_out)
    )
    given = 0, 1, 0, 0, 0, np.empty(0), 0, 0, 0, 0, 0
    return specialised(cpu_kernel.run, "run").compile(tuple(typeof(a) for a in given)), into, out_of
