"""Pairs of runs that see opposite Gaussian noise, many side by side: how a mean is measured to a few parts in 1000.

The mean of such a pair has lost the part that is linear in the noise, which is most of it and says nothing; what the
theorems are about, the pull of |g|, is even in the noise and stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy import optimize
from torch import Tensor

from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices import Device
from ohmgrad.pulses.forms import Dense
from ohmgrad.theory import Noise

ROOT = math.sqrt(2.0 / math.pi)  # E|N(0, 1)|


@dataclass(frozen=True)
class Rest:
    """Means over time of each pair at rest, (*sweep, pairs, columns) float64.

    w: the weight. squared: the squared gradient.
    """

    w: Tensor
    squared: Tensor


def rest(
    algorithm: Algorithm,
    device: Device | Sequence[Device],
    gradient: Callable[[Tensor], Tensor],
    *,
    sigma: float | Tensor,
    lr: float,
    start: float | Tensor,
    settle: float,
    times: float,
    seed: int,
    shape: tuple[int, int],
) -> Rest:
    """Runs from `start` with gradients gradient(w) + N(0, sigma^2).

    Args:
        device: of all runs, or of one family, one for each value of a sweep.
        sigma, start: a number, or (sweep, 1, 1).
        settle, times: to come to rest, and to average; in units of 1 / lr.
        shape: (pairs, columns).
    """
    sweep = () if isinstance(device, Device) else (len(device),)
    generator, (pairs, columns) = torch.Generator().manual_seed(seed), shape
    weight = torch.as_tensor(start, dtype=torch.float64).expand(*sweep, 2 * pairs, columns).clone()
    tile = Tile(weight, algorithm=algorithm, crossbar={"device": device}, seed=seed)
    total, squares = torch.zeros_like(weight), torch.zeros_like(weight)
    n_settle, n_steps = round(settle / lr), round(times / lr)
    for k in range(n_settle + n_steps):
        w = tile.weight
        g = gradient(w)
        if k >= n_settle:
            total += w
            squares += g.square()
        noise = sigma * torch.randn((*sweep, pairs, columns), generator=generator, dtype=torch.float64)
        tile.algorithm.update(tile.state, Dense(g + torch.cat([noise, -noise], -2)), lr)
    w, squared = (t.unflatten(-2, (2, pairs)).mean(-3) / n_steps for t in (total, squares))
    return Rest(w, squared)


def modulus(gradient: float, sigma: float) -> float:
    """E|N(gradient, sigma^2)|."""
    return float(Noise(std=sigma).mean_modulus(torch.tensor(gradient, dtype=torch.float64)))


def resting_point(w_star: float, sigma: float, h: float, ratio: Callable[[float], float]) -> float:
    """Where Analog SGD rests with Gaussian noise: h (w - w_star) = -E|N(h (w - w_star), sigma^2)| ratio(w).

    ratio: G / F of the device, in closed form, 0 at w = 0 and rising.
    """

    def imbalance(w: float) -> float:
        g = h * (w - w_star)
        return g + modulus(g, sigma) * ratio(w)

    return float(optimize.brentq(imbalance, min(0.0, w_star), max(0.0, w_star)))
