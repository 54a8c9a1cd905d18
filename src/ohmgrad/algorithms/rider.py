"""RIDER and E-RIDER: residual learning that tracks the symmetric point of its fast crossbar while it trains.

    at W + gamma c (P - Q), the gradient g:  P <- P - fast_lr c g
    for the lines transferred:               Q <- (1 - eta) Q + eta P;  W <- W + transfer_lr c (P - Q)
    E-RIDER: c changes sign now and then

Where P drifts to a symmetric point that is not 0, Q follows, and P - Q is what the gradient wrote. Q is digital; the
passes read an analog copy of it, which RIDER (`chop_prob=0`) renews at each transfer and E-RIDER only where c flips.
Source: arXiv 2602.21321, eq. 8-10, Algorithms 2-3, with signs as derived in residual learning's form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import chopper, transfer
from ohmgrad.algorithms.rules import need, need_lines, scaled
from ohmgrad.crossbar.algorithm import NewCrossbar, State
from ohmgrad.crossbar.cost import Cost
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Step
from ohmgrad.devices import Device, Ideal
from ohmgrad.pulses.forms import Update


@dataclass(frozen=True, kw_only=True)
class Rider:
    """RIDER, and E-RIDER with `chop_prob` > 0.

    Args:
        fast_lr: alpha, step of the fast crossbar; times the optimizer's lr if `scale_fast_lr`.
        transfer_lr: beta; times the optimizer's lr if `scale_transfer_lr`.
        tracking_rate: eta, in (0, 1]: how fast Q follows P.
        gamma: share of P - Q in the weight that both passes read, >= 0.
        chop_prob: odds that the sign c flips after a transfer.
        transfer_every, units_in_mbatch, n_reads, transfer_columns, fast_device: as for `TikiTaka`.

    Raises:
        ValueError: a value breaks its rule; in `init`, if n_reads is more than the matrix has lines.
    """

    fast_lr: Step = 1.0
    transfer_lr: Step = 0.1
    tracking_rate: float = 0.05
    gamma: float = 0.4
    chop_prob: float = 0.0
    transfer_every: int = 1
    n_reads: int | None = None
    scale_fast_lr: bool = True
    scale_transfer_lr: bool = True
    units_in_mbatch: bool = True
    transfer_columns: bool = True
    fast_device: Device | None = None

    def __post_init__(self) -> None:
        need(
            self,
            positive=("fast_lr", "transfer_lr", "tracking_rate"),
            not_negative=("gamma",),
            share=("tracking_rate", "chop_prob"),
            counts=("transfer_every", "n_reads"),
        )

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """The slow crossbar holds the weight; P, Q and its copy start at 0, c at +1."""
        slow, fast = new_crossbar(weight), new_crossbar(device=self.fast_device)
        need_lines(self, transfer.n_lines(slow, self.transfer_columns))
        return State(
            slow=slow,
            fast=fast,
            copy=new_crossbar(device=Ideal()),  # written in a closed loop, to any precision
            Q=torch.zeros_like(fast.weight),
            c=fast.weight.new_ones(*fast.replicas, 1, 1),
            step=torch.zeros((), dtype=torch.int64),
        )

    def mixture(self, state: State) -> list[tuple[float | Tensor, Crossbar]]:
        """Both passes read slow + gamma c (fast - copy)."""
        slow: list[tuple[float | Tensor, Crossbar]] = [(1.0, state.slow)]
        return [*slow, (self.gamma * state.c, state.fast), (-self.gamma * state.c, state.copy)] if self.gamma else slow

    def update(self, state: State, update: Update, lr: Step) -> None:
        """P <- P - fast_lr c g; lines of P - Q to W, while Q follows P."""
        columns, n_lines = self.transfer_columns, transfer.n_lines(state.fast, self.transfer_columns)
        fast_lr = scaled(self, "fast_lr", lr)
        transfer_lr = scaled(self, "transfer_lr", lr)
        Q = transfer.lines_of(state.Q, columns)
        for part, is_due in transfer.cut(update, self.transfer_every, state.step, in_batches=self.units_in_mbatch):
            state.fast.write(part.scaled(state.c[..., 0]), fast_lr)
            if is_due:
                j = transfer.places(state.step, self.transfer_every, self.n_reads, n_lines) % n_lines
                P = transfer.read_lines(state.fast, j, columns)
                Q[..., j, :] = q = (1.0 - self.tracking_rate) * Q[..., j, :] + self.tracking_rate * P
                transfer.write_lines(state.slow, j, state.c * (P - q), transfer_lr, columns)
                self.chop(state)

    def chop(self, state: State) -> None:
        """Flip c by chance; renew the copy of Q where it flips, or always where it never does."""
        flips = chopper.flips(state.fast, state.step, 0, self.chop_prob, 1)[..., None]
        chopper.flip(state.c, slice(None), flips)
        renewed = flips if self.chop_prob else ~flips
        if self.gamma and renewed.any():
            state.copy.set_weight(torch.where(renewed, state.Q, state.copy.weight))

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """On the fast crossbar, at its symmetric point, which Q tracks."""
        return state.fast, chopper.symmetric_point(state.fast)

    def cost(self, shape: tuple[int, int], batch_size: int = 1) -> Cost:
        """Two arrays, Q, and an array for its copy; lines are read and written as one more sample."""
        arrays = 3 if self.gamma else 2
        return transfer.cost(self, shape, batch_size, arrays=arrays, digital=shape[0] * shape[1], flops_per_value=4.0)
