"""Many independent runs of one noisy quadratic, f = h/2 (w - w_star)^2, side by side."""

import torch

from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.devices import Device
from ohmgrad.theory import Descent, Noise, descend
from ohmgrad.theory.instances import Quadratic


def rest(
    algorithm: Algorithm,
    device: Device,
    *,
    w_star: float,
    std: float,
    lr: float,
    start: float,
    settle: int,
    steps: int,
    seed: int,
    h: float = 1.0,
) -> Descent:
    """10,000 of them from `start` with Gaussian noise of that deviation; means over `steps` steps after `settle`."""
    target = torch.tensor([[w_star]], dtype=torch.float64)
    return descend(
        Quadratic(target=target, h=h, noise=Noise(std=std)), algorithm=algorithm, device=device, lr=lr, start=start,
        settle=settle, steps=steps, replicas=10_000, every=2, seed=seed,
    )  # fmt: skip
