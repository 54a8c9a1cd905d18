"""Which algorithm suits a device: each one's few settings searched with an equal budget, then ranked over seeds.

Two small tasks: a quadratic with known optimum (a 16 x 16 matrix learns a target from noisy errors), and handwritten
digits (64-32-10). Settings are points of a scrambled Sobol sequence (scipy), in ranges of `methods`, as many for each
algorithm, the learning rate among them; the point with the lowest loss on a seed of its own is then trained anew with
the seeds that are reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor

from ohmgrad.crossbar.tile import Algorithm, Tile
from ohmgrad.devices import Device
from ohmgrad.devices.presets import aihwkit_soft_bounds
from ohmgrad.experiments.compare import CompareSettings, batches, need_single, network
from ohmgrad.experiments.data import Dataset
from ohmgrad.experiments.measure import loss_and_accuracy, replica_loss
from ohmgrad.experiments.methods import METHODS
from ohmgrad.optim import AnalogOptimizer
from ohmgrad.pulses.forms import Outer
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate

SIZE, BATCH, NOISE = 16, 10, 0.3  # of the quadratic: matrix, mini-batch, noise of each error
DIGITS_BATCH = 20
LR = (0.01, 1.0)
SEARCH_SEED = 10_000  # apart from the seeds that are reported
OnTrial = Callable[[str, str, int], None]


@dataclass(frozen=True, kw_only=True)
class RecommendSettings:
    """One recommendation. Raises ValueError, naming field, value and rule, when a value breaks its rule.

    trials: settings tried for each algorithm on each task. epochs: of digits, in the final training; a search takes a
    third. steps: mini-batches of the quadratic.
    """

    device: Device = field(default_factory=aihwkit_soft_bounds)
    update: ExpectedUpdate | PulsedUpdate = field(default_factory=lambda: ExpectedUpdate(noise=True))
    methods: tuple[str, ...] = tuple(METHODS)
    trials: int = 8
    epochs: int = 9
    steps: int = 300
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        if not self.methods or any(m not in METHODS for m in self.methods):
            raise ValueError(f"methods needs some of {', '.join(METHODS)}, got {', '.join(self.methods) or 'none'}")
        for name in ("trials", "epochs", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} needs a whole number >= 1, got {getattr(self, name)}")
        need_single(self.device)
        if len(self.seeds) < 2 or any(not 0 <= s < SEARCH_SEED for s in self.seeds):
            raise ValueError(f"seeds needs at least two, each in [0, {SEARCH_SEED}), got {self.seeds}")


@dataclass(frozen=True)
class Result:
    """What one algorithm did on one task: losses of the seeds, accuracies (None for the quadratic), best settings."""

    losses: list[float]
    accuracies: list[float] | None
    settings: dict[str, float]


def run(
    settings: RecommendSettings, data: Dataset, on_trial: OnTrial = lambda *_: None
) -> dict[str, dict[str, Result]]:
    """Results by method and task ("quadratic", "digits")."""
    results: dict[str, dict[str, Result]] = {}
    for method in settings.methods:
        results[method] = {}
        for task in ("quadratic", "digits"):
            best, lowest = {}, math.inf
            for k, point in enumerate(points(method, settings.trials, settings.seeds[0])):
                seed = (SEARCH_SEED + settings.seeds[0],)
                (loss,), _ = _train(task, method, point, settings, data, seed, is_search=True)
                on_trial(method, task, k)
                if not best or loss < lowest:  # NaN is not
                    best, lowest = point, loss if math.isfinite(loss) else math.inf
            losses, accuracies = _train(task, method, best, settings, data, settings.seeds, is_search=False)
            results[method][task] = Result(losses, accuracies, best)
    return results


def points(method: str, n: int, seed: int) -> list[dict[str, float]]:
    """Settings to try: n points of a Sobol sequence on a log scale, the learning rate first.

    >>> [sorted(p) for p in points("tiki-taka", 1, 0)]
    [['fast_lr', 'lr', 'transfer_lr']]
    """
    ranges = {"lr": LR, **METHODS[method].ranges}
    low, high = (np.log([bounds[k] for bounds in ranges.values()]) for k in (0, 1))
    unit = qmc.Sobol(len(ranges), rng=seed).random_base2(math.ceil(math.log2(n)))[:n]
    return [dict(zip(ranges, map(float, np.exp(low + u * (high - low))), strict=True)) for u in unit]


def ranking(results: Mapping[str, Mapping[str, Result]]) -> list[dict[str, Any]]:
    """Methods by their mean loss on digits, best first; `is_tied` where the best is within two standard errors."""
    rows = []
    for method, tasks in results.items():
        losses = {task: np.asarray(r.losses) for task, r in tasks.items()}
        row: dict[str, Any] = {"method": method}
        for task, values in losses.items():
            is_finite = bool(np.isfinite(values).all())
            row[task] = {
                "loss": float(values.mean()) if is_finite else math.inf,
                "error": float(values.std(ddof=1) / math.sqrt(len(values))) if is_finite else math.inf,
                "settings": tasks[task].settings,
            }
        accuracies = tasks["digits"].accuracies or [math.nan]
        row["accuracy"] = float(np.mean(accuracies))
        rows.append(row)
    rows.sort(key=lambda row: row["digits"]["loss"])
    best = rows[0]["digits"]
    for row in rows:
        gap = row["digits"]["loss"] - best["loss"]
        row["is_tied"] = bool(math.isfinite(gap) and gap <= 2.0 * math.hypot(row["digits"]["error"], best["error"]))
    return rows


def _train(
    task: str,
    method: str,
    point: Mapping[str, float],
    settings: RecommendSettings,
    data: Dataset,
    seeds: tuple[int, ...],
    *,
    is_search: bool,
) -> tuple[list[float], list[float] | None]:
    """Losses, and accuracies on digits, of one training per seed; infinite where it diverged."""
    algorithm = METHODS[method].tuned({k: v for k, v in point.items() if k != "lr"})
    if task == "quadratic":
        return quadratic(algorithm, settings, point["lr"], seeds), None
    epochs = max(1, settings.epochs // 3) if is_search else settings.epochs
    return digits(algorithm, settings, point["lr"], seeds, data, epochs)


def quadratic(algorithm: Algorithm, settings: RecommendSettings, lr: float, seeds: tuple[int, ...]) -> list[float]:
    """Mean square error of the weights over that of no training, in the last fifth of the steps, of each seed."""
    generators = [torch.Generator().manual_seed(s) for s in seeds]

    def normal(*shape: int) -> Tensor:
        return torch.stack([torch.randn(*shape, generator=g) for g in generators])

    reach = min(settings.device.w_max, -settings.device.w_min, 1.0) or 1.0
    target = 0.2 * reach * normal(SIZE, SIZE)
    options = {"device": settings.device, "update": settings.update}
    tile = Tile(torch.zeros_like(target), algorithm=algorithm, crossbar=options, seed=list(seeds))
    errors = []
    for k in range(settings.steps):
        x = normal(BATCH, SIZE)
        d = (x @ (tile.weight - target).mT + NOISE * normal(BATCH, SIZE)) / BATCH
        if not torch.isfinite(d).all():
            return [math.inf] * len(seeds)
        algorithm.update(tile.state, Outer(d, x), lr * (0.1 if k > 0.6 * settings.steps else 1.0))
        if k >= 0.8 * settings.steps:
            errors.append((tile.weight - target).square().mean((-2, -1)))
    return (torch.stack(errors).mean(0) / target.square().mean((-2, -1))).tolist()


def digits(
    algorithm: Algorithm,
    settings: RecommendSettings,
    lr: float,
    seeds: tuple[int, ...],
    data: Dataset,
    epochs: int,
) -> tuple[list[float], list[float]]:
    """Training loss and test accuracy (%) after the last epoch, of each seed."""
    shared = CompareSettings(seeds=seeds, batch_size=DIGITS_BATCH)
    model = network(algorithm, settings.device, settings.update, shared, data)
    optimizer = AnalogOptimizer(model, lr=lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, round(shared.decay * epochs)))
    for epoch in range(1, epochs + 1):
        for x, y in batches(data.x_train, data.y_train, torch.tensor(seeds), epoch, shared.batch_size):
            optimizer.zero_grad()
            loss = replica_loss(model(x), y)
            if not torch.isfinite(loss).all():
                return [math.inf] * len(seeds), [0.0] * len(seeds)
            loss.sum().backward()
            optimizer.step()
        schedule.step()
    loss, _ = loss_and_accuracy(model, data.x_train, data.y_train, len(seeds))
    _, accuracy = loss_and_accuracy(model, data.x_test, data.y_test, len(seeds))
    return loss.tolist(), accuracy.tolist()
