"""The three forms of an update, and what each costs an array to write.

A backward pass or an optimizer asks of a tile a change along one of

    Outer(d, x)    sum over samples of d_i x_i'        one pulse cycle per sample, in place
    LowRank(U, V)  U V'                                one cycle per column of U
    Dense(dW)      any matrix                          one cycle per row, and a digital copy of the matrix

each a direction of ascent (a gradient): an update with step lr moves the weight by -lr times it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outer:
    """Sum over the batch of d_i x_i'. d is (*replica, batch, out), x is (*replica, batch, in).

    digital_memory: numbers kept outside the array for this write, per replica; of the form that these cycles write.
    """

    d: Tensor
    x: Tensor
    digital_memory: int = 0

    def scaled(self, rows: Tensor) -> Outer:
        """The same with row i of the matrix times rows[i]; rows is (*replica, out), or 1 for all."""
        return replace(self, d=self.d * rows[..., None, :])

    def times(self, factor: float | Tensor) -> Outer:
        """The same times a number."""
        return replace(self, d=self.d * factor)

    def mapped(self, fn: Callable[[Tensor], Tensor]) -> Outer:
        """The same with each tensor as `fn` makes it, such as a move to another device."""
        return replace(self, d=fn(self.d), x=fn(self.x))

    def as_outer(self) -> Outer:
        """The update as the rank-1 cycles that write it."""
        return self

    def as_dense(self) -> Tensor:
        """The matrix (*replica, out, in)."""
        return self.d.mT @ self.x


@dataclass(frozen=True)
class LowRank:
    """U V'. U is (*replica, out, rank), V is (*replica, in, rank)."""

    U: Tensor
    V: Tensor

    def scaled(self, rows: Tensor) -> LowRank:
        """As `Outer.scaled`."""
        return LowRank(self.U * rows[..., None], self.V)

    def times(self, factor: float | Tensor) -> LowRank:
        """As `Outer.times`."""
        return LowRank(self.U * factor, self.V)

    def mapped(self, fn: Callable[[Tensor], Tensor]) -> LowRank:
        """As `Outer.mapped`."""
        return LowRank(fn(self.U), fn(self.V))

    def as_outer(self) -> Outer:
        """The update as the rank-1 cycles that write it: one for each column of U."""
        return Outer(self.U.mT, self.V.mT, self.digital_memory)

    def as_dense(self) -> Tensor:
        """The matrix (*replica, out, in)."""
        return self.U @ self.V.mT

    @property
    def digital_memory(self) -> int:
        """Numbers kept outside the array for this write, per replica."""
        return self.U.shape[-1] * (self.U.shape[-2] + self.V.shape[-2])


@dataclass(frozen=True)
class Dense:
    """Any matrix dW, (*replica, out, in)."""

    dW: Tensor

    def scaled(self, rows: Tensor) -> Dense:
        """As `Outer.scaled`."""
        return Dense(self.dW * rows[..., None])

    def times(self, factor: float | Tensor) -> Dense:
        """As `Outer.times`."""
        return Dense(self.dW * factor)

    def mapped(self, fn: Callable[[Tensor], Tensor]) -> Dense:
        """As `Outer.mapped`."""
        return Dense(fn(self.dW))

    def as_outer(self) -> Outer:
        """The update as the rank-1 cycles that write it: row by row."""
        rows = torch.eye(self.dW.shape[-2], dtype=self.dW.dtype, device=self.dW.device)
        return Outer(rows.expand(*self.dW.shape[:-2], -1, -1), self.dW, self.digital_memory)

    def as_dense(self) -> Tensor:
        """The matrix (*replica, out, in)."""
        return self.dW

    @property
    def digital_memory(self) -> int:
        """Numbers kept outside the array for this write, per replica."""
        return self.dW.shape[-2] * self.dW.shape[-1]


Update = Outer | LowRank | Dense
