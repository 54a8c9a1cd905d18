"""The pulsed update on the CPU: the law of `eager`, compiled by Numba.

Threads take rows; a row's weights stay in cache over a block of samples, and its columns go through wide registers.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.devices.base import Device, Params
from ohmgrad.pulses.cpu_kernel import PLANES, kernel_of
from ohmgrad.pulses.cpu_trains import BAD_X, DETERMINISTIC, MEAN_COUNT, STOCHASTIC, arrange, prepare
from ohmgrad.pulses.eager import need_finite
from ohmgrad.pulses.settings import PulsedUpdate

# Crosspoint-samples below which a second thread costs more than it brings.
SMALL = 200_000
# Most 32-bit words of line bits that are made at a time.
SLAB = 1 << 24

KINDS = {"stochastic": STOCHASTIC, "mean-count": MEAN_COUNT, "deterministic": DETERMINISTIC}
Launch = Callable[[Tensor, Tensor, float, int, Tensor | None, Tensor | None], int]


def launcher(device: Device, params: Params, settings: PulsedUpdate, seed: int, w: Tensor) -> Launch:
    """The kernels with all that does not change from call to call.

    Args:
        params: the elements' parameters, numbers or planes (out, in).
        w: the weight, (out, in), contiguous.

    Returns:
        launch(x, d, lr, cycle, counts, moved) -> pulses: as `eager.pulse`; x and d contiguous and of w's dtype; counts,
        (out, in) int64 or None, is added to; moved, (out, in) uint8 or None, is set where pulses arrived.
    """
    n_out, n_in = w.shape
    names = (*PLANES, *type(device).own_parameters())
    planes = tuple(torch.as_tensor(params[k], dtype=w.dtype).contiguous().numpy().reshape(-1) for k in names)
    streams = (random.Stream.X_BITS, random.Stream.D_BITS, random.Stream.PULSE, random.Stream.COUNT)
    key_x, key_d, *of_places = (np.array(random.root(seed, s), np.uint32) for s in streams)
    keys, granularity = tuple(of_places), float(device.granularity)
    sigma = planes[0].dtype.type(device.dw_min_ctoc)  # of the weight's own precision, lest the kernel widen
    law = (sigma, device.ctoc == "additive", settings.merge and device.is_affine, KINDS[settings.train])
    options = (
        KINDS[settings.train],
        settings.bit_length,
        settings.update_management,
        settings.bit_length_management,
        settings.resolution,
        settings.stochastic_rounding,
    )
    n_words = -(-settings.bit_length // 32) if settings.train == "stochastic" else 1
    no_counts, nothing_moved, lines = np.empty(0, np.int64), np.empty(0, np.uint8), kernel_of(type(device))
    slab = max(1, SLAB // ((n_words + 2) * (n_in + n_out)))

    state, kept = w.numpy().reshape(-1), _Work(0, n_words, n_in, n_out)

    def launch(x: Tensor, d: Tensor, lr: float, cycle: int, counts: Tensor | None, moved: Tensor | None) -> int:
        batch = len(x)
        if not batch or not settings.bit_length:
            return 0
        counts_ = no_counts if counts is None else counts.numpy().reshape(-1)
        moved_ = nothing_moved if moved is None else moved.numpy().reshape(-1)
        x_, d_ = x.numpy(), d.numpy()
        if batch <= slab:
            return pulse(x_, d_, lr, cycle, counts_, moved_)
        need_finite(x, d)  # before anything is written
        parts = range(0, batch, slab)
        return sum(pulse(x_[i : i + slab], d_[i : i + slab], lr, cycle + i, counts_, moved_) for i in parts)

    def pulse(x: np.ndarray, d: np.ndarray, lr: float, cycle: int, counts: np.ndarray, moved: np.ndarray) -> int:
        nonlocal kept
        batch = len(x)
        work = kept if kept.batch == batch else _Work(batch, n_words, n_in, n_out)
        if batch * (n_in + n_out) < SMALL:
            kept = work
        n_threads = torch.get_num_threads() if batch * n_out * n_in > SMALL else 1
        x_on, d_on, length, sign, lane = work.x_on, work.d_on, work.length, work.sign, work.lane
        fault = _shared(
            prepare, batch, n_threads, x, d, lr, granularity, options, key_x, key_d, cycle, length, x_on, d_on
        )
        if fault:
            raise ValueError(f"{'d' if fault % BAD_X else 'x'} needs finite numbers, got NaN or infinity")
        is_by_row, m = arrange(x_on, d_on, lane, sign)
        if not m:
            return 0
        line_on, lane_on, stride = (d_on, x_on, (n_in, 1)) if is_by_row else (x_on, d_on, (1, n_in))
        trains = (length, line_on, lane_on, sign, lr < 0.0)
        n_lines = n_out if is_by_row else n_in
        return _shared(
            lines, n_lines, n_threads, state, trains, lane[:m], planes, stride, law, keys, cycle, counts, moved
        )

    return launch


def _shared(kernel: Callable[..., int], n: int, n_threads: int, *args: Any) -> int:
    """The sum of what the threads return, to each of which an equal part of 0 ... n - 1 is given."""
    if n_threads == 1 or n == 1:
        return kernel(0, n, *args)
    n_threads = min(n_threads, n)
    edges = [n * k // n_threads for k in range(n_threads + 1)]
    return sum(_pool(n_threads).map(lambda first, last: kernel(first, last, *args), edges[:-1], edges[1:]))


class _Work:
    """Where the trains of a mini-batch stand; `prepare` tells what in."""

    def __init__(self, batch: int, n_words: int, n_in: int, n_out: int) -> None:
        self.batch = batch
        self.length, self.sign = np.empty(batch, np.int32), np.empty(batch, np.int8)
        self.x_on = np.empty((batch, n_words + 1, n_in), np.uint32)
        self.d_on = np.empty((batch, n_words + 1, n_out), np.uint32)
        self.lane = np.empty(max(n_in, n_out), np.uint32)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="ohmgrad")
