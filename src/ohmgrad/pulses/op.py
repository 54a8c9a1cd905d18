"""The pulsed update of a crossbar: which target applies it, and the operator that stands for it in torch's graphs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ohmgrad.devices.base import Device, Params
from ohmgrad.pulses import cpu, eager
from ohmgrad.pulses.settings import Lines, PulsedUpdate

# launch(x, d, lr, batch, cycle, counts, moved) -> pulses, for one replica; Any: int | Tensor.
Launch = Callable[[Tensor, Tensor, float, int, Any, Tensor | None, Tensor | None], Any]
# The same for a crossbar, which counts its cycles and pulses itself; after lr the batch.
Apply = Callable[[Tensor, Tensor, float, int, Tensor | None, Tensor | None], None]
Send = Callable[[Tensor, Tensor, float], None]


class Applier(NamedTuple):
    """What applies mini-batches to a crossbar.

    apply(x, d, lr, batch, counts, moved): w moves by -lr * d x'; x is (*replica, batch, in) or (batch, in), d likewise;
    counts, int64 as w, is added to and moved, uint8 as w, is set where devices got pulses, if given. sender(batch) ->
    send(x, d, lr): the same without counts and moved, which for few samples costs less.
    """

    apply: Apply
    sender: Callable[[int], Send]


def applier(
    device: Device,
    settings: PulsedUpdate,
    params: Params,
    seed: Tensor,
    w: Tensor,
    cycles: Tensor,
    pulses: Tensor,
    *,
    lines: Tensor,
    granularity: float,
) -> Applier:
    """What applies mini-batches to a crossbar, with all that does not change from call to call.

    Args:
        params: the elements' parameters, numbers or planes (*replica, out, in).
        seed: (*replica,) int64.
        w: the weight, (*replica, out, in), changed in place by each call.
        cycles, pulses: () int64 and (*replica,) float64, to which each call adds.
        lines: seeds of the pulse trains, as `seed`, which they are where the crossbar has lines of its own.
        granularity: the step that pulses are counted in.
    """
    shape = (math.prod(w.shape[:-2]), *w.shape[-2:])
    make = _launcher(w, settings)
    launches: list[Launch] = []
    for r, (own_seed, line_seed) in enumerate(zip(*(s.flatten().tolist() for s in (seed, lines)), strict=True)):
        own = {k: v.reshape(-1, *shape[1:])[r] if isinstance(v, Tensor) else v for k, v in params.items()}
        launches.append(make(device, own, settings, own_seed, w.view(shape)[r], Lines(line_seed, granularity)))
    is_on_cpu = w.device.type == "cpu" and not is_for_gpu(w)
    sent: Any = _numbers(pulses) if is_on_cpu else pulses.view(-1)
    past: Any = _numbers(cycles) if is_on_cpu else cycles.view(-1)

    only = launches[0]

    def apply_one(x: Tensor, d: Tensor, lr: float, batch: int, counts: Tensor | None, moved: Tensor | None) -> None:
        sent[0] += only(x, d, lr, batch, past[0], counts, moved)
        past[0] += batch

    def apply(x: Tensor, d: Tensor, lr: float, batch: int, counts: Tensor | None, moved: Tensor | None) -> None:
        if is_on_cpu:
            eager.need_finite(x, d)  # lest earlier replicas get the pulses that a later one refuses
        cycle = past[0]  # on a GPU a tensor, lest it wait for the host
        for r, launch in enumerate(launches):
            x_r, d_r = (t if t.dim() == 2 else t.reshape(shape[0], *t.shape[-2:])[r] for t in (x, d))
            counts_r, moved_r = (None if t is None else t.view(shape)[r] for t in (counts, moved))
            sent[r] += launch(x_r, d_r, lr, batch, cycle, counts_r, moved_r)
        past[0] += batch

    def sender(batch: int) -> Send:
        few = only.few(batch) if w.dim() == 2 and hasattr(only, "few") else None  # type: ignore[attr-defined]
        if few is None:
            return lambda x, d, lr: apply_(x, d, lr, batch, None, None)

        def send(x: Tensor, d: Tensor, lr: float) -> None:
            sent[0] += few(x, d, lr, past[0])
            past[0] += batch

        return send

    apply_ = apply_one if w.dim() == 2 else apply
    return Applier(apply_, sender)


def _numbers(t: Tensor) -> memoryview:
    """The same memory: Python reads and writes its numbers in a tenth of the time that a tensor takes."""
    flat: Any = t.view(-1).numpy()
    return memoryview(flat)


def _launcher(w: Tensor, settings: PulsedUpdate) -> Callable[..., Launch]:
    """The target for a weight: kernels for CPUs or GPUs, or plain torch."""
    if settings.eager:
        return eager.launcher
    if is_for_gpu(w):
        from ohmgrad.pulses import gpu  # needs Triton, which machines without a GPU may lack

        return gpu.launcher
    return cpu.launcher if w.device.type == "cpu" else eager.launcher


def is_for_gpu(w: Tensor) -> bool:
    """Whether pulses on this weight go through the kernels for GPUs."""
    return w.is_cuda and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def finite(lr: float) -> float:
    """Door for a learning rate; in a graph it may be a symbol, and the operator looks. Raises ValueError."""
    if torch.compiler.is_compiling():
        return lr
    if not math.isfinite(lr):
        raise ValueError(f"lr needs a finite number, got {lr}")
    return float(lr)


_laws: dict[tuple[Device, PulsedUpdate], int] = {}


def number_of(device: Device, settings: PulsedUpdate) -> int:
    """A number by which a graph of torch names the device and the settings, valid in this process."""
    return _laws.setdefault((device, settings), len(_laws))


@torch.library.custom_op("ohmgrad::pulse", mutates_args=("w", "cycles", "pulses", "counts", "moved"))
def pulse(
    w: Tensor,
    x: Tensor,
    d: Tensor,
    lr: float,
    cycles: Tensor,
    pulses: Tensor,
    counts: Tensor | None,
    moved: Tensor | None,
    seed: Tensor,
    lines: Tensor,
    granularity: float,
    names: str,
    values: Sequence[Tensor],
    law: int,
) -> None:
    """`applier` and its call in one; names, values: the parameters, names with spaces between."""
    device, settings = list(_laws)[law]
    params = {k: v if v.dim() > 1 else _plain(v.tolist()) for k, v in zip(names.split(), values, strict=True)}
    ways = applier(device, settings, params, seed, w, cycles, pulses, lines=lines, granularity=granularity)
    x, d = x.contiguous(), d.contiguous()  # a graph lays them out as it likes
    ways.apply(x, d, finite(lr), x.shape[-2], counts, moved)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@pulse.register_fake
def _(*_: Any) -> None:
    return None
