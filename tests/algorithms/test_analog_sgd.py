"""Analog SGD, one step. Where it leads, E1 to E6, is in `experiments/verify`."""

import torch

from exact import assert_within_ulps
from ohmgrad import AnalogSGD, Dense, Tile
from ohmgrad.devices.presets import asymmetric_linear


def scalar(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def tile(weight: torch.Tensor, algorithm, tau: float = 1.0) -> Tile:
    return Tile(weight, algorithm=algorithm, crossbar={"device": asymmetric_linear(tau)})


def test_one_step_on_a_matrix():
    # W <- W - lr g - lr |g| W / tau, the formula of eq. 8 without devices or crossbars.
    g = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    W = 0.1 * g.flip(0)
    t = tile(W, AnalogSGD(), tau=0.5)
    t.algorithm.update(t.state, Dense(g), 0.05)
    assert_within_ulps(t.weight, W - 0.05 * g - 0.05 * g.abs() * W / 0.5, ulps=4)
