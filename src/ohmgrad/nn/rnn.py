"""Recurrent layers whose matrices are tiles: one for the input and one for the hidden state, per layer and direction.

`gates` has the equations of a step. W reads all time steps at once, U one step after the other. A padded batch is a
packed one in which all sequences are equally long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

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
)  # fmt: skip
from ohmgrad.nn.hardware import Hardware
from ohmgrad.nn.layer import filled, of_replica
from ohmgrad.nn.refusals import check_input


class AnalogRecurrent(Gated):
    """What recurrent layers share; `AnalogRNN`, `AnalogGRU` and `AnalogLSTM` are the layers.

    Args:
        *args, **options: as in torch's layer, whose initialisation is used; and the fields of `ohmgrad.nn.Hardware`.
        seed: of the tiles; one integer or one for each replica. None draws one from torch's default generator.
        replicas: leading dimensions of weights, inputs, outputs and states.

    Raises:
        ValueError: an input or initial state has another shape, or replicas get a PackedSequence.
    """

    digital: ClassVar[type[nn.RNN] | type[nn.GRU] | type[nn.LSTM]]

    def _place(
        self,
        layers: Sequence[nn.RNNBase],
        hardware: Hardware,
        seed: int | Sequence[int] | None,
        replicas: Sequence[int],
    ) -> None:
        first, self.replicas = layers[0], tuple(replicas)
        self.mode, self.input_size, self.hidden_size = first.mode, first.input_size, first.hidden_size
        self.num_layers, self.bias, self.batch_first = first.num_layers, first.bias, first.batch_first
        self.dropout, self.bidirectional, self.proj_size = first.dropout, first.bidirectional, first.proj_size
        place_all(self, layers, hardware, seed, replicas)
        self.train(first.training)

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The represented matrices by torch's names of them, copies to be read: `set_weight` writes."""
        names = [name.replace("tile", "weight") for name, _ in self.named_children()]
        return MappingProxyType({name: getattr(self, name) for name in names})

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | State | None = None) -> tuple[Any, Any]:
        """As torch's layer.

        Args:
            input: (*replica, time, batch, in), or (*replica, batch, time, in) if `batch_first`, or (*replica, time,
                in), or a PackedSequence.
            hx: the initial state, (*replica, layers * directions, batch, size), or (h, c) of an LSTM; zero by default.

        Returns:
            The last layer's hidden states, in the form of input, and the final state, in the form of hx.
        """
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        self._check(input)
        is_batched = input.dim() == len(self.replicas) + 3
        if not is_batched:
            hx = None if hx is None else tuple(s.unsqueeze(-2) for s in state_parts(hx, self._n_states))
        steps = (input.transpose(-3, -2) if self.batch_first else input) if is_batched else input.unsqueeze(-2)
        n_steps, batch = steps.shape[-3:-1]
        if not n_steps:
            raise ValueError(f"input needs at least one time step, got the shape {tuple(input.shape)}")
        state = initial_state(hx, self._state_shapes(batch), steps)
        y, state = self._all_layers(steps.flatten(-3, -2), [batch] * n_steps, state)
        y = y.unflatten(-2, (n_steps, batch))
        if not is_batched:
            return y.squeeze(-2), self._outward(tuple(s.squeeze(-2) for s in state))
        return y.transpose(-3, -2) if self.batch_first else y, self._outward(state)

    def _packed(self, input: PackedSequence, hx: Tensor | State | None) -> tuple[PackedSequence, Any]:
        if self.replicas:
            raise ValueError(f"{type(self).__name__} with replicas needs a padded input, got a PackedSequence")
        sizes = input.batch_sizes.tolist()
        state = initial_state(hx, self._state_shapes(sizes[0]), input.data)
        y, state = self._all_layers(input.data, sizes, _permuted(state, input.sorted_indices))
        packed = PackedSequence(y, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
        return packed, self._outward(_permuted(state, input.unsorted_indices))

    def _all_layers(self, x: Tensor, sizes: list[int], state: State) -> tuple[Tensor, State]:
        """Every layer and direction.

        Args:
            x: all time steps behind one another, (*replica, sum of sizes, in). sizes: sequences that still run at each.
            state: the initial one, each (*replica, layers * directions, batch, size).
        """
        finals: list[State] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = dropout(x, self.dropout, self.training)
            outputs = []
            for suffix in ("", "_reverse")[: 1 + self.bidirectional]:
                own = tuple(s[..., len(finals), :, :] for s in state)
                y, final = self._one_direction(f"_l{layer}{suffix}", x, sizes, own)
                outputs.append(y)
                finals.append(final)
            x = torch.cat(outputs, -1)
        return x, tuple(torch.stack(parts, -3) for parts in zip(*finals, strict=True))

    def _one_direction(self, suffix: str, x: Tensor, sizes: list[int], state: State) -> tuple[Tensor, State]:
        """One layer in one direction: hidden states (*replica, sum of sizes, size), and the state after each's end."""
        from_x = product(self, f"_ih{suffix}", x).split(sizes, -2)
        steps = list(zip(sizes, from_x, strict=True))
        is_reverse = suffix.endswith("reverse")
        outputs: list[Tensor] = []
        for b, gates in reversed(steps) if is_reverse else steps:
            now = tuple(s[..., :b, :] for s in state)
            new = STEPS[self.mode](gates, product(self, f"_hh{suffix}", now[0]), now)
            if self.proj_size:
                new = (product(self, f"_hr{suffix}", new[0]), *new[1:])
            outputs.append(new[0])
            # Sequences that have ended, or not begun, keep theirs.
            pairs = zip(new, state, strict=True)
            state = tuple(torch.cat([a, s[..., b:, :]], -2) if b < s.shape[-2] else a for a, s in pairs)
        return torch.cat(outputs[::-1] if is_reverse else outputs, -2), state

    def _check(self, x: Tensor) -> None:
        check_input(x, "input")
        lead = len(self.replicas)
        is_right = x.dim() - lead in (2, 3) and x.shape[:lead] == self.replicas and x.shape[-1] == self.input_size
        if not is_right:
            order = "batch, time" if self.batch_first else "time, batch"
            start = "".join(f"{r}, " for r in self.replicas)
            raise ValueError(
                f"input needs the shape ({start}{order}, {self.input_size}) or ({start}time, {self.input_size}), "
                f"got {tuple(x.shape)}"
            )

    @property
    def _n_states(self) -> int:
        return 2 if self.mode == "LSTM" else 1

    def _state_shapes(self, batch: int) -> list[tuple[int, ...]]:
        """Of h, and c of an LSTM, all layers and directions in one."""
        lead = (*self.replicas, self.num_layers * (1 + self.bidirectional), batch)
        return [(*lead, self.proj_size or self.hidden_size), (*lead, self.hidden_size)][: self._n_states]

    def _outward(self, state: State) -> Tensor | State:
        return state if self.mode == "LSTM" else state[0]

    def flatten_parameters(self) -> None:
        """Nothing to do: torch's layer packs its weights for cuDNN here, and networks call it."""

    def to_digital(self, *replica: int) -> nn.RNNBase:
        """torch's layer with the weights represented now, of one replica where there are replicas."""
        options: dict[str, Any] = {"proj_size": self.proj_size} if self.mode == "LSTM" else nonlinearity(self.mode)
        with torch.device("meta"):
            layer = self.digital(
                self.input_size, self.hidden_size, num_layers=self.num_layers, bias=self.bias,
                batch_first=self.batch_first, dropout=self.dropout, bidirectional=self.bidirectional, **options,
            )  # fmt: skip
        return filled(layer, training=self.training, **of_replica(self.replicas, replica, **represented_all(self)))

    def extra_repr(self) -> str:
        """Sizes, for print(model)."""
        more = {"proj_size": self.proj_size} if self.proj_size else nonlinearity(self.mode)
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, bias={self.bias}, "
            f"batch_first={self.batch_first}, dropout={self.dropout}, bidirectional={self.bidirectional}"
            + "".join(f", {name}={value}" for name, value in more.items())
        )


def _permuted(state: State, order: Tensor | None) -> State:
    """The state with its batch in another order."""
    return state if order is None else tuple(s.index_select(-2, order) for s in state)


class AnalogRNN(AnalogRecurrent):
    """`torch.nn.RNN` with its matrices on tiles; arguments as in `AnalogRecurrent`.

    >>> from ohmgrad.devices import Ideal
    >>> y, h = AnalogRNN(3, 4, nonlinearity="relu", device=Ideal())(torch.zeros(5, 2, 3))
    >>> y.shape, h.shape
    (torch.Size([5, 2, 4]), torch.Size([1, 2, 4]))
    """

    digital = nn.RNN


class AnalogGRU(AnalogRecurrent):
    """`torch.nn.GRU` with its matrices on tiles; arguments as in `AnalogRecurrent`.

    >>> from ohmgrad.devices import Ideal
    >>> y, h = AnalogGRU(3, 4, bidirectional=True, device=Ideal())(torch.zeros(5, 2, 3))
    >>> y.shape, h.shape
    (torch.Size([5, 2, 8]), torch.Size([2, 2, 4]))
    """

    digital = nn.GRU


class AnalogLSTM(AnalogRecurrent):
    """`torch.nn.LSTM` with its matrices on tiles; arguments as in `AnalogRecurrent`.

    With `proj_size` the projection of the hidden state is a third tile, `tile_hr_l0`.

    >>> from ohmgrad.devices import Ideal
    >>> y, (h, c) = AnalogLSTM(3, 4, proj_size=2, device=Ideal())(torch.zeros(5, 2, 3))
    >>> y.shape, h.shape, c.shape
    (torch.Size([5, 2, 2]), torch.Size([1, 2, 2]), torch.Size([1, 2, 4]))
    """

    digital = nn.LSTM
