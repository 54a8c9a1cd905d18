"""Tiki-Taka v1: a fast crossbar gathers gradients around its symmetric point, a slow one takes them over.

With fast = -P and slow = W this is Wu et al. 2024 (arXiv 2406.12774), eq. 9-10,

    P <- P + beta g(W) - beta |g(W)| * G(P)
    W <- W - alpha P   - alpha |P|   * G(W)

beta = `fast_lr`, alpha = `transfer_lr`, all columns transferred after every update (`n_reads=None`). With
gamma > 0 the gradient is taken at W + gamma fast: residual learning (Wu et al. 2025, arXiv 2502.06309, eq. 10-11).
With few reads per transfer it is the cyclic transfer of Gokmen and Haensch 2020, as aihwkit runs it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.tile import NewCrossbar, State
from ohmgrad.pulses.forms import Update


@dataclass(frozen=True, kw_only=True)
class TikiTaka:
    """Tiki-Taka v1 and residual learning.

    Args:
        fast_lr: step of the fast crossbar; times the optimizer's lr if `scale_fast_lr`.
        transfer_lr: what a transfer adds to the slow crossbar, times what it read; times the optimizer's lr if
            `scale_transfer_lr`.
        gamma: share of the fast crossbar in the weight that both passes read, >= 0.
        transfer_every: optimizer steps between transfers, >= 1.
        n_reads: columns read and written per transfer, cyclically; None means all.

    Raises:
        ValueError: a value breaks its rule.
    """

    fast_lr: float = 1.0
    transfer_lr: float = 1.0
    gamma: float = 0.0
    transfer_every: int = 1
    n_reads: int | None = 1
    scale_fast_lr: bool = True
    scale_transfer_lr: bool = True

    def __post_init__(self) -> None:
        for name in ("fast_lr", "transfer_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"TikiTaka needs {name} > 0, got {getattr(self, name)}")
        if not 0 <= self.gamma < math.inf:
            raise ValueError(f"TikiTaka needs gamma >= 0, got {self.gamma}")
        if self.transfer_every < 1 or (self.n_reads is not None and self.n_reads < 1):
            raise ValueError(
                f"TikiTaka needs transfer_every >= 1 and n_reads >= 1 (or None for all columns), "
                f"got {self.transfer_every} and {self.n_reads}"
            )

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """The slow crossbar holds the weight; the fast one starts at its zero."""
        return State(slow=new_crossbar(weight), fast=new_crossbar(), step=torch.zeros((), dtype=torch.int64))

    def mixture(self, state: State) -> list[tuple[float, Crossbar]]:
        """Both passes read slow + gamma fast."""
        slow = [(1.0, state.slow)]
        return [*slow, (self.gamma, state.fast)] if self.gamma else slow

    def update(self, state: State, update: Update, lr: float) -> None:
        """fast <- fast - fast_lr g; every `transfer_every` steps: slow <- slow + transfer_lr fast, by columns."""
        state.fast.write(update, self.fast_lr * (lr if self.scale_fast_lr else 1.0))
        state.step += 1
        if state.step % self.transfer_every == 0:
            columns = self.next_columns(int(state.step), state.fast.shape[1])
            v = state.fast.read_columns(columns)
            state.slow.write_columns(columns, v, self.transfer_lr * (lr if self.scale_transfer_lr else 1.0))

    def next_columns(self, step: int, n_columns: int) -> Tensor:
        """Columns of the transfer after this step: cyclic, continuing where the last one stopped."""
        n = min(self.n_reads or n_columns, n_columns)
        first = (step // self.transfer_every - 1) * n
        return torch.arange(first, first + n) % n_columns

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """The gradient's pulses balance on the fast crossbar, which transfers drive to 0."""
        return state.fast, torch.zeros_like(state.fast.weight)
