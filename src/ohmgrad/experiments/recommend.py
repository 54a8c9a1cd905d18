"""Which algorithm suits a device: each one's few settings searched with an equal budget, then ranked over seeds.

Two small tasks: a quadratic with known optimum (a 16 x 16 matrix learns a target from noisy errors), and handwritten
digits (64-32-10). Each seed is a whole run: settings from a scrambled Sobol sequence of its own (scipy), in the ranges
of `methods`, the learning rate among them; successive halving on a seed apart (Jamieson and Talwalkar 2016, AISTATS),
the best quarter each time for three times as long; and a training with what was found, which is reported. So error
bars hold the luck of the search too. All settings of all seeds train side by side, as replicas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats
from scipy.stats import qmc
from torch import Tensor, nn

from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices import Device
from ohmgrad.devices.presets import aihwkit_soft_bounds
from ohmgrad.experiments.compare import CompareSettings, batches, need_single, network
from ohmgrad.experiments.data import Dataset
from ohmgrad.experiments.measure import loss_and_accuracy, replica_loss
from ohmgrad.experiments.methods import METHODS
from ohmgrad.pulses.forms import Outer
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate

SIZE, BATCH, NOISE = 16, 10, 0.3  # of the quadratic: matrix, mini-batch, noise of each error
DIGITS_BATCH = 20
LR = (0.01, 1.0)
SEARCH_SEED = 10_000  # apart from the seeds that are reported
SHARES = (1 / 9, 1 / 3)  # of the final training, for which a search trains; the best quarter goes on
MISTAKE = 0.05  # odds that a ranking calls one of the first's equals worse
LARGE = 1e6  # a loss that is as large has diverged
TASKS = ("quadratic", "digits")
OnTrial = Callable[[str, str, int], None]
Point = dict[str, float]
Losses = tuple[list[float], list[float] | None]


@dataclass(frozen=True, kw_only=True)
class RecommendSettings:
    """One recommendation. Raises ValueError, naming field, value and rule, when a value breaks its rule.

    trials: settings tried for each algorithm, task and seed. epochs: of digits, in the final training. steps:
    mini-batches of the quadratic. seeds: each a run of its own, search and all.
    """

    device: Device = field(default_factory=aihwkit_soft_bounds)
    update: ExpectedUpdate | PulsedUpdate = field(default_factory=lambda: ExpectedUpdate(noise=True))
    methods: tuple[str, ...] = tuple(METHODS)
    trials: int = 16
    epochs: int = 9
    steps: int = 300
    seeds: tuple[int, ...] = tuple(range(8))

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
    """What one algorithm did on one task, a value for each seed; accuracies are None for the quadratic."""

    losses: list[float]
    accuracies: list[float] | None
    settings: list[Point]


def run(
    settings: RecommendSettings, data: Dataset, on_trial: OnTrial = lambda *_: None
) -> dict[str, dict[str, Result]]:
    """Results by method and task ("quadratic", "digits"); `on_trial(method, task, stage)` follows the progress."""
    results: dict[str, dict[str, Result]] = {}
    for method in settings.methods:
        results[method] = {}
        for task in TASKS:
            found = [points(method, settings.trials, s) for s in settings.seeds]
            for stage, share in enumerate(SHARES):
                found = _best_of(found, task, method, settings, data, share)
                on_trial(method, task, stage)
            chosen = [best[0] for best in found]
            losses, accuracies = _train(task, method, chosen, settings.seeds, settings, data, 1.0)
            on_trial(method, task, len(SHARES))
            results[method][task] = Result(losses, accuracies, chosen)
    return results


def _best_of(
    tried: list[list[Point]], task: str, method: str, settings: RecommendSettings, data: Dataset, share: float
) -> list[list[Point]]:
    """Of the settings of each seed the best quarter, best first, after a share of the training."""
    if len(tried[0]) == 1:
        return tried
    seeds = tuple(SEARCH_SEED + s for s, own in zip(settings.seeds, tried, strict=True) for _ in own)
    losses, _ = _train(task, method, [p for own in tried for p in own], seeds, settings, data, share)
    order = np.nan_to_num(np.reshape(losses, (len(tried), -1)), nan=np.inf).argsort(-1, kind="stable")
    keep = math.ceil(len(tried[0]) / 4)
    return [[own[k] for k in best[:keep]] for own, best in zip(tried, order, strict=True)]


def points(method: str, n: int, seed: int) -> list[Point]:
    """Settings to try: n points of a Sobol sequence on a log scale, the learning rate first.

    >>> [sorted(p) for p in points("tiki-taka", 1, 0)]
    [['fast_lr', 'lr', 'transfer_lr']]
    """
    ranges = {"lr": LR, **METHODS[method].ranges}
    low, high = (np.log([bounds[k] for bounds in ranges.values()]) for k in (0, 1))
    unit = qmc.Sobol(len(ranges), rng=seed).random_base2(math.ceil(math.log2(n)))[:n]
    return [dict(zip(ranges, map(float, np.exp(low + u * (high - low))), strict=True)) for u in unit]


def ranking(results: Mapping[str, Mapping[str, Result]]) -> list[dict[str, Any]]:
    """Methods by their loss on digits, best first: geometric means over the seeds, with standard errors.

    `is_tied`: the seeds do not tell it from the first, by a paired t test of the logarithms of the losses. `p` is that
    test's; a method is told apart where p is below MISTAKE over the number of methods that came to a finite loss.
    """
    rows = []
    for method, tasks in results.items():
        row: dict[str, Any] = {"method": method}
        for task, result in tasks.items():
            n = len(result.losses)
            row[task] = {**_mean(result.losses), "n": n, "losses": result.losses, "settings": result.settings}
        row["accuracy"] = float(np.mean(tasks["digits"].accuracies or [math.nan]))
        rows.append(row)
    rows.sort(key=lambda row: row["digits"]["loss"])
    best = rows[0]["digits"]
    finite = [row for row in rows if math.isfinite(row["digits"]["loss"])]
    for row in rows:
        row["p"] = _p_of_equal(row["digits"]["losses"], best["losses"]) if row in finite else 0.0
        row["is_tied"] = row["p"] >= MISTAKE / max(1, len(finite) - 1)
    return rows


def _log(losses: list[float]) -> np.ndarray:
    return np.log(np.maximum(losses, np.finfo(float).tiny))


def _mean(losses: list[float]) -> dict[str, float]:
    """The geometric mean and its standard error; infinite where a run diverged."""
    if not np.isfinite(losses).all():
        return {"loss": math.inf, "error": math.inf}
    mean = float(np.exp(_log(losses).mean()))
    return {"loss": mean, "error": mean * float(_log(losses).std(ddof=1)) / math.sqrt(len(losses))}


def _p_of_equal(a: list[float], b: list[float]) -> float:
    """Odds of differences as large as these, seed by seed, where there is none in the mean."""
    difference = _log(a) - _log(b)
    return float(stats.ttest_1samp(difference, 0.0).pvalue) if difference.any() else 1.0


def _train(
    task: str,
    method: str,
    chosen: Sequence[Point],
    seeds: tuple[int, ...],
    settings: RecommendSettings,
    data: Dataset,
    share: float,
) -> Losses:
    """Losses, and accuracies on digits, of replicas with these settings and seeds, for a share of the training."""
    own = {name: torch.tensor([p[name] for p in chosen])[:, None, None] for name in chosen[0]}
    lr = own.pop("lr")
    algorithm = METHODS[method].tuned(own)
    if task == "quadratic":
        return quadratic(algorithm, settings, lr, seeds, max(5, round(share * settings.steps))), None
    return digits(algorithm, settings, lr, seeds, data, max(1, round(share * settings.epochs)))


def quadratic(
    algorithm: Algorithm, settings: RecommendSettings, lr: Tensor, seeds: tuple[int, ...], n_steps: int
) -> list[float]:
    """Mean square error of the weights over that of no training, in the last fifth of the steps, of each replica."""
    distinct = {s: torch.Generator().manual_seed(s) for s in seeds}
    place = torch.tensor([list(distinct).index(s) for s in seeds])

    def normal(*shape: int) -> Tensor:
        return torch.stack([torch.randn(*shape, generator=g) for g in distinct.values()])[place]

    reach = min(settings.device.w_max, -settings.device.w_min, 1.0) or 1.0
    target = 0.2 * reach * normal(SIZE, SIZE)
    options = {"device": settings.device, "update": settings.update}
    tile = Tile(torch.zeros_like(target), algorithm=algorithm, crossbar=options, seed=list(seeds))
    errors, sound = [], torch.ones(len(seeds), 1, 1, dtype=torch.bool)
    for k in range(n_steps):
        x = normal(BATCH, SIZE)
        d = (x @ (tile.weight - target).mT + NOISE * normal(BATCH, SIZE)) / BATCH
        sound &= (d.abs() < LARGE).all(-1, keepdim=True).all(-2, keepdim=True)
        algorithm.update(tile.state, Outer(d.where(sound, 0.0), x), lr * (0.1 if k > 0.6 * n_steps else 1.0))
        if k >= 0.8 * n_steps:
            errors.append((tile.weight - target).square().mean((-2, -1)))
    error = torch.stack(errors).mean(0) / target.square().mean((-2, -1))
    return error.where(sound[:, 0, 0] & error.isfinite(), math.inf).tolist()


def digits(
    algorithm: Algorithm,
    settings: RecommendSettings,
    lr: Tensor,
    seeds: tuple[int, ...],
    data: Dataset,
    epochs: int,
) -> Losses:
    """Training loss and test accuracy (%) after the last epoch, of each replica."""
    shared = CompareSettings(seeds=seeds, batch_size=DIGITS_BATCH)
    model = network(algorithm, settings.device, settings.update, shared, data)
    step = max(1, round(shared.decay * epochs))
    sound = torch.ones(len(seeds), 1, 1, dtype=torch.bool)
    for epoch in range(1, epochs + 1):
        for x, y in batches(data.x_train, data.y_train, torch.tensor(seeds), epoch, shared.batch_size):
            logits = model(x)
            sound &= (logits.detach().abs() < LARGE).all(-1, keepdim=True).all(-2, keepdim=True)
            replica_loss(logits.where(sound, 0.0), y).sum().backward()
            _step(model, lr * 0.1 ** ((epoch - 1) // step))
    loss, _ = loss_and_accuracy(model, data.x_train, data.y_train, len(seeds))
    _, accuracy = loss_and_accuracy(model, data.x_test, data.y_test, len(seeds))
    return loss.where(sound[:, 0, 0] & loss.isfinite(), math.inf).tolist(), accuracy.tolist()


@torch.no_grad()
def _step(model: nn.Module, lr: Tensor) -> None:
    """As `AnalogOptimizer` does, with a step for each replica, (replica, 1, 1)."""
    tiles: dict[nn.Parameter, Tile] = {m.handle: m for m in model.modules() if isinstance(m, Tile)}
    for parameter in model.parameters():
        if parameter in tiles:
            tiles[parameter].step(lr)
        elif parameter.grad is not None:
            parameter -= lr[:, 0] * parameter.grad
        parameter.grad = None
