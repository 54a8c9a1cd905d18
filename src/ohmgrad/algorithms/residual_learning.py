"""Residual learning v2: the fast crossbar learns what the slow one lacks; a leaking buffer carries it over.

    at W + gamma P, the gradient g:   P <- P - fast_lr g
    for the next line j:              H[:, j] <- (1 - beta) H[:, j] + beta read(P, j)
    where |H| >= dw_min:              one pulse of sign(H) to W;  H <- H - sign(H) dw_min

It solves min_W ||P*(W)||^2 with P*(W) the best residual at W. Version 1 has no buffer: it is `TikiTaka` with gamma > 0
and an own `transfer_lr`. Source: Wu et al. 2025 (arXiv 2502.06309), eq. 9-11, 14-15.
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
class ResidualLearning:
    """Residual learning v2.

    Args:
        fast_lr: alpha, step of the fast crossbar; times the optimizer's lr if `scale_fast_lr`.
        buffer_rate: beta, in (0, 1]: how fast the buffer follows what is read.
        gamma: share of the fast crossbar in the weight that both passes read, > 0.
        transfer_every, units_in_mbatch, n_reads, transfer_columns, fast_device: as for `TikiTaka`.

    Raises:
        ValueError: a value breaks its rule; in `init`, if n_reads is more than the matrix has lines.
    """

    fast_lr: Step = 1.0
    buffer_rate: Step = 0.1
    gamma: float = 0.4
    transfer_every: int = 1
    n_reads: int | None = 1
    scale_fast_lr: bool = True
    units_in_mbatch: bool = True
    transfer_columns: bool = True
    fast_device: Device | None = None

    def __post_init__(self) -> None:
        need(
            self,
            positive=("fast_lr", "buffer_rate", "gamma"),
            share=("buffer_rate",),
            counts=("transfer_every", "n_reads"),
        )

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """The slow crossbar holds the weight; fast crossbar and buffer start at 0."""
        slow, fast = new_crossbar(weight), new_crossbar(device=self.fast_device)
        need_lines(self, transfer.n_lines(slow, self.transfer_columns))
        buffer = torch.zeros_like(fast.weight)
        return State(slow=slow, fast=fast, buffer=buffer, step=torch.zeros((), dtype=torch.int64))

    def mixture(self, state: State) -> list[tuple[float, Crossbar]]:
        """Both passes read slow + gamma fast."""
        return [(1.0, state.slow), (self.gamma, state.fast)]

    def update(self, state: State, update: Update, lr: Step) -> None:
        """P <- P - fast_lr g; lines of P to the buffer; single pulses to W."""
        fast_lr = scaled(self, "fast_lr", lr)
        columns, n_lines = self.transfer_columns, transfer.n_lines(state.fast, self.transfer_columns)
        H, dw_min = transfer.lines_of(state.buffer, columns), state.slow.device_model.granularity
        for part, is_due in transfer.cut(update, self.transfer_every, state.step, in_batches=self.units_in_mbatch):
            state.fast.write(part, fast_lr)
            if is_due:
                j = transfer.places(state.step, self.transfer_every, self.n_reads, n_lines) % n_lines
                v = transfer.read_lines(state.fast, j, columns)
                h = (1.0 - self.buffer_rate) * H[..., j, :] + self.buffer_rate * v
                n = h.sign() * (h.abs() >= dw_min)
                H[..., j, :] = h - n * dw_min
                transfer.write_lines(state.slow, j, n, dw_min, columns)

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """The gradient's pulses balance on the fast crossbar, which transfers drive to 0."""
        return state.fast, torch.zeros_like(state.fast.weight)

    def cost(self, shape: tuple[int, int], batch_size: int = 1) -> Cost:
        """Two arrays and a buffer; a line read fills it, and is written by one slot."""
        return transfer.cost(self, shape, batch_size, digital=shape[0] * shape[1], slots=1.0, flops_per_value=2.0)
