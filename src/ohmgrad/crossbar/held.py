"""The updates that wait on a tile, which its gradient stands for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ohmgrad.pulses.forms import Dense, Outer, Update

Factor = float | Tensor  # a tensor only on a GPU, which nobody waits for
MANY = 1000  # backward passes


class Held:
    """The updates that a gradient stands for, each with its factor.

    Args:
        parts: updates and their factors, in the order in which they are written.
        edit: the name of a change in place that was made number by number, if there was one.
        is_wrapped: DistributedDataParallel reads the gradient too.
    """

    __slots__ = ("edit", "is_wrapped", "n_passes", "parts", "task")

    def __init__(
        self, parts: list[tuple[Update, Factor]], edit: str | None = None, *, is_wrapped: bool = False
    ) -> None:
        self.parts, self.edit, self.is_wrapped = parts, edit, is_wrapped
        self.n_passes, self.task = 0, -2

    def add(self, update: Update) -> None:
        """One more update, of a backward pass; warns where they become many, which nobody sends or forgets."""
        self.parts.append((update, 1.0))
        task = torch._C._current_graph_task_id()
        if task != self.task:
            self.task, self.n_passes = task, self.n_passes + 1
            if self.n_passes == MANY:
                warnings.warn(
                    f"the updates of {MANY} backward passes wait on a tile, and each takes memory: call "
                    "optimizer.zero_grad() where they are not meant to be one update, or torch.autograd.grad(loss, x) "
                    "where only the gradient of an input is wanted",
                    stacklevel=3,
                )

    def become(self, update: Update, edit: str) -> None:
        """Stand for what a change number by number has made of the matrix."""
        self.parts, self.edit = [(update, 1.0)], edit

    def scaled(self) -> list[Update]:
        """The updates with their factors in them."""
        return [_times(*part) for part in self.parts]

    def merged(self) -> Update | None:
        """All of them as one update, with their factors; None for none."""
        if len(self.parts) == 1:
            return _times(*self.parts[0])
        factors = {id(factor): factor for _, factor in self.parts}
        if len(factors) == 1 or all(isinstance(f, float) and f == 1.0 for f in factors.values()):
            merged = joined([update for update, _ in self.parts])
            return None if merged is None else _times(merged, self.parts[0][1])
        return joined(self.scaled())

    def dense(self) -> Tensor:
        """The matrix (*replica, out, in), a new tensor."""
        update = self.merged()
        assert update is not None  # `Gradient` sees to it
        dense = update.as_dense()
        return dense.clone() if isinstance(update, Dense) else dense

    def norm(self) -> Tensor:
        """The Frobenius norm of the matrix, in float64.

        Few samples take no matrix: the square of |sum_i d_i x_i'| is the sum over pairs of (d_i . d_j) (x_i . x_j), in
        numbers that lose nothing where samples cancel.
        """
        update = self.merged()
        if update is None:
            return torch.zeros((), dtype=torch.float64)
        if isinstance(update, Outer):
            (n, n_out), n_in = update.d.shape[-2:], update.x.shape[-1]
            if n * (n_out + n_in) < n_out * n_in:
                d, x = update.d.double(), update.x.double()
                return ((d @ d.mT) * (x @ x.mT)).sum().clamp(min=0.0).sqrt()
        return torch.linalg.vector_norm(update.as_dense().double())

    def scale(self, by: Callable[[Factor], Factor]) -> list[tuple[Update, Factor]]:
        """The updates with other factors; equal ones stay one object."""
        changed = {id(factor): by(factor) for _, factor in self.parts}
        return [(update, changed[id(factor)]) for update, factor in self.parts]


def _times(update: Update, factor: Factor) -> Update:
    return update if isinstance(factor, float) and factor == 1.0 else update.times(factor)


def joined(updates: Sequence[Update]) -> Update | None:
    """Several updates as one mini-batch, whose pulse cycles follow one another; None for none."""
    if len(updates) < 2:
        return updates[0] if updates else None
    outers = [update.as_outer() for update in updates]
    memory = sum(outer.digital_memory for outer in outers)
    return Outer(torch.cat([o.d for o in outers], -2), torch.cat([o.x for o in outers], -2), memory)
