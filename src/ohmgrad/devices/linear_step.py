"""Linear steps: the response falls with w at a slope of its own in each direction, up to hard bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ohmgrad.devices.base import Device, Params, Value
from ohmgrad.vocabulary import where


@dataclass(frozen=True, kw_only=True)
class LinearStep(Device):
    """q_up = 1 - gamma_up w / w_max, q_down = 1 - gamma_down w / w_min. Source: aihwkit `LinearStepDevice`.

    Args:
        gamma_up, gamma_down: fall of the response from 0 to the bound, >= 0; 1 gives soft bounds.
        gamma_up_dtod, gamma_down_dtod: standard deviations between devices, added to gamma and folded at 0.
        allow_increasing: spreads are not folded, and gamma may be below 0: responses that grow towards the bound.
        mean_bound_reference: slopes refer to the nominal bounds; otherwise to each device's own.
        reverse_up, reverse_down: gamma is the fall from 0 to the bound behind, `reverse_offset` farther on, so that
            steps grow on the way.
    """

    gamma_up: float = 0.0
    gamma_down: float = 0.0
    gamma_up_dtod: float = 0.0
    gamma_down_dtod: float = 0.0
    allow_increasing: bool = False
    mean_bound_reference: bool = True
    reverse_up: bool = False
    reverse_down: bool = False
    reverse_offset: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_bounds_on_both_sides()
        for name in ("gamma_up", "gamma_down"):
            if getattr(self, name) < 0 and not self.allow_increasing:
                raise ValueError(f"LinearStep needs {name} >= 0, got {getattr(self, name)}")

    is_affine: ClassVar[bool] = True
    fitted: ClassVar[Mapping[str, tuple[float, float]]] = {"gamma_up": (0.0, math.inf), "gamma_down": (0.0, math.inf)}

    @staticmethod
    def response(w, up, dw_min, slope_up, slope_down):
        """Signed change of w by one noise-free pulse."""
        return dw_min * where(up, 1.0 - slope_up * w, slope_down * w - 1.0)

    def extra(self, params: Params, normal: Callable[[], Tensor]) -> dict[str, Value]:
        """Slopes of the two responses, in units of 1 / w."""
        up: Value = self.gamma_up + self.gamma_up_dtod * normal() if self.gamma_up_dtod else self.gamma_up
        down: Value = self.gamma_down + self.gamma_down_dtod * normal() if self.gamma_down_dtod else self.gamma_down
        w_max, w_min = (self.w_max, self.w_min) if self.mean_bound_reference else (params["w_max"], params["w_min"])
        if not self.allow_increasing:
            up, down = abs(up), abs(down)
        to_up = w_min - self.reverse_offset if self.reverse_up else w_max
        to_down = w_max + self.reverse_offset if self.reverse_down else w_min
        return {"slope_up": up / to_up, "slope_down": down / to_down}
