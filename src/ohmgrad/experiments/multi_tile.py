"""Tiles of few states: each further tile of residual learning takes a network nearer to digital SGD (arXiv 2510.02516).

A multilayer perceptron (784-64-10) learns MNIST on devices of 16 states, pulse by pulse, with 1 tile (Analog SGD), with
2 to 6 (`MultiTile`), and digitally. In the paper, LeNet-5 on devices of 10 states ends at 95.1, 97.1 and 98.5 % with 3,
4 and 6 tiles (its MNIST runs of 100 epochs); here network and time are smaller, to see the order.

What it takes, and the defaults have: clocks that are apart (transfers from each coarser tile `growth` times as rare,
the first after 30 mini-batches: the fine tile must have time to correct what a transfer, in steps of dw_min, does to
the coarser one), a step of the fine tile that is larger by gamma^-N, so that the sum moves as Analog SGD's weight
would, and transfers that slow down with the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ohmgrad.algorithms import AnalogSGD, MultiTile
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.devices import Device, Ideal, SoftBounds
from ohmgrad.experiments.compare import CompareSettings, batches, network
from ohmgrad.experiments.data import Dataset
from ohmgrad.experiments.measure import loss_and_accuracy, replica_loss
from ohmgrad.optim import AnalogOptimizer
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate

N_STATES = 16  # four bits
DIGITAL = 0  # the "number of tiles" of digital SGD
OnEpoch = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class MultiTileSettings:
    """One comparison. Raises ValueError, naming field, value and rule, when a value breaks its rule.

    tiles: numbers of tiles to train with; 1 is Analog SGD, 0 digital SGD. n_train: samples of the training set.
    decay: after this share of the epochs the learning rate falls tenfold.
    gamma, transfer_every, growth: of `MultiTile`. transfer_lr: of it, at the first learning rate.
    """

    tiles: tuple[int, ...] = (DIGITAL, 1, 2, 3, 4, 6)
    device: Device = field(default_factory=lambda: SoftBounds(dw_min=2.0 / N_STATES))
    hidden: tuple[int, ...] = (64,)
    batch_size: int = 10
    lr: float = 0.05
    decay: float = 0.6
    epochs: int = 6
    n_train: int = 20_000
    gamma: float = 0.3
    transfer_every: int = 30
    growth: int = 3
    transfer_lr: float = 0.1
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        if not self.tiles or any(n < 0 for n in self.tiles):
            raise ValueError(f"tiles needs at least one number of tiles >= 0, got {self.tiles}")
        for name in ("epochs", "n_train"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} needs a whole number >= 1, got {getattr(self, name)}")
        self.shared()  # these hold the rest to their rules
        self.algorithm(max(self.tiles))

    def shared(self) -> CompareSettings:
        """What every training here has in common with those of `ohmgrad compare`."""
        return CompareSettings(seeds=self.seeds, batch_size=self.batch_size, hidden=self.hidden, decay=self.decay)

    def algorithm(self, n_tiles: int) -> Algorithm:
        """Residual learning on that many tiles, whole matrices at each transfer."""
        if n_tiles < 2:
            return AnalogSGD()
        return MultiTile(
            n_tiles=n_tiles,
            gamma=self.gamma,
            fast_lr=self.gamma ** (1 - n_tiles),
            transfer_lr=self.transfer_lr / self.lr,
            scale_transfer_lr=True,
            transfer_lr_growth=1.0,
            transfer_every=self.transfer_every,
            transfer_every_growth=self.growth,
            n_reads=None,
            transfer_columns=False,  # fewer lines than there are columns
        )


@dataclass(frozen=True)
class Curves:
    """Training loss and test accuracy (%) after each epoch, (epoch, replica)."""

    loss: Tensor
    accuracy: Tensor


def run(settings: MultiTileSettings, data: Dataset, on_epoch: OnEpoch = lambda *_: None) -> dict[int, Curves]:
    """Curves by number of tiles; `on_epoch(n_tiles, epoch)` follows the progress."""
    return {n: train(n, settings, data, on_epoch) for n in settings.tiles}


def train(n_tiles: int, settings: MultiTileSettings, data: Dataset, on_epoch: OnEpoch = lambda *_: None) -> Curves:
    """One training, its seeds side by side as replicas."""
    shared, is_digital = settings.shared(), n_tiles == DIGITAL
    device, update = (Ideal(), ExpectedUpdate()) if is_digital else (settings.device, PulsedUpdate())
    model = network(settings.algorithm(n_tiles), device, update, shared, data)
    optimizer = AnalogOptimizer(model, lr=settings.lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, round(settings.decay * settings.epochs)))
    x, y = data.x_train[: settings.n_train], data.y_train[: settings.n_train]
    seeds, losses, accuracies = torch.tensor(settings.seeds), [], []
    for epoch in range(1, settings.epochs + 1):
        for xb, yb in batches(x, y, seeds, epoch, settings.batch_size):
            optimizer.zero_grad()
            replica_loss(model(xb), yb).sum().backward()
            optimizer.step()
        schedule.step()
        losses.append(loss_and_accuracy(model, x, y, len(seeds))[0])
        accuracies.append(loss_and_accuracy(model, data.x_test, data.y_test, len(seeds))[1])
        on_epoch(n_tiles, epoch)
    return Curves(torch.stack(losses), torch.stack(accuracies))
