"""Soft bounds read against a reference device: the weight is the difference of two states.

With v the state of the element and r that of its reference, w = v - r, and

    q_up = 1 - v / b_max,    q_down = 1 - v / b_min

so the weight lies in [w_min, w_max] = [b_min - r, b_max - r]. Up and down pulses cancel at

    v* = (dw_up - dw_down) / (dw_up / b_max - dw_down / b_min)

which the reference can take away: then every element's symmetric point is w = 0, but for the reference's own error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ohmgrad.devices.base import Device, Params, Value
from ohmgrad.vocabulary import where


@dataclass(frozen=True, kw_only=True)
class SoftBoundsReference(Device):
    """Linear response that vanishes at the element's bounds. Source: aihwkit `SoftBoundsReferenceDevice`.

    `w_max`, `w_min` and their spreads are those of the element, b_max and b_min. What a crossbar keeps as its `w_max`
    and `w_min` are the bounds that the weight sees, reference taken off; those of a single element may leave out 0.

    Args:
        reference_mean, reference_std: mean and standard deviation between devices of the reference's state.
        subtract_symmetry_point: references are set to their elements' symmetric points, and the above is their error.
        slope_up_dtod, slope_down_dtod: spreads of the slopes between devices: b <- b / |1 + slope_dtod xi|.
        ctoc: additive by default here.
    """

    ctoc: Literal["multiplicative", "additive"] = "additive"
    reference_mean: float = 0.0
    reference_std: float = 0.0
    subtract_symmetry_point: bool = False
    slope_up_dtod: float = 0.0
    slope_down_dtod: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_bounds_on_both_sides()
        self.need_finite_bounds()

    is_affine: ClassVar[bool] = True
    fitted: ClassVar[Mapping[str, tuple[float, float]]] = {}  # a mean reference only moves bounds and steps
    shared: ClassVar[tuple[str, ...]] = (*Device.shared, "subtract_symmetry_point")

    @staticmethod
    def response(w, up, w_max, w_min, dw_min, reference):
        """Signed change of w by one noise-free pulse."""
        return dw_min * where(
            up, 1.0 - (w + reference) / (w_max + reference), (w + reference) / (w_min + reference) - 1.0
        )

    def extra(self, params: Params, normal: Callable[[], Tensor]) -> dict[str, Value]:
        """The reference's state, and the bounds that the weight sees."""
        b_max, b_min, reference = params["w_max"], params["w_min"], self.reference_mean
        is_alive = params["dw_up"] + params["dw_down"] > 0.0 if self.corrupt else True
        if self.slope_up_dtod:
            b_max = b_max / where(is_alive, abs(1.0 + self.slope_up_dtod * normal()), 1.0)
        if self.slope_down_dtod:
            b_min = b_min / where(is_alive, abs(1.0 + self.slope_down_dtod * normal()), 1.0)
        if self.reference_std:
            reference = reference + self.reference_std * normal()
        if self.subtract_symmetry_point:
            reference = reference + _balance(params["dw_up"], params["dw_down"], b_max, b_min)
        return {"w_max": b_max - reference, "w_min": b_min - reference, "reference": reference}

    def reset_state(self, params: Params) -> Value:
        """As aihwkit has it: where the symmetric point is subtracted, it is added to the reset state."""
        state = super().reset_state(params)
        if not self.subtract_symmetry_point:
            return state
        r = params["reference"]
        return state + _balance(params["dw_up"], params["dw_down"], params["w_max"] + r, params["w_min"] + r)


def _balance(dw_up: Value, dw_down: Value, b_max: Value, b_min: Value) -> Value:
    """State of the element at which up and down pulses cancel; 0 of one that is stuck."""
    fall = dw_up / b_max - dw_down / b_min
    return (dw_up - dw_down) / where(fall == 0.0, 1.0, fall)
