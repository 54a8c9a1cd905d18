"""One or more devices of every family, and what a hand calculation says of each: closed forms for the contract.

A new family gives its cases here: a device, its factors and where n pulses take it. One that does not fails.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from scipy import optimize
from torch import Tensor

from ohmgrad.devices import (
    ConstantStep,
    Device,
    ExponentialResponse,
    ExpStep,
    Ideal,
    LinearStep,
    LogDomain,
    LookUpTable,
    PiecewiseStep,
    PowerResponse,
    PowStep,
    PowStepReference,
    SoftBounds,
    SoftBoundsReference,
)
from ohmgrad.devices.presets import saturating_exponential


@dataclass(frozen=True)
class Case:
    """One device; what a hand calculation says of it."""

    device: Device
    after: Callable[[Tensor, int, bool], Tensor]  # (w, n, up) -> state after n pulses, hard bounds included
    q: Callable[[Tensor, bool], Tensor]  # (w, up) -> response factor
    symmetric_point: float | None  # None where up and down steps differ everywhere
    n_states: float
    planes: tuple[str, ...] = ("dw_up", "dw_down")  # what differs between devices where their steps do
    ulps: float = 4.0  # of factors; more where an exponent of size 12 magnifies its own rounding


def straight(dw_up: float, dw_down: float, low: float, high: float) -> Callable[[Tensor, int, bool], Tensor]:
    """w +- n dw, up to the bounds."""
    return lambda w, n, up: (w + n * (dw_up if up else -dw_down)).clamp(low, high)


def geometric(dw_up: float, dw_down: float, up_to: float, down_to: float, low: float, high: float) -> Callable:
    """Each pulse takes the share dw / |t| of the way to the point t where the response vanishes, up to the bounds."""

    def after(w: Tensor, n: int, up: bool) -> Tensor:
        t, dw = (up_to, dw_up) if up else (down_to, dw_down)
        return (t - (t - w) * (1.0 - dw / abs(t)) ** n).clamp(low, high)

    return after


def shifted(by: float, after: Callable[[Tensor, int, bool], Tensor]) -> Callable[[Tensor, int, bool], Tensor]:
    """The states of a device that is read against a reference in state `by`."""
    return lambda w, n, up: after(w + by, n, up) - by


def repeated(q: Callable[[Tensor, bool], Tensor], step: float, low: float, high: float) -> Callable:
    """Pulse after pulse by the case's own factors, for responses whose trajectory has no closed form."""

    def after(w: Tensor, n: int, up: bool) -> Tensor:
        for _ in range(n):
            w = (w + (step if up else -step) * q(w, up)).clamp(low, high)
        return w

    return after


def multiplied(step: float, reference: float, low: float, high: float) -> Callable[[Tensor, int, bool], Tensor]:
    """A current, w above a reference, that each pulse multiplies or divides by exp(step / reference)."""
    return lambda w, n, up: ((w + reference) * math.exp((n if up else -n) * step / reference) - reference).clamp(
        low, high
    )


def exp_step(w: Tensor, up: bool) -> Tensor:
    """The defaults of aihwkit's exponential step on bounds +-1, in units of the down step at 0."""
    z = 0.244 * w + 0.2425
    one = 1.0 - 0.36833 / math.exp(12.78785 * 0.2425)
    return (1.0 - (0.00081 * (12.44625 * z).exp() if up else 0.36833 / (12.78785 * z).exp())) / one


def saturating(w: Tensor, up: bool) -> Tensor:
    """1 - exp(-g (tau -+ w) / (2 tau)) for g = 3, tau = 0.5, in units of its value at 0."""
    return (1.0 - (-3.0 * (0.5 - w if up else 0.5 + w)).exp()) / (1.0 - math.exp(-1.5))


def roof(w: Tensor, up: bool) -> Tensor:
    """Lines from 2.5 at -1 over 2 at 0 to 1 at 1, and from 1 at -1 to 3 at 1."""
    return (2.0 - torch.where(w < 0.0, 0.5 * w, w)) / 2.0 if up else (2.0 + w) / 2.0


def bent(w: Tensor, up: bool) -> Tensor:
    """(e^{g x} - 1) / (e^g - 1) as e^{g (x - 1) / 2} sinh(g x / 2) / sinh(g / 2), with g = 3 and 2."""
    g, x = (3.0, 1.0 - w / 0.6) if up else (2.0, 1.0 + w / 0.5)
    return (g * (x - 1.0) / 2.0).exp() * (g * x / 2.0).sinh() / math.sinh(g / 2.0)


def powers(w: Tensor, up: bool) -> Tensor:
    """((0.8 - w) / 1.3)^1.5 and ((w + 0.5) / 1.3)^1.2, in units of 2^-1.5."""
    return (1.5 * ((0.8 - w) / 0.65).log()).exp() if up else 2.0**1.5 * (1.2 * ((w + 0.5) / 1.3).log()).exp()


# 1.5 ln((0.8 - w) / 1.3) = 1.2 ln((w + 0.5) / 1.3)
POWERS_BALANCE = optimize.brentq(
    lambda w: 1.5 * math.log((0.8 - w) / 1.3) - 1.2 * math.log((w + 0.5) / 1.3), -0.4, 0.7, xtol=1e-16
)

CASES: dict[type[Device], list[Case]] = {
    Ideal: [
        Case(
            Ideal(dw_min=0.002),
            straight(0.002, 0.002, -math.inf, math.inf),
            lambda w, up: torch.ones_like(w),
            symmetric_point=0.0,
            n_states=math.inf,
        )
    ],
    ConstantStep: [
        Case(
            ConstantStep(w_max=0.5, w_min=-1.0, dw_min=0.003),
            straight(0.003, 0.003, -1.0, 0.5),
            lambda w, up: torch.ones_like(w),
            symmetric_point=0.0,
            n_states=500.0,
        )
    ],
    LinearStep: [
        # q_up = 1 - w / 2 and q_down = 1 + w / 4 would vanish at 2 and -4, beyond the bounds.
        Case(
            LinearStep(w_max=1.0, w_min=-1.0, dw_min=0.01, gamma_up=0.5, gamma_down=0.25),
            geometric(0.01, 0.01, 2.0, -4.0, -1.0, 1.0),
            lambda w, up: 1.0 - w / 2.0 if up else 1.0 + w / 4.0,
            symmetric_point=0.0,
            n_states=200.0,
        ),
        Case(LinearStep(), straight(1e-3, 1e-3, -1.0, 1.0), lambda w, up: torch.ones_like(w), 0.0, 2000.0),
    ],
    SoftBounds: [
        Case(
            SoftBounds(w_max=0.6, w_min=-0.6, dw_min=0.006),
            geometric(0.006, 0.006, 0.6, -0.6, -0.6, 0.6),
            lambda w, up: 1.0 - w / 0.6 if up else 1.0 + w / 0.6,
            symmetric_point=0.0,
            n_states=200.0,
        ),
        # up_down = c shrinks the down step to (1 - c) dw; symmetric point c tau / (2 - c) (reference 8.4).
        Case(
            SoftBounds(w_max=0.8, w_min=-0.8, dw_min=0.01, up_down=0.2),
            geometric(0.01, 0.008, 0.8, -0.8, -0.8, 0.8),
            lambda w, up: 1.0 - w / 0.8 if up else 0.8 * (1.0 + w / 0.8),
            symmetric_point=0.2 * 0.8 / 1.8,
            n_states=160.0,
        ),
        # a+ (1 - w / w_max) = a- (1 - w / w_min) at (a+ - a-) / (a+ / w_max - a- / w_min) (reference 1.3).
        Case(
            SoftBounds(w_max=1.0, w_min=-0.5, dw_min=0.01, up_down=-0.1),
            geometric(0.009, 0.01, 1.0, -0.5, -0.5, 1.0),
            lambda w, up: 0.9 * (1.0 - w) if up else 1.0 + 2.0 * w,
            symmetric_point=-0.1 / (0.9 + 2.0),
            n_states=150.0,
        ),
    ],
    SoftBoundsReference: [
        # Against a reference at 0.25: the element's states -0.5 ... 1 are the weights -0.75 ... 0.75.
        Case(
            SoftBoundsReference(w_max=1.0, w_min=-0.5, dw_min=0.01, reference_mean=0.25),
            shifted(0.25, geometric(0.01, 0.01, 1.0, -0.5, -0.5, 1.0)),
            lambda w, up: 0.75 - w if up else 1.5 + 2.0 * w,
            symmetric_point=-0.25,
            n_states=150.0,
        ),
        # Steps 1 and 0.8 on bounds +-0.9 balance at 0.1 (c tau / (2 - c)): the weight's 0, and its bounds 0.8, -1.
        Case(
            SoftBoundsReference(w_max=0.9, w_min=-0.9, dw_min=0.01, up_down=0.2, subtract_symmetry_point=True),
            shifted(0.1, geometric(0.01, 0.008, 0.9, -0.9, -0.9, 0.9)),
            lambda w, up: (0.8 - w) / 0.9 if up else 0.8 * (1.0 + w) / 0.9,
            symmetric_point=0.0,
            n_states=180.0,
            planes=("dw_up", "dw_down", "w_max", "w_min", "reference"),
        ),
        Case(
            SoftBoundsReference(w_max=0.6, w_min=-0.6, dw_min=0.006),
            geometric(0.006, 0.006, 0.6, -0.6, -0.6, 0.6),
            lambda w, up: 1.0 - w / 0.6 if up else 1.0 + w / 0.6,
            symmetric_point=0.0,
            n_states=200.0,
        ),
    ],
    ExpStep: [
        Case(
            ExpStep(dw_min=0.01),
            repeated(exp_step, 0.01 * (1.0 - 0.36833 / math.exp(12.78785 * 0.2425)), -1.0, 1.0),
            exp_step,
            # 0.00081 e^{a z} = 0.36833 e^{-b z}
            symmetric_point=(math.log(0.36833 / 0.00081) / (12.44625 + 12.78785) - 0.2425) / 0.244,
            n_states=200.0 / (1.0 - 0.36833 / math.exp(12.78785 * 0.2425)),
            ulps=40.0,
        ),
        # a = 1/2, b = 0 and A = e^{-g/2} (reference 1.4).
        Case(
            saturating_exponential(tau=0.5, gamma=3.0, dw_min=0.01),
            repeated(saturating, 0.01 * (1.0 - math.exp(-1.5)), -0.5, 0.5),
            saturating,
            symmetric_point=0.0,
            n_states=100.0 / (1.0 - math.exp(-1.5)),
            ulps=12.0,
        ),
    ],
    PowStep: [
        # gamma = 1: soft bounds of steps (high - w) dw / (high - low).
        Case(
            PowStep(w_max=0.5, w_min=-1.5, dw_min=0.02),
            geometric(0.005, 0.015, 0.5, -1.5, -1.5, 0.5),
            lambda w, up: 0.5 - w if up else w + 1.5,
            symmetric_point=-0.5,
            n_states=200.0,
        ),
        Case(
            PowStep(w_max=0.8, w_min=-0.5, dw_min=0.02, gamma=1.5, gamma_up_down=0.2),
            repeated(powers, 0.02 / 2.0**1.5, -0.5, 0.8),
            powers,
            symmetric_point=POWERS_BALANCE,
            n_states=1.3 / 0.02 * 2.0**1.5,
            ulps=12.0,
        ),
    ],
    PowStepReference: [
        # Exponents 1 and steps 1 and 0.6: up (1 - v) and down 0.6 (1 + v) balance at 0.25.
        Case(
            PowStepReference(dw_min=0.02, up_down=0.4, subtract_symmetry_point=True),
            shifted(0.25, geometric(0.01, 0.006, 1.0, -1.0, -1.0, 1.0)),
            lambda w, up: 0.75 - w if up else 0.6 * (1.25 + w),
            symmetric_point=0.0,
            n_states=200.0,
            planes=("dw_up", "dw_down", "w_max", "w_min", "balance"),
        ),
        Case(
            PowStepReference(w_max=0.8, w_min=-0.5, dw_min=0.02, gamma=1.5, gamma_up_down=0.2, reference_mean=0.1),
            shifted(0.1, repeated(powers, 0.02 / 2.0**1.5, -0.5, 0.8)),
            lambda w, up: powers((w + 0.1).clamp(-0.5, 0.8), up),
            symmetric_point=POWERS_BALANCE - 0.1,
            n_states=1.3 / 0.02 * 2.0**1.5,
            ulps=12.0,
        ),
    ],
    PiecewiseStep: [
        Case(PiecewiseStep(), straight(1e-3, 1e-3, -1.0, 1.0), lambda w, up: torch.ones_like(w), 0.0, 2000.0),
        # Lines that vanish at the bounds are soft bounds.
        Case(
            PiecewiseStep(dw_min=0.01, nodes_up=(2.0, 1.0, 0.0), nodes_down=(0.0, 1.0, 2.0)),
            geometric(0.01, 0.01, 1.0, -1.0, -1.0, 1.0),
            lambda w, up: 1.0 - w if up else 1.0 + w,
            symmetric_point=0.0,
            n_states=200.0,
        ),
        Case(
            PiecewiseStep(dw_min=0.005, nodes_up=(2.5, 2.0, 1.0), nodes_down=(1.0, 2.0, 3.0)),
            repeated(roof, 0.01, -1.0, 1.0),
            roof,
            symmetric_point=0.0,
            n_states=200.0,
        ),
    ],
    LookUpTable: [
        # As the piecewise step's.
        Case(
            LookUpTable(
                dw_min=0.01,
                step_up=(2.0, 1.0, 0.0),
                step_down=(0.0, 1.0, 2.0),
                noise_up=(1.0,) * 3,
                noise_down=(1.0,) * 3,
            ),
            geometric(0.01, 0.01, 1.0, -1.0, -1.0, 1.0),
            lambda w, up: 1.0 - w if up else 1.0 + w,
            symmetric_point=0.0,
            n_states=200.0,
        ),
    ],
    PowerResponse: [
        Case(
            PowerResponse(w_max=0.6, w_min=-0.6, dw_min=0.006, gamma=1.0),
            geometric(0.006, 0.006, 0.6, -0.6, -0.6, 0.6),
            lambda w, up: 1.0 - w / 0.6 if up else 1.0 + w / 0.6,
            symmetric_point=0.0,
            n_states=200.0,
        ),
        # aihwkit's power step with dw_min times 2^gamma (reference 1.4).
        Case(
            PowerResponse(w_max=0.5, w_min=-0.5, dw_min=0.005, gamma=3.0),
            repeated(lambda w, up: (1.0 - 2.0 * w if up else 1.0 + 2.0 * w) ** 3, 0.005, -0.5, 0.5),
            lambda w, up: PowStep(w_max=0.5, w_min=-0.5, dw_min=0.04, gamma=3.0).step(w, up).abs() / 0.005,
            symmetric_point=0.0,
            n_states=200.0,
            ulps=12.0,
        ),
    ],
    ExponentialResponse: [
        Case(
            ExponentialResponse(w_max=0.6, w_min=-0.5, dw_min=0.005, gamma_up=3.0, gamma_down=2.0),
            repeated(bent, 0.005, -0.5, 0.6),
            bent,
            symmetric_point=0.0,
            n_states=220.0,
            ulps=12.0,
        ),
    ],
    LogDomain: [
        Case(
            LogDomain(w_max=1.5, w_min=-0.9, dw_min=0.02, reference=2.0),
            multiplied(0.02, 2.0, -0.9, 1.5),
            lambda w, up: (100.0 if up else -100.0) * math.expm1(0.01 if up else -0.01) * (1.0 + w / 2.0),
            symmetric_point=None,
            n_states=120.0,
        ),
        Case(
            LogDomain(w_max=1.0, w_min=-0.5, dw_min=0.005, exponent=0.0),
            straight(0.005, 0.005, -0.5, 1.0),
            lambda w, up: torch.ones_like(w),
            symmetric_point=0.0,
            n_states=300.0,
        ),
    ],
}


def cases_of(families: tuple[type[Device], ...]) -> list:
    """Every case of every family; a family without one gets a case that fails."""
    pairs = [(family, case) for family in families for case in CASES.get(family, [None])]
    return [pytest.param(case, id=f"{family.__name__}-{i}") for i, (family, case) in enumerate(pairs)]
