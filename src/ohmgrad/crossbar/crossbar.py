"""The crossbar: a matrix of devices that can be read, read transposed, and given pulses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ohmgrad import random
from ohmgrad.devices.base import Device, draw
from ohmgrad.pulses import cpu, eager
from ohmgrad.pulses.expected import expected_increment
from ohmgrad.pulses.forms import Dense, Outer, Update
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate


@dataclass(frozen=True)
class Counters:
    """What a crossbar has done so far, per replica.

    cycles: rank-1 write cycles. pulses: pulses that reached devices (in the expected update: their mean number).
    reads: vectors read, forward and transposed. digital_memory: most numbers that a write kept outside the array.
    """

    cycles: int
    pulses: Tensor
    reads: int
    digital_memory: int


class Crossbar(nn.Module):
    """A matrix of devices, (*replica, out, in).

    Args:
        shape: (out, in).
        device: the family and its parameters; a sequence of devices of one family gives one to each replica.
        update: how changes are made, `ExpectedUpdate()` or `PulsedUpdate()`.
        seed: one integer (replica r gets seed + r) or one for each replica. The device-to-device variation and every
            later noise are functions of it.
        replicas: leading dimensions: independent crossbars that are read and written in one call.
        weight: initial state, (*replica, out, in) or (out, in), clipped to the devices' bounds; 0 if absent.
        dtype: float32 or float64.

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
    cycles: Tensor
    pulses: Tensor
    reads: Tensor
    digital_memory: Tensor
    persistent: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        device: Device | Sequence[Device],
        update: ExpectedUpdate | PulsedUpdate | None = None,
        seed: int | Sequence[int] = 0,
        replicas: Sequence[int] = (),
        weight: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f"Crossbar needs a shape (out, in) of positive sizes, got {shape}")
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"Crossbar needs dtype float32 or float64, got {dtype}")
        devices = [device] if isinstance(device, Device) else list(device)
        self.device_model = devices[0]
        self.update = update or ExpectedUpdate()
        self.shape = (int(shape[0]), int(shape[1]))
        self.replicas = tuple(replicas)
        seeds = random.seed_tensor(seed, self.replicas)
        self.register_buffer("seed", seeds)
        self.register_buffer("cycles", torch.zeros((), dtype=torch.int64))
        self.register_buffer("reads", torch.zeros((), dtype=torch.int64))
        self.register_buffer("digital_memory", torch.zeros((), dtype=torch.int64))
        self.register_buffer("pulses", torch.zeros(self.replicas, dtype=torch.float64))
        self._launches: dict[int, Callable[..., int | Tensor]] = {}
        self._plane_names: list[str] = []
        self._numbers: dict[str, float] = {}
        for name, value in _draw_all(devices, seeds, self.shape, dtype).items():
            if isinstance(value, Tensor):
                self.register_buffer(f"device_{name}", value)
                self._plane_names.append(name)
            else:
                self._numbers[name] = float(value)
        self.register_buffer("weight", torch.zeros(*self.replicas, *self.shape, dtype=dtype))
        if self.device_model.write_noise:
            # What the pulses act on; the visible weight is this plus write noise.
            self.register_buffer("persistent", self.weight.clone())
        if weight is not None:
            self.set_weight(weight)

    @property
    def params(self) -> dict[str, Tensor | float]:
        """Every element's parameters: a number where devices do not differ, else a plane."""
        return self._numbers | {name: getattr(self, f"device_{name}") for name in self._plane_names}

    @property
    def counters(self) -> Counters:
        """Cycles, pulses, reads and digital memory so far.

        Raises:
            ValueError: on a GPU, x or d of an earlier pulse held NaN or infinity.
        """
        if self.pulses.isnan().any():  # a GPU's kernels do not stop for it: they leave the sample out, and say so here
            raise ValueError("x and d need finite numbers, got NaN or infinity in samples, which were left out")
        return Counters(int(self.cycles), self.pulses.clone(), int(self.reads), int(self.digital_memory))

    @torch.no_grad()
    def set_weight(self, weight: Tensor) -> None:
        """Program a state directly, (*replica, out, in) or (out, in); clipped to the devices' bounds."""
        self._check("weight", weight, *self.shape)
        low, high = self._bounds(self.params)
        self._state.copy_(torch.clamp(weight, low, high))
        self._show(torch.ones_like(self.weight, dtype=torch.bool))

    def read(self, x: Tensor) -> Tensor:
        """W x for each row of x: (*replica, batch, in) to (*replica, batch, out)."""
        self._count_reads(x)
        return x @ self.weight.mT

    def read_transposed(self, d: Tensor) -> Tensor:
        """W' d for each row of d: (*replica, batch, out) to (*replica, batch, in)."""
        self._count_reads(d)
        return d @ self.weight

    def read_columns(self, columns: Tensor) -> Tensor:
        """Reads with one-hot inputs: columns (n,) of indices to (*replica, n, out)."""
        self.reads.add_(len(columns))
        return self.weight[..., columns].mT

    def pulse(self, x: Tensor, d: Tensor, lr: float) -> None:
        """One mini-batch of rank-1 cycles: w moves by -lr * d x' in the mean, through the devices.

        Args:
            x: inputs, (*replica, batch, in); a single vector (in,) is a batch of one.
            d: errors, (*replica, batch, out).
            lr: step, finite; a negative one moves the other way.
        """
        self.write(Outer(d if d.dim() > 1 else d[None], x if x.dim() > 1 else x[None]), lr)

    @torch.no_grad()
    def write(self, update: Update, lr: float) -> None:
        """An update of any form: w moves by -lr times it in the mean, through the devices."""
        if not abs(float(lr)) < float("inf"):
            raise ValueError(f"lr needs a finite number, got {lr}")
        self._check_update(update)
        if update.digital_memory:
            self.digital_memory.clamp_(min=update.digital_memory)
        outer = update.as_outer()
        if isinstance(self.update, PulsedUpdate):
            self._pulse(outer, float(lr))
        elif self.update.per_sample:
            for i in range(outer.x.shape[-2]):
                sample = outer.d[..., i, :, None] * outer.x[..., i, None, :]
                self._move(-lr * sample, slice(None), n_cycles=1)
        else:
            n_cycles = outer.x.shape[-2]
            if n_cycles:
                self._move(-lr * update.as_dense(), slice(None), n_cycles)

    @torch.no_grad()
    def write_columns(self, columns: Tensor, values: Tensor, lr: float) -> None:
        """Add lr * values to distinct columns through the devices, one cycle each; values are (*replica, n, out)."""
        self._check("values", values, len(columns), self.shape[0])
        if isinstance(self.update, PulsedUpdate):
            one_hot = torch.zeros(len(columns), self.shape[1], dtype=self.weight.dtype, device=self.weight.device)
            one_hot[torch.arange(len(columns)), columns] = 1.0
            self._pulse(Outer(values, one_hot), -float(lr))
        else:
            self._move(lr * values.mT, columns, n_cycles=len(columns))

    def _pulse(self, outer: Outer, lr: float) -> None:
        """Pulse trains, replica by replica."""
        assert isinstance(self.update, PulsedUpdate)  # write() saw to it; said for the type checker
        is_shown = bool(self.device_model.write_noise)
        cycle = self.cycles if self._is_on_gpu else int(self.cycles)  # on a GPU nothing waits for the host
        counts = torch.zeros_like(self.weight, dtype=torch.int64) if is_shown else None
        for r, index in enumerate(np.ndindex(self.replicas)):
            x, d = (t[index] if t.dim() > 2 else t for t in (outer.x.detach(), outer.d.detach()))
            n = None if counts is None else counts[index]
            self.pulses[index] += self._launch(r)(self._state[index], x.contiguous(), d.contiguous(), lr, cycle, n)
        if counts is not None:
            self._show(counts > 0)
        self.cycles.add_(outer.x.shape[-2])

    @property
    def _is_on_gpu(self) -> bool:
        """Whether pulses go through the kernels for GPUs."""
        is_eager = isinstance(self.update, PulsedUpdate) and self.update.eager
        return self.weight.is_cuda and not is_eager and _has_triton()

    def _launch(self, replica: int) -> Callable[..., int | Tensor]:
        """What applies pulses to one replica; made once, and anew after the parameters may have changed."""
        assert isinstance(self.update, PulsedUpdate)
        if replica not in self._launches:
            planes = {k: v.view(-1, *self.shape)[replica] for k, v in self.params.items() if isinstance(v, Tensor)}
            is_on_cpu = self.weight.device.type == "cpu"
            make = cpu.launcher if is_on_cpu and not self.update.eager else eager.launcher
            if self._is_on_gpu:
                from ohmgrad.pulses import gpu  # needs Triton, which machines without a GPU may lack

                make = gpu.launcher
            self._launches[replica] = make(
                self.device_model,
                self._numbers | planes,
                self.update,
                int(self.seed.flatten()[replica]),
                self.weight.view(-1, *self.shape)[replica],
            )
        return self._launches[replica]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_launches": {}}  # a copy makes its own, on its own parameters

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._launches = {}  # they hold the parameters as they were before this move to a device or dtype
        return super()._apply(fn, recurse)

    def _move(self, delta: Tensor, columns: Tensor | slice, n_cycles: int) -> None:
        """Expected update of some columns by delta, (*replica, out, n)."""
        assert isinstance(self.update, ExpectedUpdate)  # write() saw to it; said for the type checker
        params = {
            k: v[..., columns] if isinstance(v, Tensor) and v.shape[-1] > 1 else v for k, v in self.params.items()
        }
        w = self._state[..., columns]
        delta = delta.expand_as(w)
        change = expected_increment(
            w, delta, self.device_model, params, settings=self.update, seed=self.seed, cycle=self.cycles
        )
        self._state[..., columns] = torch.clamp(w + change, *self._bounds(params))
        if self.device_model.write_noise:
            moved = torch.zeros_like(self.weight, dtype=torch.bool)
            moved[..., columns] = delta != 0
            self._show(moved)
        self.pulses.add_(delta.abs().sum((-2, -1), dtype=torch.float64) / self.device_model.granularity)
        self.cycles.add_(n_cycles)

    @property
    def _state(self) -> Tensor:
        """What pulses act on: the weight, or the persistent state behind a weight with write noise."""
        return self.persistent if self.device_model.write_noise else self.weight

    def _show(self, moved: Tensor) -> None:
        """Draw the write noise anew where a device moved: weight = persistent + write_noise dw_min xi."""
        model = self.device_model
        if model.write_noise:
            xi = random.normal_plane(self.seed, (random.Stream.WRITE, self.cycles), *self.shape, self.weight.dtype)
            self.weight.copy_(torch.where(moved, self.persistent + model.write_noise * model.dw_min * xi, self.weight))

    def _bounds(self, params: Mapping[str, Tensor | float]) -> tuple[Tensor, Tensor]:
        like = {"dtype": self.weight.dtype, "device": self.weight.device}
        low, high = (torch.as_tensor(params[k], **like) for k in ("w_min", "w_max"))
        return low, high

    def _load_from_state_dict(  # type: ignore[override]  # torch passes the rest by position
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        for name, _ in self.named_buffers(recurse=False):
            value = state_dict.get(prefix + name)
            if not isinstance(value, Tensor):
                continue
            is_bad = torch.isnan(value) if name in ("device_w_min", "device_w_max") else ~torch.isfinite(value)
            if is_bad.any():
                raise ValueError(f"{prefix}{name} of the state dict needs finite numbers, got NaN or infinity")
        self._launches = {}
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _count_reads(self, vectors: Tensor) -> None:
        self.reads.add_(vectors.shape[-2] if vectors.dim() > 1 else 1)

    def _check_update(self, update: Update) -> None:
        if isinstance(update, Dense):
            self._check("dW", update.dW, *self.shape)
            return
        outer = update.as_outer()
        batch = outer.x.shape[-2] if outer.x.dim() > 1 else -1
        # The kernels of the pulsed update look for NaN in x and d themselves, on their way.
        is_read_later = isinstance(self.update, PulsedUpdate)
        self._check("x", outer.x, batch, self.shape[1], is_read_later=is_read_later)
        self._check("d", outer.d, batch, self.shape[0], is_read_later=is_read_later)

    def _check(self, name: str, tensor: Tensor, rows: int, columns: int, *, is_read_later: bool = False) -> None:
        """Door for every tensor that comes from outside."""
        if tensor.dtype != self.weight.dtype:
            raise TypeError(f"{name} needs the crossbar's dtype {self.weight.dtype}, got {tensor.dtype}")
        lead, shape = tuple(tensor.shape[:-2]), tuple(tensor.shape[-2:])
        if shape != (rows, columns) or lead not in ((), self.replicas):
            raise ValueError(
                f"{name} needs the shape {(rows, columns)}"
                + (f" with replicas {self.replicas} in front" if self.replicas else "")
                + f", got {tuple(tensor.shape)}"
            )
        if not is_read_later and not torch.isfinite(tensor).all():
            n = int((~torch.isfinite(tensor)).sum())
            raise ValueError(f"{name} needs finite numbers, got NaN or infinity in {n} of {tensor.numel()} places")

    def extra_repr(self) -> str:
        """Shape, device and update, for print(model)."""
        return f"{self.shape[0]}x{self.shape[1]}, replicas={self.replicas}, {self.device_model}, {self.update}"


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _draw_all(
    devices: Sequence[Device], seeds: Tensor, shape: tuple[int, int], dtype: torch.dtype
) -> dict[str, Tensor | float]:
    """Parameters of one device, or of one device for each replica, stacked over the replicas."""
    if len(devices) == 1:
        return draw(devices[0], seeds, shape, dtype)
    if len(devices) != seeds.numel() or len({type(d) for d in devices}) != 1:
        raise ValueError(
            f"device needs one device, or one of the same family for each of the {seeds.numel()} replicas, "
            f"got {[type(d).__name__ for d in devices]}"
        )
    if len({(d.granularity, d.dw_min_ctoc, d.ctoc, d.write_noise) for d in devices}) != 1:
        raise ValueError("devices of one crossbar need equal granularity and pulse noise; they may differ in all else")
    drawn = [draw(d, s, shape, dtype) for d, s in zip(devices, seeds.flatten(), strict=True)]
    planes = {}
    for name in drawn[0]:
        values = [torch.as_tensor(p[name], dtype=dtype).expand(shape) for p in drawn]
        planes[name] = torch.stack(values).reshape(*seeds.shape, *shape)
    return planes
