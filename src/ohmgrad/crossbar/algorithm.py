"""What a tile asks of a training algorithm, and what an algorithm keeps between updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from ohmgrad.crossbar.cost import Cost
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Step
from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import Cell
from ohmgrad.pulses.forms import Update


class State(nn.Module):
    """What an algorithm keeps between updates: crossbars (or lists of them) and tensors, by name.

    All of it travels with state_dict, `.to(device)` and deepcopy.

    >>> import torch
    >>> State(step=torch.zeros((), dtype=torch.int64)).step
    tensor(0)
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, **entries: nn.Module | Tensor) -> None:
        super().__init__()
        for name, entry in entries.items():
            if isinstance(entry, Tensor):
                self.register_buffer(name, entry)
            else:
                self.add_module(name, entry)


class NewCrossbar(Protocol):
    """Makes one more crossbar of the tile's shape, with a seed of its own; zero unless given a weight.

    device: its devices, where they are others than those of the tile.
    """

    def __call__(self, weight: Tensor | None = None, *, device: Device | Cell | None = None) -> Crossbar: ...


class Algorithm(Protocol):
    """A training algorithm: a few crossbars plus a rule that says which pulses to send."""

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """Crossbars that together represent `weight`."""
        ...

    def mixture(self, state: State) -> Sequence[tuple[float | Tensor, Crossbar]]:
        """The gains and crossbars whose sum both passes read; a gain may be a plane (*replica, out, in) of signs."""
        ...

    def update(self, state: State, update: Update, lr: Step) -> None:
        """Move the represented weight along -lr times the update, by pulses; lr as in `Crossbar.write`."""
        ...

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """The crossbar that takes the gradient's pulses, and the state it would have if training had converged."""
        ...

    def cost(self, shape: tuple[int, int], batch_size: int = 1) -> Cost:
        """What a tile of that shape holds, and what one sample of such mini-batches takes."""
        ...
