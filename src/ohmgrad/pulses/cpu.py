"""The pulsed update on the CPU: the law of `eager`, compiled by Numba.

Threads take rows; a row's weights stay in cache over a block of samples, and its columns go through wide registers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import torch
from numba import int64, typeof, void
from torch import Tensor

from ohmgrad import random
from ohmgrad.devices.base import CTOC, Device, Params, response_arguments
from ohmgrad.pulses import cpu_family, cpu_kernel, cpu_trains, merge
from ohmgrad.pulses.cpu_openmp import openmp
from ohmgrad.pulses.cpu_sharing import Sharing
from ohmgrad.pulses.eager import need_finite
from ohmgrad.pulses.numba_target import NUMBA, UNFUSED, specialised
from ohmgrad.pulses.settings import TRAINS, Lines, PulsedUpdate
from ohmgrad.vocabulary import fingerprint, retarget

# The way of every mini-batch, of `cpu_trains`; 0 for the cheapest.
ALONG = 0
# Most 32-bit words of line bits that are made at a time, by each thread.
SLAB = 1 << 24
# Lines of all samples from which threads share the making of trains; below, they would wait for each other longer.
SHARED = 1 << 15

# Seconds for a crosspoint and sample on one thread, before a first call has shown them: of affine families, and others.
AFFINE_PACE, PACE = 1e-9, 1e-8
# Seconds of work, at these, up to which `few` is the way: the ado that it saves takes about 1e-6.
FEW = 1e-5

# Most numbers of a table that kernels look at one after another.
SHORT = 16

# Most crosspoints of a crossbar whose parameters are also kept column by column.
CROSSED = 1 << 20

PLANES = ("w_min", "w_max", "dw_up", "dw_down")  # the first planes; then what else the response takes
Launch = Callable[[Tensor, Tensor, float, int, int, Tensor | None, Tensor | None], int]


def launcher(
    device: Device, params: Params, settings: PulsedUpdate, seed: int, w: Tensor, lines: Lines | None = None
) -> Launch:
    """The kernels with all that does not change from call to call.

    Args:
        params: the elements' parameters, numbers or planes (out, in).
        w: the weight, (out, in), contiguous.
        lines: what drives the lines, where the crossbar shares them.

    Returns:
        launch(x, d, lr, batch, cycle, counts, moved) -> pulses: as `eager.pulse`; x and d contiguous and of w's dtype;
        counts, (out, in) int64 or None, is added to; moved, (out, in) uint8 or None, is set where pulses arrived. And
        launch.few(batch) -> what does the same for so many samples, without counts and moved, with less ado, as
        launch_few(x, d, lr, cycle); None where there is no such way.
    """
    names = (*PLANES, *type(device).own_parameters())
    planes = tuple(torch.as_tensor(params[k], dtype=w.dtype).contiguous().numpy().reshape(-1) for k in names)
    rows = [(len(params[k]) - 1, *params[k], params[k][-1]) for k in type(device).tables]
    tables, n_nodes = np.array(rows, planes[0].dtype), len(rows[0]) - 2 if rows else 0
    lines = lines or Lines(seed, device.granularity)
    streams = (random.Stream.X_BITS, random.Stream.D_BITS, random.Stream.PULSE, random.Stream.COUNT)
    seeds = {random.Stream.PULSE: seed}  # the noise of its pulses is a crossbar's own
    keys = np.array([random.root(seeds.get(s, lines.seed), s) for s in streams], np.uint32)
    numbers = np.array([lines.granularity, settings.resolution])
    sigma = np.array([device.dw_min_ctoc], planes[0].dtype)
    n_out, n_in = w.shape
    functions = functions_of(type(device), w.dtype, n_nodes if n_nodes <= SHORT else 0)
    is_merged, is_crossed, n_devices = settings.merge and merge.is_exact(device), w.numel() <= CROSSED, w.numel()
    crossed = [_crossed(plane, w.shape) for plane in planes] if is_crossed else planes
    places = [(a.ctypes.data, b.ctypes.data, a.size) for a, b in zip(planes, crossed, strict=True)]
    options = np.array([
        TRAINS.index(settings.train), settings.bit_length, settings.update_management, settings.bit_length_management,
        settings.stochastic_rounding, CTOC.index(device.ctoc), is_merged, n_in, n_out, ALONG, is_crossed,
        numbers.ctypes.data, keys.ctypes.data, w.data_ptr(), *(f.address if f else 0 for f in functions),
        tables.ctypes.data, tables.shape[-1], *chain(*places),
    ], np.int64)  # fmt: skip
    n_words = -(-settings.bit_length // 32) if settings.train == "stochastic" else 1
    slab = max(1, SLAB // ((n_words + 2) * (n_in + n_out)))
    given = options.ctypes.data, options.size, sigma.ctypes.data
    (run, run_few), threads = runners(), openmp().ctypes.data
    trains, kernel = (f.address for f in kernels(w.dtype))
    plan = np.array([kernel, *given], np.int64)
    plan_at = plan.ctypes.data
    first_pace = AFFINE_PACE if type(device).is_affine else PACE
    sharing = Sharing(first_pace)

    def launch(
        x: Tensor, d: Tensor, lr: float, batch: int, cycle: int, counts: Tensor | None, moved: Tensor | None
    ) -> int:
        if not batch or not settings.bit_length:
            return 0
        if batch > slab:
            need_finite(x, d)  # before anything is written
            parts = zip(x.split(slab), d.split(slab), range(cycle, cycle + batch, slab), strict=True)
            return sum(launch(x_, d_, lr, len(x_), cycle_, counts, moved) for x_, d_, cycle_ in parts)
        into = 0 if counts is None else counts.data_ptr(), 0 if moved is None else moved.data_ptr()
        call = x.data_ptr(), d.data_ptr(), batch, lr, cycle
        start, size = time.perf_counter(), batch * n_devices
        is_shared = sharing.is_wanted(size, start)
        n = shared(call, into) if is_shared else run(threads, 1, kernel, *call, 0, *into, *given)
        sharing.took(is_shared, size, time.perf_counter() - start)
        if n < 0:  # nobody has written
            need_finite(x, d)
        return n

    def shared(call: tuple[Any, ...], into: tuple[int, int]) -> int:
        n_threads, batch = torch.get_num_threads(), call[2]
        if batch * (n_in + n_out) < SHARED:
            return run(threads, n_threads, kernel, *call, 0, *into, *given)
        room = np.empty(cpu_trains.room_for.py_func(batch, n_words, n_in, n_out), np.uint32)
        n = run(threads, n_threads, trains, *call, room.ctypes.data, *into, *given)
        return n if n < 0 else run(threads, n_threads, kernel, *call, room.ctypes.data, *into, *given)

    def few(batch: int) -> Callable[[Tensor, Tensor, float, int], int] | None:
        if not settings.bit_length or not 0 < batch <= min(slab, FEW / first_pace / n_devices):
            return None

        def launch_few(x: Tensor, d: Tensor, lr: float, cycle: int) -> int:
            n = run_few(plan_at, x.data_ptr(), d.data_ptr(), batch, lr, cycle)
            if n < 0:
                need_finite(x, d)
            return n

        return launch_few

    launch.few = few  # type: ignore[attr-defined]  # functions take any attribute
    launch.held = w, sigma, planes, crossed, tables, options, numbers, keys, plan  # type: ignore[attr-defined]  # what addresses point to
    return launch


def _crossed(plane: np.ndarray, shape: torch.Size) -> np.ndarray:
    return plane if plane.size == 1 else np.ascontiguousarray(plane.reshape(shape).T).reshape(-1)


@cache
def runners() -> tuple[Any, Any]:
    """`run` and `run_few`, as Numba calls them once it has looked at the types of arguments, here always these."""
    types = (*[0] * 6, 0.0, *[0] * 7), (*[0] * 4, 0.0, 0)
    run, run_few = (
        specialised(f, f.__name__).compile(tuple(typeof(a) for a in arguments))
        for f, arguments in zip((cpu_kernel.run, cpu_kernel.run_few), types, strict=True)
    )
    return run, run_few


@cache
def kernels(dtype: torch.dtype) -> tuple[Any, Any]:
    """`trains` and `pulse`: C functions."""
    like = torch.empty(0, dtype=dtype).numpy()
    trains, pulse = (
        specialised(f, f"{f.__name__}_{like.dtype}", int64(int64, int64, int64), LIKE=like)
        for f in (cpu_kernel.trains, cpu_kernel.pulse)
    )
    return trains, pulse


@cache
def functions_of(family: type[Device], dtype: torch.dtype, n_nodes: int) -> tuple[Any, ...]:
    """`parts`, for affine families, `everywhere` and `one_by_one`, with the response of a device family inside.

    n_nodes: how many numbers its tables have, if few, for code that looks at all of them; else 0.
    """
    places = (*PLANES, *family.own_parameters())
    given = [
        "dw" if k == "dw_min" else f"(tables, {family.tables.index(k)}, {n_nodes})" if k in family.tables
        else f"params[{places.index(k)}, t]" for k in response_arguments(family)
    ]  # fmt: skip
    source = f"""
def step(w, up, params, t, tables):
    dw = where(up, params[2, t], params[3, t])
    return params.dtype.type(response(w, up, {", ".join(given)}))


def noise(w, up, change, params, t, tables):
    dw = where(up, params[2, t], params[3, t])
    return params.dtype.type(spread(w, up, change, {", ".join(given)}))
"""
    scope: dict[str, Any] = {"response": retarget(family.response, UNFUSED), "where": NUMBA.namespace["where"]}
    if family.noise:
        scope["spread"] = retarget(family.noise, UNFUSED)
    exec(source, scope)  # calls with the family's own arguments
    like = torch.empty(0, dtype=dtype).numpy()
    own = {
        "step": cpu_trains.inline(scope["step"]),
        "noise": cpu_trains.inline(scope["noise"]) if family.noise else _no_noise,
        "N_PLANES": len(places), "N_TABLES": len(family.tables), "LIKE": like,
    }  # fmt: skip
    parts = [fingerprint(f) for f in (family.response, family.noise) if f]
    name = "_".join([family.__name__, *parts, like.dtype.name, str(n_nodes)])
    templates = cpu_family.parts if family.is_affine else None, cpu_family.everywhere, cpu_family.one_by_one
    return tuple(
        f and specialised(f, f"{f.__name__}_{name}", void(*[int64] * f.__code__.co_argcount), **own) for f in templates
    )


@cpu_trains.inline
def _no_noise(w, up, change, params, t, tables):
    return change
