"""What algorithms with transfers share: when one is due, which lines it takes, how lines are read and written.

A line is a column of the matrix, read by a one-hot input, or a row, read by a one-hot error. Hardware sees the samples
of a mini-batch one after the other, and transfers in between: `cut` makes parts of a mini-batch that end where a
transfer is due, so that an algorithm is written as its paper has it, "pulse; every n steps: transfer".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ohmgrad import random
from ohmgrad.crossbar.cost import SLOTS, Cost, lines_per_sample
from ohmgrad.crossbar.cost import cost as cost_of
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Step
from ohmgrad.pulses.forms import Outer, Update


def cut(update: Update, every: int, step: Tensor, *, in_batches: bool) -> Iterator[tuple[Update, bool]]:
    """The parts of a mini-batch, in order, and whether a transfer is due after each; counts on `step`, in place.

    Args:
        every: transfers come after each so many mini-batches if `in_batches`, else pulse cycles (samples, of an
            `Outer`; columns of U, of a `LowRank`; rows, of a `Dense`).
        step: how many came before, () int64.
    """
    if in_batches:
        step += 1
        yield update, int(step) % every == 0
        return
    outer, done = update.as_outer(), int(step)
    end = done + outer.x.shape[-2]
    first = done
    while done < end:
        done_next = min(end, done - done % every + every)
        part = slice(done - first, done_next - first)
        step += done_next - done
        done = done_next
        yield replace(outer, d=outer.d[..., part, :], x=outer.x[..., part, :]), done % every == 0


def places(step: Tensor, every: int, n_reads: int | None, n_lines: int) -> Tensor:
    """Numbers of the lines that the transfer after this step takes, counted on over the sweeps: line p % n_lines."""
    n = n_reads or n_lines
    first = (int(step) // every - 1) * n
    return torch.arange(first, first + n)


def random_places(seed: Tensor, step: Tensor, n_reads: int | None, n_lines: int) -> Tensor:
    """Lines from a start drawn at random, (*replica, n): a function of each replica's seed and of the step."""
    key = random.root(seed, random.Stream.TRANSFER, int(step))
    start = torch.as_tensor(random.bits(*key, 0)) * n_lines >> 32
    return start[..., None] + torch.arange(n_reads or n_lines, device=seed.device)


def reset(bar: Crossbar, columns: Tensor, step: Tensor, probability: float) -> None:
    """Reset whole columns, each of these, (n,) or (*replica, n), with that probability, independently."""
    if probability:
        key = (random.Stream.TRANSFER, int(step))
        u = random.uniform_plane(bar.seed, key, 1, bar.shape[1], torch.float64)
        chosen = torch.zeros_like(u, dtype=torch.bool)
        chosen.scatter_(-1, columns.to(u.device)[..., None, :].expand(*u.shape[:-1], -1), True)
        bar.reset(only=chosen & (u < probability))


def n_lines(bar: Crossbar, columns: bool) -> int:
    """Columns or rows of the matrix."""
    return bar.shape[1 if columns else 0]


def lines_of(plane: Tensor, columns: bool) -> Tensor:
    """A view of a plane (*replica, out, in) with the lines in front, (*replica, lines, values)."""
    return plane.mT if columns else plane


def read_lines(bar: Crossbar, lines: Tensor, columns: bool) -> Tensor:
    """What one-hot reads of lines, (n,) or (*replica, n), give through their converters: (*replica, n, values)."""
    return bar.read_columns(lines) if columns else bar.read_rows(lines)


def write_lines(bar: Crossbar, lines: Tensor, values: Tensor, lr: Step, columns: bool) -> None:
    """Add lr * values, (*replica, n, values), to distinct lines through the devices, one pulse cycle each."""
    if columns:
        bar.write_columns(lines, values, lr)
    else:
        rows = one_hot(lines.to(values.device), bar.shape[0]).to(values.dtype)
        bar.write(Outer(rows.expand(*values.shape[:-2], -1, -1), values), -lr)


def cost(
    settings: Any,
    shape: tuple[int, int],
    batch_size: int,
    *,
    arrays: int = 2,
    digital: int = 0,
    slots: float = SLOTS,
    flops_per_value: float = 0.0,
    times: float = 1.0,
) -> Cost:
    """The cost of an algorithm that transfers lines from one array to another.

    Args:
        settings: the algorithm's (Any: they share fields, not a class).
        slots: of each line written. flops_per_value: digital operations for each value read.
        times: transfers for each one that `transfer_every` counts.
    """
    n_lines, values = shape[::-1] if settings.transfer_columns else shape
    batch = batch_size if settings.units_in_mbatch else None
    lines = times * lines_per_sample(settings.transfer_every, settings.n_reads or n_lines, batch_size=batch)
    return cost_of(
        shape,
        arrays=arrays,
        digital=digital,
        transfers=lines,
        slots_per_transfer=slots,
        flops_per_transfer=flops_per_value * values,
    )
