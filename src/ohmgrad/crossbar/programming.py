"""How a matrix is programmed onto the crossbars of a tile that is there already, whatever its algorithm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ohmgrad.crossbar import elements
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.make import make_crossbar
from ohmgrad.crossbar.represented import plain
from ohmgrad.crossbar.states import round_states
from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import Cell

if TYPE_CHECKING:
    from ohmgrad.crossbar.algorithm import State
    from ohmgrad.crossbar.tile import Tile


def program(tile: Tile, weight: Tensor) -> None:
    """Let a tile represent a matrix from now on, as far as its devices can.

    The algorithm starts anew, as it does with a new tile: the matrix goes onto the crossbars that it chooses, through
    bounds and write noise, other crossbars go to 0, and buffers, choppers and counts of steps restart. Digital scales
    are found anew, and a learned scale restarts at 1. Devices, their counters and the numbering of their noise go on,
    and so do a learned input range and updates that wait.

    Args:
        weight: (*replica, out, in), or (out, in) for all replicas, in the tile's dtype, on its device, finite; with the
            column of a bias, where the tile has one.

    Raises:
        TypeError, ValueError: weight breaks such a rule; then nothing was programmed.
    """
    weight = checked("weight", weight, like=tile.handle, replicas=tile.replicas, shape=tile.shape)
    with torch.inference_mode(False), torch.no_grad():
        weight = weight.clone() if weight.is_inference() else weight
        scale = tile.mapping.scales(weight)
        if scale is not None:
            weight = weight / scale[..., None]
        order = iter(_in_order(tile))

        def existing(weight: Tensor | None = None, *, device: Device | Cell | None = None) -> Crossbar:
            bar = next(order)
            bar.set_weight(torch.zeros_like(bar.weight) if weight is None else weight)
            if tile.mapping.round_to_states:
                round_states(bar)
            return bar

        state = tile.algorithm.init(existing, weight)
        tile.state = state.to(tile.handle.device).train(tile.training)
        tile.scale = scale
        restart_scale(tile.out_scale)


def placed(make: Callable[..., Crossbar], weight: Tensor | None, is_rounded: bool) -> Crossbar:
    """A new crossbar, with its weight on states of its devices where that is asked for."""
    bar = make(weight=weight)
    if is_rounded:
        round_states(bar)
    return bar


def checked(name: str, value: Any, *, like: Tensor, replicas: tuple[int, ...], shape: Sequence[int]) -> Tensor:
    """What a user gives to be programmed, as a plain tensor of the whole shape.

    Args:
        value: (*replica, *shape), or shape for all replicas. like: has the dtype and the device.

    Raises:
        TypeError, ValueError: value is no such tensor, or not finite.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} needs a tensor, got {value!r}")
    value = plain(value).detach()
    elements.need_tensor(name, value, like, replicas, tuple(shape), is_read_later=False, owner="layer")
    return value.expand(*replicas, *shape)


@torch.no_grad()
def restart_scale(scale: nn.Parameter | None) -> None:
    """A learned scale starts at 1."""
    if scale is not None:
        scale.fill_(1.0)


def _in_order(tile: Tile) -> list[Crossbar]:
    """The crossbars in the order in which the algorithm asks for them, found by making a second state."""
    made: list[Crossbar] = []
    first: Any = tile.crossbars[0]

    def another(weight: Tensor | None = None, *, device: Device | Cell | None = None) -> Crossbar:
        options = {"replicas": tile.replicas, "dtype": tile.handle.dtype, "update": first.update, "weight": weight}
        made.append(make_crossbar(tile.shape, device=device or first.device_model, **options))
        return made[-1]

    zero = torch.zeros(*tile.replicas, *tile.shape, dtype=tile.handle.dtype)
    second = tile.algorithm.init(another, zero)
    place = {id(bar): name for name, bar in second.named_modules(remove_duplicate=False)}
    own = [_at(tile.state, place.get(id(bar))) for bar in made]
    return own


def _at(state: State, name: str | None) -> Crossbar:
    """The crossbar of that name."""
    bar = dict(state.named_modules()).get(name or "")
    if not name or bar is None:
        raise ValueError(
            "set_weight needs an algorithm whose init keeps in its state every crossbar that it asks for, and a state "
            "that came from it"
        )
    return bar  # type: ignore[return-value]  # the algorithm's init put a crossbar there
