"""Many independent runs of noisy quadratics f = h/2 (w - w_star)^2, as the elements of one matrix.

The instance of most statements of reference 6.2: everything about it can be written down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy import optimize, stats
from torch import Tensor

from ohmgrad.crossbar.tile import Algorithm, Tile
from ohmgrad.devices import Device
from ohmgrad.pulses.forms import Dense

Noise = Callable[[torch.Generator, tuple[int, ...]], Tensor]
ROOT = math.sqrt(2.0 / math.pi)  # E|N(0, 1)|


@dataclass(frozen=True)
class Rest:
    """Means over time of each run, (*sweep, rows, columns) float64, once at rest.

    w: the weight. squared: the squared gradient. modulus: |g|, of the noisy gradient. watched: what `watch` made of w.
    """

    w: Tensor
    squared: Tensor
    modulus: Tensor
    watched: Tensor


def quadratic(w_star: float | Tensor, h: float | Tensor = 1.0) -> Callable[[Tensor], Tensor]:
    """The gradient h (w - w_star)."""
    return lambda w: h * (w - w_star)


def gaussian_noise(std: float | Tensor) -> Noise:
    """Of that standard deviation, independent in each run and step."""
    return lambda generator, shape: std * torch.randn(shape, generator=generator, dtype=torch.float64)


def rest(
    algorithm: Algorithm,
    device: Device | Sequence[Device],
    gradient: Callable[[Tensor], Tensor],
    *,
    noise: Noise,
    lr: float,
    start: float | Tensor,
    settle: int,
    steps: int,
    seed: int,
    shape: tuple[int, int] = (100, 100),
    watch: Callable[[Tensor], Tensor] = torch.zeros_like,
    antithetic: bool = False,
) -> Rest:
    """Runs from `start` with gradients gradient(w) + noise; averages over `steps` steps after `settle`.

    Devices of one family, one for each value of a sweep, make runs (sweep, rows, columns). antithetic: half of the
    rows see the noise of the others with its sign changed, and each result is the mean of such a pair, whose linear
    part in the noise is gone; for symmetric noise, an even number of rows.
    """
    sweep = () if isinstance(device, Device) else (len(device),)
    generator, shape_of_all = torch.Generator().manual_seed(seed), (*sweep, *shape)
    half = (*sweep, shape[0] // 2, shape[1])
    weight = torch.as_tensor(start, dtype=torch.float64).expand(shape_of_all).clone()
    tile = Tile(weight, algorithm=algorithm, crossbar={"device": device}, seed=seed)
    totals = torch.zeros(4, *shape_of_all, dtype=torch.float64)
    for k in range(settle + steps):
        w = tile.weight
        mean = gradient(w)
        if antithetic:
            xi = noise(generator, half)
            g = mean + torch.cat([xi, -xi], -2)
        else:
            g = mean + noise(generator, shape_of_all)
        if k >= settle:
            for total, value in zip(totals, (w, mean.square(), g.abs(), watch(w)), strict=True):
                total += value
        tile.algorithm.update(tile.state, Dense(g), lr)
    means = totals / steps
    return Rest(*(sum(m.chunk(2, -2)) / 2.0 for m in means) if antithetic else means)  # type: ignore[misc]


def modulus(gradient: float, sigma: float) -> float:
    """E|N(gradient, sigma^2)|."""
    return float(stats.foldnorm(abs(gradient) / sigma, scale=sigma).mean())


def resting_point(w_star: float, sigma: float, h: float, ratio: Callable[[float], float]) -> float:
    """Where Analog SGD rests with Gaussian noise: h (w - w_star) = -E|N(h (w - w_star), sigma^2)| ratio(w).

    ratio: G / F of the device, in closed form, 0 at w = 0 and rising.
    """

    def imbalance(w: float) -> float:
        g = h * (w - w_star)
        return g + modulus(g, sigma) * ratio(w)

    return float(optimize.brentq(imbalance, min(0.0, w_star), max(0.0, w_star)))
