"""The tile's two reads as one differentiable operation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from ohmgrad.crossbar import repeated
from ohmgrad.crossbar.grid import Grid
from ohmgrad.crossbar.numbers import numbered
from ohmgrad.crossbar.once import once
from ohmgrad.crossbar.tile import Tile, exactly
from ohmgrad.nn.graph import handles, keep, leaf, leave, mark, was_written_since
from ohmgrad.nn.refusals import check_input
from ohmgrad.pulses.forms import Outer


def _product(tile: Tile | Grid, x: Tensor, r: Tensor | None) -> Tensor:
    with exactly(x):
        return tile.read(x) if r is None else r * tile.read(x / r)


CHANGED = (
    "a tile was written (by an optimizer's step or set_weight) between a forward pass and its backward pass, which "
    "would read another matrix than the forward pass did: call backward of all losses before the step, or run forward "
    "again"
)


class _TileRead(torch.autograd.Function):
    """y = r W (x / r); backward gives W' d, and leaves (d, x) on the tile for the optimizer. r: what the DAC takes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tile: Tile | Grid, r: Tensor | None, owns_x: bool, *handles: Tensor) -> Tensor:
        ctx.tile, ctx.owns_x, ctx.changes = tile, owns_x, tile.changes
        ctx.save_for_backward(x)
        return _product(tile, x, r)

    @staticmethod
    @once
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # torch's own signature is (*grad_outputs)
        (x,), tile = ctx.saved_tensors, ctx.tile
        needs_x, *needs_handle = ctx.needs_input_grad[0], *ctx.needs_input_grad[4:]
        gradients: Sequence[Tensor | None] = (None,) * len(needs_handle)
        if any(needs_handle):
            # torch is done with d, and may give its memory to a bias's gradient; x may be anybody's.
            d = _own(d)
            gradients = keep(ctx, Outer(d, x if ctx.owns_x else _own(x)))
        if not needs_x:
            return None, None, None, None, *gradients
        if tile.changes != ctx.changes:
            raise RuntimeError(CHANGED)
        with exactly(d):
            return tile.read_transposed(d), None, None, None, *gradients


def _own(t: Tensor) -> Tensor:
    """The same numbers in memory of nobody else's."""
    return t.clone() if t.is_contiguous() else t.contiguous()


# In a graph of torch.compile two operators stand for the same. What the tile keeps (counters, waiting updates) lies
# outside of the graph, which may leave out a read that nobody uses; `call` differs from one to the next, so that no two
# are taken for one.
_operator: Any = partial(torch.library.custom_op, mutates_args=())


@_operator("ohmgrad::read")
def read_op(x: Tensor, handle: Tensor, call: Tensor, tile: int, r: Tensor | None) -> Tensor:
    """As `_TileRead.forward`."""
    own = numbered(tile)
    handles(own)  # looks at them
    mark(own, call)
    with repeated.read_in_graph(own):
        return _product(own, x, r)


@read_op.register_fake
def _(x: Tensor, handle: Tensor, call: Tensor, tile: int, r: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], numbered(tile).shape[0])


@_operator("ohmgrad::read_back")
def read_back_op(
    d: Tensor, x: Tensor, handle: Tensor, call: Tensor, tile: int, goes_on: bool, is_trained: bool
) -> tuple[Tensor, Tensor]:
    """As `_TileRead.backward`; and a gradient of the handle, without which it would not be called."""
    own = numbered(tile)
    if goes_on and was_written_since(own, call):
        raise RuntimeError(CHANGED)
    if is_trained:
        leave(own, Outer(d.clone(), x.clone()))  # a graph reuses the memory of what it is given
    with exactly(d):
        return own.read_transposed(d) if goes_on else torch.zeros_like(x), torch.zeros_like(handle)


@read_back_op.register_fake
def _(d: Tensor, x: Tensor, handle: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(handle)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int, Tensor | None], output: Tensor) -> None:
    *tensors, ctx.tile, _ = inputs
    ctx.save_for_backward(*tensors)


def _back(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
    dx, mark = torch.ops.ohmgrad.read_back(d, *ctx.saved_tensors, ctx.tile, *ctx.needs_input_grad[:2])
    return dx, mark, None, None, None


read_op.register_autograd(_back, setup_context=_save)


def _limited(tile: Tile | Grid, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
    """What the tile's lines are given, a bias's 1 with the rest, and the range of the DAC."""
    limits = tile.in_range
    if limits is not None:
        vectors = limits(vectors)
    if tile.has_bias:
        vectors = pad(vectors, (0, 1), value=1.0)
    return vectors, None if limits is None else limits.of_read(tile.has_bias)


def _read_in_graph(tile: Tile | Grid, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
    vectors, r = _limited(tile, vectors)
    return torch.ops.ohmgrad.read(vectors, leaf(tile), tile.calls.add_(1).clone(), tile.number, r), r


def _read(tile: Tile | Grid, vectors: Tensor, owns_x: bool) -> tuple[Tensor, Tensor | None]:
    """The product alone, with all that moves with a read; and the range of the DAC."""
    vectors, r = _limited(tile, vectors)
    return cast(Tensor, _TileRead.apply(vectors, tile, r, owns_x, *handles(tile))), r


def _vectors(tile: Tile | Grid, x: Tensor) -> Tensor:
    """The inputs as (*replica, batch, in), in the tile's dtype."""
    n_in, replicas, dtype = tile.shape[1] - tile.has_bias, tile.replicas, tile.dtype
    if x.dtype is not dtype:
        if x.is_floating_point() and torch.is_autocast_enabled(x.device.type):
            x = x.to(dtype)
        else:
            way = "read its real and imaginary parts apart" if x.is_complex() else f"x.to({dtype}) has it"
            raise TypeError(f"x needs the tile's dtype {dtype}, got {x.dtype}: {way}")
    shape = x.shape
    if shape[-1:] != (n_in,) or shape[: len(replicas)] != replicas or len(shape) == len(replicas):
        raise ValueError(f"x needs the shape {(*replicas, '...', n_in)}, got {tuple(shape)}")
    return x if len(shape) == len(replicas) + 2 else x.reshape(*replicas, -1, n_in)


def read(tile: Tile | Grid, x: Tensor, *, owns_x: bool = False) -> Tensor:
    """W x through the tile, differentiable: (*replica, ..., in) to (*replica, ..., out).

    With a bias on the tile, its last column, W x + b: in is then one less than the tile has columns. Under
    torch.autocast x is taken in the tile's dtype.

    Args:
        tile: the tile or grid of tiles.
        x: inputs.
        owns_x: nobody else has the memory of x, so that the update need not copy it.

    Raises:
        TypeError, ValueError: x has another dtype or shape than the tile asks for, or is sparse or nested.
        RuntimeError: in what `ohmgrad.nn.refusals` names.
    """
    is_compiled = check_input(x)
    vectors = _vectors(tile, x)
    if is_compiled:
        y, r = _read_in_graph(tile, vectors)
    elif repeated.is_plain(tile):
        y, r = _read(tile, vectors, owns_x)
    else:
        with repeated.read_of(tile):
            y, r = _read(tile, vectors, owns_x)
    limits, scale = tile.in_range, tile.out_scale
    if limits is not None and r is not None and limits.settings.manage_output_clipping:
        y = limits.manage(y, tile.out_limit, r)
    if scale is not None:
        y = y * scale[..., None, :]
    return y if vectors is x else y.reshape(*x.shape[:-1], tile.shape[0])
