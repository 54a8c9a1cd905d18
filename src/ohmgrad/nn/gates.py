"""What recurrent layers and cells share: the equations of a step, and a tile for each of torch's weights.

    RNN    h = f(W x + b + U h + c)                                         f = tanh or relu
    GRU    r, z = s(W x + b + U h + c),  n = tanh(W x + b + r (U h + c)),   h = (1 - z) n + z h
    LSTM   i, f, g, o = W x + b + U h + c,  c = s(f) c + s(i) tanh(g),      h = s(o) tanh(c)

with s the logistic function and the gates' rows in torch's order. Tiles are named as torch's weights: `tile_ih_l0`
holds weight_ih_l0. Biases keep torch's names, unless they are on the tiles.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from ohmgrad.crossbar.grid import Grid
from ohmgrad.crossbar.tile import Tile
from ohmgrad.nn.function import read
from ohmgrad.nn.hardware import Hardware
from ohmgrad.nn.layer import blank, child_seeds, digital_copy, named_options, represented, stacked, with_bias
from ohmgrad.nn.weights import fitting, matrix_and_bias, program_affine, read_only, shown

State = tuple[Tensor, ...]  # (h,), or (h, c) of an LSTM; each (*replica, batch, size)
Step = Callable[[Tensor, Tensor, State], State]  # from what W and U gave, (..., gates * hidden), to the next state


def tanh_step(from_x: Tensor, from_h: Tensor, state: State) -> State:
    """Elman's."""
    return (torch.tanh(from_x + from_h),)


def relu_step(from_x: Tensor, from_h: Tensor, state: State) -> State:
    """Elman's with a rectifier."""
    return (torch.relu(from_x + from_h),)


def gru_step(from_x: Tensor, from_h: Tensor, state: State) -> State:
    """Gates reset, update, new; the reset gate acts on U h + c, as in torch."""
    (h,) = state
    (r_x, z_x, n_x), (r_h, z_h, n_h) = from_x.chunk(3, -1), from_h.chunk(3, -1)
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + r * n_h)
    return ((1.0 - z) * n + z * h,)


def lstm_step(from_x: Tensor, from_h: Tensor, state: State) -> State:
    """Gates input, forget, cell, output."""
    _, c = state
    i, f, g, o = (from_x + from_h).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


# By torch's name for the mode of a recurrent layer.
STEPS: dict[str, Step] = {"RNN_TANH": tanh_step, "RNN_RELU": relu_step, "GRU": gru_step, "LSTM": lstm_step}


class Gated(nn.Module):
    """How recurrent layers and cells are made: from arguments of torch's own, or from digital ones."""

    digital: ClassVar[Any]  # torch's class
    replicas: tuple[int, ...]
    __setattr__, __delattr__, _load_from_state_dict = read_only(
        lambda layer, name: name == "weights" or shown_tile(layer, name) is not None
    )

    @named_options
    def __init__(
        self,
        *args: Any,  # torch's own have no narrower signature
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        hardware, own = Hardware.among(options)
        layers = [self.digital(*args, dtype=dtype, **own) for _ in range(math.prod(replicas))]
        self._place(layers, hardware, seed, replicas)

    @classmethod
    def from_digital(
        cls,
        layers: Sequence[Any],
        *,
        hardware: Hardware,
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
    ) -> Self:
        """One of replicas from as many digital ones, or from one; what is frozen stays frozen."""
        own = blank(cls)
        own._place(layers, hardware, seed, replicas)
        return own

    def __getattr__(self, name: str) -> Any:
        """What tiles represent by torch's names, such as `weight_ih_l0`, copies to be read: `set_weight` writes."""
        tile = shown_tile(self, name)
        if tile is None:
            return super().__getattr__(name)
        weight, bias = matrix_and_bias(tile)
        return shown(weight if name.startswith("weight") or bias is None else bias, tile)

    def set_weight(self, **parameters: Tensor) -> None:
        """As `AnalogLinear.set_weight`, by torch's names: `set_weight(weight_ih_l0=W, bias_ih_l0=b)`; others stay.

        Raises:
            TypeError, ValueError: as there; or the layer has no such name.
        """
        own = represented_all(self)
        if strangers := [name for name in parameters if name not in own]:
            raise ValueError(f"{type(self).__name__} has no {strangers[0]!r}; it has {', '.join(own)}")
        given = {
            name: fitting(self, name, value, own[name].shape[len(self.replicas) :], own[name])
            for name, value in parameters.items()
        }
        for which in dict.fromkeys(name.removeprefix("weight").removeprefix("bias") for name in given):
            weight, bias = (given.get(f"{kind}{which}") for kind in ("weight", "bias"))
            program_affine(getattr(self, f"tile{which}"), weight, bias, self._parameters[f"bias{which}"])

    @abstractmethod
    def _place(
        self, layers: Sequence[Any], hardware: Hardware, seed: int | Sequence[int] | None, replicas: Sequence[int]
    ) -> None:
        """Sizes and mode of the digital ones, and their weights on tiles."""


def place_all(
    layer: nn.Module,
    layers: Sequence[nn.Module],
    hardware: Hardware,
    seed: int | Sequence[int] | None,
    replicas: Sequence[int],
) -> None:
    """Give a layer a tile for each weight of torch's layers, and its bias."""
    names = [name for name, _ in layers[0].named_parameters() if name.startswith("weight")]
    for name, own in zip(names, child_seeds(seed, replicas, len(names)), strict=True):
        which, is_trained = name.removeprefix("weight"), getattr(layers[0], name).requires_grad
        has_bias = getattr(layers[0], f"bias{which}", None) is not None
        bias = digital_copy(layers, f"bias{which}", replicas) if has_bias else None
        weight = stacked(layers, name, replicas)
        tile, bias = hardware.affine(weight, bias, is_trained=is_trained, seed=own)
        layer.register_parameter(f"bias{which}", bias)  # first: a tile with a bias shows one of that name
        layer.add_module(f"tile{which}", tile)


def shown_tile(layer: nn.Module, name: str) -> Tile | Grid | None:
    """The tile that a weight or bias of torch's name lies on, None if on none."""
    kind, _, which = name.partition("_")
    tile = layer.__dict__.get("_modules", {}).get(f"tile_{which}") if kind in ("weight", "bias") else None
    return tile if tile is not None and (kind == "weight" or tile.has_bias) else None


def product(layer: nn.Module, which: str, x: Tensor) -> Tensor:
    """W x + b of one tile and its bias, (*replica, batch, in) to (*replica, batch, out); which: as in "_ih_l0"."""
    # Not by attributes, for which torch and `Gated` look in many places.
    tile, bias = cast(Tile | Grid, layer._modules[f"tile{which}"]), layer._parameters[f"bias{which}"]
    y = read(tile, x)
    return y if bias is None else with_bias(y, bias.unsqueeze(-2))


def represented_all(layer: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters by torch's names: digital ones, and what tiles represent."""
    found: dict[str, nn.Parameter | None] = dict(layer.named_parameters(recurse=False))
    for name, tile in layer.named_children():
        if isinstance(tile, Tile | Grid):
            weight, bias = matrix_and_bias(tile)
            found[name.replace("tile", "weight")] = represented(tile, weight)
            if bias is not None:
                found[name.replace("tile", "bias")] = represented(tile, bias)
    return {name: value for name, value in found.items() if value is not None}


def state_parts(hx: Tensor | State, n: int) -> State:
    """The state as a tuple. Raises ValueError where it has not n parts."""
    parts = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    if len(parts) != n:
        raise ValueError(f"hx needs {'(h, c)' if n == 2 else 'one tensor'}, got {len(parts)} tensors")
    return parts


def initial_state(hx: Tensor | State | None, shapes: Sequence[tuple[int, ...]], like: Tensor) -> State:
    """The state that a layer starts from, zero by default. Raises ValueError where it has another shape."""
    if hx is None:
        return tuple(like.new_zeros(shape) for shape in shapes)
    parts = state_parts(hx, len(shapes))
    for part, shape in zip(parts, shapes, strict=True):
        if part.shape != shape:
            raise ValueError(f"hx needs the shape {shape}, got {tuple(part.shape)}")
    return parts


def nonlinearity(mode: str) -> dict[str, Any]:
    """The argument of torch's RNN and RNNCell; none for the others."""
    return {"nonlinearity": mode.removeprefix("RNN_").lower()} if mode.startswith("RNN") else {}
