"""Soft bounds: steps that shrink linearly to nothing at the bounds.

    q_up(w) = 1 - w / w_max,    q_down(w) = 1 - w / w_min

With w_max = -w_min = tau this is the asymmetric linear device of Wu et al. 2024 (arXiv 2406.12774, sec. 2.2):
F(w) = 1, G(w) = w / tau, symmetric point 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ohmgrad.devices.base import Device
from ohmgrad.vocabulary import where


@dataclass(frozen=True, kw_only=True)
class SoftBounds(Device):
    """Linear response that vanishes at the bounds. Source: Wu et al. 2024, sec. 2.2; aihwkit `SoftBoundsDevice`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_bounds_on_both_sides()

    is_affine: ClassVar[bool] = True

    @staticmethod
    def response(w, up, w_max, w_min, dw_min):
        """Signed change of w by one noise-free pulse."""
        return dw_min * where(up, 1.0 - w / w_max, w / w_min - 1.0)
