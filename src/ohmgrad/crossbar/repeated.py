"""Reads that activation checkpointing repeats: they have the noise of the first time, and count once.

`torch.utils.checkpoint` runs a part of the network twice, the second time inside the backward pass, and takes both runs
for equal. On hardware there is one read. So what a read moves (counters, which are the numbers of its noise, a running
average, an input range that follows its data) is noted before each read of a checkpointed part, on torch's own object
for that part, where it lives as long as the graph does. The second run finds it there: it reads from the noted state,
and afterwards puts the present one back.

Torch has no public way to ask which part is running. Its object is found among the frames of the call stack, by names
of `torch/utils/checkpoint.py` that are no promise: where they change, reads are plain ones, and tests say so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.input_range import LearnedRange
from ohmgrad.periphery.reader import Reader

FILE = checkpoint.__file__
NOTES = "_ohmgrad_reads"  # name of an attribute of torch's objects
PLAIN = nullcontext()


def _nothing(*_: Any) -> None:
    """What a torch without such a function is taken to answer."""


_graph_task: Callable[[], int | None] = getattr(torch._C, "_current_graph_task_id", _nothing)
_hooks: Callable[[bool], Any] = getattr(
    getattr(torch._C, "_autograd", None), "_top_saved_tensors_default_hooks", _nothing
)


class _Parts(NamedTuple):
    """Checkpointed parts of the network that are running.

    first: those that run for the first time, the innermost first. again: that which runs a second time, and the number
    of this second run; None for none.
    """

    first: list[Any]
    again: tuple[Any, Any] | None


def is_plain(tile: nn.Module) -> bool:
    """Whether a read by a tile or grid is outside of checkpoints and backward passes, for all that is quickly seen."""
    is_forward = _graph_task() in (-1, None)
    return is_forward and _hooks(True) is None and (torch.is_grad_enabled() or not tile.training)


def read_of(tile: nn.Module) -> Any:
    """A context around a read that is not plain, with all that moves with it."""
    parts = _running(sys._getframe(1))
    return _noted(tile, parts) if parts.first or parts.again is not None else PLAIN


def read_in_graph(tile: nn.Module) -> Any:
    """The same around a read's operator in a graph of torch.compile, which moves an input range by itself.

    Raises:
        RuntimeError: the graph itself repeats reads, or an input range that still follows its data.
    """
    is_forward = _graph_task() in (-1, None)
    if is_forward and _hooks(True) is None and not tile.training:
        return PLAIN
    parts, limits = _running(sys._getframe(1)), getattr(tile, "in_range", None)
    if not is_forward and parts.again is None and _is_noisy(tile):
        raise RuntimeError(
            "torch.compile around activation checkpointing repeats noisy reads with other noise: compile inside, as in "
            "checkpoint(torch.compile(part), x)"
        )
    if parts.again is not None and limits is not None and limits.batches < limits.settings.init_from_data:
        raise RuntimeError(
            f"checkpoint(torch.compile(part), x) counts the first batches of an input range twice, of which "
            f"{int(limits.batches)} of init_from_data={limits.settings.init_from_data} were seen: begin without compile"
        )
    return _noted(tile, parts, limits) if parts.first or parts.again is not None else PLAIN


def _running(frame: FrameType | None) -> _Parts:
    """From the innermost frame outwards, up to a part that runs a second time."""
    first: list[Any] = []
    while frame is not None:
        if frame.f_code.co_filename == FILE:
            name, own = frame.f_code.co_name, frame.f_locals
            if name == "forward" and "ctx" in own:
                first.append(own["ctx"])
            elif name == "checkpoint" and (generator := own.get("gen")) is not None:
                inner = generator.gi_frame
                first += [inner.f_locals["new_frame"]] if inner and "new_frame" in inner.f_locals else []
            elif name == "unpack_hook" and "frame" in own:
                return _Parts(first, (own["frame"], own.get("gid")))
            elif name == "backward" and "ctx" in own:
                return _Parts(first, (own["ctx"], _graph_task()))
        frame = frame.f_back
    return _Parts(first, None)


@contextmanager
def _noted(tile: nn.Module, parts: _Parts, but: nn.Module | None = None) -> Iterator[None]:
    moved, now = _moved(tile, but), None
    before = [t.detach().clone() for t in moved]
    if parts.again is not None:
        now, before = before, _next_note(tile, *parts.again) or before
        _put(moved, before)
    for part in parts.first:
        _notes(part).setdefault(id(tile), []).append(before)
    try:
        yield
    finally:
        if now is not None:
            _put(moved, now)


def _next_note(tile: nn.Module, part: Any, run: Any) -> list[Tensor] | None:
    """What was noted for this read of a part in its first run: reads of one tile come in the same order.

    None where nothing was, and there is no noise that would have to be repeated.
    """
    own, done = _notes(part).get(id(tile), []), _notes(part).setdefault((id(tile), run), [])
    if len(done) < len(own):
        done.append(None)
        return own[len(done) - 1]
    if not _is_noisy(tile):
        return None
    raise RuntimeError(
        f"activation checkpointing repeats a noisy read that was not noted in its first run (read {len(done) + 1} of a "
        f"tile, of {len(own)} noted): models in eval() need use_reentrant=False"
    )


def _notes(part: Any) -> dict[Any, list[Any]]:
    return vars(part).setdefault(NOTES, {})


def _is_noisy(tile: nn.Module) -> bool:
    return any(isinstance(module, Reader) for module in tile.modules())


def _moved(tile: nn.Module, but: nn.Module | None) -> list[Tensor]:
    """All that a forward read moves, but for what another module does."""
    moved: list[Tensor] = []
    for module in tile.modules():
        if isinstance(module, Crossbar):
            moved.append(module.reads)
            moved += [] if module.readers is None else module.readers["read"].buffers()
        elif isinstance(module, LearnedRange) and module is not but:
            moved += [module.value, module.batches]
    return moved


@torch.no_grad()
def _put(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
