"""Recurrent layers whose matrices are tiles: one for the input and one for the hidden state, per layer and direction.

    RNN    h = f(W x + b + U h + c)                                         f = tanh or relu
    GRU    r, z = s(W x + b + U h + c),  n = tanh(W x + b + r (U h + c)),   h = (1 - z) n + z h
    LSTM   i, f, g, o = W x + b + U h + c,  c = s(f) c + s(i) tanh(g),      h = s(o) tanh(c)

with s the logistic function, biases digital and the gates' rows in torch's order. W reads all time steps at once, U one
step after the other. A padded batch is a packed one in which all sequences are equally long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

from ohmgrad.crossbar.grid import Grid
from ohmgrad.crossbar.tile import Tile
from ohmgrad.nn.function import read
from ohmgrad.nn.hardware import Hardware
from ohmgrad.nn.layer import blank, child_seeds, digital_copy, filled, need_one, of_replica, represented

State = tuple[Tensor, ...]  # (h,), or (h, c) of an LSTM; each (batch, size)
Cell = Callable[[Tensor, Tensor, State], State]  # from what W and U gave, (batch, gates * hidden), to the next state


def tanh_cell(from_x: Tensor, from_h: Tensor, state: State) -> State:
    """Elman's."""
    return (torch.tanh(from_x + from_h),)


def relu_cell(from_x: Tensor, from_h: Tensor, state: State) -> State:
    """Elman's with a rectifier."""
    return (torch.relu(from_x + from_h),)


def gru_cell(from_x: Tensor, from_h: Tensor, state: State) -> State:
    """Gates reset, update, new; the reset gate acts on U h + c, as in torch."""
    (h,) = state
    (r_x, z_x, n_x), (r_h, z_h, n_h) = from_x.chunk(3, -1), from_h.chunk(3, -1)
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + r * n_h)
    return ((1.0 - z) * n + z * h,)


def lstm_cell(from_x: Tensor, from_h: Tensor, state: State) -> State:
    """Gates input, forget, cell, output."""
    _, c = state
    i, f, g, o = (from_x + from_h).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


# By torch's name for the mode of a recurrent layer.
CELLS: dict[str, Cell] = {"RNN_TANH": tanh_cell, "RNN_RELU": relu_cell, "GRU": gru_cell, "LSTM": lstm_cell}


class AnalogRecurrent(nn.Module):
    """What recurrent layers share; `AnalogRNN`, `AnalogGRU` and `AnalogLSTM` are the layers.

    Tiles are named as torch's weights: `tile_ih_l0` holds weight_ih_l0, `tile_hh_l1_reverse` weight_hh_l1_reverse.
    Biases have torch's names.

    Raises:
        ValueError: an input or initial state has another shape; replicas, which these layers have none of.
    """

    digital: ClassVar[type[nn.RNN] | type[nn.GRU] | type[nn.LSTM]]

    @classmethod
    def from_digital(
        cls,
        layers: Sequence[nn.RNNBase],
        *,
        hardware: Hardware,
        seed: int | Sequence[int] = 0,
        replicas: Sequence[int] = (),
    ) -> Self:
        """The layer from a digital one; what is frozen stays frozen."""
        need_one(cls.__name__, layers, replicas)
        layer = blank(cls)
        layer._place(layers[0], hardware, seed)
        return layer

    def _place(self, layer: nn.RNNBase, hardware: Hardware, seed: int | Sequence[int]) -> None:
        self.mode, self.input_size, self.hidden_size = layer.mode, layer.input_size, layer.hidden_size
        self.num_layers, self.bias, self.batch_first = layer.num_layers, layer.bias, layer.batch_first
        self.dropout, self.bidirectional, self.proj_size = layer.dropout, layer.bidirectional, layer.proj_size
        names = [name for name, _ in layer.named_parameters()]
        weights = [name for name in names if name.startswith("weight")]
        for name, (own,) in zip(weights, child_seeds(seed, (), len(weights)), strict=True):
            weight = getattr(layer, name)
            tile = hardware.tile(weight, seed=own)
            tile.requires_grad_(weight.requires_grad)
            self.add_module(name.replace("weight", "tile"), tile)
        for name in names:
            if name not in weights:
                self.register_parameter(name, digital_copy([layer], name, ()))
        self.train(layer.training)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The represented matrices by torch's names of them, new tensors."""
        return {name.replace("tile", "weight"): tile.weight for name, tile in self._tiles()}

    def _tiles(self) -> list[tuple[str, Tile | Grid]]:
        return [(name, m) for name, m in self.named_children() if isinstance(m, Tile | Grid)]

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | State | None = None) -> tuple[Any, Any]:
        """As torch's layer.

        Args:
            input: (time, batch, in), or (batch, time, in) if `batch_first`, or (time, in), or a PackedSequence.
            hx: the initial state, (layers * directions, batch, size), or (h, c) of an LSTM; zero by default.

        Returns:
            The last layer's hidden states, in the form of input, and the final state, in the form of hx.
        """
        if isinstance(input, PackedSequence):
            sizes = input.batch_sizes.tolist()
            state = _permuted(self._initial(hx, sizes[0], input.data), input.sorted_indices)
            y, state = self._all_layers(input.data, sizes, state)
            state = _permuted(state, input.unsorted_indices)
            packed = PackedSequence(y, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
            return packed, self._outward(state)
        self._check(input)
        is_batched = input.dim() == 3
        if not is_batched:
            hx = None if hx is None else tuple(s.unsqueeze(1) for s in self._parts(hx))
        steps = (input.transpose(0, 1) if self.batch_first else input) if is_batched else input.unsqueeze(1)
        n_steps, batch, _ = steps.shape
        state = self._initial(hx, batch, steps)
        y, state = self._all_layers(steps.reshape(-1, self.input_size), [batch] * n_steps, state)
        y = y.reshape(n_steps, batch, y.shape[-1])
        if not is_batched:
            return y.squeeze(1), self._outward(tuple(s.squeeze(1) for s in state))
        return y.transpose(0, 1) if self.batch_first else y, self._outward(state)

    def _all_layers(self, x: Tensor, sizes: list[int], state: State) -> tuple[Tensor, State]:
        """Every layer and direction.

        Args:
            x: all time steps behind one another, (sum of sizes, in). sizes: sequences that still run at each step.
            state: the initial one, each (layers * directions, batch, size).
        """
        finals: list[State] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = dropout(x, self.dropout, self.training)
            outputs = []
            for suffix in ("", "_reverse")[: 1 + self.bidirectional]:
                own = tuple(s[len(finals)] for s in state)
                y, final = self._one_direction(f"_l{layer}{suffix}", x, sizes, own)
                outputs.append(y)
                finals.append(final)
            x = torch.cat(outputs, -1)
        return x, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))

    def _one_direction(self, suffix: str, x: Tensor, sizes: list[int], state: State) -> tuple[Tensor, State]:
        """One layer in one direction: the hidden states (sum of sizes, size), and the state after each one's end."""
        from_x = self._product("ih", suffix, x).split(sizes)
        steps = list(zip(sizes, from_x, strict=True))
        is_reverse = suffix.endswith("reverse")
        outputs: list[Tensor] = []
        for b, gates in reversed(steps) if is_reverse else steps:
            now = tuple(s[:b] for s in state)
            new = CELLS[self.mode](gates, self._product("hh", suffix, now[0]), now)
            if self.proj_size:
                new = (self._product("hr", suffix, new[0]), *new[1:])
            outputs.append(new[0])
            # Sequences that have ended, or not begun, keep theirs.
            state = tuple(torch.cat([a, s[b:]]) if b < len(s) else a for a, s in zip(new, state, strict=True))
        return torch.cat(outputs[::-1] if is_reverse else outputs), state

    def _product(self, which: str, suffix: str, x: Tensor) -> Tensor:
        """W x + b of one tile and its bias, (batch, in) to (batch, out)."""
        y = read(getattr(self, f"tile_{which}{suffix}"), x)
        bias = getattr(self, f"bias_{which}{suffix}", None)
        return y if bias is None else y + bias

    def _check(self, x: Tensor) -> None:
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size or not x.numel():
            order = "batch, time" if self.batch_first else "time, batch"
            raise ValueError(
                f"input needs the shape ({order}, {self.input_size}) or (time, {self.input_size}), got {tuple(x.shape)}"
            )

    def _parts(self, hx: Tensor | State) -> State:
        """The state as a tuple."""
        parts = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        n = 2 if self.mode == "LSTM" else 1
        if len(parts) != n:
            raise ValueError(f"hx needs {'(h, c)' if n == 2 else 'one tensor'}, got {len(parts)} tensors")
        return parts

    def _initial(self, hx: Tensor | State | None, batch: int, like: Tensor) -> State:
        """The initial state, each (layers * directions, batch, size)."""
        n = self.num_layers * (1 + self.bidirectional)
        shapes = [(n, batch, self.proj_size or self.hidden_size)]
        if self.mode == "LSTM":
            shapes.append((n, batch, self.hidden_size))
        if hx is None:
            return tuple(like.new_zeros(shape) for shape in shapes)
        parts = self._parts(hx)
        for part, shape in zip(parts, shapes, strict=True):
            if part.shape != shape:
                raise ValueError(f"hx needs the shape {shape}, got {tuple(part.shape)}")
        return parts

    def _outward(self, state: State) -> Tensor | State:
        return state if self.mode == "LSTM" else state[0]

    def flatten_parameters(self) -> None:
        """Nothing to do: torch's layer packs its weights for cuDNN here, and networks call it."""

    def to_digital(self, *replica: int) -> nn.RNNBase:
        """torch's layer with the weights represented now."""
        options: dict[str, Any] = {"proj_size": self.proj_size} if self.mode == "LSTM" else {}
        if self.mode.startswith("RNN"):
            options["nonlinearity"] = self.mode.removeprefix("RNN_").lower()
        with torch.device("meta"):
            layer = self.digital(
                self.input_size, self.hidden_size, num_layers=self.num_layers, bias=self.bias,
                batch_first=self.batch_first, dropout=self.dropout, bidirectional=self.bidirectional, **options,
            )  # fmt: skip
        parameters: dict[str, Tensor | None] = dict(self.named_parameters(recurse=False))
        for name, tile in self._tiles():
            parameters[name.replace("tile", "weight")] = represented(tile, tile.weight)
        return filled(layer, training=self.training, **of_replica((), replica, **parameters))

    def extra_repr(self) -> str:
        """Sizes, for print(model)."""
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, bias={self.bias}, "
            f"batch_first={self.batch_first}, dropout={self.dropout}, bidirectional={self.bidirectional}"
            + (f", proj_size={self.proj_size}" if self.proj_size else "")
            + (f", nonlinearity={self.mode.removeprefix('RNN_').lower()}" if self.mode.startswith("RNN") else "")
        )


def _permuted(state: State, order: Tensor | None) -> State:
    """The state with its batch in another order."""
    return state if order is None else tuple(s.index_select(1, order) for s in state)


class AnalogRNN(AnalogRecurrent):
    """`torch.nn.RNN` with its matrices on tiles; arguments as there, then seed, dtype and the fields of `Hardware`.

    >>> from ohmgrad.devices import Ideal
    >>> y, h = AnalogRNN(3, 4, nonlinearity="relu", device=Ideal())(torch.zeros(5, 2, 3))
    >>> y.shape, h.shape
    (torch.Size([5, 2, 4]), torch.Size([1, 2, 4]))
    """

    digital = nn.RNN

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        seed: int | Sequence[int] = 0,
        dtype: torch.dtype | None = None,
        **hardware: Any,  # as in AnalogLinear
    ) -> None:
        super().__init__()
        options = (num_layers, nonlinearity, bias, batch_first, dropout, bidirectional)
        self._place(nn.RNN(input_size, hidden_size, *options, dtype=dtype), Hardware(**hardware), seed)


class AnalogGRU(AnalogRecurrent):
    """`torch.nn.GRU` with its matrices on tiles; arguments as there, then seed, dtype and the fields of `Hardware`.

    >>> from ohmgrad.devices import Ideal
    >>> y, h = AnalogGRU(3, 4, bidirectional=True, device=Ideal())(torch.zeros(5, 2, 3))
    >>> y.shape, h.shape
    (torch.Size([5, 2, 8]), torch.Size([2, 2, 4]))
    """

    digital = nn.GRU

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        seed: int | Sequence[int] = 0,
        dtype: torch.dtype | None = None,
        **hardware: Any,  # as in AnalogLinear
    ) -> None:
        super().__init__()
        options = (num_layers, bias, batch_first, dropout, bidirectional)
        self._place(nn.GRU(input_size, hidden_size, *options, dtype=dtype), Hardware(**hardware), seed)


class AnalogLSTM(AnalogRecurrent):
    """`torch.nn.LSTM` with its matrices on tiles; arguments as there, then seed, dtype and the fields of `Hardware`.

    With `proj_size` the projection of the hidden state is a third tile, `tile_hr_l0`.

    >>> from ohmgrad.devices import Ideal
    >>> y, (h, c) = AnalogLSTM(3, 4, proj_size=2, device=Ideal())(torch.zeros(5, 2, 3))
    >>> y.shape, h.shape, c.shape
    (torch.Size([5, 2, 2]), torch.Size([1, 2, 2]), torch.Size([1, 2, 4]))
    """

    digital = nn.LSTM

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        seed: int | Sequence[int] = 0,
        dtype: torch.dtype | None = None,
        **hardware: Any,  # as in AnalogLinear
    ) -> None:
        super().__init__()
        options = (num_layers, bias, batch_first, dropout, bidirectional, proj_size)
        self._place(nn.LSTM(input_size, hidden_size, *options, dtype=dtype), Hardware(**hardware), seed)
