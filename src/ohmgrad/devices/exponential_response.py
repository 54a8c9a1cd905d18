"""The exponential response of Wu et al. 2025.

    q_up = (exp(gamma (1 - w / w_max)) - 1) / (exp(gamma) - 1),    q_down = (exp(gamma (1 - w / w_min)) - 1) / (...)

so q(0) = 1, q = 0 at the bound and the symmetric point is 0; gamma -> 0 gives soft bounds. `ExpStep` cannot have this
form with a positive dw_min: there the exponential is taken away from a constant, here the constant from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ohmgrad.devices.base import Device, Params, Value
from ohmgrad.vocabulary import exp, where


@dataclass(frozen=True, kw_only=True)
class ExponentialResponse(Device):
    """Exponential response with q(0) = 1. Source: Wu et al. 2025 (arXiv 2502.06309), eq. 149, there on bounds +-tau.

    Args:
        gamma_up, gamma_down: how strongly each direction bends, not 0 and at most 50 in size.
        gamma_up_dtod, gamma_down_dtod: their relative spreads between devices.
    """

    gamma_up: float = 2.0
    gamma_down: float = 2.0
    gamma_up_dtod: float = 0.0
    gamma_down_dtod: float = 0.0

    fitted: ClassVar[Mapping[str, tuple[float, float]]] = {"gamma_up": (1e-3, 50.0), "gamma_down": (1e-3, 50.0)}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_bounds_on_both_sides()
        for name in ("gamma_up", "gamma_down"):
            if not 1e-3 <= abs(getattr(self, name)) <= 50.0:
                raise ValueError(f"ExponentialResponse needs 0.001 <= |{name}| <= 50, got {getattr(self, name)}")

    @staticmethod
    def response(w, up, dw_min, w_max, w_min, gamma_up, gamma_down, scale_up, scale_down):
        """Signed change of w by one noise-free pulse."""
        rest = 1.0 - w / where(up, w_max, w_min)
        step = dw_min * where(up, scale_up, scale_down) * (exp(where(up, gamma_up, gamma_down) * rest) - 1.0)
        return where(up, step, -step)

    def extra(self, params: Params, normal: Callable[[], Tensor]) -> dict[str, Value]:
        """Exponents, and 1 / (exp(gamma) - 1) of each."""
        values: dict[str, Value] = {}
        for side in ("up", "down"):
            gamma, spread = getattr(self, f"gamma_{side}"), getattr(self, f"gamma_{side}_dtod")
            values[f"gamma_{side}"] = gamma * (1.0 + spread * normal()).abs().clamp(min=1e-3) if spread else gamma
            scale = 1.0 / torch.expm1(torch.as_tensor(values[f"gamma_{side}"], dtype=torch.float64))
            value = values[f"gamma_{side}"]
            values[f"scale_{side}"] = scale.to(value.dtype) if isinstance(value, Tensor) else float(scale)
        return values
