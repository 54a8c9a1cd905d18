"""The ideal device: every pulse moves the weight by dw_min, everywhere, without bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ohmgrad.devices.base import Device
from ohmgrad.vocabulary import where


@dataclass(frozen=True, kw_only=True)
class Ideal(Device):
    """q_up = q_down = 1: F = 1, G = 0, no bounds. Under the expected update this is digital arithmetic."""

    w_min: float = -math.inf
    w_max: float = math.inf

    is_affine: ClassVar[bool] = True

    @staticmethod
    def response(w, up, dw_min):
        """Signed change of w by one noise-free pulse."""
        return where(up, dw_min, -dw_min)
