"""Constant steps between hard bounds: symmetric, but of limited range and granularity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ohmgrad.devices.base import Device
from ohmgrad.vocabulary import where


@dataclass(frozen=True, kw_only=True)
class ConstantStep(Device):
    """q_up = q_down = 1 up to the bounds. Source: Gokmen and Vlasov 2016; aihwkit `ConstantStepDevice`."""

    is_affine: ClassVar[bool] = True

    @staticmethod
    def response(w, up, dw_min):
        """Signed change of w by one noise-free pulse."""
        return where(up, dw_min, -dw_min)
