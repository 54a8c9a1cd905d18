"""What devices do without pulses: decay, diffusion and reset.

With r the reset state of a device, t its lifetime in mini-batches, rho its diffusion, xi a standard normal:

    diffusion   w <- w + rho xi, within the hard bounds
    decay       w <- (w - r) (1 - 1/t) + r,  w <- r where t <= 1
    reset       w <- r + reset_std xi

In a mini-batch diffusion comes before decay, so that what a device strays by decays at once; the hard bounds hold after
each. Source: aihwkit 1.2, `post_update_step` of its tiles, `rpu_pulsed_device.cpp` and `PulsedDevice`.
"""

from __future__ import annotations

from collections.abc import Container
from enum import IntEnum

import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.devices.base import Device, Params


class Kind(IntEnum):
    """What a number of the stream RELAX is drawn for."""

    DIFFUSION = 0
    RESET = 1
    WRITE = 2  # write noise, drawn anew where a state changed
    START = 3  # write noise of a crossbar that was made without a weight


def relaxes(names: Container[str]) -> bool:
    """Whether devices with parameters of these names decay or diffuse at all."""
    return "lifetime" in names or "diffusion" in names


def relaxed(w: Tensor, device: Device, params: Params, *, seed: Tensor, number: Tensor) -> Tensor:
    """States after one mini-batch, (*replica, out, in): diffusion, then decay.

    Args:
        params: every element's parameters, numbers or planes (*replica, out, in).
        seed: of each replica. number: relaxations of this crossbar so far.
    """
    if "diffusion" in params:
        key = (random.Stream.RELAX, Kind.DIFFUSION, number)
        w = w + params["diffusion"] * random.normal_plane(seed, key, w.shape[-2], w.shape[-1], w.dtype)
        w = torch.clamp(w, *(torch.as_tensor(params[k], dtype=w.dtype, device=w.device) for k in ("w_min", "w_max")))
    if "lifetime" in params:
        w = decayed(w, device.reset_state(params), params["lifetime"])
    return w


def decayed(w: Tensor, towards: Tensor | float, lifetime: Tensor | float) -> Tensor:
    """One mini-batch of decay: 1/lifetime of the way, all of it where lifetime <= 1.

    In float32 a weight resolves 6e-8 of itself: lifetimes far above 1e6 mini-batches need float64.

    >>> decayed(torch.tensor([1.0, -0.5]), 0.5, 4.0)
    tensor([ 0.8750, -0.2500])
    """
    towards, lifetime = (torch.as_tensor(v, dtype=w.dtype, device=w.device) for v in (towards, lifetime))
    return torch.lerp(w, towards, 1.0 / lifetime.clamp(min=1.0))


def reset(device: Device, params: Params, columns: Tensor, *, seed: Tensor, number: Tensor, like: Tensor) -> Tensor:
    """States of some columns after a reset, (*replica, out, n).

    Args:
        params: of the elements in these columns. columns: their numbers, (n,).
        seed, number: as for `relaxed`. like: the whole weight, (*replica, out, in).
    """
    key = random.plane_key(seed, (random.Stream.RELAX, Kind.RESET, number), like.shape[-2])
    return device.reset_state(params) + device.reset_std * random.normal(key, columns, like.dtype)
