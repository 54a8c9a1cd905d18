"""The crossbar: a matrix of devices that can be read, read transposed, and given pulses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from ohmgrad import random
from ohmgrad.crossbar import elements, relax, write_expected
from ohmgrad.crossbar.elements import Counters
from ohmgrad.devices.base import Device
from ohmgrad.periphery.reader import Reader, readers
from ohmgrad.periphery.settings import Periphery
from ohmgrad.pulses import op
from ohmgrad.pulses.forms import Dense, Outer, Update
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate

NO_APPLIER: tuple[Any, Any, int] = (None, None, 0)  # the state, what changes it, and where in memory it was then
FRESH: dict[str, Any] = {"_applier": NO_APPLIER, "_known": elements.UNKNOWN}  # before the first pulse


class Crossbar(nn.Module):
    """A matrix of devices, (*replica, out, in).

    Args:
        shape: (out, in).
        device: the family and its parameters; a sequence of devices of one family gives one to each replica.
        update: how changes are made, `ExpectedUpdate()` or `PulsedUpdate()`.
        seed: one integer (replica r gets seed + r) or one for each replica. The device-to-device variation and every
            later noise are functions of it. None draws one from torch's default generator.
        replicas: leading dimensions: independent crossbars that are read and written in one call.
        weight: initial state, (*replica, out, in) or (out, in), programmed as by `set_weight`; 0 if absent.
        dtype: float32 or float64.
        count_pulses: keep the pulses that reached each crosspoint (endurance), 8 bytes each.
        periphery: converters and noise of its reads; ideal reads if absent.
        line_seed: seeds of the pulse trains, one for each replica, where several crossbars share their lines.
        granularity: the step that pulses are counted in; the devices' own if absent.

    Raises:
        ValueError, TypeError: a shape, dtype or value breaks its rule; the message names the tensor.

    >>> from ohmgrad.devices import Ideal
    >>> bar = Crossbar((1, 2), device=Ideal(), seed=0)
    >>> bar.pulse(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5]]), lr=0.1)
    >>> bar.weight
    tensor([[-0.0500, -0.1000]])
    """

    weight: Tensor
    seed: Tensor
    line_seed: Tensor | None
    cycles: Tensor
    pulses: Tensor
    pulse_counts: Tensor | None
    reads: Tensor
    digital_memory: Tensor
    relaxations: Tensor
    persistent: Tensor
    _buffers: dict[str, Any]  # asked by name where speed matters: half the time of an attribute

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        device: Device | Sequence[Device],
        update: ExpectedUpdate | PulsedUpdate | None = None,
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
        weight: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        count_pulses: bool = False,
        periphery: Periphery | None = None,
        line_seed: Sequence[int] | None = None,
        granularity: float | None = None,
    ) -> None:
        super().__init__()
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f"Crossbar needs a shape (out, in) of positive sizes, got {shape}")
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"Crossbar needs dtype float32 or float64, got {dtype}")
        if isinstance(update, PulsedUpdate) and shape[0] * shape[1] > 2**32:
            raise ValueError(f"PulsedUpdate needs at most 2**32 crosspoints, which 32 bits tell apart, got {shape}")
        self.devices = elements.device_list(device)  # of each replica, or the one of all
        self.device_model = self.devices[0]
        self.update = update or ExpectedUpdate()
        self.shape = (int(shape[0]), int(shape[1]))
        self.replicas = tuple(replicas)
        seeds = random.seed_tensor(seed, self.replicas)
        self.register_buffer("seed", seeds)
        lines = None if line_seed is None else random.seed_tensor(line_seed, self.replicas)
        self.register_buffer("line_seed", lines)
        self.granularity = granularity or self.device_model.granularity
        self.register_buffer("cycles", torch.zeros((), dtype=torch.int64))
        self.register_buffer("reads", torch.zeros((), dtype=torch.int64))
        self.register_buffer("digital_memory", torch.zeros((), dtype=torch.int64))
        # How often states have changed without pulses: by decay and diffusion, a reset, set_weight.
        self.register_buffer("relaxations", torch.zeros((), dtype=torch.int64))
        self.register_buffer("pulses", torch.zeros(self.replicas, dtype=torch.float64))
        self._applier, self._known = NO_APPLIER, elements.UNKNOWN  # what `pulse` keeps from call to call
        self._law = self._number_of_law()
        self._accepted: tuple[Any, ...] | None = None  # shapes, dtypes and devices of x and d that need no second look
        self._plane_names: list[str] = []
        self._numbers: dict[str, Any] = {}  # and tables
        for name, value in elements.draw_all(self.devices, seeds, self.shape, dtype).items():
            if isinstance(value, Tensor):
                self.register_buffer(f"device_{name}", value)
                self._plane_names.append(name)
            else:
                self._numbers[name] = value if isinstance(value, tuple) else float(value)
        self.register_buffer("weight", torch.zeros(*self.replicas, *self.shape, dtype=dtype))
        self.weight.clamp_(*self._bounds(self.params))  # the bounds of a single element may leave out 0
        kind = torch.int64 if isinstance(self.update, PulsedUpdate) else torch.float64
        counts = torch.zeros_like(self.weight, dtype=kind) if count_pulses else None
        self.register_buffer("pulse_counts", counts)
        if self.device_model.write_noise:
            # What the pulses act on; the visible weight is this plus write noise.
            self.register_buffer("persistent", self.weight.clone())
        self.readers = None if periphery is None else readers(periphery, self.replicas, dtype)
        if weight is not None:
            self.set_weight(weight)
        else:  # 0 was programmed too, and shows write noise
            self._show(torch.ones_like(self.weight, dtype=torch.bool), (random.Stream.RELAX, relax.Kind.START))

    @property
    def params(self) -> dict[str, Any]:
        """Every element's parameters: a number where devices do not differ, else a plane; tables."""
        return self._numbers | {name: getattr(self, f"device_{name}") for name in self._plane_names}

    @property
    def counters(self) -> Counters:
        """Cycles, pulses, reads and digital memory so far.

        Raises:
            ValueError: on a GPU, x or d of an earlier pulse held NaN or infinity.
        """
        if self.pulses.isnan().any():  # a GPU's kernels do not stop for it: they leave the sample out, and say so here
            raise ValueError("x and d need finite numbers, got NaN or infinity in samples, which were left out")
        counts = None if self.pulse_counts is None else self.pulse_counts.clone()
        return Counters(int(self.cycles), self.pulses.clone(), int(self.reads), int(self.digital_memory), counts)

    @torch.no_grad()
    def set_weight(self, weight: Tensor) -> None:
        """Program a state directly, (*replica, out, in) or (out, in); clipped to the devices' bounds."""
        self._check("weight", weight, *self.shape)
        low, high = self._bounds(self.params)
        self._state.copy_(weight).clamp_(low, high)
        self._show_settled(torch.ones_like(self.weight, dtype=torch.bool))

    def read(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """W x for each row of x: (*replica, batch, in) to (*replica, batch, out).

        weight: what the lines see where several crossbars share them, (*replica, out, in); else the crossbar's own.
        """
        self.count_reads(x)
        w = self._buffers["weight"] if weight is None else weight
        return x @ w.mT if (readers := self.readers) is None else readers["read"](w, x, self._buffers["seed"])

    def read_transposed(self, d: Tensor, weight: Tensor | None = None) -> Tensor:
        """W' d for each row of d: (*replica, batch, out) to (*replica, batch, in); weight as in `read`."""
        self.count_reads(d)
        w, seed = self._buffers["weight"] if weight is None else weight, self._buffers["seed"]
        return d @ w if (readers := self.readers) is None else readers["read_transposed"](w.mT, d, seed)

    def read_columns(self, columns: Tensor, weight: Tensor | None = None) -> Tensor:
        """Reads with one-hot inputs, as transfers do: columns, (n,) or (*replica, n), to (*replica, n, out)."""
        numbers = elements.column_numbers(columns, self.shape[1], replicas=self.replicas)
        return self._read_lines(numbers, weight, columns=True)

    def read_rows(self, rows: Tensor, weight: Tensor | None = None) -> Tensor:
        """As `read_columns`, with one-hot errors: rows (n,) or (*replica, n) to (*replica, n, in)."""
        numbers = elements.column_numbers(rows, self.shape[0], "rows", self.replicas)
        return self._read_lines(numbers, weight, columns=False)

    def _read_lines(self, lines: Tensor, weight: Tensor | None, *, columns: bool) -> Tensor:
        self.reads.add_(lines.shape[-1])
        w = self.weight if weight is None else weight
        w = w if columns else w.mT
        if self.readers is None:
            return elements.of_columns(w, lines)
        return cast(Reader, self.readers["read_columns"]).lines(w, lines, self.seed)  # a ModuleDict knows no types

    def pulse(self, x: Tensor, d: Tensor, lr: float) -> None:
        """One mini-batch of rank-1 cycles: w moves by -lr * d x' in the mean, through the devices.

        Args:
            x: inputs, (*replica, batch, in); a single vector (in,) is a batch of one.
            d: errors, (*replica, batch, out).
            lr: step, finite; a negative one moves the other way.
        """
        (is_known, state, send), now = self._known, self._buffers["weight"]  # the short way, for small crossbars
        is_same = not is_compiling() and is_known(x, d) and state is now and self._applier[2] == now.data_ptr()
        if is_same and isinstance(lr, float) and lr - lr == 0.0:
            return send(x, d, lr)
        self.write(Outer(d if d.dim() > 1 else d[None], x if x.dim() > 1 else x[None]), lr)
        bound_to, ways, _ = self._applier
        if not is_compiling() and ways and self.pulse_counts is None and not self.device_model.write_noise:
            self._known = elements.alike(x, d), bound_to, ways.sender(x.shape[-2] if x.dim() > 1 else 1)

    def write(self, update: Update, lr: elements.Step) -> None:
        """An update of any form: w moves by -lr times it in the mean; lr (*replica, 1, 1) is one for each replica."""
        update, lr = elements.step_for_all(update, lr)
        self._check_update(update)
        if update.digital_memory:
            self.digital_memory.clamp_(min=update.digital_memory)
        if isinstance(self.update, PulsedUpdate):
            outer = update.as_outer()
            self._pulse(outer.x, outer.d, lr)
        else:
            write_expected.write(self, update, lr)

    @torch.no_grad()
    def write_columns(self, columns: Tensor, values: Tensor, lr: elements.Step) -> None:
        """Add lr * values to distinct columns through the devices, one cycle each.

        Args:
            columns: (n,), or (*replica, n), of each replica its own. values: (*replica, n, out).
        """
        values, lr = elements.values_for_all(values, lr)
        columns = elements.column_numbers(columns, self.shape[1], replicas=self.replicas)
        self._check("values", values, columns.shape[-1], self.shape[0])
        if isinstance(self.update, PulsedUpdate):
            one_hot = torch.nn.functional.one_hot(columns.to(self.weight.device), self.shape[1])
            self._pulse(one_hot.to(self.weight.dtype), values, -lr)
        else:
            write_expected.move_columns(self, lr * values.mT, columns.to(self.weight.device))

    def relax(self) -> None:
        """What one mini-batch of time does to the devices: diffusion, then decay; free where they have neither."""
        if relax.relaxes((*self._numbers, *self._plane_names)):
            params = self.params
            with torch.no_grad():
                w = relax.relaxed(self._state, self.device_model, params, seed=self.seed, number=self.relaxations)
                self._settle(w, slice(None), params)

    @torch.no_grad()
    def reset(self, columns: Tensor | None = None, only: Tensor | None = None) -> None:
        """Set devices to their reset states, `reset_std` apart; not by pulses.

        Args:
            columns: (n,); all if absent. only: of these the devices to reset, (*replica, out, n) bool.
        """
        if columns is None:
            columns = torch.arange(self.shape[1], device=self.weight.device)
        columns = elements.column_numbers(columns, self.shape[1]).to(self.weight.device)
        params = self._params_of(columns)
        w = relax.reset(self.device_model, params, columns, seed=self.seed, number=self.relaxations, like=self.weight)
        self._settle(w if only is None else torch.where(only, w, self._state[..., columns]), columns, params)

    def _settle(self, w: Tensor, columns: Tensor | slice, params: Mapping[str, Any]) -> None:
        """Take over states of some columns that came about without pulses, (*replica, out, n)."""
        w = torch.clamp(w, *self._bounds(params))
        moved = torch.zeros_like(self.weight, dtype=torch.bool)
        moved[..., columns] = w != self._state[..., columns]
        self._state[..., columns] = w
        self._show_settled(moved)

    def _show_settled(self, moved: Tensor) -> None:
        self._show(moved, (random.Stream.RELAX, relax.Kind.WRITE, self.relaxations))
        self.relaxations.add_(1)

    def _pulse(self, x: Tensor, d: Tensor, lr: float) -> None:
        """Pulse trains."""
        if is_compiling():
            moved = torch.zeros_like(self._state, dtype=torch.uint8) if self.device_model.write_noise else None
            self._pulse_in_graph(x.detach(), d.detach(), lr, moved)
            if moved is not None:
                self._show(moved.bool())
        else:
            self._send(x.resolve_neg().contiguous(), d.resolve_neg().contiguous(), lr, x.shape[-2])

    def _send(self, x: Tensor, d: Tensor, lr: float, batch: int) -> None:
        """`_pulse` outside graphs, of contiguous x and d."""
        has_noise = self.device_model.write_noise > 0.0
        state = self._buffers["persistent" if has_noise else "weight"]
        moved = torch.zeros(self.weight.shape, dtype=torch.uint8, device=state.device) if has_noise else None
        if self._applier[0] is not state or self._applier[2] != state.data_ptr():
            self._applier = state, self._new_applier(), state.data_ptr()
        self._applier[1].apply(x, d, lr, batch, self._buffers["pulse_counts"], moved)
        if moved is not None:
            self._show(moved.bool())

    def _new_applier(self) -> op.Applier:
        state = self._state
        assert isinstance(self.update, PulsedUpdate)  # write() saw to it; said for the type checker
        if state.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"PulsedUpdate needs a crossbar of float32 or float64, got {state.dtype}")
        elements.lay_out(self._buffers)  # once more, for assignments to `data` of a tensor, which no module sees
        return op.applier(
            self.device_model, self.update, self.params, self.seed, state, self.cycles, self.pulses,
            lines=self._line_seed, granularity=self.granularity,
        )  # fmt: skip

    @property
    def _line_seed(self) -> Tensor:
        return self.seed if self.line_seed is None else self.line_seed

    def _pulse_in_graph(self, x: Tensor, d: Tensor, lr: float, moved: Tensor | None) -> None:
        given = self.params.values()
        values = [v if isinstance(v, Tensor) else torch.as_tensor(v, dtype=torch.float64) for v in given]
        torch.ops.ohmgrad.pulse(
            self._state, x, d, lr, self.cycles, self.pulses, self.pulse_counts, moved, self.seed,
            self._line_seed, self.granularity, " ".join(self.params), values, self._law,
        )  # fmt: skip

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self.__dict__.get("_buffers", ()):  # another tensor than the one that the applier works on
            elements.lay_out(self._buffers)
            self.__dict__.update(FRESH)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | FRESH  # a copy makes its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._law = self._number_of_law()  # another process has other numbers

    def _number_of_law(self) -> int:
        """Known before a graph is traced: what tracing writes down comes after the graph's first run."""
        return op.number_of(self.device_model, self.update) if isinstance(self.update, PulsedUpdate) else -1

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.__dict__.update(FRESH | {"_accepted": None})  # the rest is of what was before this move
        super()._apply(fn, recurse)
        elements.lay_out(self._buffers)  # of four dimensions, a memory format is another order of crosspoints
        return self

    def _params_of(self, columns: Tensor | slice) -> dict[str, Any]:
        """Parameters of the elements in some columns."""
        return {k: v[..., columns] if isinstance(v, Tensor) else v for k, v in self.params.items()}

    @property
    def _state(self) -> Tensor:
        """What pulses act on: the weight, or the persistent state behind a weight with write noise."""
        return self.persistent if self.device_model.write_noise else self.weight

    def _show(self, moved: Tensor, key: Sequence[random.Words] | None = None) -> None:
        """Draw the write noise anew where a device moved: weight = persistent + write_noise dw_min xi."""
        model = self.device_model
        if model.write_noise:
            key = key or (random.Stream.WRITE, self.cycles)
            xi = random.normal_plane(self.seed, key, *self.shape, self.weight.dtype)
            shown = xi.mul_(model.write_noise * model.dw_min).add_(self.persistent)
            torch.where(moved, shown, self.weight, out=self.weight)

    def _bounds(self, params: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        like = {"dtype": self.weight.dtype, "device": self.weight.device}
        low, high = (torch.as_tensor(params[k], **like) for k in ("w_min", "w_max"))
        return low, high

    def _load_from_state_dict(  # type: ignore[override]  # torch passes the rest by position
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        elements.check_state(self, state_dict, prefix)
        self.__dict__.update(FRESH)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def count_reads(self, vectors: Tensor) -> None:
        """Note a read of each row of vectors."""
        self._buffers["reads"].add_(vectors.shape[-2] if vectors.dim() > 1 else 1)

    def _check_update(self, update: Update) -> None:
        if isinstance(update, Dense):
            self._check("dW", update.dW, *self.shape)
            return
        outer = update.as_outer()
        self._check_outer(outer.x, outer.d)

    def _check_outer(self, x: Tensor, d: Tensor) -> None:
        kind = (x.shape, d.shape, x.dtype, d.dtype, x.device, d.device)
        if kind == self._accepted:
            return
        batch = x.shape[-2] if x.dim() > 1 else -1
        # The pulsed update looks for NaN in x and d itself, on its way, and also in graphs of torch.
        is_read_later = isinstance(self.update, PulsedUpdate)
        self._check("x", x, batch, self.shape[1], is_read_later=is_read_later)
        self._check("d", d, batch, self.shape[0], is_read_later=is_read_later)
        self._accepted = kind if is_read_later else None

    def _check(self, name: str, tensor: Tensor, rows: int, columns: int, *, is_read_later: bool = False) -> None:
        elements.need_tensor(name, tensor, self.weight, self.replicas, (rows, columns), is_read_later=is_read_later)

    def extra_repr(self) -> str:
        """Shape, device and update, for print(model)."""
        return f"{self.shape[0]}x{self.shape[1]}, replicas={self.replicas}, {self.device_model}, {self.update}"
