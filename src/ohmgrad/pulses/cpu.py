"""The pulsed update on the CPU: the law of `eager`, compiled by Numba.

Threads take rows; a row's weights stay in cache over a block of samples, and its columns go through wide registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.devices.base import Device, Params
from ohmgrad.pulses.cpu_kernel import PLANES, kernel_of
from ohmgrad.pulses.cpu_trains import DETERMINISTIC, MEAN_COUNT, STOCHASTIC, firing, gather, prepare
from ohmgrad.pulses.settings import PulsedUpdate

# Crosspoint-samples below which a second thread costs more than it brings.
SMALL = 200_000
# Most 32-bit words of line bits that are made at a time.
SLAB = 1 << 24

# Cycles to load a crosspoint and to apply a train to it; the elements of a column lie far apart.
BY_ROW, BY_COLUMN = (6.0, 4.0), (18.0, 5.0)

KINDS = {"stochastic": STOCHASTIC, "mean-count": MEAN_COUNT, "deterministic": DETERMINISTIC}
Launch = Callable[[Tensor, Tensor, Tensor, float, int, Tensor | None], int]


def launcher(device: Device, params: Params, settings: PulsedUpdate, seed: int, like: Tensor) -> Launch:
    """The kernels with all that does not change from call to call.

    Args:
        params: the elements' parameters, numbers or planes (out, in).
        like: the weight, (out, in): its shape and dtype.

    Returns:
        launch(w, x, d, lr, cycle, counts) -> pulses: as `eager.pulse`; w, x, d contiguous and of one dtype; counts,
        (out, in) int64 or None, is added to.
    """
    n_out, n_in = like.shape
    names = (*PLANES, *type(device).own_parameters())
    flat = [torch.as_tensor(params[k], dtype=like.dtype).contiguous().numpy().reshape(-1) for k in names]
    planes = tuple(flat)
    streams = (random.Stream.X_BITS, random.Stream.D_BITS, random.Stream.PULSE, random.Stream.COUNT)
    key_x, key_d, *keys = (np.array(random.root(seed, s), np.uint32) for s in streams)
    sigma = flat[0].dtype.type(device.dw_min_ctoc)  # of the weight's own precision, lest the kernel widen
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
    none, lines = np.empty(0, np.int64), kernel_of(type(device))
    slab = max(1, SLAB // ((n_words + 2) * (n_in + n_out)))

    def launch(w: Tensor, x: Tensor, d: Tensor, lr: float, cycle: int, counts: Tensor | None) -> int:
        w_, x_, d_ = w.numpy().reshape(-1), x.numpy(), d.numpy()
        counts_ = none if counts is None else counts.numpy().reshape(-1)
        if not settings.bit_length:
            return 0
        return sum(
            pulse(w_, x_[i : i + slab], d_[i : i + slab], lr, cycle + i, counts_) for i in range(0, len(x_), slab)
        )

    def pulse(w: np.ndarray, x: np.ndarray, d: np.ndarray, lr: float, cycle: int, counts: np.ndarray) -> int:
        batch = len(x)
        length, sign = np.empty(batch, np.int32), np.empty(batch, np.int8)
        x_on = np.zeros((batch, n_words + 1, n_in), np.uint32)
        d_on = np.zeros((batch, n_words + 1, n_out), np.uint32)
        threads = torch.get_num_threads() if batch * n_out * n_in > SMALL else 1

        def samples(first: int, last: int) -> int:
            return prepare(x, d, lr, device.granularity, options, key_x, key_d, cycle, first, last, length, x_on, d_on)

        if fault := max(_shared(samples, batch, threads)):
            raise ValueError(f"{'xd'[fault - 1]} needs finite numbers, got NaN or infinity")
        is_by_row = _cost(firing(d_on), firing(x_on), *BY_ROW) <= _cost(firing(x_on), firing(d_on), *BY_COLUMN)
        line_on, lane_on, stride = (d_on, x_on, (n_in, 1)) if is_by_row else (x_on, d_on, (1, n_in))
        lane = np.empty(lane_on.shape[2], np.uint32)
        lane = lane[: gather(lane_on, lane, sign)]
        trains = (length, line_on, lane_on, sign, lr < 0.0)

        def part(first: int, last: int) -> int:
            return lines(w, first, last, trains, lane, planes, stride, law, tuple(keys), cycle, counts)

        return sum(_shared(part, line_on.shape[2], threads)) if len(lane) else 0

    return launch


def _shared(work: Callable[[int, int], int], n: int, threads: int) -> Iterable[int]:
    """What the threads return, to each of which an equal part of 0 ... n - 1 is given."""
    threads = min(threads, n)
    if threads == 1:
        return (work(0, n),)
    edges = [n * k // threads for k in range(threads + 1)]
    return _pool(threads).map(work, edges[:-1], edges[1:])


def _cost(lines: tuple[int, int], lanes: tuple[int, int], load: float, apply: float) -> float:
    """Of a mini-batch taken line by line; each given how many fire, and in how many samples, in sum."""
    return -(-lanes[0] // 16) * (lines[0] * load + lines[1] * apply)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="ohmgrad")
