"""Pairs of devices that only go up, one for each sign, and their refresh."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from ohmgrad.crossbar import elements
from ohmgrad.crossbar.cells import Cells
from ohmgrad.devices.cells import OneSidedCell
from ohmgrad.pulses.forms import Dense, Update
from ohmgrad.pulses.settings import PulsedUpdate


class OneSidedCells(Cells):
    """A matrix of `OneSidedCell`: W = W_plus - W_minus."""

    @property
    def cell(self) -> OneSidedCell:
        """The device and the rule of its refresh."""
        return cast(OneSidedCell, self.device_model)  # `crossbar.make` saw to it

    def send(self, update: Update, lr: float) -> None:
        """Up pulses to plus where the update goes up, and to minus where it goes down.

        Pulse trains of positive and of negative x are sent one after the other, which is four writes in all.
        """
        plus, minus = self.bars
        step = abs(lr)
        if not isinstance(self.update, PulsedUpdate) and not self.update.per_sample:
            wanted = -update.as_dense() if lr > 0.0 else update.as_dense()
            plus.write(Dense(-wanted.relu()), step)
            minus.write(Dense(-(-wanted).relu()), step)
            return
        outer = update.as_outer()
        x, d = outer.x, outer.d if lr > 0.0 else -outer.d
        x_above, x_below, d_above, d_below = x.relu(), (-x).relu(), d.relu(), (-d).relu()
        # w moves by -step d x': up where d and x have opposite signs.
        plus.write(replace(outer, d=-d_below, x=x_above), step)
        plus.write(replace(outer, d=-d_above, x=x_below), step)
        minus.write(replace(outer, d=-d_above, x=x_above), step)
        minus.write(replace(outer, d=-d_below, x=x_below), step)

    def write_columns(self, columns: Tensor, values: Tensor, lr: elements.Step) -> None:
        """As `Crossbar.write_columns`, one mini-batch for the refresh."""
        wanted, (plus, minus) = values * lr, self.bars
        plus.write_columns(columns, wanted.relu(), 1.0)
        minus.write_columns(columns, (-wanted).relu(), 1.0)
        self.end_batch()

    def set_weight(self, weight: Tensor) -> None:
        """The part above 0 on plus, the part below on minus."""
        plus, minus = self.bars
        plus.set_weight(weight.relu())
        minus.set_weight((-weight).relu())

    def after_write(self) -> None:
        """The refresh, where it is due."""
        every = self.cell.refresh_every
        if every and int(self.writes) % every == 0:
            self.refresh()

    @torch.no_grad()
    def refresh(self) -> Tensor:
        """Read both devices, reset the pairs near their end, write the differences; where, (*replica, out, in).

        Reads are those of `read_columns`, with the converters of the crossbars' periphery.
        """
        cell, (plus, minus) = self.cell, self.bars
        columns = torch.arange(self.shape[1])
        high, low = plus.read_columns(columns).mT, minus.read_columns(columns).mT
        w_max = cell.device.w_max
        is_due = (torch.maximum(high, low) / w_max > cell.refresh_upper) & (
            torch.minimum(high, low) / w_max > cell.refresh_lower
        )
        if is_due.any():
            difference = torch.where(is_due, high - low, 0.0)
            for bar, part in ((plus, difference), (minus, -difference)):
                bar.reset(only=is_due)
                bar.write_columns(columns, part.relu().mT, 1.0)
        return is_due
