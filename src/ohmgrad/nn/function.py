"""The tile's two reads as one differentiable operation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ohmgrad.crossbar.grid import Grid
from ohmgrad.crossbar.tile import Tile
from ohmgrad.pulses.forms import Outer


class _TileRead(torch.autograd.Function):
    """y = W x; backward gives W' d, and leaves (d, x) on the tile for the optimizer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, handle: Tensor, tile: Tile | Grid) -> Tensor:
        ctx.tile = tile
        ctx.save_for_backward(x)
        return tile.read(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, None, None]:  # type: ignore[override]  # torch's own signature is (*grad_outputs)
        (x,) = ctx.saved_tensors
        # Not in autograd.grad(loss, x), which asks for no parameter's gradient.
        if ctx.needs_input_grad[1] and torch._C._will_engine_execute_node(ctx.next_functions[1][0]):
            ctx.tile.record(Outer(d, x.detach()))
        return ctx.tile.read_transposed(d) if ctx.needs_input_grad[0] else None, None, None


# A graph break for torch.compile: what the tile keeps (counters, waiting updates) lies outside its graphs.
_read: Any = torch.compiler.disable(_TileRead.apply)


def read(tile: Tile | Grid, x: Tensor) -> Tensor:
    """W x through the tile, differentiable: (*replica, ..., in) to (*replica, ..., out).

    Raises:
        TypeError, ValueError: x has another dtype or shape than the tile asks for.
    """
    (n_out, n_in), replicas, handle = tile.shape, tile.replicas, tile.handle
    if x.dtype != handle.dtype:
        raise TypeError(f"x needs the tile's dtype {handle.dtype}, got {x.dtype}")
    if x.shape[-1:] != (n_in,) or x.shape[: len(replicas)] != replicas or x.dim() == len(replicas):
        raise ValueError(f"x needs the shape {(*replicas, '...', n_in)}, got {tuple(x.shape)}")
    y = _read(x.reshape(*replicas, -1, n_in), handle, tile)
    if tile.out_scale is not None:
        y = y * tile.out_scale[..., None, :]
    return y.reshape(*x.shape[:-1], n_out)
