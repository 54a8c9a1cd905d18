"""The power response of Wu et al. 2025: soft bounds with an exponent.

    q_up = (1 - w / w_max)^gamma_up,    q_down = (1 - w / w_min)^gamma_down

so q(0) = 1 and the symmetric point is 0; gamma = 1 gives soft bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ohmgrad.devices.base import Device, Params, Value
from ohmgrad.devices.power_step import check_exponents, exponents
from ohmgrad.vocabulary import maximum, power, where


@dataclass(frozen=True, kw_only=True)
class PowerResponse(Device):
    """Power response with q(0) = 1. Source: Wu et al. 2025 (arXiv 2502.06309), eq. 148, there on bounds +-tau.

    Args:
        gamma, gamma_up_down, gamma_dtod, gamma_up_down_dtod: exponents, as for `PowStep`.
    """

    gamma: float = 2.0
    gamma_up_down: float = 0.0
    gamma_dtod: float = 0.0
    gamma_up_down_dtod: float = 0.0

    fitted: ClassVar[Mapping[str, tuple[float, float]]] = {"gamma": (0.0, math.inf)}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_bounds_on_both_sides()
        check_exponents(self)

    @staticmethod
    def response(w, up, dw_min, w_max, w_min, gamma_up, gamma_down):
        """Signed change of w by one noise-free pulse."""
        rest = maximum(1.0 - w / where(up, w_max, w_min), 0.0)
        step = dw_min * power(rest, where(up, gamma_up, gamma_down))
        return where(up, step, -step)

    def extra(self, params: Params, normal: Callable[[], Tensor]) -> dict[str, Value]:
        """Every element's exponents."""
        return exponents(self, normal)
