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

RANGES = 100  # how many times the pulses of a range are tried: a bent response comes to its bound ever more slowly


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

    Cost: constant steps take one division; others as many steps as the farthest w is pulses away from 0, at most 100
    times the pulses of a range: by then the last state is taken.

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
    """The ladder pulse by pulse, of the elements that are not yet past their w."""
    tables = {name: params[name] for name in device.tables}
    planes = {name: torch.as_tensor(v).to(w).expand_as(w).flatten() for name, v in params.items() if name not in tables}
    found = start.flatten().clone()
    index = torch.arange(found.numel(), device=w.device)
    goal, now, up = w.flatten(), found.clone(), is_up.flatten()
    low, high = (bound.expand_as(w).flatten() for bound in (low, high))
    size = device.w_max - device.w_min if math.isfinite(device.n_states) else float((w - start).abs().max())
    for _ in range(math.ceil(RANGES * size / device.granularity)):
        if not len(index):
            break
        after = (now + device.step(now, up, {**planes, **tables})).clamp(low, high)
        is_nearer = (after - goal).abs() <= (now - goal).abs()
        found[index] = torch.where(is_nearer, after, now)
        goes_on = torch.where(up, after < goal, after > goal) & (after != now)
        now = after
        if not bool(goes_on.all()):
            index, goal, now, up, low, high = (t[goes_on] for t in (index, goal, now, up, low, high))
            planes = {name: plane[goes_on] for name, plane in planes.items()}
    return found.reshape(w.shape)
