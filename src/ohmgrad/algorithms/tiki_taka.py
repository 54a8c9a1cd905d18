"""Tiki-Taka v1: a fast crossbar gathers gradients around its symmetric point, a slow one takes them over.

With fast = -P and slow = W this is Wu et al. 2024 (arXiv 2406.12774), eq. 9-10,

    P <- P + beta g(W) - beta |g(W)| * G(P)
    W <- W - alpha P   - alpha |P|   * G(W)

beta = `fast_lr`, alpha = `transfer_lr`, all columns transferred after every update (`n_reads=None`). With
gamma > 0 the gradient is taken at W + gamma fast: residual learning (Wu et al. 2025, arXiv 2502.06309, eq. 10-11).
With few reads per transfer it is the cyclic transfer of Gokmen and Haensch 2020, as aihwkit runs it
(`TransferCompound`, whose names are in parentheses).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import transfer
from ohmgrad.algorithms.rules import need, need_lines, scaled
from ohmgrad.crossbar.algorithm import NewCrossbar, State
from ohmgrad.crossbar.cost import Cost
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Step
from ohmgrad.devices import Device
from ohmgrad.pulses.forms import Update


@dataclass(frozen=True, kw_only=True)
class TikiTaka:
    """Tiki-Taka v1 and residual learning.

    Args:
        fast_lr: step of the fast crossbar; times the optimizer's lr if `scale_fast_lr`.
        transfer_lr: what a transfer adds to the slow crossbar, times what it read; times the optimizer's lr if
            `scale_transfer_lr`.
        gamma: share of the fast crossbar in the weight that both passes read, >= 0.
        transfer_every: mini-batches between transfers, or samples if not `units_in_mbatch`; >= 1.
        n_reads: lines read and written per transfer, cyclically; None means all (`n_reads_per_transfer`).
        transfer_columns: transfer columns, else rows.
        reset_prob: odds that a column of the fast crossbar is reset, as a whole, after it was read (`with_reset_prob`).
        random_selection: start each transfer at a random line, drawn from the fast crossbar's seed: each replica, and
            each tile, has a sequence of its own.
        fast_device: devices of the fast crossbar; those of the tile by default.

    Raises:
        ValueError: a value breaks its rule; in `init`, if n_reads is more than the matrix has lines.
    """

    fast_lr: Step = 1.0
    transfer_lr: Step = 1.0
    gamma: float = 0.0
    transfer_every: int = 1
    n_reads: int | None = 1
    scale_fast_lr: bool = True
    scale_transfer_lr: bool = True
    units_in_mbatch: bool = True
    transfer_columns: bool = True
    reset_prob: float = 0.0
    random_selection: bool = False
    fast_device: Device | None = None

    def __post_init__(self) -> None:
        need(
            self,
            positive=("fast_lr", "transfer_lr"),
            not_negative=("gamma",),
            share=("reset_prob",),
            counts=("transfer_every", "n_reads"),
        )
        if self.reset_prob and not self.transfer_columns:
            raise ValueError(f"TikiTaka needs transfer_columns where reset_prob > 0, got reset_prob={self.reset_prob}")

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """The slow crossbar holds the weight; the fast one starts at its zero."""
        slow, fast = new_crossbar(weight), new_crossbar(device=self.fast_device)
        need_lines(self, transfer.n_lines(slow, self.transfer_columns))
        return State(slow=slow, fast=fast, step=torch.zeros((), dtype=torch.int64))

    def mixture(self, state: State) -> list[tuple[float, Crossbar]]:
        """Both passes read slow + gamma fast."""
        slow = [(1.0, state.slow)]
        return [*slow, (self.gamma, state.fast)] if self.gamma else slow

    def update(self, state: State, update: Update, lr: Step) -> None:
        """fast <- fast - fast_lr g; every `transfer_every` steps: slow <- slow + transfer_lr fast, by lines."""
        fast_lr = scaled(self, "fast_lr", lr)
        transfer_lr = scaled(self, "transfer_lr", lr)
        for part, is_due in transfer.cut(update, self.transfer_every, state.step, in_batches=self.units_in_mbatch):
            state.fast.write(part, fast_lr)
            if is_due:
                lines = self.next_lines(state)
                v = transfer.read_lines(state.fast, lines, self.transfer_columns)
                transfer.reset(state.fast, lines, state.step, self.reset_prob)
                transfer.write_lines(state.slow, lines, v, transfer_lr, self.transfer_columns)

    def next_lines(self, state: State) -> Tensor:
        """Lines of the transfer that is due, (n,): continuing where the last one stopped; (*replica, n) if random."""
        n = transfer.n_lines(state.fast, self.transfer_columns)
        if self.random_selection:
            return transfer.random_places(state.fast.seed, state.step, self.n_reads, n) % n
        return transfer.places(state.step, self.transfer_every, self.n_reads, n) % n

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """The gradient's pulses balance on the fast crossbar, which transfers drive to 0."""
        return state.fast, torch.zeros_like(state.fast.weight)

    def cost(self, shape: tuple[int, int], batch_size: int = 1) -> Cost:
        """Two arrays; each line transferred is read and written as one more sample."""
        return transfer.cost(self, shape, batch_size)
