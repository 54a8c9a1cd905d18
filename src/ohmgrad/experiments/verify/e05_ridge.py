"""The penalty is ridge: on least squares Analog SGD solves another problem, with a known penalty.

Gradients H (w - w_star) with Gaussian noise of deviation s on each coordinate: w rests near (H + k)^-1 H w_star with
k = s sqrt(2/pi) R'(0), R = G/F: R'(0) is 1/tau for the asymmetric linear device, gamma/tau for the power response,
gamma e^gamma / ((e^gamma - 1) tau) for the exponential one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import AnalogSGD
from ohmgrad.devices import Device, ExponentialResponse, PowerResponse
from ohmgrad.devices.presets import asymmetric_linear
from ohmgrad.experiments.verify.pairs import ROOT, rest
from ohmgrad.experiments.verify.planted import doubled_asymmetry
from ohmgrad.experiments.verify.verdict import Claim, Panel, Point, Verdict, at_most, equal, of_groups
from ohmgrad.theory.instances import LeastSquares

PLANTED = (doubled_asymmetry,)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """gamma: of both responses. size: weights. samples: of the data. largest: of |w_star|, as a share of tau.

    lr and lr / 2, whose results are continued to 0.
    """

    tau: float = 1.0
    gamma: float = 2.0
    noise: float = 0.1
    size: int = 6
    samples: int = 40
    largest: float = 0.15
    lr: float = 0.04
    times: float = 20.0
    pairs: int = 500
    seed: int = 0


QUICK = Settings(lr=0.08, times=12.0, pairs=200)


def least_squares(settings: Settings) -> LeastSquares:
    """Random data that weights of at most `largest` explain, from the seed."""
    generator = torch.Generator().manual_seed(settings.seed)
    A = torch.randn(settings.samples, settings.size, generator=generator, dtype=torch.float64)
    w_star = 2.0 * torch.rand(settings.size, 1, generator=generator, dtype=torch.float64) - 1.0
    return LeastSquares(inputs=A, targets=A @ w_star * settings.largest * settings.tau)


def devices(settings: Settings) -> dict[str, tuple[Device, float]]:
    """Each device with its R'(0) tau."""
    tau, gamma = settings.tau, settings.gamma
    slope = gamma * math.exp(gamma) / math.expm1(gamma)
    return {
        "linear": (asymmetric_linear(tau), 1.0),
        "power": (PowerResponse(gamma=gamma, w_max=tau, w_min=-tau), gamma),
        "exponential": (ExponentialResponse(gamma_up=gamma, gamma_down=gamma, w_max=tau, w_min=-tau), slope),
    }


def resting(settings: Settings, device: Device, problem: LeastSquares, start: Tensor, lr: float) -> Tensor:
    """w of each pair of runs, (pairs, size)."""
    return rest(
        AnalogSGD(),
        device,
        problem.gradient,
        sigma=settings.noise,
        lr=lr,
        start=start,
        settle=8.0,
        times=settings.times,
        seed=settings.seed,
        shape=(settings.pairs, settings.size),
    ).w


def run(settings: Settings) -> Verdict:
    """The strength k that the resting weights show, by least squares of H (w_star - w) on w, and their distance."""
    problem = least_squares(settings)
    H, w_star = problem.hessian, problem.optimum[0]
    unit = settings.noise * ROOT / settings.tau
    claims: list[Claim] = []
    points = []
    for name, (device, slope) in devices(settings).items():
        ridge = torch.linalg.solve(H + unit * slope * torch.eye(settings.size).double(), H @ w_star)
        coarse, fine = (resting(settings, device, problem, ridge, lr) for lr in (settings.lr, settings.lr / 2.0))
        w = (2.0 * fine - coarse).mT  # (size, pairs)
        strength = of_groups(lambda w: float((H @ (w_star - w)) @ w / (w @ w)) / unit, w)
        distance = of_groups(lambda w, ridge=ridge: float((w - ridge).norm() / ridge.norm()), w)
        points.append(Point("measured k", slope, strength.value, strength.half_width, slope))
        claims += [
            equal(
                f"{name}: k over s sqrt(2/pi)/tau",
                slope,
                strength,
                within=0.06 * slope,
                because="R is not straight up to |w_star|, and E|g| exceeds s sqrt(2/pi), each by a few percent",
            ),
            at_most(
                f"{name}: distance to the ridge solution, relative",
                0.02,
                distance,
                because="the reference's 2 % for s/tau small",
            ),
        ]
    return Verdict(
        name="E5",
        title="the penalty is ridge",
        statement="w rests at (H + k)^-1 H w_star, k = s sqrt(2/pi) R'(SP), R = G/F",
        source="Wu et al. 2025, Thm. 1",
        claims=tuple(claims),
        panels=(Panel(x="R'(0) tau", y="k / (s sqrt(2/pi)/tau)", points=tuple(points), log_x=False, log_y=False),),
    )
