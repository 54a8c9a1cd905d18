"""Chopped Tiki-Taka v2: Tiki-Taka v2 whose fast crossbar sees the gradient with signs that flip.

    fast <- fast - fast_lr (c_out d) (c_in x)'
    every `transfer_every` samples, for the next line j:
        H[:, j] <- H[:, j] + rate c_in[j] c_out read(fast, j)
        where |H| >= 1:  n = trunc(H);  slow[:, j] <- slow[:, j] + n dw_min;  H <- H - n
        flip c_in[j] with probability `in_chop_prob`; after a sweep, each of c_out with `out_chop_prob`

An offset of the fast crossbar's symmetric point enters H with a sign that flips, and averages out. Source: Rasch et al.
2024 (Nat. Commun. 15:7133), as aihwkit runs it (`ChoppedTransferCompound`, whose names these are).
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
class ChoppedTikiTakaV2:
    """Chopped Tiki-Taka v2. Fields that `TikiTakaV2` has mean the same here.

    Args:
        in_chop_prob: odds that a line's chopper flips after it was read.
        in_chop_random: flip at random; else all together, every 1/in_chop_prob sweeps, at least 2.
        out_chop_prob: odds that the chopper of a value flips after a sweep over all lines.
        auto_scale: scale gradients by running means m of max|x| and max|d|, so that the largest product asks for
            about fast_lr * bit_length pulses: the fast step becomes fast_lr bit_length dw_min / (m_x m_d).
        auto_momentum: of these means, over mini-batches.

    Raises:
        ValueError: a value breaks its rule; in `init`, if n_reads is more than the matrix has lines.
    """

    fast_lr: Step = 1.0
    transfer_lr: Step = 1.0
    gamma: float = 0.0
    in_chop_prob: float = 0.1
    in_chop_random: bool = True
    out_chop_prob: float = 0.0
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
            positive=("fast_lr", "transfer_lr", "buffer_granularity"),
            not_negative=("gamma", "auto_granularity"),
            share=("momentum", "in_chop_prob", "out_chop_prob", "auto_momentum"),
            counts=("transfer_every", "n_reads", "max_pulses"),
        )

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """The slow crossbar holds the weight; fast crossbar and buffer start at 0, choppers at +1."""
        slow, fast = new_crossbar(weight), new_crossbar(device=self.fast_device)
        need_lines(self, transfer.n_lines(slow, self.transfer_columns))
        return State(
            slow=slow,
            fast=fast,
            buffer=torch.zeros_like(fast.weight),
            **chopper.starting(fast, self.transfer_columns),
            m_x=fast.weight.new_zeros(fast.replicas),
            m_d=fast.weight.new_zeros(fast.replicas),
            step=torch.zeros((), dtype=torch.int64),
        )

    def mixture(self, state: State) -> list[tuple[float | Tensor, Crossbar]]:
        """Both passes read slow + gamma c fast, c the choppers' signs."""
        slow: list[tuple[float | Tensor, Crossbar]] = [(1.0, state.slow)]
        if not self.gamma:
            return slow
        signs = state.chop_lines[..., None] * state.chop_values[..., None, :]
        return [*slow, (self.gamma * (signs.mT if self.transfer_columns else signs), state.fast)]

    def update(self, state: State, update: Update, lr: Step) -> None:
        """Pulses with signs to the fast crossbar; lines, with their signs, to the buffer; full places to the slow."""
        columns, n_lines = self.transfer_columns, transfer.n_lines(state.fast, self.transfer_columns)
        H, rate, c = transfer.lines_of(state.buffer, columns), filling_rate(self, state.fast, lr), self.choppers(state)
        update = chopper.auto_scaled(self, state, update)
        for part, is_due in transfer.cut(update, self.transfer_every, state.step, in_batches=self.units_in_mbatch):
            state.fast.write(c.on(part, columns), scaled(self, "fast_lr", lr))
            if is_due:
                p = transfer.places(state.step, self.transfer_every, self.n_reads, n_lines)
                j = p % n_lines
                omega = H[..., j, :] + rate * c.of(j) * transfer.read_lines(state.fast, j, columns)
                n, H[..., j, :] = fire(
                    omega, max_pulses=self.max_pulses, momentum=self.momentum, forget=self.forget_buffer
                )
                transfer.write_lines(state.slow, j, n, state.slow.device_model.granularity, columns)
                self.flip(state, p, n_lines)

    def choppers(self, state: State) -> Choppers:
        """The signs now."""
        return Choppers(state.chop_lines, state.chop_values)

    def flip(self, state: State, p: Tensor, n_lines: int) -> None:
        """Flip choppers of the lines just read, and those of the values where a sweep has ended."""
        if self.in_chop_random:
            flips = chopper.flips(state.fast, state.step, 0, self.in_chop_prob, len(p))
        else:
            period = chopper.sweeps_between_flips(self.in_chop_prob)
            flips = ((p // n_lines + 1) % period == 0).to(state.chop_lines.device)
        chopper.flip(state.chop_lines, p % n_lines, flips)
        if self.out_chop_prob and (p % n_lines == n_lines - 1).any():
            n_values = state.chop_values.shape[-1]
            flips = chopper.flips(state.fast, state.step, 1, self.out_chop_prob, n_values)
            chopper.flip(state.chop_values, slice(None), flips)

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """On the fast crossbar, at its symmetric point: what is off it changes sign with the choppers."""
        return state.fast, chopper.symmetric_point(state.fast)

    def cost(self, shape: tuple[int, int], batch_size: int = 1) -> Cost:
        """That of Tiki-Taka v2, and the choppers."""
        return transfer.cost(
            self,
            shape,
            batch_size,
            digital=shape[0] * shape[1] + sum(shape),
            slots=self.max_pulses,
            flops_per_value=2.0,
        )
