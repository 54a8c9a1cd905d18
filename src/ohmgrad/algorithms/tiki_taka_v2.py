"""Tiki-Taka v2: what transfers read fills a digital buffer H, which sends single pulses to the slow crossbar.

    fast <- fast - fast_lr g
    every `transfer_every` samples, for the next line j:
        H[:, j] <- H[:, j] + rate read(fast, j)
        where |H| >= 1:  n = trunc(H);  slow[:, j] <- slow[:, j] + n dw_min;  H <- H - n

The buffer averages out the noise of reads and the coarseness of both crossbars. Source: Gokmen 2021 (Front. Artif.
Intell. 4:699148), in aihwkit's units (`ChoppedTransferCompound` with choppers off, whose names these are).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import transfer
from ohmgrad.algorithms.buffer import filling_rate, fire
from ohmgrad.algorithms.rules import need, need_lines, scaled
from ohmgrad.crossbar.algorithm import NewCrossbar, State
from ohmgrad.crossbar.cost import Cost
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Step
from ohmgrad.devices import Device
from ohmgrad.pulses.forms import Update


@dataclass(frozen=True, kw_only=True)
class TikiTakaV2:
    """Tiki-Taka v2.

    Args:
        fast_lr: step of the fast crossbar; times the optimizer's lr if `scale_fast_lr`.
        transfer_lr: share of what is read that enters the buffer; times the optimizer's lr if `scale_transfer_lr`, and
            times gamma where gamma > 0, as in aihwkit, whose settings so mean the same here.
        gamma: share of the fast crossbar in the weight that both passes read, >= 0.
        transfer_every: samples between transfers, or mini-batches if `units_in_mbatch`; >= 1.
        n_reads: lines per transfer, cyclically; None means all.
        transfer_columns: transfer columns, else rows.
        buffer_granularity: the threshold, in granularities of the fast crossbar (`thres_scale`), > 0.
        auto_granularity: if > 0, the threshold grows by this over the steps (as `transfer_every` counts them) between
            two reads of a line.
        max_pulses: most pulses that one crosspoint gets in a transfer; single ones are sent for sure.
        momentum: share of the buffer that stays after its pulses.
        forget_buffer: lose what a pulse leaves above the threshold, as aihwkit does; the paper keeps it.
        fast_device: devices of the fast crossbar; those of the tile by default.

    Pulses are sure where the slow crossbar's update has bit-length management, as it has by default.

    Raises:
        ValueError: a value breaks its rule; in `init`, if n_reads is more than the matrix has lines.
    """

    fast_lr: Step = 1.0
    transfer_lr: Step = 1.0
    gamma: float = 0.0
    transfer_every: int = 1
    n_reads: int | None = 1
    buffer_granularity: float = 1.0
    auto_granularity: float = 0.0
    max_pulses: int = 1
    momentum: float = 0.0
    forget_buffer: bool = True
    scale_fast_lr: bool = False
    scale_transfer_lr: bool = True
    units_in_mbatch: bool = False
    transfer_columns: bool = True
    fast_device: Device | None = None

    def __post_init__(self) -> None:
        need(
            self,
            positive=("fast_lr", "transfer_lr", "buffer_granularity"),
            not_negative=("gamma", "auto_granularity"),
            share=("momentum",),
            counts=("transfer_every", "n_reads", "max_pulses"),
        )

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """The slow crossbar holds the weight; fast crossbar and buffer start at 0."""
        slow, fast = new_crossbar(weight), new_crossbar(device=self.fast_device)
        need_lines(self, transfer.n_lines(slow, self.transfer_columns))
        buffer = torch.zeros_like(fast.weight)
        return State(slow=slow, fast=fast, buffer=buffer, step=torch.zeros((), dtype=torch.int64))

    def mixture(self, state: State) -> list[tuple[float, Crossbar]]:
        """Both passes read slow + gamma fast."""
        slow = [(1.0, state.slow)]
        return [*slow, (self.gamma, state.fast)] if self.gamma else slow

    def update(self, state: State, update: Update, lr: Step) -> None:
        """Pulses to the fast crossbar; its lines, one after the other, to the buffer; full places to the slow one."""
        fast_lr = scaled(self, "fast_lr", lr)
        n_lines = transfer.n_lines(state.fast, self.transfer_columns)
        H, rate = transfer.lines_of(state.buffer, self.transfer_columns), filling_rate(self, state.fast, lr)
        for part, is_due in transfer.cut(update, self.transfer_every, state.step, in_batches=self.units_in_mbatch):
            state.fast.write(part, fast_lr)
            if is_due:
                j = transfer.places(state.step, self.transfer_every, self.n_reads, n_lines) % n_lines
                omega = H[..., j, :] + rate * transfer.read_lines(state.fast, j, self.transfer_columns)
                n, H[..., j, :] = fire(
                    omega, max_pulses=self.max_pulses, momentum=self.momentum, forget=self.forget_buffer
                )
                transfer.write_lines(state.slow, j, n, state.slow.device_model.granularity, self.transfer_columns)

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """The gradient's pulses balance on the fast crossbar, which transfers drive to 0."""
        return state.fast, torch.zeros_like(state.fast.weight)

    def cost(self, shape: tuple[int, int], batch_size: int = 1) -> Cost:
        """Two arrays and a buffer; a line read fills it, and is written by one slot."""
        return transfer.cost(
            self, shape, batch_size, digital=shape[0] * shape[1], slots=self.max_pulses, flops_per_value=2.0
        )
