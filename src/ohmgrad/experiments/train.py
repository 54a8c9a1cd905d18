"""One network trained on analog devices, with checkpoints from which a run that was killed goes on bit by bit.

The order of the samples is a function of (seed, epoch), so the place in the epoch is all that a checkpoint needs to
know of it. OUT/metrics.csv has one line for each epoch, and is written anew from the checkpoint when a run goes on.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ohmgrad import checkpoint, random
from ohmgrad.algorithms import MultiTile
from ohmgrad.crossbar.tile import Tile
from ohmgrad.experiments.data import Dataset
from ohmgrad.experiments.tables import plain
from ohmgrad.experiments.train_settings import TrainSettings, optimizer_of
from ohmgrad.files import sweep, write
from ohmgrad.nn import convert
from ohmgrad.periphery import Periphery

# What may be otherwise when a run goes on: where the data lie, and how the work is done.
FREE = {"data": ("dir",), "train": ("threads", "checkpoint_every_minutes", "checkpoint_every_epochs")}


@dataclass(frozen=True)
class Epoch:
    """A line of metrics.csv.

    loss: mean of the mini-batches' losses. accuracy: on the test set after the epoch, percent. lr: in this epoch.
    seconds: of training and test, as this and earlier processes spent them.
    """

    epoch: int
    loss: float
    accuracy: float
    lr: float
    seconds: float


@dataclass
class Place:
    """How far a run is: the epoch it is in, from 1, the mini-batches done in it, their losses' sum, their seconds."""

    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0


class Run:
    """A network, its optimizer and schedule, and how far they are. `train` makes it."""

    def __init__(self, settings: TrainSettings, data: Dataset, out: Path, device: str) -> None:
        self.settings, self.out = settings, out
        self.x, self.y = data.x_train.to(device), data.y_train.to(device)
        self.x_test, self.y_test = data.x_test.to(device), data.y_test.to(device)
        loop = settings.train
        if loop.batch_size > len(self.x):
            raise ValueError(
                f"train.batch_size needs at most the {len(self.x)} training samples, got {loop.batch_size}"
            )
        self.n_batches = len(self.x) // loop.batch_size  # a rest is left out
        network = settings.model.build(self.x.shape[1], data.n_classes)
        io = settings.periphery
        self.model = convert(
            network,
            device=settings.device,
            algorithm=settings.algorithm,
            update=settings.update,
            periphery=None if io.is_perfect else Periphery(forward=io, backward=io),
            mapping=settings.mapping,
            seed=loop.seed,
        ).to(device)
        self.optimizer = optimizer_of(self.model, settings.optimizer)
        self.scheduler = settings.schedule.make(self.optimizer, loop.epochs)
        self.place, self.epochs = Place(), list[Epoch]()
        self.saved_at = time.monotonic()

    @property
    def steps_done(self) -> int:
        """Mini-batches since the beginning."""
        return (self.place.epoch - 1) * self.n_batches + self.place.step

    @property
    def n_steps(self) -> int:
        """Mini-batches of the whole run."""
        return self.settings.train.epochs * self.n_batches

    @property
    def is_old(self) -> bool:
        """Whether the last checkpoint was written longer ago than the settings allow."""
        return time.monotonic() - self.saved_at >= 60 * self.settings.train.checkpoint_every_minutes

    def save(self) -> None:
        """Write the checkpoint."""
        checkpoint.save(
            checkpoint_path(self.out),
            *(self.model, self.optimizer, self.scheduler),
            settings=_identity(self.settings),
            place=asdict(self.place),
            epochs=[astuple(epoch) for epoch in self.epochs],
        )
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        """Go on from the checkpoint. Raises ValueError where it is damaged or of another configuration."""
        path = checkpoint_path(self.out)
        extra = checkpoint.peek(path)
        if not {"settings", "place", "epochs"} <= extra.keys():
            raise ValueError(f"{path} is a checkpoint, but not of `ohmgrad train`")
        if difference := _difference(extra["settings"], _identity(self.settings), ""):
            raise ValueError(f"{path} is of another configuration: {difference}")
        checkpoint.load(path, self.model, self.optimizer, self.scheduler)
        self.place = Place(**extra["place"])
        self.epochs = [Epoch(*line) for line in extra["epochs"]]

    def write_metrics(self) -> None:
        """OUT/metrics.csv."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(field.name for field in fields(Epoch))
        writer.writerows(astuple(epoch) for epoch in self.epochs)
        write(self.out / "metrics.csv", lambda p: p.write_text(text.getvalue(), encoding="utf-8"))

    def figures(self) -> dict[str, Any]:
        """How it ended, and what the crossbars have done, for results.json."""
        bars = [bar for m in self.model.modules() if isinstance(m, Tile) for bar in m.crossbars]
        counters = [bar.counters for bar in bars]
        return {
            "epochs": len(self.epochs),
            "loss": self.epochs[-1].loss,
            "accuracy": self.epochs[-1].accuracy,
            "best_accuracy": max(epoch.accuracy for epoch in self.epochs),
            "cycles": sum(c.cycles for c in counters),
            "pulses": sum(float(c.pulses.sum()) for c in counters),
            "reads": sum(c.reads for c in counters),
            "seconds": sum(epoch.seconds for epoch in self.epochs),
        }


def train(
    settings: TrainSettings,
    data: Dataset,
    out: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    on_start: Callable[[Run], object] = lambda run: None,
    on_step: Callable[[int], object] = lambda steps_done: None,
    on_epoch: Callable[[Epoch], object] = lambda epoch: None,
) -> Run:
    """Train to the end; OUT/checkpoint.safetensors and OUT/metrics.csv are kept up on the way.

    Args:
        out: directory; has to exist once `on_start` has returned.
        resume: go on from its checkpoint, where it has one.
        on_start: called before anything is written. on_step, on_epoch: called after each.

    Raises:
        ValueError: the settings do not fit the data, OUT holds a checkpoint and `resume` is False, the checkpoint is
            damaged or of another configuration, or the loss is no longer finite.
        OSError: a file cannot be written.
    """
    has_checkpoint = checkpoint_path(out).exists()
    if has_checkpoint and not resume:
        raise ValueError(f"{checkpoint_path(out)} exists: --resume goes on from it, another --out leaves it alone")
    with torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(settings.train.seed)
        run = Run(settings, data, out, device)
        if has_checkpoint:
            run.resume()
        on_start(run)
        for path in (checkpoint_path(out), out / "metrics.csv"):
            sweep(path)
        run.write_metrics()  # without the lines that came after the checkpoint
        while run.place.epoch <= settings.train.epochs:
            _train_epoch(run, on_step)
            on_epoch(run.epochs[-1])
    return run


def checkpoint_path(out: Path) -> Path:
    """Where a run keeps its checkpoint."""
    return out / "checkpoint.safetensors"


def _train_epoch(run: Run, on_step: Callable[[int], object]) -> None:
    """The rest of the present epoch, with checkpoints when they are due."""
    loop, place = run.settings.train, run.place
    started = time.monotonic() - place.seconds
    shuffled = order(loop.seed, place.epoch, len(run.x)).to(run.x.device)
    loss_sum = torch.tensor(place.loss_sum, dtype=torch.float64, device=run.x.device)
    while place.step < run.n_batches:
        index = shuffled[place.step * loop.batch_size : (place.step + 1) * loop.batch_size]
        loss_sum += _step(run, run.x[index], run.y[index])
        place.step += 1
        on_step(run.steps_done)
        if run.is_old and place.step < run.n_batches:
            place.loss_sum, place.seconds = float(loss_sum), time.monotonic() - started
            run.save()
    _end_epoch(run, float(loss_sum) / run.n_batches, started)


def _end_epoch(run: Run, loss: float, started: float) -> None:
    """Schedule and test, a line of metrics.csv, and a checkpoint if it is due."""
    loop, place = run.settings.train, run.place
    if not math.isfinite(loss):
        raise ValueError(_diverged(place.epoch, "the loss is no longer finite"))
    lr = float(run.optimizer.param_groups[0]["lr"])
    if run.scheduler:
        run.scheduler.step()
    for tile in (m for m in run.model.modules() if isinstance(m, Tile)):
        if isinstance(tile.algorithm, MultiTile):
            tile.algorithm.end_epoch(tile.state, loss)
    accuracy = _accuracy(run.model, run.x_test, run.y_test)
    run.epochs.append(Epoch(place.epoch, loss, accuracy, lr, time.monotonic() - started))
    run.place = Place(epoch=place.epoch + 1)
    run.write_metrics()
    every = loop.checkpoint_every_epochs
    if run.is_old or place.epoch == loop.epochs or (every and place.epoch % every == 0):
        run.save()


def _step(run: Run, x: Tensor, y: Tensor) -> Tensor:
    """One mini-batch; its mean loss."""
    run.optimizer.zero_grad()
    loss = cross_entropy(run.model(x), y)
    loss.backward()
    try:
        run.optimizer.step()
    except ValueError as error:  # infinite numbers and NaN do not pass the crossbars' doors
        raise ValueError(_diverged(run.place.epoch, str(error))) from None
    except RuntimeError as error:
        if "without overflow" not in str(error):  # of a number too large for a parameter's dtype
            raise
        raise ValueError(_diverged(run.place.epoch, str(error))) from None
    return loss.detach()


def order(seed: int, epoch: int, n: int) -> Tensor:
    """A permutation of n samples, a function of (seed, epoch)."""
    draws = random.uniform_plane(torch.tensor(seed), (random.Stream.ORDER, epoch), 1, n, torch.float64)
    return draws[0].argsort(stable=True)


@torch.no_grad()
def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Percent of the samples that are told right."""
    model.eval()
    hits = sum(
        int((model(part).argmax(-1) == own).sum()) for part, own in zip(x.split(2000), y.split(2000), strict=True)
    )
    model.train()
    return 100.0 * hits / len(x)


def _diverged(epoch: int, sign: str) -> str:
    return f"training diverged in epoch {epoch}: {sign}; try a smaller optimizer.lr"


def _identity(settings: TrainSettings) -> dict[str, Any]:
    """What a checkpoint must agree in."""
    sections = {f.name: plain(getattr(settings, f.name)) for f in fields(settings)}
    for section, free in FREE.items():
        sections[section] = {k: v for k, v in sections[section].items() if k not in free}
    return sections


def _difference(saved: Any, own: Any, where: str) -> str:
    """The first place where nested settings differ, in words; empty if they are equal."""
    if not isinstance(saved, dict) or not isinstance(own, dict):
        return "" if saved == own else f"{where} is {saved} there and {own} here"
    for key in (*own, *(saved.keys() - own.keys())):
        if found := _difference(saved.get(key), own.get(key), f"{where}.{key}".lstrip(".")):
            return found
    return ""
