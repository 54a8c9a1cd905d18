"""Multi-tile residual learning: each tile learns what the coarser ones lack, on a slower clock.

With tiles W0 (coarse) ... WN (fine), read as W = sum of gamma^n Wn:

    each step:                              WN <- WN - fast_lr g(W)
    every T(n+1) steps, for the next line:  Wn <- Wn + transfer_lr(n) W(n+1),  T(n) growing toward the coarse end

Nothing is reset and nothing is kept digitally. A tile needs no more states than it takes to hold what the next coarser
one cannot: gamma is a little more than 1 / states. Source: arXiv 2510.02516, sec. 4; schedules as its scripts have
them, transfer_every_vec[n] = 2 * 5^n and transfer_lr_vec[n] = 0.1 * 1.2^n, fine tile first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ohmgrad.algorithms import transfer
from ohmgrad.algorithms.rules import need, need_lines, scaled
from ohmgrad.crossbar.algorithm import NewCrossbar, State
from ohmgrad.crossbar.cost import Cost
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Step
from ohmgrad.pulses.forms import Update


@dataclass(frozen=True, kw_only=True)
class MultiTile:
    """Multi-tile residual learning.

    Args:
        n_tiles: crossbars, >= 2.
        gamma: weight of a tile relative to the next coarser one, in (0, 1).
        fast_lr: step of the fine tile; times the optimizer's lr if `scale_fast_lr`.
        transfer_lr: of the transfer from the fine tile, and times `transfer_lr_growth` for each coarser one; times the
            optimizer's lr if `scale_transfer_lr`. gamma hands over just what a tile adds to the weight.
        transfer_every: mini-batches (samples if not `units_in_mbatch`) between transfers from the fine tile, and times
            `transfer_every_growth` for each coarser one.
        n_reads, transfer_columns: as for `TikiTaka`.
        warm_start: begin in phase 0; see `end_epoch`, which `ohmgrad train` calls, and an own loop has to.

    Raises:
        ValueError: a value breaks its rule; in `init`, if n_reads is more than the matrix has lines.
    """

    n_tiles: int = 4
    gamma: float = 0.2
    fast_lr: Step = 1.0
    transfer_lr: Step = 0.1
    transfer_lr_growth: float = 1.2
    transfer_every: int = 2
    transfer_every_growth: int = 5
    n_reads: int | None = 1
    scale_fast_lr: bool = True
    scale_transfer_lr: bool = False
    units_in_mbatch: bool = True
    transfer_columns: bool = True
    warm_start: bool = False

    def __post_init__(self) -> None:
        need(
            self,
            positive=("fast_lr", "transfer_lr", "transfer_lr_growth"),
            counts=("n_tiles", "transfer_every", "transfer_every_growth", "n_reads"),
        )
        if self.n_tiles < 2:
            raise ValueError(f"MultiTile needs n_tiles >= 2, got {self.n_tiles}")
        if not 0 < self.gamma < 1:
            raise ValueError(f"MultiTile needs gamma in (0, 1), got {self.gamma}")

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """The coarse tile holds the weight, the others start at 0; `tiles` has the fine one first."""
        coarse, *others = [new_crossbar(weight), *(new_crossbar() for _ in range(self.n_tiles - 1))]
        need_lines(self, transfer.n_lines(coarse, self.transfer_columns))
        return State(
            tiles=nn.ModuleList([*others, coarse]),
            step=torch.zeros((), dtype=torch.int64),
            phase=torch.tensor(0 if self.warm_start else self.n_tiles - 1),
            losses=torch.full((6,), torch.inf, dtype=torch.float64),
        )

    def mixture(self, state: State) -> list[tuple[float, Crossbar]]:
        """Both passes read the sum of gamma^n Wn, the coarse tile first."""
        return [(self.gamma**n, tile) for n, tile in enumerate(reversed(state.tiles))]

    def update(self, state: State, update: Update, lr: Step) -> None:
        """Pulses to the fine tile; from each tile, in its turn, a line to the next coarser one."""
        fast_lr = scaled(self, "fast_lr", lr)
        for part, is_due in transfer.cut(update, self.transfer_every, state.step, in_batches=self.units_in_mbatch):
            state.tiles[0].write(part, fast_lr)
            if is_due:
                for source, target, every, transfer_lr in self.transfers(state):
                    if int(state.step) % every == 0:
                        n_lines = transfer.n_lines(state.tiles[0], self.transfer_columns)
                        j = transfer.places(state.step, every, self.n_reads, n_lines) % n_lines
                        v = transfer.read_lines(state.tiles[source], j, self.transfer_columns)
                        step = transfer_lr * (lr if self.scale_transfer_lr else 1.0)
                        transfer.write_lines(state.tiles[target], j, v, step, self.transfer_columns)

    def transfers(self, state: State) -> list[tuple[int, int, int, Step]]:
        """From tile, to tile, every so many steps, by what factor: along the chain, or in a warm start to one alone."""
        if int(state.phase) < self.n_tiles - 1:
            return [(0, self.n_tiles - 1 - int(state.phase), self.transfer_every, self.transfer_lr)]
        return [
            (
                n,
                n + 1,
                self.transfer_every * self.transfer_every_growth**n,
                self.transfer_lr * self.transfer_lr_growth**n,
            )
            for n in range(self.n_tiles - 1)
        ]

    def end_epoch(self, state: State, loss: float) -> None:
        """Tell the warm start an epoch's training loss: on a plateau its next phase begins.

        In phase k the fine tile is transferred to tile k alone; after the last one, the full schedule runs. A plateau
        is a loss that rose, up to phase 3; later, two rises among the last five losses.
        """
        state.losses.copy_(torch.cat([state.losses[1:], state.losses.new_tensor([loss])]))
        rises = (state.losses.diff() > 0)[1:]  # among the last five losses
        is_flat = bool(rises[-1]) if int(state.phase) <= 3 else int(rises.sum()) >= 2
        if is_flat and int(state.phase) < self.n_tiles - 1:
            state.phase += 1
            state.losses.fill_(torch.inf)

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """The gradient's pulses balance on the fine tile, which transfers drive to 0."""
        return state.tiles[0], torch.zeros_like(state.tiles[0].weight)

    def cost(self, shape: tuple[int, int], batch_size: int = 1) -> Cost:
        """An array for each tile; transfers, rarer toward the coarse end, are read and written as one more sample."""
        times = sum(self.transfer_every_growth**-k for k in range(self.n_tiles - 1))
        return transfer.cost(self, shape, batch_size, arrays=self.n_tiles, times=times)
