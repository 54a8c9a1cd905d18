"""Many runs of a solvable problem side by side: what a theorem is held against."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.algorithms import AnalogSGD
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices.base import Device
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate
from ohmgrad.theory.error import asymmetry
from ohmgrad.theory.instances.base import Instance


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error, which is NaN of a single sample."""

    value: float
    error: float


def estimate(samples: Tensor) -> Estimate:
    """Mean and standard error of the samples, (replica,).

    Source: the central limit theorem. Assumes: samples are independent.

    >>> estimate(torch.tensor([1.0, 3.0]))
    Estimate(value=2.0, error=1.0)
    """
    x = samples.double().flatten()
    return Estimate(float(x.mean()), float(x.std() / math.sqrt(x.numel())) if x.numel() > 1 else math.nan)


@dataclass(frozen=True)
class Descent:
    """What runs did. Means over time are over the looks after `settle`, of each replica, in float64.

    step: numbers of all looks, (n,). loss, squared: f(w) - f* and ||grad f||^2 at them, means over replicas, (n,).
    weight, gradient, modulus: time means of w, of the exact gradient and of |g|, (replica, out, in).
    mean_loss, mean_squared: time means of f(w) - f* and of ||grad f||^2, (replica,).
    mean_asymmetry: time mean of S of the crossbar that takes the gradient's pulses, (replica,): S_K.
    tile: as the runs left it.
    """

    step: Tensor
    loss: Tensor
    squared: Tensor
    weight: Tensor
    gradient: Tensor
    modulus: Tensor
    mean_loss: Tensor
    mean_squared: Tensor
    mean_asymmetry: Tensor
    tile: Tile


@torch.no_grad()
def descend(
    instance: Instance,
    *,
    device: Device,
    lr: float,
    steps: int,
    algorithm: Algorithm | None = None,
    settle: int = 0,
    replicas: int = 100,
    start: Tensor | float | None = None,
    update: ExpectedUpdate | PulsedUpdate | None = None,
    every: int = 1,
    seed: int = 0,
    on_look: Callable[[int, Tile], None] = lambda step, tile: None,
) -> Descent:
    """Train `replicas` runs of an instance by `settle` + `steps` steps, and average over the last `steps`.

    Args:
        device: of all crossbars that the algorithm does not give its own.
        lr: step of `algorithm`, Analog SGD by default.
        start: the first weight, one number or (out, in) or (replica, out, in); W* by default.
        update: fidelity: the mean dynamics by default, with or without pulse noise, or every pulse.
        every: look at the runs, before their update, each so many steps; what is not looked at costs no average.
        seed: of gradients, devices and pulses.
        on_look: called with the step and the tile at each look.

    Source: Wu et al. 2024, eq. 8 (mean dynamics), and as the algorithm says. Assumes: what the instance assumes.

    Raises:
        ValueError: steps, replicas or every < 1, settle < 0; steps < every leaves nothing to average.
    """
    for name, value, least in (("steps", steps, every), ("settle", settle, 0), ("replicas", replicas, 1)):
        if value < least:
            raise ValueError(f"descend needs {name} >= {least}, got {value}")
    if every < 1:
        raise ValueError(f"descend needs every >= 1, got {every}")
    weight = torch.as_tensor(instance.optimum if start is None else start, dtype=torch.float64)
    weight = weight.expand(replicas, *instance.optimum.shape).clone()
    options = {"device": device, "update": update or ExpectedUpdate()}
    tile = Tile(weight, algorithm=algorithm or AnalogSGD(), crossbar=options, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    bar, _ = tile.algorithm.at_rest(tile.state)
    f_star, curves, sums, n = instance.f_star, [], _Sums(), 0
    for k in range(settle + steps):
        w = tile.weight
        sample = instance.sample(w, generator)
        if k % every == 0:
            loss, gradient = instance.loss(w) - f_star, instance.gradient(w)
            squared = gradient.square().sum((-2, -1))
            curves.append((k, float(loss.mean()), float(squared.mean())))
            on_look(k, tile)
            if k >= settle:
                S = asymmetry(bar.device_model, bar.weight, bar.params)
                sums.add(w, gradient, sample.as_dense().abs(), loss, squared, S)
                n += 1
        tile.algorithm.update(tile.state, sample, lr)
    step, loss, squared = torch.tensor(curves, dtype=torch.float64).unbind(-1)
    w, gradient, modulus, mean_loss, mean_squared, S = (total / n for total in sums.totals)
    return Descent(step.long(), loss, squared, w, gradient, modulus, mean_loss, mean_squared, S, tile)


class _Sums:
    """Of what is looked at, one after the other."""

    def __init__(self) -> None:
        self.totals: list[Tensor] = []

    def add(self, *values: Tensor) -> None:
        if not self.totals:
            self.totals = [torch.zeros_like(v) for v in values]
        for total, value in zip(self.totals, values, strict=True):
            total += value
