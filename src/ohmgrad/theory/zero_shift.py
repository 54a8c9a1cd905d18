"""How fast alternating pulses bring a device to its symmetric point."""

from __future__ import annotations

import math

from ohmgrad.devices.base import Device


def pulses_to_symmetric_point(device: Device, start: float, tolerance: float) -> float:
    """Alternating pulses that bring the mean device from `start` to within `tolerance` of its symmetric point.

    With e the distance, a pair of pulses makes of it e (1 - 2 dw_min G'(point)), to first order in dw_min, so

        n = ln(e / tolerance) / (dw_min G'(point))

    Source: arXiv 2602.21321, Theorem 2.2 and appendix C.2, with mu_q = G'; there 2 ln(.) / (2 dw_min mu_q).

    Raises:
        ValueError: no symmetric point, or pulses that do not lead to it; tolerance <= 0.

    >>> from ohmgrad.devices import SoftBounds
    >>> round(pulses_to_symmetric_point(SoftBounds(dw_min=1e-3), 0.7, 0.02))
    3555
    """
    if not tolerance > 0.0:
        raise ValueError(f"tolerance needs a number > 0, got {tolerance}")
    point = device.symmetric_point()
    h = 1e-5 * max(1.0, float(point.abs()))
    slope = float(device.G(point + h) - device.G(point - h)) / (2.0 * h)
    if not slope > 0.0:
        raise ValueError(f"{type(device).__name__} is not drawn to its symmetric point: G' = {slope:.3g} there")
    distance = abs(start - float(point))
    return max(math.log(distance / tolerance), 0.0) / (device.granularity * slope) if distance else 0.0
