"""The pulsed update on the CPU: the law of `eager`, compiled by Numba.

Threads take rows; a row's weights stay in cache over the whole mini-batch, and its columns go through wide registers.
An affine device enters as the numbers C + S w of its steps (from its response, by `eager.affine`), so that one kernel,
compiled once and cached on disk, serves all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.devices.base import Device, Params
from ohmgrad.pulses.cpu_kernel import prepare, rows
from ohmgrad.pulses.eager import affine
from ohmgrad.pulses.settings import PulsedUpdate

# Crosspoint-samples below which a second thread costs more than it brings.
SMALL = 200_000

Launch = Callable[[Tensor, Tensor, Tensor, float, int, Tensor | None], int]


def launcher(device: Device, params: Params, settings: PulsedUpdate, seed: int, like: Tensor) -> Launch:
    """The kernel with all that does not change from call to call.

    Args:
        device: an affine one. params: its elements' parameters, numbers or planes (out, in).
        settings: a stochastic train without resolution; `is_supported` tells.
        like: the weight, (out, in): its shape and dtype.

    Returns:
        launch(w, x, d, lr, cycle, counts) -> pulses: as `eager.pulse`; w, x, d contiguous and of one dtype; counts,
        (out, in) int64 or None, is added to.
    """
    steps = affine(device, params, like)
    values = [
        *(part[k] for k in (0, 1) for part in steps),
        *(params[k] for k in ("dw_up", "dw_down", "w_min", "w_max")),
    ]
    flat = [torch.as_tensor(v, dtype=like.dtype).contiguous().numpy().reshape(-1) for v in values]
    # Rows and columns of a plane are one number apart, or none where devices do not differ: one kernel serves both.
    planes = (tuple(flat), np.array([(like.shape[1], 1) if f.size > 1 else (0, 0) for f in flat]))
    keys = [np.array(random.root(seed, s), np.uint32) for s in (random.Stream.X_BITS, random.Stream.D_BITS)]
    key = np.array(random.root(seed, random.Stream.PULSE), np.uint32)
    none = np.empty((0, 0), np.int64)
    n_out, n_in = like.shape
    options = (settings.bit_length, settings.update_management, settings.bit_length_management)
    sigma = flat[0].dtype.type(device.dw_min_ctoc)  # of the weight's own precision, lest the kernel widen
    law = (sigma, device.ctoc == "additive", settings.merge, key)
    n_words = -(-settings.bit_length // 32)

    def launch(w: Tensor, x: Tensor, d: Tensor, lr: float, cycle: int, counts: Tensor | None) -> int:
        w_, x_, d_ = w.numpy(), x.numpy(), d.numpy()
        batch = len(x_)
        length, n_active = np.empty(batch, np.int32), np.empty(batch, np.int32)
        active = np.empty((batch, n_in), np.int32)
        x_bits = np.zeros((batch, n_words, n_in), np.uint32)
        d_bits = np.zeros((batch, n_words, n_out), np.uint32)
        fault = prepare(
            x_, d_, lr, device.granularity, *options, *keys, cycle, length, x_bits, d_bits, active, n_active
        )
        if fault:
            raise ValueError(f"{'xd'[fault - 1]} needs finite numbers, got NaN or infinity")
        counts_ = none if counts is None else counts.numpy()
        threads = torch.get_num_threads() if batch * n_out * n_in > SMALL else 1

        def part(first: int, last: int) -> int:
            return rows(
                w_, first, last, x_, d_, lr, length, x_bits, d_bits, active, n_active, *planes, *law, cycle, counts_
            )

        if threads == 1:
            return part(0, n_out)
        edges = [n_out * k // threads for k in range(threads + 1)]
        return sum(_pool(threads).map(part, edges[:-1], edges[1:]))

    return launch


def is_supported(device: Device, settings: PulsedUpdate) -> bool:
    """Whether the kernel knows this device and train; `eager` knows all."""
    return device.is_affine and settings.train == "stochastic" and settings.resolution == 0.0


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="ohmgrad")
