"""Tiles of few states: does each further tile of residual learning take training nearer to digital SGD? (MNIST)

draft
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ohmgrad.algorithms import AnalogSGD, MultiTile, TikiTaka
from ohmgrad.crossbar.tile import Algorithm
from ohmgrad.devices import Device, Ideal, SoftBounds
from ohmgrad.experiments.compare import CompareSettings, batches, network
from ohmgrad.experiments.data import Dataset
from ohmgrad.experiments.measure import loss_and_accuracy, replica_loss
from ohmgrad.optim import AnalogOptimizer
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate

OnEpoch = Callable[[str, int, list[float]], None]


@dataclass(frozen=True, kw_only=True)
class MultiTileSettings:
    methods: tuple[str, ...] = ("digital", "analog-sgd", "2", "3", "4", "6")
    device: Device = field(default_factory=lambda: SoftBounds(dw_min=0.125))
    hidden: tuple[int, ...] = (64,)
    batch: int = 10
    lr: float = 0.05
    epochs: int = 6
    n_train: int = 10_000
    seeds: tuple[int, ...] = (0, 1, 2)
    gamma: float = 0.3
    every: int = 10
    growth: int = 4
    transfer_lr: float = 0.3
    fast: float = 1.0
    power: float = 1.0
    decay: float = 0.6
    scale: bool = True


def algorithm_of(method: str, s: MultiTileSettings) -> Algorithm:
    if method in ("digital", "analog-sgd"):
        return AnalogSGD()
    if method == "tiki-taka":
        return TikiTaka(fast_lr=0.1, scale_fast_lr=False, n_reads=None, transfer_columns=False)
    n = int(method)
    return MultiTile(
        n_tiles=n,
        gamma=s.gamma,
        fast_lr=s.fast * s.gamma ** (-s.power * (n - 1)),
        n_reads=None,
        transfer_columns=False,
        transfer_lr=s.transfer_lr / (s.lr if s.scale else 1.0),
        scale_transfer_lr=s.scale,
        transfer_lr_growth=1.0,
        transfer_every=s.every,
        transfer_every_growth=s.growth,
    )


def run(s: MultiTileSettings, data: Dataset, on_epoch: OnEpoch = lambda *_: None) -> dict[str, list]:
    return {m: train(m, s, data, on_epoch) for m in s.methods}


def train(method: str, s: MultiTileSettings, data: Dataset, on_epoch: OnEpoch):
    is_digital = method == "digital"
    shared = CompareSettings(seeds=s.seeds, batch_size=s.batch, hidden=s.hidden)
    update = ExpectedUpdate() if is_digital else PulsedUpdate()
    model = network(algorithm_of(method, s), Ideal() if is_digital else s.device, update, shared, data)
    optimizer = AnalogOptimizer(model, lr=s.lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, round(s.decay * s.epochs)))
    x, y, seeds, out = data.x_train[: s.n_train], data.y_train[: s.n_train], torch.tensor(s.seeds), []
    for epoch in range(1, s.epochs + 1):
        for xb, yb in batches(x, y, seeds, epoch, s.batch):
            optimizer.zero_grad()
            replica_loss(model(xb), yb).sum().backward()
            optimizer.step()
        schedule.step()
        loss, _ = loss_and_accuracy(model, x, y, len(s.seeds))
        _, accuracy = loss_and_accuracy(model, data.x_test, data.y_test, len(s.seeds))
        out.append((loss.tolist(), accuracy.tolist()))
        on_epoch(method, epoch, loss.tolist() + accuracy.tolist())
    return out
