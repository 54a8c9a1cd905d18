"""The pulsed update in plain torch, sample by sample and pulse by pulse: slow, and the reference for the kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.devices.base import Device, Params, step
from ohmgrad.pulses import merge
from ohmgrad.pulses.settings import PulsedUpdate
from ohmgrad.pulses.train import counts, trains

Affine = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def affine(device: Device, params: Params, like: Tensor) -> Affine:
    """(C, S) of the step C + S w, for up and for down pulses, from the response at w = 0 and w = 1."""
    zero, one = torch.zeros((1, 1), dtype=like.dtype), torch.ones((1, 1), dtype=like.dtype)
    zero, one = zero.to(like.device), one.to(like.device)
    pairs = []
    for up in (True, False):
        c = step(type(device), zero, up, params)
        pairs.append((c, step(type(device), one, up, params) - c))
    return pairs[0], pairs[1]


def launcher(
    device: Device, params: Params, settings: PulsedUpdate, seed: int, like: Tensor
) -> Callable[[Tensor, Tensor, Tensor, float, int, Tensor | None], int]:
    """`pulse` with all that does not change from call to call; as `cpu.launcher`."""

    def launch(w: Tensor, x: Tensor, d: Tensor, lr: float, cycle: int, counts: Tensor | None) -> int:
        for name, tensor in (("x", x), ("d", d)):
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{name} needs finite numbers, got NaN or infinity")
        n = pulse(w, x, d, lr, device=device, params=params, settings=settings, seed=seed, cycle=cycle)
        if counts is not None:
            counts += n
        return int(n.sum())

    return launch


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
) -> Tensor:
    """Apply a mini-batch of pulse trains to w, (out, in), in place.

    Args:
        x, d: (batch, in) and (batch, out); w moves by -lr * d x' in the mean.
        params: every element's parameters, numbers or planes (out, in).
        seed, cycle: of this crossbar, and the number of cycles before this mini-batch.

    Returns:
        Pulses at each crosspoint, (out, in) int64.
    """
    t = trains(x, d, lr, device.granularity, settings, seed, cycle)
    total = torch.zeros_like(w, dtype=torch.int64)
    rows = torch.arange(len(w), device=w.device).reshape(-1, 1)
    for i in range(len(x)):
        n = counts(i, t, settings, seed, cycle + i)
        up = (d[i, :, None] < 0) ^ (x[i, None, :] < 0) ^ (lr < 0)
        key = random.fold(random.root(seed, random.Stream.PULSE, cycle + i), rows)
        _train(w, n, up, device, params, settings, key)
        total += n
    return total


def _train(
    w: Tensor, n: Tensor, up: Tensor, device: Device, params: Params, settings: PulsedUpdate, key: random.Key
) -> None:
    """The pulses of one sample: those that can, at once; the others one by one."""
    sigma = device.dw_min_ctoc
    low, high, dw_up, dw_down = (
        torch.as_tensor(params[k], dtype=w.dtype, device=w.device) for k in ("w_min", "w_max", "dw_up", "dw_down")
    )
    dw = torch.where(up, dw_up, dw_down)
    columns = torch.arange(w.shape[-1], device=w.device)
    left = n.clone()
    if settings.merge and device.is_affine:
        (c_up, s_up), (c_down, s_down) = affine(device, params, w)
        c, s = torch.where(up, c_up, c_down), torch.where(up, s_up, s_down)
        m = n.clamp(min=1).to(w.dtype)
        z = random.normal(key, columns, w.dtype)
        change = merge.drift(w, m, c, s)
        if device.ctoc == "multiplicative":
            noise, spread = merge.multiplicative(w, m, c, s, 1.0 / (1.0 + s), sigma, z)
        else:
            noise, spread = merge.additive(m, s, dw, sigma, z)
        is_merged = merge.is_mergeable(w, change, spread, m, s, sigma, low, high) & (n > 0)
        w.copy_(torch.where(is_merged, torch.clamp(w + (change + noise), low, high), w))
        left = torch.where(is_merged, 0, n)
    for k in range(int(left.max()) if left.numel() else 0):
        one = step(type(device), w, up, params)
        scale = sigma * (one if device.ctoc == "multiplicative" else dw)
        z = random.normal(random.fold(key, k + 1), columns, w.dtype)
        w.copy_(torch.where(left > k, merge.pulse(w, one, scale, z, low, high), w))
