"""A measured response as a table: mean and spread of the step on a grid of states, up and down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ohmgrad.devices.base import Device
from ohmgrad.vocabulary import interpolate, maximum, where


@dataclass(frozen=True, kw_only=True)
class LookUpTable(Device):
    """Steps and their noise by straight lines between equally spaced states, the first at w_min, the last at w_max.

    Source: the look-up tables of CrossSim (Agarwal et al. 2016), with two moments in place of whole distributions.

    Args:
        step_up, step_down: mean step at each state in units of this direction's step, positive in its direction.
        noise_up, noise_down: standard deviation of the step there from pulse to pulse, in units of dw_min_ctoc times
            this direction's step, >= 0.
        ctoc: "own", that noise, by default.
    """

    ctoc: Literal["multiplicative", "additive", "own"] = "own"
    step_up: tuple[float, ...] = (1.0, 1.0)
    step_down: tuple[float, ...] = (1.0, 1.0)
    noise_up: tuple[float, ...] = (1.0, 1.0)
    noise_down: tuple[float, ...] = (1.0, 1.0)

    tables: ClassVar[tuple[str, ...]] = ("step_up", "step_down", "noise_up", "noise_down")
    fitted: ClassVar[Mapping[str, tuple[float, float]]] = {
        "step_up": (-math.inf, math.inf),
        "step_down": (-math.inf, math.inf),
        "noise_up": (0.0, math.inf),
        "noise_down": (0.0, math.inf),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_finite_bounds()
        for name in ("noise_up", "noise_down"):
            if min(getattr(self, name)) < 0.0:
                raise ValueError(f"LookUpTable needs {name} >= 0 at every state, got {getattr(self, name)}")

    @staticmethod
    def response(w, up, w_min, w_max, dw_min, step_up, step_down, noise_up, noise_down):
        """Signed change of w by one noise-free pulse."""
        x = (w - w_min) / maximum(w_max - w_min, 1e-30)
        return dw_min * where(up, interpolate(step_up, x), -interpolate(step_down, x))

    @staticmethod
    def noise(  # type: ignore[reportIncompatibleVariableOverride]  # a function where others have none
        w, up, change, w_min, w_max, dw_min, step_up, step_down, noise_up, noise_down
    ):
        """Standard deviation of that pulse in units of dw_min_ctoc."""
        x = (w - w_min) / maximum(w_max - w_min, 1e-30)
        return dw_min * where(up, interpolate(noise_up, x), interpolate(noise_down, x))
