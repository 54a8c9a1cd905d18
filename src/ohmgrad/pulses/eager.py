"""The pulsed update in plain torch, sample by sample and pulse by pulse: slow, and the reference for the kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.devices.base import Device, Params, noise, step
from ohmgrad.pulses import merge
from ohmgrad.pulses.settings import Lines, PulsedUpdate
from ohmgrad.pulses.train import counts, places, trains


def launcher(
    device: Device, params: Params, settings: PulsedUpdate, seed: int, w: Tensor, lines: Lines | None = None
) -> Callable[[Tensor, Tensor, float, int, int, Tensor | None, Tensor | None], int]:
    """`pulse` with all that does not change from call to call; as `cpu.launcher`."""
    given = {"device": device, "params": params, "settings": settings, "seed": seed, "lines": lines}

    @torch.no_grad()
    def launch(
        x: Tensor, d: Tensor, lr: float, batch: int, cycle: int, counts: Tensor | None, moved: Tensor | None
    ) -> int:
        need_finite(x, d)
        n = pulse(w, x, d, lr, **given, cycle=int(cycle))
        if counts is not None:
            counts += n
        if moved is not None:
            moved |= n > 0
        return int(n.sum())

    return launch


def need_finite(x: Tensor, d: Tensor) -> None:
    """Door for what the pulses are made of. Raises ValueError."""
    for name, tensor in (("x", x), ("d", d)):
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} needs finite numbers, got NaN or infinity")


def pulse(
    w: Tensor,
    x: Tensor,
    d: Tensor,
    lr: float,
    *,
    device: Device,
    params: Params,
    settings: PulsedUpdate,
    seed: int,
    cycle: int,
    lines: Lines | None = None,
) -> Tensor:
    """Apply a mini-batch of pulse trains to w, (out, in), in place.

    Args:
        x, d: (batch, in) and (batch, out); w moves by -lr * d x' in the mean.
        params: every element's parameters, numbers or planes (out, in).
        seed, cycle: of this crossbar, and the number of cycles before this mini-batch.
        lines: what drives the lines, where the crossbar shares them.

    Returns:
        Pulses at each crosspoint, (out, in) int64.
    """
    lines = lines or Lines(seed, device.granularity)
    t = trains(x, d, lr, lines.granularity, settings, lines.seed, cycle)
    total, place = torch.zeros_like(w, dtype=torch.int64), places(w)
    for i in range(len(x)):
        n = counts(i, t, settings, lines.seed, cycle + i)
        up = (d[i, :, None] < 0) ^ (x[i, None, :] < 0) ^ (lr < 0)
        key = random.root(seed, random.Stream.PULSE, cycle + i)
        left = n
        if settings.merge and merge.is_exact(device):
            left = torch.where(_merge(w, n, up, device, params, key, place), 0, n)
        _one_by_one(w, left, up, device, params, key, place)
        total += n
    return total


def _merge(w: Tensor, n: Tensor, up: Tensor, device: Device, params: Params, key: random.Key, place: Tensor) -> Tensor:
    """The trains of one sample at once where the law allows it; where it did, (out, in) bool."""
    low, high, dw_up, dw_down = _planes(w, params)
    (c_up, s_up), (c_down, s_down) = _affine(device, params, w)
    c, s, sigma = torch.where(up, c_up, c_down), torch.where(up, s_up, s_down), device.dw_min_ctoc
    (h, y, v, k, most), m = merge.parts(s, sigma), n.to(w.dtype)
    z, dw = random.quick_normal(*key, place).to(w.dtype), torch.where(up, dw_up, dw_down)
    if device.ctoc == "multiplicative":
        mean, change, spread = merge.multiplicative(w, m, c, s, h, y, v, k, sigma, z)
    else:
        mean, change, spread = merge.additive(w, m, c, s, h, y, sigma * dw, z)
    is_merged = (n == 1) | (n > 1) & merge.is_mergeable(w, mean, spread, m, most, low, high)
    w.copy_(torch.where(is_merged, torch.clamp(w + change, low, high), w))
    return is_merged


def _one_by_one(
    w: Tensor, n: Tensor, up: Tensor, device: Device, params: Params, key: random.Key, place: Tensor
) -> None:
    """The pulses of one sample, each with its own noise."""
    low, high, _, _ = _planes(w, params)
    for k in range(int(n.max()) if n.numel() else 0):
        one = step(type(device), w, up, params)
        scale = device.dw_min_ctoc * noise(device, w, up, one, params)
        z = random.quick_normal(*random.fold(key, k + 1), place).to(w.dtype)
        w.copy_(torch.where(n > k, merge.move(w, one + scale * z, low, high), w))


def _affine(device: Device, params: Params, like: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(C, S) of the step C + S w, for up and for down pulses, from the response at w = 0 and w = 1."""
    zero, one = like.new_zeros((1, 1)), like.new_ones((1, 1))
    pairs = []
    for up in (True, False):
        c = step(type(device), zero, up, params)
        pairs.append((c, step(type(device), one, up, params) - c))
    return pairs


def _planes(w: Tensor, params: Params) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    low, high, up, down = (
        torch.as_tensor(params[k], dtype=w.dtype, device=w.device) for k in ("w_min", "w_max", "dw_up", "dw_down")
    )
    return low, high, up, down
