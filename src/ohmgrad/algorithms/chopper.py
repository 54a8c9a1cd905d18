"""Choppers: signs, one for each line and one for each value on it, that flip now and then.

Gradients are written to the fast crossbar with these signs, and what is read from it gets them back: what the crossbar
adds by itself, such as the offset of its symmetric point, changes sign with them and averages out. Source: Rasch et
al. 2024 (Nat. Commun. 15:7133), Algorithm 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.crossbar.algorithm import State
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.pulses.forms import Dense, LowRank, Outer, Update


@dataclass(frozen=True)
class Choppers:
    """Signs +-1 of lines, (*replica, lines), and of the values on a line, (*replica, values); changed in place."""

    lines: Tensor
    values: Tensor

    def on(self, update: Update, columns: bool) -> Update:
        """The update with the signs of its lines and values."""
        x, d = (self.lines, self.values) if columns else (self.values, self.lines)
        signed = update.scaled(d)
        if isinstance(signed, Outer):
            return replace(signed, x=signed.x * x[..., None, :])
        if isinstance(signed, LowRank):
            return LowRank(signed.U, signed.V * x[..., None])
        return Dense(signed.dW * x[..., None, :])

    def of(self, j: Tensor) -> Tensor:
        """The signs of everything on lines j, (*replica, n, values)."""
        return self.lines[..., j, None] * self.values[..., None, :]


def starting(bar: Crossbar, columns: bool) -> dict[str, Tensor]:
    """The signs at the start, all +1, for a `State`."""
    n_out, n_in = bar.shape
    n_lines, n_values = (n_in, n_out) if columns else (n_out, n_in)
    one = bar.weight.new_ones
    return {"chop_lines": one(*bar.replicas, n_lines), "chop_values": one(*bar.replicas, n_values)}


def flips(bar: Crossbar, step: Tensor, what: int, probability: float, n: int) -> Tensor:
    """Which of n signs flip, each with that probability, independently, (*replica, n) bool."""
    if not probability:
        return torch.zeros((*bar.replicas, n), dtype=torch.bool, device=bar.weight.device)
    key = (random.Stream.CHOP, int(step), what)
    return random.uniform_plane(bar.seed, key, 1, n, torch.float64)[..., 0, :] < probability


def flip(signs: Tensor, index: Tensor | slice, is_flipped: Tensor) -> None:
    """Change the signs at these places, in place."""
    signs[..., index] = torch.where(is_flipped, -signs[..., index], signs[..., index])


def sweeps_between_flips(probability: float) -> int:
    """Of choppers that flip regularly: reads of a line between two flips, at least 2."""
    return max(math.ceil(1.0 / probability), 2) if probability else 2**62


def track_scale(mean: Tensor, vectors: Tensor, rate: float) -> Tensor:
    """The running mean of max|v| after each vector, (*replica, n); `mean`, (*replica,), is taken along, in place.

    It starts at the first maximum, and zero vectors leave it alone. Source: aihwkit, `auto_scale`.
    """
    after = []
    for size in vectors.abs().amax(-1).unbind(-1):
        mean.copy_(torch.where(mean <= 0, size, torch.where(size > 0, torch.lerp(mean, size, rate), mean)))
        after.append(mean.clone())
    return torch.stack(after, -1) if after else vectors.new_zeros(vectors.shape[:-1])


def auto_scaled(settings: Any, state: State, update: Update) -> Update:
    """The update so scaled that, at step 1, a product of the running maxima asks for a whole train of pulses.

    settings, state: of an algorithm with `auto_scale` (Any: they share fields, not a class); without it, the update.
    """
    if not settings.auto_scale:
        return update
    outer = update.as_outer()
    rate = (1.0 - settings.auto_momentum) / max(1, outer.x.shape[-2])
    product = track_scale(state.m_x, outer.x, rate) * track_scale(state.m_d, outer.d, rate)
    train = state.fast.update.bit_length * state.fast.device_model.granularity
    return replace(outer, d=outer.d * (train / product.where(product > 0, 1.0))[..., None])


def symmetric_point(bar: Crossbar) -> Tensor:
    """The symmetric points of a crossbar's devices, (*replica, out, in); all 0 where some device has none."""
    try:
        point = bar.device_model.symmetric_point(bar.params)
    except ValueError:  # some element's up and down steps differ everywhere
        return torch.zeros_like(bar.weight)
    return point.to(bar.weight).expand_as(bar.weight)
