"""Where training on analog devices comes to rest, and how large the gradient then is: the predicted floor.

The mean of one step of Analog SGD is -lr F(W) * T(W) with

    T(W) = grad f(W) + E|g(W; xi)| * R(W),    R = G/F                                                       (1)

(Wu et al. 2025, arXiv 2502.06309, Thm. 1). It rests where T = 0, at a gradient of -E|g| R(W). An algorithm whose pulses
go to another crossbar rests where that one's pulses balance, R taken at the state that crossbar comes to: 0 for
Tiki-Taka, so that its floor is 0 if its symmetric point is there, and E|g| R(0) otherwise; RIDER's is its symmetric
point.

About that point w varies as a linear recursion, with J the Jacobian of F * T and C the covariance of one step's change:

    Cov = (1 - lr J) Cov (1 - lr J)' + C,    mean ||grad f||^2 = ||grad f(W)||^2 + tr(H Cov H)               (2)

The first term is the floor that no step size takes away; the second goes to 0 with lr, up to the granularity of pulses,
whose variance per step is dw_min lr |g|.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import linalg, optimize
from torch import Tensor
from torch.autograd.functional import jacobian

from ohmgrad.algorithms import AnalogSGD, MixedPrecision
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices.base import Device
from ohmgrad.pulses.expected import expected_increment
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate
from ohmgrad.theory.assumptions import assume
from ohmgrad.theory.instances.base import Instance
from ohmgrad.theory.response import pull, response_range

DRAWS, ROUNDS = 4000, 3  # steps that C is estimated from, to 2 %; rounds until C and Cov agree
ROOM = 3.0  # standard deviations that a weight at rest has to be from its bounds


@dataclass(frozen=True)
class Floor:
    """A prediction for one matrix.

    weight: W where pulses balance, (out, in). squared: ||grad f||^2 there. loss: f - f* there.
    spread: tr(H Cov H), what the finite step adds to the mean of ||grad f||^2; 0 if no step was given.
    failed: assumptions that do not hold, with their values.
    """

    weight: Tensor
    squared: float
    loss: float
    spread: float
    failed: tuple[str, ...]

    @property
    def total(self) -> float:
        """The predicted mean of ||grad f||^2."""
        return self.squared + self.spread


def predicted_floor(
    instance: Instance,
    *,
    device: Device,
    algorithm: Algorithm | None = None,
    lr: float = 0.0,
    update: ExpectedUpdate | PulsedUpdate | None = None,
    seed: int = 0,
) -> Floor:
    """Where an algorithm on these devices rests on this problem, at a step that is small, or lr.

    Args:
        device: any response; its spread between devices is drawn from the seed.
        algorithm: Analog SGD by default. lr: its step, for `spread`, which is known for Analog SGD alone.
        update: how it is written: the mean dynamics by default. Pulses are taken with the noise of their trains.

    Source: Wu et al. 2025, Thm. 1 and 3, for the balance (eq. 1); eq. 2 derived, the stationary law of a linear
    recursion. Assumes: one fixed point, about which the dynamics are linear. Checks, and warns by name: pulses balance
    inside the bounds (A4), q_min > 0 there, a stable step, weights that stay clear of the bounds, an algorithm whose
    pulses follow the gradient's modulus.

    Raises:
        ValueError: lr with another algorithm than Analog SGD.
    """
    algorithm = algorithm or AnalogSGD()
    if lr and not isinstance(algorithm, AnalogSGD):
        raise ValueError(f"predicted_floor knows the spread of AnalogSGD alone, got lr with {type(algorithm).__name__}")
    tile = Tile(instance.optimum, algorithm=algorithm, crossbar={"device": device}, seed=seed)
    bar, at_rest = algorithm.at_rest(tile.state)
    fixed = None if at_rest is bar.weight else pull(bar.device_model, at_rest, bar.params)
    _, holder = algorithm.mixture(tile.state)[0]  # of the weight
    w, failed = _balance(instance, bar, fixed, _bounds(holder))
    if isinstance(algorithm, MixedPrecision):
        failed.append("balance: MixedPrecision sends what is left of a digital sum, not pulses that follow E|g|")
    spread = 0.0
    if lr and not failed:
        spread, failed = _spread(instance, bar, w, lr, update or ExpectedUpdate(), seed)
    for message in failed:
        assume(False, message)
    excess = float(instance.loss(w)) - instance.f_star
    return Floor(w, float(instance.gradient(w).square().sum()), excess, spread, tuple(failed))


def _bounds(bar: Crossbar) -> tuple[Tensor, Tensor]:
    low, high = (torch.as_tensor(bar.params[k], dtype=torch.float64).expand(bar.shape) for k in ("w_min", "w_max"))
    return low, high


def _balance(
    instance: Instance, bar: Crossbar, fixed: Tensor | None, bounds: tuple[Tensor, Tensor]
) -> tuple[Tensor, list[str]]:
    """The root of T (eq. 1) by Powell's method, started inside the bounds, and what stands against it."""
    shape, (low, high) = instance.optimum.shape, bounds

    def T(flat: Tensor) -> Tensor:
        w = flat.reshape(shape)
        R = pull(bar.device_model, torch.clamp(w, low, high), bar.params) if fixed is None else fixed
        return (instance.gradient(w) + instance.mean_modulus(w) * R).flatten()

    start = torch.clamp(instance.optimum, 0.9 * low, 0.9 * high)
    found = optimize.root(
        lambda x: T(torch.from_numpy(x)).numpy(),
        start.flatten().numpy(),
        jac=lambda x: jacobian(T, torch.from_numpy(x)).numpy(),
    )
    w = torch.from_numpy(found.x).reshape(shape)
    worst = float(torch.where(w > 0.0, w / high, w / low).max())
    if not found.success or worst >= 1.0:
        return w, [f"A4: pulses balance at max|W| / bound = {worst:.3g}, which is not below 1"]
    q_min = float(response_range(bar.device_model, w, bar.params).q_min) if fixed is None else 1.0
    return w, [] if q_min > 0.0 else [f"Definition 1: q_min = {q_min:.3g} at the fixed point is not above 0"]


def _spread(
    instance: Instance, bar: Crossbar, w: Tensor, lr: float, update: ExpectedUpdate | PulsedUpdate, seed: int
) -> tuple[float, list[str]]:
    """tr(H Cov H) of eq. 2, C from steps drawn at weights that vary by Cov, and what stands against it."""
    device, params, shape = bar.device_model, bar.params, w.shape
    if isinstance(update, PulsedUpdate):
        update = ExpectedUpdate(noise=True, bit_length=update.bit_length)

    def mean_change(w: Tensor) -> Tensor:
        return -lr * (device.F(w, params) * instance.gradient(w) + device.G(w, params) * instance.mean_modulus(w))

    n = w.numel()
    A = torch.eye(n, dtype=torch.float64) + torch.as_tensor(jacobian(mean_change, w)).reshape(n, n)
    H = torch.as_tensor(jacobian(instance.gradient, w)).reshape(n, n)
    largest = float(torch.linalg.eigvals(A).abs().max())
    if largest >= 1.0:
        return math.nan, [f"A1: lr = {lr:g} is too large, distances grow by {largest:.3g} in each step"]
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(DRAWS, w.numel(), generator=generator, dtype=torch.float64)
    covariance, seeds, low_high = torch.zeros_like(A), torch.arange(DRAWS), _bounds(bar)
    for k in range(ROUNDS):
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp(min=0.0).sqrt()  # also of noise that leaves some directions out
        at = torch.clamp(w + (z @ root.mT).reshape(-1, *shape), *low_high)
        delta = -lr * instance.noisy_gradient(at, generator)
        noise = {"seed": seeds, "cycle": torch.tensor(k), "granularity": bar.granularity}
        change = expected_increment(at, delta, device, params, settings=update, **noise)
        rest = (change - mean_change(at)).flatten(1)
        covariance = torch.from_numpy(linalg.solve_discrete_lyapunov(A.numpy(), (rest.mT @ rest / DRAWS).numpy()))
    deviation = covariance.diagonal().sqrt().reshape(shape)
    room = float((torch.minimum(low_high[1] - w, w - low_high[0]) / deviation).min())
    failed = [] if room > ROOM else [f"A4: a weight varies up to its bound, {room:.2g} standard deviations off"]
    return float((H @ covariance @ H.mT).trace()), failed
