"""The subthreshold log-domain element: a transistor in weak inversion turns a capacitor's voltage into a current.

The weight is the current above a reference, w = I - I_ref. A pulse of charge moves the voltage by a fixed amount, so it
multiplies the current, I <- I exp(+-eps): exponent p = 1. A translinear loop that divides by the current makes the step
constant: p = 0. In between, with eps = dw_min / I_ref,

    up    dw = I_ref (exp(p eps) - 1) / p (I / I_ref)^p
    down  dw = I_ref (1 - exp(-p eps)) / p (I / I_ref)^p

which are dw_min (I / I_ref)^p to first order, and for p = 1 and 0 exact. Up and down differ by a part eps p everywhere,
so there is no symmetric point; for p = 1 an up and a down pulse cancel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ohmgrad.devices.base import Device, Params, Value
from ohmgrad.vocabulary import maximum, power, where


@dataclass(frozen=True, kw_only=True)
class LogDomain(Device):
    """Log-domain element. Source: the accelerator of Tageldeen et al. 2025 (arXiv 2501.13181); equations derived.

    `dw_min` is I_ref eps. Mismatch of thresholds is `dw_min_dtod` with the default `dw_min_log_normal`: a standard
    deviation s of voltage makes it s kappa / U_T, 5 mV some 0.15. The leak is `lifetime`, which decays towards I_ref.

    Args:
        exponent: p in [0, 1].
        reference: I_ref > 0; w_min lies above -I_ref, where the current would vanish.
    """

    w_min: float = -0.99
    dw_min_log_normal: bool = True
    exponent: float = 1.0
    reference: float = 1.0

    fitted: ClassVar[Mapping[str, tuple[float, float]]] = {"exponent": (0.0, 1.0), "reference": (0.0, math.inf)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.exponent <= 1.0:
            raise ValueError(f"LogDomain needs exponent in [0, 1], got {self.exponent}")
        if not self.w_min > -self.reference:
            raise ValueError(f"LogDomain needs w_min > -reference, got w_min={self.w_min}, reference={self.reference}")

    @staticmethod
    def response(w, up, dw_min, exponent, reference):
        """Signed change of w by one noise-free pulse."""
        step = dw_min * power(maximum(1.0 + w / reference, 0.0), exponent)
        return where(up, step, -step)

    def extra(self, params: Params, normal: Callable[[], Tensor]) -> dict[str, Value]:
        """The exponent and the reference, and the steps at the reference with their growth."""
        p, steps = self.exponent, {}
        for name, sign in (("dw_up", 1.0), ("dw_down", -1.0)):
            step = params[name]
            if p:
                scale = sign * self.reference / p
                grown = torch.expm1(torch.as_tensor(step, dtype=torch.float64) / scale) * scale
                step = grown.to(step.dtype) if isinstance(step, Tensor) else float(grown)
            steps[name] = step
        return {**steps, "exponent": p, "reference": self.reference}
