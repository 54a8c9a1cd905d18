"""Pulse trains: bit lengths, line probabilities and bits, in plain torch: the reference for the kernels.

For one sample (x, d), learning rate lr and granularity g, with k = lr max|x| max|d| / g, the pulses wanted at the
largest crosspoint,

    BL  = min(ceil(k), bit_length)  with bit-length management, else bit_length (k: see WHOLE)
    p_x = |x| B,  p_d = |d| A,      A B = lr / (g BL)

so that a crosspoint sees BL p_x p_d = lr |x d| / g coincidences in the mean. Update management chooses A / B such that
max p_x = max p_d; where k > BL it is p_d that saturates. Source: aihwkit 1.1, `rpu_pulsed_meta_parameter.cpp`,
`sparse_bit_line_maker.cpp`; Gokmen and Vlasov 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.pulses.settings import PulsedUpdate

Stream = random.Stream
# k is rounded up from a millionth below itself. What a user calls 7 pulses is 7.000000000000001 as 0.07 / 0.01, and
# 1.2e-7 of itself off where x and d are float32: it has to be 7 slots, which then lack a millionth at most.
WHOLE = 1.0 - 2.0**-20
HUGE = 1e100  # pulses wanted of one train, from where on d is sure to saturate, and what tells by how much to overflow


@dataclass(frozen=True)
class Trains:
    """Trains of a mini-batch: bit_length (batch,) int64; p_x (batch, in) and p_d (batch, out) float32, in [0, 1]."""

    bit_length: Tensor
    p_x: Tensor
    p_d: Tensor


def trains(
    x: Tensor, d: Tensor, lr: float, granularity: float, settings: PulsedUpdate, seed: int, cycle: int
) -> Trains:
    """Bit length and line probabilities of each sample; all arithmetic in float64, as in the kernels."""
    x_size, d_size, lr = x.abs().double(), d.abs().double(), abs(float(lr))
    x_max, d_max = (_row_max(size) for size in (x_size, d_size))
    wanted = lr * x_max * d_max / granularity
    length = torch.full_like(wanted, settings.bit_length)
    if settings.bit_length_management:
        length = torch.minimum(torch.ceil(wanted * WHOLE), length)
    length = torch.where(wanted > 0.0, length, 0.0)
    a = b = torch.sqrt(lr / (granularity * length.clamp(min=1.0)))
    if settings.update_management or settings.bit_length_management:
        clipped = torch.where(wanted > settings.bit_length, settings.bit_length / wanted, 1.0)
        ratio = torch.sqrt(x_max / (d_max * clipped))
        a, b = a * ratio, b / ratio
        is_huge = wanted > HUGE
        a, b = torch.where(is_huge, HUGE / d_max, a), torch.where(is_huge, 1.0 / x_max, b)
    is_on = (length > 0.0)[:, None]
    p_x = torch.where(is_on & (x_size > 0.0), x_size * b[:, None], 0.0).clamp(max=1.0)
    p_d = torch.where(is_on & (d_size > 0.0), d_size * a[:, None], 0.0).clamp(max=1.0)
    if settings.resolution > 0.0:
        p_x = _round(p_x, settings, seed, Stream.X_BITS, cycle)
        p_d = _round(p_d, settings, seed, Stream.D_BITS, cycle)
    return Trains(length.long(), p_x.float(), p_d.float())


def line_bits(p: Tensor, length: int, seed: int, stream: Stream, cycle: int) -> Tensor:
    """Bits of one sample's lines, (length, lines) bool: 1 with probability p (lines,), one draw for each line and slot.

    A bit is set where a 32-bit word is at most p 2**32 - 1, so that p = 1 always fires.
    """
    key = random.fold(random.root(seed, stream, cycle), torch.arange(length, device=p.device).reshape(length, 1))
    words = random.bits(*key, torch.arange(len(p), device=p.device))
    return (torch.as_tensor(words) <= (p.double() * 2.0**32 - 1.0).long()) & (p > 0.0)


def counts(sample: int, t: Trains, settings: PulsedUpdate, seed: int, cycle: int) -> Tensor:
    """Pulses of one sample at each crosspoint, (out, in) int64."""
    p_x, p_d, length = t.p_x[sample], t.p_d[sample], int(t.bit_length[sample])
    if settings.train == "stochastic":
        x_bits = line_bits(p_x, length, seed, Stream.X_BITS, cycle).double()
        d_bits = line_bits(p_d, length, seed, Stream.D_BITS, cycle).double()
        return (d_bits.mT @ x_bits).long()
    mean = length * (p_d.double()[:, None] * p_x.double()[None, :])
    if settings.train == "deterministic":
        return torch.floor(mean + 0.5).long()
    u = random.uniform(random.bits(*random.root(seed, Stream.COUNT, cycle), places(mean)), torch.float64)
    return torch.floor(mean + u).long()


def places(plane: Tensor) -> Tensor:
    """Numbers of the crosspoints, row by row, (out, in) int64: what tells their random numbers apart in a cycle."""
    return torch.arange(plane.numel(), device=plane.device).reshape(plane.shape) & 0xFFFFFFFF


def _row_max(size: Tensor) -> Tensor:
    return size.amax(-1) if size.shape[-1] else size.new_zeros(size.shape[:-1])


def _round(p: Tensor, settings: PulsedUpdate, seed: int, stream: Stream, cycle: int) -> Tensor:
    """Probabilities in steps of the resolution; a draw for each line and sample, in the slot after the last."""
    steps = p / settings.resolution
    if settings.stochastic_rounding:
        rows = [random.fold(random.root(seed, stream, cycle + i), 0xFFFFFFFF) for i in range(len(p))]
        words = [random.bits(*key, torch.arange(p.shape[-1], device=p.device)) for key in rows]
        u = torch.stack([random.uniform(word, torch.float64) for word in words]) if words else steps
        return (torch.floor(steps + u) * settings.resolution).clamp(max=1.0)
    return (torch.floor(steps + 0.5) * settings.resolution).clamp(max=1.0)
