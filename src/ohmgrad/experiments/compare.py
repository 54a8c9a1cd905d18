"""The main job: one network, trained digitally, by Analog SGD and by Tiki-Taka on the same device.

The paper's message in one run (Wu et al. 2024, arXiv 2406.12774, sec. 4 and 5): Analog SGD stalls at the floor that
gradient noise and asymmetry set, Tiki-Taka does not. The seeds of a method train side by side as replicas.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ohmgrad import random
from ohmgrad.algorithms import AnalogSGD, TikiTaka
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices import Device, Ideal
from ohmgrad.devices.presets import aihwkit_soft_bounds
from ohmgrad.experiments.data import Dataset
from ohmgrad.experiments.measure import (
    floor,
    loss_and_accuracy,
    mean_saturation,
    replica_loss,
    tile_gradients,
)
from ohmgrad.experiments.methods import METHODS as ANALOG
from ohmgrad.nn import convert
from ohmgrad.optim import AnalogOptimizer
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate

METHODS = ("digital", "analog-sgd", "tiki-taka")  # the paper's
ALL_METHODS = ("digital", *ANALOG)
ACTIVATIONS = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "relu": nn.ReLU}
N_GRADIENT_BATCHES = 150
MAX_HIDDEN = 1_000_000


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """One comparison. Raises ValueError, naming field, value and rule, when a value breaks its rule.

    decay: the learning rate falls tenfold after this share of the epochs (1: never), which takes the fluctuation that
        a finite step adds to the floors out of them.
    tail: share of the epochs, at the end, over which the floors are averaged.
    """

    methods: tuple[str, ...] = METHODS
    device: Device = field(default_factory=aihwkit_soft_bounds)
    tiki_taka: TikiTaka = field(
        default_factory=lambda: TikiTaka(fast_lr=0.1, scale_fast_lr=False, transfer_lr=1.0, n_reads=None)
    )
    update: ExpectedUpdate | PulsedUpdate = field(default_factory=ExpectedUpdate)
    hidden: tuple[int, ...] = (32,)
    activation: str = "tanh"
    lr: float = 0.1
    batch_size: int = 10
    epochs: int = 30
    seeds: tuple[int, ...] = (0, 1, 2)
    decay: float = 0.6
    tail: float = 0.2

    def __post_init__(self) -> None:
        if not self.methods or any(m not in ALL_METHODS for m in self.methods):
            raise ValueError(f"methods needs some of {', '.join(ALL_METHODS)}, got {', '.join(self.methods) or 'none'}")
        if len(set(self.methods)) != len(self.methods):
            raise ValueError(f"methods needs each method once, got {', '.join(self.methods)}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} needs a whole number >= 1, got {getattr(self, name)}")
        if not self.seeds or any(not 0 <= s < 2**63 for s in self.seeds):
            raise ValueError(f"seeds needs at least one, each in [0, 2**63), got {self.seeds}")
        need_single(self.device)
        if any(not 1 <= h <= MAX_HIDDEN for h in self.hidden):
            raise ValueError(f"hidden needs sizes in 1 ... {MAX_HIDDEN}, got {self.hidden}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation needs one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr needs a finite number > 0, got {self.lr}")
        for name in ("decay", "tail"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} needs a share in (0, 1], got {getattr(self, name)}")

    def need_a_batch(self, data: Dataset) -> None:
        """Raises ValueError where the training set does not fill one mini-batch."""
        n = len(data.x_train)
        if self.batch_size > n:
            raise ValueError(f"batch_size needs at most the {n} training samples, got {self.batch_size}")


@dataclass(frozen=True)
class Curves:
    """What one method did; every list has an entry for each epoch, 0 being the untrained network, each (replica,)."""

    train_loss: list[Tensor]
    test_accuracy: list[Tensor]
    floor_measured: list[Tensor]
    floor_predicted: list[Tensor]
    floor_bound: list[Tensor]
    saturation: list[Tensor]
    cycles: int
    pulses: Tensor
    seconds: float


OnStep = Callable[[str, int, int], None]


def run(
    settings: CompareSettings, data: Dataset, device: str = "cpu", on_step: OnStep | None = None
) -> dict[str, Curves]:
    """Train every method on the data; `on_step(method, step, n_steps)` follows the progress.

    Raises:
        ValueError: the mini-batch is larger than the training set, or a method's loss is no longer finite.
    """
    settings.need_a_batch(data)
    return {method: _train(method, settings, data, device, on_step or (lambda *_: None)) for method in settings.methods}


def summarize(settings: CompareSettings, curves: dict[str, Curves]) -> dict[str, dict[str, Any]]:
    """The figures of results.json: mean and sample standard deviation over the seeds, floors over the last epochs."""
    n_tail = max(1, round(settings.tail * settings.epochs))
    summary = {}
    for method, c in curves.items():
        tails = {
            name: torch.stack(getattr(c, name)[-n_tail:]).mean(0) for name in ("floor_measured", "floor_predicted")
        }
        summary[method] = {
            "test_accuracy": _mean_and_std(c.test_accuracy[-1]),
            "train_loss": _mean_and_std(c.train_loss[-1]),
            "floor_predicted": float(tails["floor_predicted"].mean()),
            "floor_measured": max(0.0, float(tails["floor_measured"].mean())),
            "floor_bound": float(c.floor_bound[-1].mean()),
            "saturation": float(c.saturation[-1].mean()),
            "cycles": c.cycles,
            "pulses": float(c.pulses.mean()),
            "seconds": c.seconds,
        }
    return summary


def _train(method: str, settings: CompareSettings, data: Dataset, device: str, on_step: OnStep) -> Curves:
    model = _model(method, settings, data).to(device)
    x, y = data.x_train.to(device), data.y_train.to(device)
    x_test, y_test = data.x_test.to(device), data.y_test.to(device)
    optimizer = AnalogOptimizer(model, lr=settings.lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, round(settings.decay * settings.epochs)))
    seeds = torch.tensor(settings.seeds)
    n_batches = len(x) // settings.batch_size
    curves: dict[str, list[Tensor]] = {name: [] for name in list(Curves.__dataclass_fields__)[:6]}
    seconds = 0.0
    for epoch in range(settings.epochs + 1):
        if epoch:
            started = time.perf_counter()
            for i, (xb, yb) in enumerate(batches(x, y, seeds, epoch, settings.batch_size)):
                optimizer.zero_grad()
                loss = replica_loss(model(xb), yb)
                loss.sum().backward()
                try:
                    optimizer.step()
                except ValueError:
                    _need_finite(loss, method, epoch)
                    raise
                on_step(method, (epoch - 1) * n_batches + i + 1, settings.epochs * n_batches)
            schedule.step()
            seconds += time.perf_counter() - started
        for name, value in _measure(model, x, y, x_test, y_test, seeds, settings.batch_size).items():
            curves[name].append(value)
        _need_finite(curves["train_loss"][-1], method, epoch)
    bars = [bar for m in model.modules() if isinstance(m, Tile) for bar in m.crossbars]
    pulses = torch.stack([bar.counters.pulses for bar in bars]).sum(0)
    return Curves(**curves, cycles=sum(b.counters.cycles for b in bars), pulses=pulses, seconds=seconds)


def algorithm_of(method: str, settings: CompareSettings) -> Algorithm:
    """What the method trains with; digital SGD is Analog SGD on ideal devices."""
    if method == "digital":
        return AnalogSGD()
    return settings.tiki_taka if method == "tiki-taka" else ANALOG[method].algorithm


def _model(method: str, settings: CompareSettings, data: Dataset) -> nn.Module:
    is_digital = method == "digital"
    device = Ideal() if is_digital else settings.device
    update = ExpectedUpdate() if is_digital else settings.update
    return network(algorithm_of(method, settings), device, update, settings, data)


def network(
    algorithm: Algorithm,
    device: Device,
    update: ExpectedUpdate | PulsedUpdate,
    settings: CompareSettings,
    data: Dataset,
) -> nn.Module:
    """Replicas of a multilayer perceptron; replica s is what seed s alone would have given."""
    sizes = (data.x_train.shape[1], *settings.hidden, data.n_classes)
    digital = []
    for seed in settings.seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = []
            for n_in, n_out in pairwise(sizes):
                layers += [nn.Linear(n_in, n_out), ACTIVATIONS[settings.activation]()]
        digital.append(nn.Sequential(*layers[:-1]))
    return convert(digital, device=device, algorithm=algorithm, update=update, seed=settings.seeds, replicas=True)


def batches(x: Tensor, y: Tensor, seeds: Tensor, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Mini-batches (replica, batch, ...) in an order that is a function of (seed, epoch); a rest is left out."""
    order = random.uniform_plane(seeds, (random.Stream.ORDER, epoch), 1, len(x), torch.float64)[:, 0].argsort()
    for i in range(0, len(x) - size + 1, size):
        index = order[:, i : i + size].to(x.device)
        yield x[index], y[index]


def _measure(
    model: nn.Module, x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, seeds: Tensor, size: int
) -> dict[str, Tensor]:
    train_loss, _ = loss_and_accuracy(model, x, y, len(seeds))
    _, test_accuracy = loss_and_accuracy(model, x_test, y_test, len(seeds))
    n_all = len(x) // size
    n = min(N_GRADIENT_BATCHES, n_all)
    some = (b for b, _ in zip(batches(x, y, seeds, 0, size), range(n), strict=False))
    floors = floor(model, tile_gradients(model, some), n, n_all)
    return {
        "train_loss": train_loss,
        "test_accuracy": test_accuracy,
        "floor_measured": floors.measured,
        "floor_predicted": floors.predicted,
        "floor_bound": floors.bound,
        "saturation": mean_saturation(model),
    }


def need_single(device: Device) -> None:
    """Raises ValueError where a device is a unit cell, for which theory has no floor and no symmetric point."""
    if not isinstance(device, Device):
        raise ValueError(f"device needs a single device, got {type(device).__name__}")


def _need_finite(loss: Tensor, method: str, epoch: int) -> None:
    if not torch.isfinite(loss).all():
        raise ValueError(
            f"{method} diverged in epoch {epoch}: its loss is no longer finite; try a smaller lr"
        ) from None


def _mean_and_std(values: Tensor) -> dict[str, float]:
    """Of one seed the spread is not known: NaN, null in results.json."""
    values = values.double()
    return {"mean": float(values.mean()), "std": float(values.std()) if len(values) > 1 else math.nan}
