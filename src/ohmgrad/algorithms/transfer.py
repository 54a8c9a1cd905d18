"""What algorithms with transfers share: when one is due, which lines it takes, how lines are read and written.

A line is a column of the matrix, read by a one-hot input, or a row, read by a one-hot error. Hardware sees the samples
of a mini-batch one after the other, and transfers in between: `cut` makes parts of a mini-batch that end where a
transfer is due, so that an algorithm is written as its paper has it, "pulse; every n steps: transfer".
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ohmgrad import random
from ohmgrad.crossbar.crossbar import Crossbar
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
        yield Outer(outer.d[..., part, :], outer.x[..., part, :]), done % every == 0


def places(step: Tensor, every: int, n_reads: int | None, n_lines: int) -> Tensor:
    """Numbers of the lines that the transfer after this step takes, counted on over the sweeps: line p % n_lines."""
    n = n_reads or n_lines
    first = (int(step) // every - 1) * n
    return torch.arange(first, first + n)


def random_places(step: Tensor, n_reads: int | None, n_lines: int) -> Tensor:
    """Lines from a start drawn at random, a function of the step alone: replicas and tiles transfer in step."""
    start = int(draw(step, 0) * n_lines)
    return torch.arange(start, start + (n_reads or n_lines))


def draw(step: Tensor, what: int) -> float:
    """A uniform number on (0, 1) of a transfer, the same for all replicas and tiles."""
    return float(random.uniform(random.bits(*random.root(0, random.Stream.TRANSFER, int(step)), what), torch.float64))


def n_lines(bar: Crossbar, columns: bool) -> int:
    """Columns or rows of the matrix."""
    return bar.shape[1 if columns else 0]


def lines_of(plane: Tensor, columns: bool) -> Tensor:
    """A view of a plane (*replica, out, in) with the lines in front, (*replica, lines, values)."""
    return plane.mT if columns else plane


def read_lines(bar: Crossbar, lines: Tensor, columns: bool) -> Tensor:
    """What one-hot reads give, (*replica, n, values), through the converters of transfers."""
    if columns:
        return bar.read_columns(lines)
    bar.reads.add_(len(lines))
    if bar.readers is None:
        return bar.weight[..., lines, :]
    d = _one_hot(bar, lines, bar.shape[0]).expand(*bar.replicas, -1, -1)
    return bar.readers["read_columns"](bar.weight.mT, d, bar.seed)


def write_lines(bar: Crossbar, lines: Tensor, values: Tensor, lr: float, columns: bool) -> None:
    """Add lr * values, (*replica, n, values), to distinct lines through the devices, one pulse cycle each."""
    if columns:
        bar.write_columns(lines, values, lr)
    else:
        rows = _one_hot(bar, lines, bar.shape[0])
        bar.write(Outer(rows.expand(*values.shape[:-2], -1, -1), values), -lr)


def _one_hot(bar: Crossbar, lines: Tensor, n: int) -> Tensor:
    return one_hot(lines.to(bar.weight.device), n).to(bar.weight.dtype)
