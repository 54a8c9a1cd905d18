"""Power steps: the response is a power of the distance to the bound, taken as a share of the whole range.

    q_up = ((w_max - w) / (w_max - w_min))^gamma_up,    q_down = ((w - w_min) / (w_max - w_min))^gamma_down

so that q = 2^-gamma in the middle. The `PowerResponse` of Wu et al. 2025, whose q(0) is 1, is this with a `dw_min`
of 2^gamma times as much, on bounds +-tau.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ohmgrad.devices.base import Device, Params, Value
from ohmgrad.vocabulary import maximum, power, where


@dataclass(frozen=True, kw_only=True)
class PowStep(Device):
    """Power steps. Source: aihwkit `PowStepDevice`; Wu et al. 2024 (arXiv 2406.12774), app. C.2.

    Args:
        gamma: exponent of both directions, 0 ... 100.
        gamma_up_down: imbalance of the exponents in [-1, 1], as `up_down` is of the steps: one side only shrinks.
        gamma_dtod, gamma_up_down_dtod: their spreads: gamma (1 + gamma_dtod xi +- gamma_up_down_dtod xi'), folded at 0.
    """

    gamma: float = 1.0
    gamma_up_down: float = 0.0
    gamma_dtod: float = 0.0
    gamma_up_down_dtod: float = 0.0

    fitted: ClassVar[Mapping[str, tuple[float, float]]] = {"gamma": (0.0, math.inf), "gamma_up_down": (-1.0, 1.0)}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_finite_bounds()
        check_exponents(self)

    @staticmethod
    def response(w, up, dw_min, w_max, w_min, gamma_up, gamma_down):
        """Signed change of w by one noise-free pulse."""
        share = where(up, w_max - w, w - w_min) / maximum(w_max - w_min, 1e-30)
        step = dw_min * power(maximum(share, 0.0), where(up, gamma_up, gamma_down))
        return where(up, step, -step)

    def extra(self, params: Params, normal: Callable[[], Tensor]) -> dict[str, Value]:
        """Every element's exponents."""
        return exponents(self, normal)

    @property
    def granularity(self) -> float:
        """dw_min 2^-gamma, the step in the middle. Source: aihwkit, `rpu_powstep_device.h`."""
        return self.dw_min * 0.5**self.gamma


def check_exponents(device) -> None:
    """Rules of `gamma` and `gamma_up_down`."""
    family = type(device).__name__
    if device.gamma < 0:
        raise ValueError(f"{family} needs gamma >= 0, got {device.gamma}")
    if device.gamma > 100:  # 2^-gamma is what pulses are counted in
        raise ValueError(f"{family} needs gamma <= 100, got {device.gamma}")
    if abs(device.gamma_up_down) > 1:
        raise ValueError(f"{family} needs -1 <= gamma_up_down <= 1, got {device.gamma_up_down}")


def exponents(device, normal: Callable[[], Tensor]) -> dict[str, Value]:
    """gamma_up and gamma_down of every element. Source: aihwkit, `rpu_powstep_device.cpp`."""
    gain: Value = 1.0 + device.gamma_dtod * normal() if device.gamma_dtod else 1.0
    shift: Value = device.gamma_up_down_dtod * normal() if device.gamma_up_down_dtod else 0.0
    return {
        "gamma_up": abs(device.gamma * (gain + min(device.gamma_up_down, 0.0) + shift)),
        "gamma_down": abs(device.gamma * (gain - max(device.gamma_up_down, 0.0) - shift)),
    }
