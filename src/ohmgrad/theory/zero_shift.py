"""How fast alternating pulses bring a device to its symmetric point, and how near (T12)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ohmgrad.devices.base import Device
from ohmgrad.theory.assumptions import assume


def pulses_to_symmetric_point(device: Device, start: float, tolerance: float) -> float:
    """Alternating pulses that bring the mean device from `start` to within `tolerance` of its symmetric point.

    With e the distance, a pair of pulses makes of it e (1 - 2 dw_min G'(point)), to first order in dw_min, so

        n = ln(e / tolerance) / (dw_min G'(point))

    Source: arXiv 2602.21321, Theorem 2.2 and appendix C.2, with mu_q = G'; there 2 ln(.) / (2 dw_min mu_q). Assumes: G
    rises like a line from the point to `start`; warns if its mean slope there is more than 20 % off G'(point).

    Raises:
        ValueError: no symmetric point, or pulses that do not lead to it; tolerance <= 0.

    >>> from ohmgrad.devices import SoftBounds
    >>> round(pulses_to_symmetric_point(SoftBounds(dw_min=1e-3), 0.7, 0.02))
    3555
    """
    if not tolerance > 0.0:
        raise ValueError(f"tolerance needs a number > 0, got {tolerance}")
    point = device.symmetric_point()
    slope, distance = _slope(device, point), abs(start - float(point))
    if not distance:
        return 0.0
    mean_slope = float(device.G(torch.full_like(point, start))) / (start - float(point))
    assume(
        abs(mean_slope / slope - 1.0) <= 0.2,
        f"Theorem 2.2: the mean slope of G to w = {start:g} is {mean_slope:.3g}, not near {slope:.3g} at the point",
    )
    return max(math.log(distance / tolerance), 0.0) / (device.granularity * slope)


def zero_shift_floor(device: Device) -> float:
    """What pulses of random sign leave at most: E(w - point)^2 <= 2 q_max^2 dw_min / mu_q of the mean device.

    On soft bounds +-tau it is q_max^2 tau times 2 dw_min; the law itself is a quarter of it (tests/README.md).

    Source: arXiv 2602.21321, Theorem 2.2 and appendix C.2. Assumes: q_max is that at the point, where the states are in
    the end; that the slope mu_q of G is above 0, else ValueError.

    >>> from ohmgrad.devices import SoftBounds
    >>> round(zero_shift_floor(SoftBounds(dw_min=1e-3)), 6)
    0.002
    """
    point = device.symmetric_point()
    return 2.0 * float(device.q_up(point)) ** 2 * device.granularity / _slope(device, point)


def _slope(device: Device, point: Tensor) -> float:
    """G' at the symmetric point."""
    h = 1e-5 * max(1.0, float(point.abs()))
    slope = float(device.G(point + h) - device.G(point - h)) / (2.0 * h)
    if not slope > 0.0:
        raise ValueError(f"{type(device).__name__} is not drawn to its symmetric point: G' = {slope:.3g} there")
    return slope
