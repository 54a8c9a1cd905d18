"""Power steps read against a reference device: the weight is the difference of two states.

With v the state of the element, b_max and b_min its bounds and r the state of its reference, w = v - r and

    q_up = ((b_max - v) / (b_max - b_min))^gamma_up,    q_down = ((v - b_min) / (b_max - b_min))^gamma_down

that is, the response of `PowStep` between the bounds that the weight sees, b_min - r and b_max - r.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ohmgrad.devices.base import Device, Params, Value
from ohmgrad.devices.power_step import PowStep, check_exponents, exponents


@dataclass(frozen=True, kw_only=True)
class PowStepReference(Device):
    """Power steps against a reference. Source: aihwkit `PowStepReferenceDevice`.

    `w_max`, `w_min` and their spreads are those of the element; see `SoftBoundsReference`.

    Args:
        gamma, gamma_up_down, gamma_dtod, gamma_up_down_dtod: as for `PowStep`.
        reference_mean, reference_std: mean and standard deviation between devices of the reference's state.
        subtract_symmetry_point: references are set to their elements' symmetric points, and the above is their error.
        n_estimation_steps: 0 for the symmetric point itself, by bisection. A positive number for aihwkit's estimate
            of it: that many pairs of up and down pulses from state 0, both at the same state; -1 for as many as
            aihwkit takes, 10 ranges / step but at most 10,000, which steps below a thousandth of the range outlast.
    """

    gamma: float = 1.0
    gamma_up_down: float = 0.0
    gamma_dtod: float = 0.0
    gamma_up_down_dtod: float = 0.0
    reference_mean: float = 0.0
    reference_std: float = 0.0
    subtract_symmetry_point: bool = False
    n_estimation_steps: int = 0

    response: ClassVar[Callable[..., Any]] = PowStep.response
    shared: ClassVar[tuple[str, ...]] = (*Device.shared, "subtract_symmetry_point")

    fitted: ClassVar[Mapping[str, tuple[float, float]]] = {"gamma": (0.0, math.inf), "gamma_up_down": (-1.0, 1.0)}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_bounds_on_both_sides()
        self.need_finite_bounds()
        check_exponents(self)
        if self.n_estimation_steps < -1 or int(self.n_estimation_steps) != self.n_estimation_steps:
            raise ValueError(f"PowStepReference needs a whole n_estimation_steps >= -1, got {self.n_estimation_steps}")

    def extra(self, params: Params, normal: Callable[[], Tensor]) -> dict[str, Value]:
        """Exponents, the reference's state, and the bounds that the weight sees."""
        gammas, reference = exponents(self, normal), self.reference_mean
        if self.reference_std:
            reference = reference + self.reference_std * normal()
        balance = self._balance({**params, **gammas}) if self.subtract_symmetry_point else 0.0
        reference = reference + balance
        seen = {"w_max": params["w_max"] - reference, "w_min": params["w_min"] - reference}
        return gammas | seen | ({"balance": balance} if self.subtract_symmetry_point else {})

    def reset_state(self, params: Params) -> Value:
        """As aihwkit has it: where the symmetric point is subtracted, it is added to the reset state."""
        return super().reset_state(params) + params.get("balance", 0.0)

    @property
    def granularity(self) -> float:
        """dw_min 2^-gamma, the step in the middle."""
        return self.dw_min * 0.5**self.gamma

    def _balance(self, params: Params) -> Value:
        """State of the element at which up and down pulses cancel."""
        names = ("w_min", "w_max", "dw_up", "dw_down", "gamma_up", "gamma_down")
        given = [torch.as_tensor(params[name], dtype=torch.float64) for name in names]
        low, high, up, down, gamma_up, gamma_down = given
        width = (high - low).clamp(min=1e-30)

        def drift(v: Tensor) -> Tensor:
            share = ((v - low) / width).clamp(0.0, 1.0)
            return up * (1.0 - share) ** gamma_up - down * share**gamma_down

        if self.n_estimation_steps:
            v = torch.zeros_like(width + up + gamma_up)
            each = torch.round(10.0 * width / torch.minimum(up, down).clamp(min=1e-30)).clamp(max=10_000.0)
            n = each if self.n_estimation_steps < 0 else torch.full_like(v, float(self.n_estimation_steps))
            for k in range(int(n.max())):
                v = torch.where(n > k, v + drift(v), v)
        else:  # the drift falls all the way
            below, above = (t + torch.zeros_like(width + up + gamma_up) for t in (low, high))
            for _ in range(60):
                v = (below + above) / 2.0
                is_below = drift(v) > 0.0
                below, above = torch.where(is_below, v, below), torch.where(is_below, above, v)
            v = (below + above) / 2.0
        v = torch.where(up + down > 0.0, v, 0.0)  # a stuck element has none
        planes = [value for value in params.values() if isinstance(value, Tensor)]
        return v.to(planes[0].dtype) if planes else float(v)
