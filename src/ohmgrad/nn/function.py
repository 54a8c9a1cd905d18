"""The tile's two reads as one differentiable operation."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from ohmgrad.crossbar import repeated
from ohmgrad.crossbar.grid import Grid
from ohmgrad.crossbar.input_range import LearnedRange
from ohmgrad.crossbar.numbers import numbered
from ohmgrad.crossbar.tile import Tile, exactly
from ohmgrad.pulses.forms import Outer


def _product(tile: Tile | Grid, x: Tensor, r: Tensor | None) -> Tensor:
    with exactly(x):
        return tile.read(x) if r is None else r * tile.read(x / r)


class _TileRead(torch.autograd.Function):
    """y = r W (x / r); backward gives W' d, and leaves (d, x) on the tile for the optimizer. r: what the DAC takes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, handle: Tensor, tile: Tile | Grid, r: Tensor | None) -> Tensor:
        ctx.tile = tile
        ctx.save_for_backward(x)
        return _product(tile, x, r)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, None, None, None]:  # type: ignore[override]  # torch's own signature is (*grad_outputs)
        (x,) = ctx.saved_tensors
        # Not in autograd.grad(loss, x), which asks for no parameter's gradient.
        if ctx.needs_input_grad[1] and torch._C._will_engine_execute_node(ctx.next_functions[1][0]):
            ctx.tile.record(Outer(d, x.detach()))
        with exactly(d):
            return ctx.tile.read_transposed(d) if ctx.needs_input_grad[0] else None, None, None, None


# In a graph of torch.compile two operators stand for the same. What the tile keeps (counters, waiting updates) lies
# outside of the graph, which may leave out a read that nobody uses; `call` differs from one to the next, so that no two
# are taken for one.
_operator: Any = partial(torch.library.custom_op, mutates_args=())


@_operator("ohmgrad::read")
def read_op(x: Tensor, handle: Tensor, call: Tensor, tile: int, r: Tensor | None) -> Tensor:
    """As `_TileRead.forward`."""
    own = numbered(tile)
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
    if is_trained:
        own.record(Outer(d.clone(), x.clone()))  # a graph reuses the memory of what it is given
    with exactly(d):
        return own.read_transposed(d) if goes_on else torch.zeros_like(x), torch.zeros_like(handle)


@read_back_op.register_fake
def _(d: Tensor, x: Tensor, handle: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(handle)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int, Tensor | None], output: Tensor) -> None:
    *tensors, ctx.tile, _ = inputs
    ctx.save_for_backward(*tensors)


def _back(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
    dx, mark = torch.ops.ohmgrad.read_back(d, *ctx.saved_tensors, ctx.tile, *ctx.needs_input_grad[:2])
    return dx, mark, None, None, None


read_op.register_autograd(_back, setup_context=_keep)


def _read(tile: Tile | Grid, vectors: Tensor) -> tuple[Tensor, LearnedRange | None, Tensor | None]:
    """The product alone, with all that moves with a read; and the range of the inputs, and of the DAC."""
    limits = tile.in_range
    if limits is not None:
        vectors = limits(vectors)
    if tile.has_bias:
        vectors = pad(vectors, (0, 1), value=1.0)
    r = None if limits is None else limits.of_read(tile.has_bias)
    if torch.compiler.is_compiling():
        call = tile.calls.add_(1).clone()
        return torch.ops.ohmgrad.read(vectors, tile.handle, call, tile.number, r), limits, r
    return cast(Tensor, _TileRead.apply(vectors, tile.handle, tile, r)), limits, r


def read(tile: Tile | Grid, x: Tensor) -> Tensor:
    """W x through the tile, differentiable: (*replica, ..., in) to (*replica, ..., out).

    With a bias on the tile, its last column, W x + b: in is then one less than the tile has columns. Under
    torch.autocast x is taken in the tile's dtype.

    Raises:
        TypeError, ValueError: x has another dtype or shape than the tile asks for.
    """
    n_out, n_in = tile.shape[0], tile.shape[1] - tile.has_bias
    replicas = tile.replicas
    if x.is_floating_point() and torch.is_autocast_enabled(x.device.type):
        x = x.to(tile.handle.dtype)
    if x.dtype != tile.handle.dtype:
        raise TypeError(f"x needs the tile's dtype {tile.handle.dtype}, got {x.dtype}")
    if x.shape[-1:] != (n_in,) or x.shape[: len(replicas)] != replicas or x.dim() == len(replicas):
        raise ValueError(f"x needs the shape {(*replicas, '...', n_in)}, got {tuple(x.shape)}")
    vectors = x.reshape(*replicas, -1, n_in)
    if torch.compiler.is_compiling():
        y, limits, r = _read(tile, vectors)
    else:
        with repeated.read_of(tile):
            y, limits, r = _read(tile, vectors)
    if limits is not None and r is not None and limits.settings.manage_output_clipping:
        y = limits.manage(y, tile.out_limit, r)
    if tile.out_scale is not None:
        y = y * tile.out_scale[..., None, :]
    return y.reshape(*x.shape[:-1], n_out)
