"""How tiles hang in autograd's graphs: by their handles, and by the updates that backward passes leave on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ohmgrad.crossbar.grid import Grid
from ohmgrad.crossbar.handle import Handle
from ohmgrad.crossbar.once import TWICE
from ohmgrad.crossbar.tile import NODES, Tile
from ohmgrad.pulses.forms import Update

MARKS = 4096
COMPILED = (
    "a graph of torch.compile leaves updates on tiles by itself, and gives no gradient of a handle to hooks: use the "
    "model that is not compiled for these"
)
REPLACED = (
    "functional_call gave a tile another parameter in place of its handle, but a tile's weights are the states of its "
    "devices: leave out the handles, or call ohmgrad.to_digital(model) with other weights"
)


def handles(tile: Tile | Grid) -> list[nn.Parameter]:
    """What stands for the matrix in graphs: the handle of each tile.

    Raises:
        RuntimeError: somebody wrote into one, or put another parameter in its place.
    """
    is_wrapped = DistributedDataParallel._active_ddp_module is not None
    found: list[Any] = []
    for one in tile.members:
        handle: Any = one._parameters["handle"]  # half the time of an attribute
        if type(handle) is not Handle:
            raise RuntimeError(REPLACED)
        if is_wrapped:
            one.wrap()
        one.look()
        found.append(handle)
    return found


def leaf(tile: Tile | Grid) -> Tensor:
    """What stands for the handles in a graph of torch.compile, whose operators leave updates on tiles by themselves."""
    own = tile.members[0].leaf
    return own if any(one.handle.requires_grad for one in tile.members) else own.detach()


def keep(ctx: Any, update: Update) -> list[Tensor | None]:
    """Leave an update on its tiles, or return it as gradients of their handles where autograd has to see them.

    Args:
        ctx: of a function of `ctx.tile`, whose last arguments are the handles.
        update: of the whole matrix; its memory is the tile's from now on.

    Raises:
        RuntimeError: the backward pass is to be differentiated.
    """
    tile, nodes = ctx.tile, ctx.next_functions
    if len(members := tile.members) == 1:
        return [_keep(members[0], update, nodes[-1][0], ctx.is_twice)]
    parts = tile.parts(update)
    pairs = zip(parts, nodes[-len(parts) :], strict=True)
    return [_keep(one, part, node, ctx.is_twice) for (one, part), (node, _) in pairs]


def _keep(tile: Tile, update: Update, node: Any, is_twice: bool) -> Tensor | None:
    handle: Any = tile._parameters["handle"]
    if node is None or not handle.requires_grad:
        return None  # frozen, or frozen since the read
    if is_twice and _is_asked(node):
        raise RuntimeError(TWICE)
    try:
        if not torch._C._will_engine_execute_node(node):
            return None  # autograd.grad(loss, x) asks for no parameter's gradient
    except RuntimeError:
        return tile.gradient(update)  # autograd.grad(loss, parameters) asks for it
    if handle._backward_hooks or handle._post_accumulate_grad_hooks:
        return tile.gradient(update)
    tile.record(update)  # a tenth of the time that autograd takes to do the same
    return None


def leave(tile: Tile | Grid, update: Update) -> None:
    """Leave an update on its tiles from inside a graph of torch.compile, as far as autograd asks for it.

    Raises:
        RuntimeError: a hook on a handle asks for the gradient itself.
    """
    for one, part in tile.parts(update):
        handle: Any = one._parameters["handle"]
        if not handle.requires_grad:
            continue
        # Neither autograd.grad(loss, x) nor backward(inputs=...) trains it.
        if (node := NODES.get(tile.members[0])) is not None and not _is_asked(node):
            continue
        if handle._backward_hooks or handle._post_accumulate_grad_hooks:
            raise RuntimeError(COMPILED)
        one.record(part)


def mark(tile: Tile | Grid, call: Tensor) -> None:
    """Note what was written of a matrix when a graph read it, for its backward pass."""
    marks: dict[int, int] = tile.__dict__.setdefault("_marks", {})
    marks[int(call)] = tile.changes
    if len(marks) > MARKS:  # reads that no backward pass followed
        del marks[next(iter(marks))]


def was_written_since(tile: Tile | Grid, call: Tensor) -> bool:
    """Whether a matrix was written since a graph read it in that call."""
    return tile.__dict__.get("_marks", {}).get(int(call), tile.changes) != tile.changes


def _is_asked(node: Any) -> bool:
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:
        return True
