"""From devices fitted one by one to a make: the mean device, and how devices differ.

A field's spread is the standard deviation of its estimates, less what their own errors add to it:

    spread^2 = var(estimates) - mean(error^2), 0 at least;    its error: var / (spread sqrt(2 (n - 1)))

(the method of moments for a normal law). Steps go as `Device.sample` draws them: dw_up = dw_min (gain + min(up_down, 0)
+ shift) and dw_down = dw_min (gain - max(up_down, 0) - shift), whose gain has the spread dw_min_dtod and whose shift
up_down_dtod.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ohmgrad.devices.base import Device
from ohmgrad.fitting.fit import Fit


def make_of(fits: Sequence[Fit]) -> tuple[Device, dict[str, float]]:
    """The make that these devices are of, and standard errors by field; of one device, itself."""
    first, n = fits[0].device, len(fits)
    if n == 1:
        return first, {k: v for k, v in fits[0].errors.items() if k not in ("dw_up", "dw_down")}
    fields: dict[str, float | tuple[float, ...]] = {}
    errors: dict[str, float] = {}
    if "dw_up" in fits[0].errors:
        fields, errors = _steps(fits)
    for name in fits[0].errors:
        if name in ("dw_up", "dw_down", "dw_min", "up_down"):
            continue
        field, _, index = name.rstrip("]").partition("[")
        values = np.array([_entry(getattr(f.device, field), index) for f in fits])
        mean, errors[name] = float(values.mean()), _error_of_mean(values)
        fields[field] = (*fields.get(field, ()), mean) if index else mean  # type: ignore[misc]  # entries come in order
        if hasattr(first, f"{field}_dtod") and not index:
            # As `Device` has it: relative where the response takes the field itself.
            is_relative = field in ("w_min", "w_max") or field in type(first).own_parameters()
            own = np.array([f.errors[name] for f in fits])
            spread, errors[f"{field}_dtod"] = _spread(values, own, abs(mean) if is_relative else 1.0)
            fields[f"{field}_dtod"] = spread
    return dataclasses.replace(first, **fields), errors  # type: ignore[arg-type]  # the device checks them itself


def _entry(value: float | tuple[float, ...], index: str) -> float:
    return value[int(index)] if isinstance(value, tuple) else value


def _steps(fits: Sequence[Fit]) -> tuple[dict[str, float | tuple[float, ...]], dict[str, float]]:
    pairs = [(f.device, f.errors) for f in fits]
    up = np.array([d.dw_min * (1.0 + min(d.up_down, 0.0)) for d, _ in pairs])
    down = np.array([d.dw_min * (1.0 - max(d.up_down, 0.0)) for d, _ in pairs])
    mean_up, mean_down = up.mean(), down.mean()
    dw = max(mean_up, mean_down)
    ratio = 1.0 - down / up.clip(1e-300) if mean_up > mean_down else up / down.clip(1e-300) - 1.0
    own = np.array([math.hypot(e["dw_up"], e["dw_down"]) / 2.0 for _, e in pairs])
    gain, gain_error = _spread((up + down) / 2.0, own, dw)
    shift, shift_error = _spread((up - down) / 2.0, own, dw)
    balance = 1.0 - mean_down / mean_up if mean_up > mean_down else mean_up / mean_down - 1.0
    fields = {"dw_min": float(dw), "up_down": float(balance), "dw_min_dtod": gain, "up_down_dtod": shift}
    errors = {
        "dw_min": _error_of_mean(up if mean_up > mean_down else down),
        "up_down": _error_of_mean(ratio),
        "dw_min_dtod": gain_error,
        "up_down_dtod": shift_error,
    }
    return dict(fields), errors


def _error_of_mean(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _spread(values: np.ndarray, errors: np.ndarray, scale: float) -> tuple[float, float]:
    """Standard deviation between devices in units of scale, and its error; infinite if the estimates' own suffice."""
    variance = values.var(ddof=1)
    own = np.mean(errors[np.isfinite(errors)] ** 2) if np.isfinite(errors).any() else math.inf
    spread = math.sqrt(max(variance - own, 0.0))
    error = variance / (spread * math.sqrt(2.0 * (len(values) - 1))) if spread else math.inf
    return spread / scale, float(error) / scale
