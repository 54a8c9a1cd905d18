"""The expected update of a crossbar: what `Crossbar.write` and `write_columns` do where no pulses are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ohmgrad.pulses.expected import expected_increment
from ohmgrad.pulses.forms import Update
from ohmgrad.pulses.settings import ExpectedUpdate

if TYPE_CHECKING:
    from ohmgrad.crossbar.crossbar import Crossbar


@torch.no_grad()
def write(bar: Crossbar, update: Update, lr: float) -> None:
    """Move the weight by -lr times the update in the mean, all at once or sample by sample."""
    assert isinstance(bar.update, ExpectedUpdate)  # the crossbar saw to it; said for the type checker
    outer = update.as_outer()
    if bar.update.per_sample:
        for i in range(outer.x.shape[-2]):
            sample = outer.d[..., i, :, None] * outer.x[..., i, None, :]
            move(bar, -lr * sample, slice(None), n_cycles=1)
    elif n_cycles := outer.x.shape[-2]:
        move(bar, -lr * update.as_dense(), slice(None), n_cycles)


@torch.no_grad()
def move_columns(bar: Crossbar, delta: Tensor, columns: Tensor) -> None:
    """Move columns, (n,) or (*replica, n), by delta, (*replica, out, n), in the mean, one cycle each."""
    n_cycles = columns.shape[-1]
    if columns.dim() == 1:
        return move(bar, delta, columns, n_cycles)
    places = columns[..., None, :].expand(*bar.weight.shape[:-1], n_cycles)
    move(bar, torch.zeros_like(bar.weight).scatter_(-1, places, delta.expand_as(places)), slice(None), n_cycles)


@torch.no_grad()
def move(bar: Crossbar, delta: Tensor, columns: Tensor | slice, n_cycles: int) -> None:
    """Move some columns by delta, (*replica, out, n), in the mean."""
    assert isinstance(bar.update, ExpectedUpdate)  # as above
    params, state = bar._params_of(columns), bar._state
    w = state[..., columns]
    delta = delta.expand_as(w)
    change = expected_increment(
        w, delta, bar.device_model, params, settings=bar.update, seed=bar.seed, cycle=bar.cycles,
        granularity=bar.granularity, lines=bar.line_seed, columns=columns,
    )  # fmt: skip
    state[..., columns] = torch.clamp(w + change, *bar._bounds(params))
    if bar.device_model.write_noise:
        moved = torch.zeros_like(bar.weight, dtype=torch.bool)
        moved[..., columns] = delta != 0
        bar._show(moved)
    if bar.pulse_counts is not None:
        bar.pulse_counts[..., columns] += delta.abs().double() / bar.granularity
    bar.pulses.add_(delta.abs().sum((-2, -1), dtype=torch.float64) / bar.granularity)
    bar.cycles.add_(n_cycles)
