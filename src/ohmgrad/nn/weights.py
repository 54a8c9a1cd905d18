"""Weights of layers as torch has them, from tiles and back: to be read and differentiated, and programmed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ohmgrad.crossbar.grid import Grid
from ohmgrad.crossbar.numbers import numbered
from ohmgrad.crossbar.once import once
from ohmgrad.crossbar.programming import checked
from ohmgrad.crossbar.represented import COPY, WRITTEN, Represented, represent
from ohmgrad.crossbar.tile import Tile, exactly
from ohmgrad.nn.graph import handles, keep, leaf, leave
from ohmgrad.pulses.forms import Dense

SHARED = COPY + (
    "a bias on the crossbar is trained with its matrix: `layer.tile.requires_grad_(False)` freezes both, "
    "and `set_weight` programs them"
)


class _TileMatrix(torch.autograd.Function):
    """The matrix that a tile represents; backward leaves its gradient on the tile for the optimizer."""

    @staticmethod
    def forward(ctx: Any, tile: Tile | Grid, *handles: Tensor) -> Tensor:
        ctx.tile = tile
        return tile.matrix

    @staticmethod
    @once
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # torch's own signature is (*grad_outputs)
        return None, *keep(ctx, Dense(d.clone()))


# In a graph of torch.compile two operators stand for the same, as in `function`.
_operator: Any = partial(torch.library.custom_op, mutates_args=())


@_operator("ohmgrad::matrix")
def matrix_op(handle: Tensor, call: Tensor, tile: int) -> Tensor:
    """As `_TileMatrix.forward`."""
    return numbered(tile).matrix


@matrix_op.register_fake
def _(handle: Tensor, call: Tensor, tile: int) -> Tensor:
    own = numbered(tile)
    return handle.new_empty(*own.replicas, *own.shape)


@_operator("ohmgrad::matrix_back")
def matrix_back_op(d: Tensor, handle: Tensor, call: Tensor, tile: int) -> Tensor:
    """As `_TileMatrix.backward`; and a gradient of the handle, without which it would not be called."""
    leave(numbered(tile), Dense(d.clone()))
    return torch.zeros_like(handle)


@matrix_back_op.register_fake
def _(d: Tensor, handle: Tensor, call: Tensor, tile: int) -> Tensor:
    return torch.empty_like(handle)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    handle, call, ctx.tile = inputs
    ctx.save_for_backward(handle, call)


def _back(ctx: Any, d: Tensor) -> tuple[Tensor, None, None]:
    return torch.ops.ohmgrad.matrix_back(d, *ctx.saved_tensors, ctx.tile), None, None


matrix_op.register_autograd(_back, setup_context=_keep)


def matrix(tile: Tile | Grid) -> Tensor:
    """The matrix that a tile represents, all scales in it, differentiable: (*replica, out, in).

    Its gradient waits on the tile as a `Dense` update, which takes a pulse cycle for each row.
    """
    with exactly(tile.handle):
        if torch.compiler.is_compiling():
            w = torch.ops.ohmgrad.matrix(leaf(tile), tile.calls.add_(1).clone(), tile.number)
        else:
            w = cast(Tensor, _TileMatrix.apply(tile, *handles(tile)))
        return w if tile.out_scale is None else w * tile.out_scale[..., None]


def matrix_and_bias(tile: Tile | Grid) -> tuple[Tensor, Tensor | None]:
    """The matrix that a tile represents, and the bias if it has one: (*replica, out, in) and (*replica, out)."""
    w = matrix(tile)
    return (w[..., :-1], w[..., -1]) if tile.has_bias else (w, None)


def shown(value: Tensor, *tiles: Tile | Grid) -> Tensor:
    """What a layer shows of its tiles, as `weight` and `bias` are shown: to be read, and frozen with the tiles.

    A graph of torch.compile gets a plain tensor, for it cannot hold another.
    """
    if torch.compiler.is_compiling():
        return value
    handles = [m.handle for tile in tiles for m in tile.modules() if isinstance(m, Tile)]
    scales = [tile.out_scale for tile in tiles if tile.out_scale is not None]
    refusal = SHARED if any(tile.has_bias for tile in tiles) else None
    return represent(value.contiguous(), [*handles, *scales], refusal=refusal)


def joined(values: Sequence[Tensor], dim: int) -> Tensor:
    """Several shown values, or digital parameters among them, as one, which can be frozen with all of them."""
    w = torch.cat([v.as_subclass(Tensor) for v in values], dim)
    if torch.compiler.is_compiling():
        return w
    parts = [p for v in values for p in ((v._parts or ()) if isinstance(v, Represented) else (v,))]
    refusals = [v._refusal for v in values if isinstance(v, Represented) and v._refusal]
    return represent(w, cast(list[nn.Parameter], parts), refusal=refusals[0] if refusals else None)


def read_only(is_shown: Callable[[Any, str], bool]) -> tuple[Callable[..., None], ...]:
    """What a layer does with the names that it shows of tiles, other names being torch's matter.

    Returns:
        `__setattr__` and `__delattr__`, which refuse them, and `_load_from_state_dict`, which refuses those that a
        digital model has.
    """

    def set_attribute(layer: nn.Module, name: str, value: Any) -> None:
        if is_shown(layer, name):
            raise AttributeError(WRITTEN)
        nn.Module.__setattr__(layer, name, value)

    def delete_attribute(layer: nn.Module, name: str) -> None:
        if is_shown(layer, name):
            raise AttributeError(WRITTEN)
        nn.Module.__delattr__(layer, name)

    def load(layer: nn.Module, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        nn.Module._load_from_state_dict(layer, state_dict, prefix, *args)
        names = [key[len(prefix) :] for key in state_dict if key.startswith(prefix)]
        if found := [name for name in names if "." not in name and is_shown(layer, name)]:
            # Torch would only list it among the unexpected keys, which strict=False allows.
            args[-1].append(f"{prefix}{found[0]} is of a digital model: ohmgrad.load_digital loads it onto tiles")

    return set_attribute, delete_attribute, load


def shows_weight_and_bias(layer: Any, name: str) -> bool:
    """Of a layer with one tile: `weight`, and `bias` where it is on the tile."""
    return name == "weight" or (name == "bias" and layer.tile.has_bias)


def fitting(layer: Any, name: str, value: Tensor | None, shape: Sequence[int], like: Tensor) -> Tensor | None:
    """What is given as a layer's weight or bias of that name, (*replica, *shape); None for nothing."""
    return None if value is None else checked(name, value, like=like, replicas=layer.replicas, shape=shape)


def need_bias(layer: nn.Module, name: str, has_one: bool) -> None:
    """Raise ValueError where a layer is given a bias that it has not."""
    if not has_one:
        raise ValueError(f"{name} needs a layer with a bias, got one without: {type(layer).__name__}(... bias=False)")


def program_affine(tile: Tile | Grid, weight: Tensor | None, bias: Tensor | None, digital: nn.Parameter | None) -> None:
    """Program a tile and its bias, which is on it or digital; what is None stays.

    weight: (*replica, out, in), of the tile's replicas. bias: as many numbers as the tile has rows.
    """
    if tile.has_bias and (weight is not None or bias is not None):
        held = tile.weight.clone()
        weight = held[..., :-1] if weight is None else weight
        bias = held[..., -1] if bias is None else bias.reshape(held.shape[:-1])
        weight = torch.cat([weight, bias[..., None]], -1)
    if weight is not None:
        tile.set_weight(weight)
    if bias is not None and digital is not None:
        with torch.no_grad():
            digital.copy_(bias)
