"""Many independent runs of one noisy quadratic, f = h/2 (w - w_star)^2, as the elements of one matrix."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad import Dense, Tile
from ohmgrad.crossbar.tile import Algorithm
from ohmgrad.devices import Device

Noise = Callable[[torch.Generator, tuple[int, int]], Tensor]


@dataclass(frozen=True)
class Rest:
    """Means over time of each run, (100, 100) float64, after it has come to rest: of w, of (df/dw)^2, of |g|."""

    w: Tensor
    squared: Tensor
    modulus: Tensor


def gaussian_noise(std: float) -> Noise:
    """Of that standard deviation, independent in each run and step."""
    return lambda generator, shape: std * torch.randn(shape, generator=generator, dtype=torch.float64)


def rest(
    algorithm: Algorithm,
    device: Device,
    *,
    w_star: float,
    noise: Noise,
    lr: float,
    start: float,
    settle: int,
    steps: int,
    seed: int,
    h: float = 1.0,
) -> Rest:
    """Run 10,000 of them from `start` with gradients h (w - w_star) + noise; average `steps` steps after `settle`."""
    generator, shape = torch.Generator().manual_seed(seed), (100, 100)
    weight = torch.full(shape, start, dtype=torch.float64)
    tile = Tile(weight, algorithm=algorithm, crossbar={"device": device}, seed=seed)
    totals = torch.zeros(3, *shape, dtype=torch.float64)
    for k in range(settle + steps):
        gradient = h * (tile.weight - w_star)
        g = gradient + noise(generator, shape)
        if k >= settle:
            for total, value in zip(totals, (tile.weight, gradient.square(), g.abs()), strict=True):
                total += value
        tile.algorithm.update(tile.state, Dense(g), lr)
    return Rest(*totals / steps)
