"""Cells of several devices whose states add up, of which all or one take the pulses of a mini-batch."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from ohmgrad import random
from ohmgrad.crossbar import elements
from ohmgrad.crossbar.cells import Cells
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.devices.cells import VectorCell
from ohmgrad.pulses.forms import Update


class VectorCells(Cells):
    """A matrix of `VectorCell`.

    Where all members take the pulses, they share the lines and so the trains: the same coincidences, each of which is a
    pulse at every member, with its own noise and its own response. One that takes pulses alone has trains of its own.
    """

    @property
    def cell(self) -> VectorCell:
        """The cell's devices, gains and policy."""
        return cast(VectorCell, self.device_model)  # `crossbar.make` saw to it

    def send(self, update: Update, lr: float) -> None:
        """The pulses of an update, to the members whose turn it is."""
        for bar, sign in self._chosen():
            bar.write(update, sign * lr)

    def write_columns(self, columns: Tensor, values: Tensor, lr: elements.Step) -> None:
        """As `Crossbar.write_columns`, one mini-batch for the policy."""
        for bar, sign in self._chosen():
            bar.write_columns(columns, values, sign * lr)
        self.end_batch()

    def set_weight(self, weight: Tensor) -> None:
        """Under the policy "fixed" the one that gets pulses makes up for the others; else all share in equal parts."""
        gains, bars = self.cell.weights, self.bars
        if self.cell.policy == "fixed":
            gain, bar = gains[self.cell.first], bars[self.cell.first]
            bar.set_weight((weight - (self.weight - gain * bar.weight)) / gain if gain else weight)
            return
        for gain, bar in zip(gains, bars, strict=True):
            bar.set_weight(weight * gain / sum(g * g for g in gains))

    def _chosen(self) -> list[tuple[Crossbar, float]]:
        """The members that take this mini-batch, and the direction that they take it in."""
        cell, bars, n = self.cell, self.bars, len(self.bars)
        signs = [-1.0 if cell.by_gain and gain < 0.0 else 1.0 for gain in cell.weights]
        if cell.policy == "all":
            return list(zip(bars, signs, strict=True))
        if cell.policy == "fixed":
            k = cell.first
        elif cell.policy == "sequential":
            k = (cell.first + int(self.writes)) % n
        else:
            key = random.root(int(self.seed.flatten()[0]), random.Stream.CELL, int(self.writes))
            k = int(random.bits(*key, 0)) * n >> 32
        return [(bars[k], signs[k])]
