"""Devices as a user writes them, in a file of their own."""

from dataclasses import dataclass

from ohmgrad.devices import (
    Device,
    ExpStep,
    LogDomain,
    LookUpTable,
    PiecewiseStep,
    PowerResponse,
    PowStep,
    PowStepReference,
)
from ohmgrad.vocabulary import exp, power, where

SPREAD = {"w_max_dtod": 0.3, "w_min_dtod": 0.3, "dw_min_dtod": 0.3, "up_down_dtod": 0.05}
BEND = 2.0
# What makes a family's devices differ from simpler ones, where its defaults do not.
TELLING = {
    ExpStep: {"noise_add": 0.004, "noise_slope": 0.01},
    PowStep: {"gamma": 1.7, "gamma_dtod": 0.2},
    PowStepReference: {"gamma": 1.7, "gamma_up_down": 0.2, "subtract_symmetry_point": True},
    PowerResponse: {"gamma": 1.7, "gamma_up_down_dtod": 0.2},
    PiecewiseStep: {"nodes_up": (2.0, 1.5, 0.5, 0.2), "nodes_down": (0.1, 1.0, 1.5, 1.0)},
    LookUpTable: {
        "step_up": (2.0, 1.5, 0.5),
        "step_down": (0.1, 1.0, 1.5),
        "noise_up": (1.0, 2.0, 0.5),
        "noise_down": (0.5, 1.0, 1.5),
    },
    LogDomain: {"exponent": 0.7},
}


def bend(w, w_max):
    return power(where(w < w_max, 1.0 - w / w_max, 0.0), 1.5)


@dataclass(frozen=True, kw_only=True)
class Bent(Device):
    """Steps that bend down to the bounds: neither affine nor ours."""

    steepness: float = 0.5
    steepness_dtod: float = 0.2

    @staticmethod
    def response(w, up, w_max, dw_min, w_min, steepness):
        """Signed change of w by one noise-free pulse."""
        return dw_min * where(up, bend(w, w_max), -exp(-steepness * BEND * w / w_min))


@dataclass(frozen=True, kw_only=True)
class Tilted(Device):
    """Steps that grow with w: affine, not ours, its arguments in an order of their own."""

    slope: float = 0.3
    slope_dtod: float = 0.5
    is_affine = True

    @staticmethod
    def response(w, up, slope, dw_min):
        """Signed change of w by one noise-free pulse."""
        return where(up, dw_min, -dw_min) * (1.0 + slope * w)
