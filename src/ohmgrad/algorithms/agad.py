"""AGAD, analog gradient accumulation with dynamic reference: each chopper phase is read against the one before.

    fast <- fast - fast_lr d (c x)'
    every `transfer_every` samples, for the next line j:
        v = read(fast, j)
        if c[j] flipped since its last read:  ref[:, j] <- mean[:, j]
        H[:, j] <- H[:, j] + rate c[j] (v - ref[:, j]);  pulses to the slow crossbar where |H| >= 1, as Tiki-Taka v2
        mean[:, j] <- (1 - m) mean[:, j] + m v
        flip c[j], in its turn

The reference is what the fast crossbar itself said, so neither its symmetric point nor an offset of it matters. Source:
Rasch et al. 2024 (Nat. Commun. 15:7133), eq. 12-13, as aihwkit runs it (`DynamicTransferCompound`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import chopper, transfer
from ohmgrad.algorithms.buffer import filling_rate, fire
from ohmgrad.algorithms.chopper import Choppers
from ohmgrad.algorithms.rules import need, need_lines, scaled
from ohmgrad.crossbar.algorithm import NewCrossbar, State
from ohmgrad.crossbar.cost import Cost
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Step
from ohmgrad.devices import Device
from ohmgrad.pulses.forms import Update


@dataclass(frozen=True, kw_only=True)
class AGAD:
    """Analog gradient accumulation with dynamic reference. Fields of `ChoppedTikiTakaV2` mean the same here.

    Args:
        in_chop_prob: choppers of lines flip every 1/in_chop_prob sweeps, at least 2.
        in_chop_random: flip at random too, with that probability after each read.
        tail_weightening: reads at the end of a chopper phase that the running mean is about, > 0: its rate m is
            tail_weightening over the sweeps between two flips, at most 1.
        frozen_reference: subtract the mean as it was at the last flip, else the running mean itself.

    Nothing is written to the slow crossbar in the first phase, which has no reference, and in the sweep after it, as in
    aihwkit.

    Raises:
        ValueError: a value breaks its rule; in `init`, if n_reads is more than the matrix has lines.
    """

    fast_lr: Step = 1.0
    transfer_lr: Step = 1.0
    in_chop_prob: float = 0.1
    in_chop_random: bool = False
    tail_weightening: float = 5.0
    frozen_reference: bool = True
    transfer_every: int = 1
    n_reads: int | None = 1
    buffer_granularity: float = 1.0
    auto_granularity: float = 0.0
    max_pulses: int = 1
    momentum: float = 0.0
    forget_buffer: bool = True
    auto_scale: bool = False
    auto_momentum: float = 0.99
    scale_fast_lr: bool = False
    scale_transfer_lr: bool = True
    units_in_mbatch: bool = False
    transfer_columns: bool = True
    fast_device: Device | None = None

    def __post_init__(self) -> None:
        need(
            self,
            positive=("fast_lr", "transfer_lr", "buffer_granularity", "tail_weightening", "in_chop_prob"),
            not_negative=("auto_granularity",),
            share=("momentum", "in_chop_prob", "auto_momentum"),
            counts=("transfer_every", "n_reads", "max_pulses"),
        )

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """The slow crossbar holds the weight; all else starts at 0, choppers at +1."""
        slow, fast = new_crossbar(weight), new_crossbar(device=self.fast_device)
        need_lines(self, transfer.n_lines(slow, self.transfer_columns))
        return State(
            slow=slow,
            fast=fast,
            **{name: torch.zeros_like(fast.weight) for name in ("buffer", "mean", "reference")},
            **chopper.starting(fast, self.transfer_columns),
            m_x=fast.weight.new_zeros(fast.replicas),
            m_d=fast.weight.new_zeros(fast.replicas),
            flipped=torch.zeros((*fast.replicas, transfer.n_lines(fast, self.transfer_columns)), dtype=torch.bool),
            step=torch.zeros((), dtype=torch.int64),
        )

    def mixture(self, state: State) -> list[tuple[float, Crossbar]]:
        """Both passes read the slow crossbar."""
        return [(1.0, state.slow)]

    def update(self, state: State, update: Update, lr: Step) -> None:
        """Pulses with signs to the fast crossbar; lines against their reference to the buffer; its pulses to slow."""
        columns, n_lines = self.transfer_columns, transfer.n_lines(state.fast, self.transfer_columns)
        fast_lr = scaled(self, "fast_lr", lr)
        c = Choppers(state.chop_lines, state.chop_values)
        update = chopper.auto_scaled(self, state, update)
        for part, is_due in transfer.cut(update, self.transfer_every, state.step, in_batches=self.units_in_mbatch):
            state.fast.write(c.on(part, columns), fast_lr)
            if is_due:
                p = transfer.places(state.step, self.transfer_every, self.n_reads, n_lines)
                self.transfer(state, c, p, filling_rate(self, state.fast, lr))

    def transfer(self, state: State, c: Choppers, p: Tensor, rate: Step) -> None:
        """Lines p, counted on over the sweeps, to buffer and slow crossbar."""
        n_lines, period = c.lines.shape[-1], chopper.sweeps_between_flips(self.in_chop_prob)
        m = min(self.tail_weightening / period, 1.0)
        j, sweep = p % n_lines, p // n_lines
        planes = (transfer.lines_of(t, self.transfer_columns) for t in (state.buffer, state.mean, state.reference))
        H, mean, reference = planes
        v = transfer.read_lines(state.fast, j, self.transfer_columns)
        reference[..., j, :] = torch.where(state.flipped[..., j, None], mean[..., j, :], reference[..., j, :])
        past = reference if self.frozen_reference else mean
        omega = H[..., j, :] + rate * c.of(j) * (v - past[..., j, :])
        n, H[..., j, :] = fire(omega, max_pulses=self.max_pulses, momentum=self.momentum, forget=self.forget_buffer)
        mean[..., j, :] = (1.0 - m) * mean[..., j, :] + m * v
        is_open = (sweep > period).to(n)[:, None]
        transfer.write_lines(state.slow, j, n * is_open, state.slow.device_model.granularity, self.transfer_columns)
        flips = ((sweep + 1) % period == 0).to(state.flipped.device)
        if self.in_chop_random:
            flips = flips | chopper.flips(state.fast, state.step, 0, self.in_chop_prob, len(p))
        state.flipped[..., j] = flips
        chopper.flip(state.chop_lines, j, flips)

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """On the fast crossbar, at its symmetric point, wherever that is."""
        return state.fast, chopper.symmetric_point(state.fast)

    def cost(self, shape: tuple[int, int], batch_size: int = 1) -> Cost:
        """Two arrays; buffer, mean, reference and choppers; each line read takes three times the operations."""
        return transfer.cost(
            self,
            shape,
            batch_size,
            digital=3 * shape[0] * shape[1] + sum(shape),
            slots=self.max_pulses,
            flops_per_value=6.0,
        )
