"""The tile's two reads as one differentiable operation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from ohmgrad.crossbar.grid import Grid
from ohmgrad.crossbar.tile import Tile
from ohmgrad.pulses.forms import Outer


class _TileRead(torch.autograd.Function):
    """y = r W (x / r); backward gives W' d, and leaves (d, x) on the tile for the optimizer. r: the inputs' range."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, handle: Tensor, tile: Tile | Grid, r: Tensor | None) -> Tensor:
        ctx.tile = tile
        ctx.save_for_backward(x)
        return tile.read(x) if r is None else r * tile.read(x / r)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, None, None, None]:  # type: ignore[override]  # torch's own signature is (*grad_outputs)
        (x,) = ctx.saved_tensors
        # Not in autograd.grad(loss, x), which asks for no parameter's gradient.
        if ctx.needs_input_grad[1] and torch._C._will_engine_execute_node(ctx.next_functions[1][0]):
            ctx.tile.record(Outer(d, x.detach()))
        return ctx.tile.read_transposed(d) if ctx.needs_input_grad[0] else None, None, None, None


# A graph break for torch.compile: what the tile keeps (counters, waiting updates) lies outside its graphs.
_read: Any = torch.compiler.disable(_TileRead.apply)


def read(tile: Tile | Grid, x: Tensor) -> Tensor:
    """W x through the tile, differentiable: (*replica, ..., in) to (*replica, ..., out).

    With a bias on the tile, its last column, W x + b: in is then one less than the tile has columns.

    Raises:
        TypeError, ValueError: x has another dtype or shape than the tile asks for.
    """
    n_out, n_in = tile.shape[0], tile.shape[1] - tile.has_bias
    replicas = tile.crossbars[0].replicas
    if x.dtype != tile.handle.dtype:
        raise TypeError(f"x needs the tile's dtype {tile.handle.dtype}, got {x.dtype}")
    if x.shape[-1:] != (n_in,) or x.shape[: len(replicas)] != replicas or x.dim() == len(replicas):
        raise ValueError(f"x needs the shape {(*replicas, '...', n_in)}, got {tuple(x.shape)}")
    vectors, limits = x.reshape(*replicas, -1, n_in), tile.in_range
    if limits is not None:
        vectors = limits(vectors)
    if tile.has_bias:
        vectors = pad(vectors, (0, 1), value=1.0)
    y = _read(vectors, tile.handle, tile, None if limits is None else limits.size)
    if tile.out_scale is not None:
        y = y * tile.out_scale[..., None, :]
    return y.reshape(*x.shape[:-1], n_out)
