"""Recurrent cells, one step each, whose two matrices are tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ohmgrad.nn.gates import (
    STEPS,
    Gated,
    State,
    initial_state,
    nonlinearity,
    place_all,
    product,
    represented_all,
    state_parts,
)
from ohmgrad.nn.hardware import Hardware
from ohmgrad.nn.layer import filled, of_replica
from ohmgrad.nn.refusals import check_input

# torch's cells do not name their mode.
MODES: dict[type[nn.RNNCellBase], str] = {nn.GRUCell: "GRU", nn.LSTMCell: "LSTM"}


class AnalogCell(Gated):
    """What cells share; `AnalogRNNCell`, `AnalogGRUCell` and `AnalogLSTMCell` are the layers.

    Args:
        *args, **options: as in torch's cell, whose initialisation is used; and the fields of `ohmgrad.nn.Hardware`.
        seed: of the tiles; one integer or one for each replica. None draws one from torch's default generator.
        replicas: leading dimensions of weights, inputs and states.

    Raises:
        ValueError: an input or state has another shape.
    """

    digital: ClassVar[type[nn.RNNCell] | type[nn.GRUCell] | type[nn.LSTMCell]]

    def _place(
        self,
        layers: Sequence[nn.RNNCellBase],
        hardware: Hardware,
        seed: int | Sequence[int] | None,
        replicas: Sequence[int],
    ) -> None:
        first, self.replicas = layers[0], tuple(replicas)
        self.input_size, self.hidden_size, self.bias = first.input_size, first.hidden_size, first.bias
        self.mode = f"RNN_{first.nonlinearity.upper()}" if isinstance(first, nn.RNNCell) else MODES[self.digital]
        place_all(self, layers, hardware, seed, replicas)
        self.train(first.training)

    def forward(self, input: Tensor, hx: Tensor | State | None = None) -> Any:
        """(*replica, batch, in) or (*replica, in) to the next state, as torch's cell; hx: the state before, or zero."""
        check_input(input, "input")
        lead, n_states = len(self.replicas), 2 if self.mode == "LSTM" else 1
        is_right = input.dim() - lead in (1, 2) and input.shape[:lead] == self.replicas
        if not is_right or input.shape[-1] != self.input_size:
            start = "".join(f"{r}, " for r in self.replicas)
            raise ValueError(f"input needs the shape ({start}[batch], {self.input_size}), got {tuple(input.shape)}")
        is_batched = input.dim() - lead == 2
        if not is_batched:
            input = input.unsqueeze(-2)
            hx = None if hx is None else tuple(s.unsqueeze(-2) for s in state_parts(hx, n_states))
        state = initial_state(hx, [(*input.shape[:-1], self.hidden_size)] * n_states, input)
        state = STEPS[self.mode](product(self, "_ih", input), product(self, "_hh", state[0]), state)
        state = state if is_batched else tuple(s.squeeze(-2) for s in state)
        return state if n_states == 2 else state[0]

    def to_digital(self, *replica: int) -> nn.RNNCellBase:
        """torch's cell with the weights represented now, of one replica where there are replicas."""
        with torch.device("meta"):
            cell = self.digital(self.input_size, self.hidden_size, self.bias, **nonlinearity(self.mode))
        return filled(cell, training=self.training, **of_replica(self.replicas, replica, **represented_all(self)))

    def extra_repr(self) -> str:
        """Sizes, for print(model)."""
        more = "".join(f", {name}={value}" for name, value in nonlinearity(self.mode).items())
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias}{more}"


class AnalogRNNCell(AnalogCell):
    """`torch.nn.RNNCell` with its matrices on tiles; arguments as in `AnalogCell`.

    >>> from ohmgrad.devices import Ideal
    >>> AnalogRNNCell(3, 4, nonlinearity="relu", device=Ideal())(torch.zeros(2, 3)).shape
    torch.Size([2, 4])
    """

    digital = nn.RNNCell


class AnalogGRUCell(AnalogCell):
    """`torch.nn.GRUCell` with its matrices on tiles; arguments as in `AnalogCell`.

    >>> from ohmgrad.devices import Ideal
    >>> AnalogGRUCell(3, 4, device=Ideal())(torch.zeros(3)).shape
    torch.Size([4])
    """

    digital = nn.GRUCell


class AnalogLSTMCell(AnalogCell):
    """`torch.nn.LSTMCell` with its matrices on tiles; arguments as in `AnalogCell`.

    >>> from ohmgrad.devices import Ideal
    >>> h, c = AnalogLSTMCell(3, 4, device=Ideal())(torch.zeros(2, 3))
    >>> h.shape, c.shape
    (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    digital = nn.LSTMCell
