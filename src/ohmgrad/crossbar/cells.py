"""A matrix of unit cells: what algorithms use in place of a crossbar where a crosspoint has several devices.

It has a crossbar's face. Its members are crossbars, whose states add up with gains; which of them takes which pulses is
up to the kind of cell.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ohmgrad import random
from ohmgrad.crossbar import elements
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Counters
from ohmgrad.devices.cells import Cell
from ohmgrad.pulses.forms import Outer, Update


class Cells(nn.Module):
    """Crossbars read as one matrix, W = sum_k gain_k W_k, (*replica, out, in).

    Args:
        shape: (out, in). cell: its devices and their rule.
        seed: one integer or one for each replica, from which each member derives its own. None draws one.
        weight: initial state; 0 if absent. options: of `Crossbar`, for every member.
    """

    seed: Tensor
    writes: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        device: Cell,
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
        weight: Tensor | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        seeds = random.seed_tensor(seed, tuple(replicas))
        self.device_model = device
        own = [random.derive(seeds, k).flatten().tolist() for k in range(len(device.devices))]
        options = {**options, "replicas": replicas}
        if device.shares_trains:
            options |= {"line_seed": seeds.flatten().tolist(), "granularity": device.granularity}
        made = [Crossbar(shape, device=d, seed=s, **options) for d, s in zip(device.devices, own, strict=True)]
        self._bars = nn.ModuleList(made)
        self.register_buffer("seed", seeds)
        self.register_buffer("writes", torch.zeros((), dtype=torch.int64))  # mini-batches so far
        self.shape, self.replicas, self.update = made[0].shape, made[0].replicas, made[0].update
        if weight is not None:
            self.set_weight(weight)

    @property
    def bars(self) -> list[Crossbar]:
        """The crossbars, one for each device of the cell."""
        return cast(list[Crossbar], list(self._bars))  # a ModuleList knows no types

    @property
    def granularity(self) -> float:
        """The cell's, as `Crossbar.granularity`."""
        return self.device_model.granularity

    @property
    def weight(self) -> Tensor:
        """The sum of the members' weights with their gains, (*replica, out, in), a new tensor."""
        terms = [gain * bar.weight for gain, bar in zip(self.device_model.weights, self.bars, strict=True)]
        return torch.stack(terms).sum(0)

    @property
    def counters(self) -> Counters:
        """Cycles and pulses of all members together, reads of the cells, most digital memory of a member."""
        each = [bar.counters for bar in self.bars]
        counts = [c.pulses_per_crosspoint for c in each if c.pulses_per_crosspoint is not None]
        return Counters(
            sum(c.cycles for c in each),
            torch.stack([c.pulses for c in each]).sum(0),
            max(c.reads for c in each),
            max(c.digital_memory for c in each),
            torch.stack(counts).sum(0) if counts else None,
        )

    def read(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """As `Crossbar.read`: all members share the lines and the first one's converters."""
        self._count_others(x)
        return self.bars[0].read(x, self.weight if weight is None else weight)

    def read_transposed(self, d: Tensor, weight: Tensor | None = None) -> Tensor:
        """As `Crossbar.read_transposed`."""
        self._count_others(d)
        return self.bars[0].read_transposed(d, self.weight if weight is None else weight)

    def read_columns(self, columns: Tensor) -> Tensor:
        """As `Crossbar.read_columns`."""
        for bar in self.bars[1:]:
            bar.reads.add_(columns.shape[-1])
        return self.bars[0].read_columns(columns, self.weight)

    def read_rows(self, rows: Tensor) -> Tensor:
        """As `Crossbar.read_rows`."""
        for bar in self.bars[1:]:
            bar.reads.add_(rows.shape[-1])
        return self.bars[0].read_rows(rows, self.weight)

    def pulse(self, x: Tensor, d: Tensor, lr: float) -> None:
        """As `Crossbar.pulse`."""
        self.write(Outer(d if d.dim() > 1 else d[None], x if x.dim() > 1 else x[None]), lr)

    def write(self, update: Update, lr: elements.Step) -> None:
        """As `Crossbar.write`, one mini-batch for the cells' rule."""
        self.send(*elements.step_for_all(update, lr))
        self.end_batch()

    @abstractmethod
    def send(self, update: Update, lr: float) -> None:
        """The members' pulses for an update."""

    def end_batch(self) -> None:
        """Count the mini-batch, and do what is due after it."""
        self.writes.add_(1)
        self.after_write()

    def after_write(self) -> None:
        """What follows a mini-batch; nothing in most kinds of cells."""

    @abstractmethod
    def write_columns(self, columns: Tensor, values: Tensor, lr: elements.Step) -> None:
        """As `Crossbar.write_columns`, one mini-batch for the cells' rule."""

    @abstractmethod
    def set_weight(self, weight: Tensor) -> None:
        """Program the members so that they make this weight, as far as their bounds allow."""

    def relax(self) -> None:
        """As `Crossbar.relax`, of each member."""
        for bar in self.bars:
            bar.relax()

    def reset(self, columns: Tensor | None = None, only: Tensor | None = None) -> None:
        """As `Crossbar.reset`, of each member."""
        for bar in self.bars:
            bar.reset(columns, only)

    def count_reads(self, vectors: Tensor) -> None:
        """Note a read of each row of vectors."""
        for bar in self.bars:
            bar.count_reads(vectors)

    def _count_others(self, vectors: Tensor) -> None:
        for bar in self.bars[1:]:
            bar.count_reads(vectors)

    def extra_repr(self) -> str:
        """Shape, cell and update, for print(model)."""
        return f"{self.shape[0]}x{self.shape[1]}, {self.device_model}, {self.update}"
