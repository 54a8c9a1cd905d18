"""The states of a device, and the one nearest to a number.

A device's states are those that noise-free pulses of one direction lead to from 0 (from the nearer bound, where 0 is
beyond it):

    w_0 = 0,    w_(k+1) = w_k + (step of an up pulse at w_k) above 0, (of a down pulse) below,    within its bounds

For constant steps these are the multiples of the step, and the bounds. Where the response bends, they lie the closer
the nearer to the bound. Each element has its own steps and bounds. What pulses in both directions reach in between is
left out: a closed loop of write and verify aims at such a ladder, whose numbers can be told in advance.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ohmgrad.devices.base import Device, Params
from ohmgrad.devices.constant_step import ConstantStep
from ohmgrad.devices.ideal import Ideal

RANGES = 10  # how many ranges' worth of steps are tried: what bends toward a bound is within 1e-4 of it by then


@torch.no_grad()
def round_states(bar: Any) -> None:
    """Set every device of a crossbar, or of a matrix of unit cells, to its state nearest to what it holds now."""
    for one in getattr(bar, "bars", [bar]):
        held = one.persistent if one.device_model.write_noise else one.weight
        one.set_weight(nearest(one.device_model, held, one.params))


def nearest(device: Device, w: Tensor, params: Params) -> Tensor:
    """The devices' states nearest to w, (*replica, out, in); where two are as near, the one farther from 0.

    Args:
        w: within the bounds. params: of the elements, as `Crossbar.params`.

    Cost: constant steps take one division; others as many steps as the farthest w is pulses away from 0.

    >>> from ohmgrad.devices import ConstantStep
    >>> device = ConstantStep(dw_min=0.3)
    >>> nearest(device, torch.tensor([-0.5, 0.1, 0.96]), device.nominal())
    tensor([-0.6000,  0.0000,  1.0000])
    """
    low, high = (torch.as_tensor(params[k], dtype=w.dtype, device=w.device) for k in ("w_min", "w_max"))
    start = torch.zeros_like(w).clamp(low, high)
    is_up = w > start
    if type(device) in (ConstantStep, Ideal):
        return _on_even_steps(w, start, is_up, params)
    return _on_steps(device, w, start, is_up, params, low, high)


def _on_even_steps(w: Tensor, start: Tensor, is_up: Tensor, params: Params) -> Tensor:
    up, down, low, high = (
        torch.as_tensor(params[k], dtype=w.dtype, device=w.device) for k in ("dw_up", "dw_down", "w_min", "w_max")
    )
    step = torch.where(is_up, up, down)
    n = torch.where(step > 0, (w - start).abs() / step, 0.0).floor()
    sign = torch.where(is_up, 1.0, -1.0)
    below = (start + sign * n * step).clamp(low, high)
    above = (start + sign * (n + 1.0) * step).clamp(low, high)
    return torch.where((above - w).abs() <= (w - below).abs(), above, below)


def _on_steps(
    device: Device, w: Tensor, start: Tensor, is_up: Tensor, params: Params, low: Tensor, high: Tensor
) -> Tensor:
    now, found, is_found = start.clone(), start.clone(), torch.zeros_like(w, dtype=torch.bool)
    farthest = float((w - start).abs().max()) if w.numel() else 0.0
    size = device.w_max - device.w_min
    n_most = math.ceil(RANGES * (size if math.isfinite(size) else farthest) / device.granularity)
    for _ in range(n_most):
        after = (now + device.step(now, is_up, params)).clamp(low, high)
        is_past = torch.where(is_up, after >= w, after <= w)
        is_nearer = (after - w).abs() <= (now - w).abs()
        found = torch.where(is_found, found, torch.where(is_nearer, after, now))
        is_found |= is_past | (after == now)
        if bool(is_found.all()):
            break
        now = after
    return found
