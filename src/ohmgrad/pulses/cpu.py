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
from numba import typeof
from torch import Tensor

from ohmgrad import random
from ohmgrad.devices.base import Device, Params, response_arguments
from ohmgrad.pulses import cpu_kernel, cpu_trains
from ohmgrad.pulses.eager import need_finite
from ohmgrad.pulses.numba_target import NUMBA, specialised
from ohmgrad.pulses.settings import TRAINS, PulsedUpdate
from ohmgrad.vocabulary import fingerprint, retarget

# Crosspoint-samples below which a second thread costs more than it brings: to wake it takes 0.1 ms.
SMALL = 1_000_000
# Along which lines a mini-batch is taken: 1 rows, 2 columns, 0 whichever costs less (`cpu_trains.is_by_row`).
ALONG = 0
# Most 32-bit words of line bits that are made at a time, by each thread.
SLAB = 1 << 24

PLANES = ("w_min", "w_max", "dw_up", "dw_down")  # the first planes; then what else the response takes
NO_COUNTS, NOTHING_MOVED = np.empty(0, np.int64), np.empty(0, np.uint8)
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
    names = (*PLANES, *type(device).own_parameters())
    planes = tuple(torch.as_tensor(params[k], dtype=w.dtype).contiguous().numpy().reshape(-1) for k in names)
    streams = (random.Stream.X_BITS, random.Stream.D_BITS, random.Stream.PULSE, random.Stream.COUNT)
    keys = np.array([random.root(seed, s) for s in streams], np.uint32)
    sigma = planes[0].dtype.type(device.dw_min_ctoc)  # of the weight's own precision, lest the kernel widen
    n_out, n_in = w.shape
    is_merged = settings.merge and device.is_affine
    options = np.array([
        TRAINS.index(settings.train), settings.bit_length, settings.update_management, settings.bit_length_management,
        settings.stochastic_rounding, device.ctoc == "additive", is_merged, n_in, n_out, ALONG,
    ], np.int64)  # fmt: skip
    numbers = np.array([device.granularity, settings.resolution])
    n_words = -(-settings.bit_length // 32) if settings.train == "stochastic" else 1
    slab = max(1, SLAB // ((n_words + 2) * (n_in + n_out)))
    state, n_devices = w.numpy().reshape(-1), w.numel()
    example = (0, 1, 0, 0, 1, 0.0, options, numbers, sigma, keys, state, planes, 0, NO_COUNTS, NOTHING_MOVED)
    # What `kernel_of` calls once it has looked at the types of all arguments, which here are always these.
    kernel = kernel_of(type(device)).compile(tuple(typeof(argument) for argument in example))

    def launch(x: Tensor, d: Tensor, lr: float, cycle: int, counts: Tensor | None, moved: Tensor | None) -> int:
        batch = x.shape[0]
        if not batch or not settings.bit_length:
            return 0
        if batch > slab:
            need_finite(x, d)  # before anything is written
            parts = zip(x.split(slab), d.split(slab), range(cycle, cycle + batch, slab), strict=True)
            return sum(launch(x_, d_, lr, cycle_, counts, moved) for x_, d_, cycle_ in parts)
        into = (
            NO_COUNTS if counts is None else counts.numpy().reshape(-1),
            NOTHING_MOVED if moved is None else moved.numpy().reshape(-1),
        )
        call = (x.data_ptr(), d.data_ptr(), batch, lr, options, numbers, sigma, keys, state, planes, cycle, *into)
        if batch * n_devices <= SMALL or (n_threads := torch.get_num_threads()) == 1:
            n = kernel(0, 1, *call)
        else:
            shares = list(_pool(n_threads).map(lambda share: kernel(share, n_threads, *call), range(n_threads)))
            n = sum(shares)
        if n < 0:  # all threads have found it, and none has written
            need_finite(x, d)
        return n

    return launch


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="ohmgrad")


@cache
def kernel_of(family: type[Device]) -> Any:
    """`pulse` with the response of a device family inside."""
    response = retarget(family.response, NUMBA)
    places = (*PLANES, *family.own_parameters())
    given = ("dw" if name == "dw_min" else f"params[k, {places.index(name)}, t]" for name in response_arguments(family))
    source = f"""
def step(w, up, params, k, t):
    dw = params[k, 2, t] if up else params[k, 3, t]
    return params.dtype.type(response(w, up, {", ".join(given)}))
"""
    scope: dict[str, Any] = {"response": response}
    exec(source, scope)  # a call with the family's own arguments
    kind = "affine" if family.is_affine else "other"
    name = f"pulse_{family.__name__}_{kind}_{fingerprint(family.response)}"
    return specialised(cpu_kernel.pulse, name, step=cpu_trains.inline(scope["step"]), IS_AFFINE=family.is_affine)
