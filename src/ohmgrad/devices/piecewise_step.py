"""Piecewise steps: straight lines between response factors given on a grid of states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ohmgrad.devices.base import Device
from ohmgrad.vocabulary import interpolate, maximum, where


@dataclass(frozen=True, kw_only=True)
class PiecewiseStep(Device):
    """Response factors on nodes in equal steps from w_min to w_max. Source: aihwkit `PiecewiseStepDevice`.

    Args:
        nodes_up, nodes_down: factors at the nodes, as many up as down, the first at an element's w_min and the last at
            its w_max; one alone holds everywhere.
    """

    nodes_up: tuple[float, ...] = (1.0,)
    nodes_down: tuple[float, ...] = (1.0,)

    tables: ClassVar[tuple[str, ...]] = ("nodes_up", "nodes_down")

    fitted: ClassVar[Mapping[str, tuple[float, float]]] = {
        "nodes_up": (0.0, math.inf),
        "nodes_down": (0.0, math.inf),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_finite_bounds()
        if self.granularity <= 0.0:
            raise ValueError(f"PiecewiseStep needs a middle one of nodes_up > 0, got {self.nodes_up}")

    @staticmethod
    def response(w, up, dw_min, w_max, w_min, nodes_up, nodes_down):
        """Signed change of w by one noise-free pulse."""
        x = (w - w_min) / maximum(w_max - w_min, 1e-30)
        return dw_min * where(up, interpolate(nodes_up, x), -interpolate(nodes_down, x))

    @property
    def granularity(self) -> float:
        """dw_min times the up factor in the middle, the upper of two. Source: aihwkit, `rpu_piecewisestep_device.h`."""
        return self.dw_min * self.nodes_up[len(self.nodes_up) // 2]
