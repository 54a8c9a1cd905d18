"""Devices from the literature, each number with its source."""

from __future__ import annotations

import math

from ohmgrad.devices.exp_step import ExpStep
from ohmgrad.devices.soft_bounds import SoftBounds


def asymmetric_linear(tau: float = 1.0, dw_min: float = 1e-3) -> SoftBounds:
    """The asymmetric linear device: F = 1, G = w / tau (Wu et al. 2024, arXiv 2406.12774, sec. 2.2)."""
    return SoftBounds(w_min=-tau, w_max=tau, dw_min=dw_min)


def aihwkit_soft_bounds(tau: float = 0.6, dw_min: float = 1e-3) -> SoftBounds:
    """aihwkit's `SoftBoundsDevice` with its defaults: 30 % spread of steps and bounds, 30 % noise of each pulse.

    Source: aihwkit 1.1, `simulator/configs/devices.py`: dw_min .001, dw_min_dtod .3, dw_min_std .3,
    up_down_dtod .01, w_max .6, w_min -.6, w_max_dtod .3, w_min_dtod .3; noise multiplicative.
    """
    return SoftBounds(
        w_min=-tau,
        w_max=tau,
        dw_min=dw_min,
        dw_min_dtod=0.3,
        dw_min_ctoc=0.3,
        up_down_dtod=0.01,
        w_max_dtod=0.3,
        w_min_dtod=0.3,
    )


def saturating_exponential(tau: float = 1.0, gamma: float = 2.0, dw_min: float = 1e-3) -> ExpStep:
    """q = 1 - exp(-gamma (tau -+ w) / (2 tau)) (Wu et al. 2024, arXiv 2406.12774, app. C.3), as an exponential step."""
    A = math.exp(-gamma / 2.0)
    return ExpStep(w_min=-tau, w_max=tau, dw_min=dw_min, A_up=A, A_down=A, gamma_up=gamma, gamma_down=gamma, a=0.5, b=0)


PRESETS = {f.__name__: f for f in (asymmetric_linear, aihwkit_soft_bounds)}
