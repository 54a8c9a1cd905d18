"""Which tile of a network costs it most, by what effect, and what mends that: measured by training on without it.

A tile's cost is what the loss gains when that tile alone is made ideal (digital SGD, exact reads) and training goes on;
an effect's, when it alone is switched off. All runs start from the same model, meet the same mini-batches in the same
order and draw the same noise, so that their difference is the change alone; repeats with other orders and other noise
give its standard error.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ohmgrad.crossbar.tile import Tile
from ohmgrad.experiments.diagnosis import Diagnosis, Gain, tiles_of
from ohmgrad.experiments.effects import EFFECTS, make_ideal, single_crossbars
from ohmgrad.experiments.figures import tile_figures
from ohmgrad.experiments.mends import mends
from ohmgrad.optim import AnalogOptimizer
from ohmgrad.periphery.reader import Reader

Batch = tuple[Any, Any]
Change = Callable[[Tile], None]
NOTICED = 0.15  # share of the loss that tiles must cost to be named
AHEAD = 2.0  # times the next tile's cost, from which on one dominates
NOISE_APART = 1 << 24  # numbers of cycles and reads between repeats, each of which draws noise of its own


def diagnose(
    model: nn.Module,
    loader: Iterable[Batch],
    *,
    lr: float,
    loss: Callable[[Any, Any], Tensor] = cross_entropy,
    steps: int = 400,
    repeats: int = 4,
    seed: int = 0,
    make_optimizer: Callable[..., AnalogOptimizer] = AnalogOptimizer,
    on_run: Callable[[str], object] = lambda change: None,
) -> Diagnosis:
    """Find the tile that costs a network most, the effect by which it does, and a mend.

    Args:
        model: analog, as far as it has been trained; it stays as it is, to the bit.
        loader: mini-batches (x, y) for model(x) and loss(model(x), y): a list or a DataLoader, of which at most `steps`
            are taken.
        lr: of training on; what the model was trained with.
        loss: of a mini-batch, a single number.
        steps: of training on, >= 2, of which the second half counts. repeats: of each run, >= 2.
        seed: of the order of mini-batches and of dropout.
        make_optimizer: called with a model and lr=.
        on_run: called after each run with what was changed.

    Raises:
        ValueError: the model has no tiles, the loader no mini-batch, a number breaks its rule, or training on as it is
            comes to no finite loss.
    """
    _check(model, lr, steps, repeats)
    batches = [batch for batch, _ in zip(loader, range(steps), strict=False)]
    if not batches:
        raise ValueError("diagnose needs a loader with at least one mini-batch, got none")
    trial = _Trial(model, batches, lr, loss, steps, repeats, seed, make_optimizer, on_run)
    if not math.isfinite(trial.loss):
        raise ValueError(f"training on at lr={lr} comes to no finite loss; try a smaller one")
    tiles = tiles_of(model)
    costs = trial.gains({name: ((name,), make_ideal) for name in tiles})
    together = trial.gains({"all tiles": (tuple(tiles), make_ideal)})["all tiles"]
    where = _where(costs, together, trial)
    figures = tile_figures(copy.deepcopy(model), batches, loss, lr)
    found = Diagnosis(figures, trial.loss, costs, together, where)
    present = [effect for effect in EFFECTS if any(effect.is_present(tiles[name]) for name in where)]
    found = replace(found, effects=trial.gains({e.name: (where, e.off) for e in present}))
    if found.effect is None:
        return found
    tried = {m.words: m for name in where for m in mends(found.effect, tiles[name])}
    return replace(found, mends=trial.gains({words: (where, m.apply) for words, m in tried.items()}))


class _Trial:
    """Training on from one model, with some tiles changed, over the same repeats."""

    def __init__(
        self, model: nn.Module, batches: list[Batch], lr: float, loss_of: Callable[[Any, Any], Tensor], steps: int,
        repeats: int, seed: int, make_optimizer: Callable[..., AnalogOptimizer], on_run: Callable[[str], object],
    ) -> None:  # fmt: skip
        self.model, self.batches, self.lr, self.loss_of, self.steps = model, batches, lr, loss_of, steps
        self.repeats, self.seed, self.make_optimizer, self.on_run = repeats, seed, make_optimizer, on_run
        self.losses = {"": self._run("as it is", (), lambda tile: None)}  # of each change, (repeats,)
        self.loss = float(self.losses[""].mean())

    def gains(self, changes: Mapping[str, tuple[tuple[str, ...], Change]]) -> dict[str, Gain]:
        """The gain of each change of some tiles, the largest first."""
        self.losses |= {name: self._run(name, tiles, change) for name, (tiles, change) in changes.items()}
        return dict(sorted(((name, self.gain("", name)) for name in changes), key=lambda item: -item[1].mean))

    def gain(self, before: str, after: str) -> Gain:
        """Of one change over another, from paired losses."""
        difference = self.losses[before] - self.losses[after]
        if not torch.isfinite(difference).all():
            return Gain(-math.inf, math.inf)
        return Gain(float(difference.mean()), float(difference.std()) / self.repeats**0.5)

    def _run(self, name: str, tiles: tuple[str, ...], change: Change) -> Tensor:
        losses = []
        for repeat in range(self.repeats):
            model = _with_other_noise(self.model, repeat)
            for tile in tiles:
                change(tiles_of(model)[tile])
            losses.append(self._train(model, repeat))
        self.on_run(name)
        return torch.tensor(losses, dtype=torch.float64)

    def _train(self, model: nn.Module, repeat: int) -> float:
        """Mean loss in the second half of the steps; infinite where it diverges."""
        generator = torch.Generator().manual_seed(self.seed + repeat)
        optimizer, total, first = self.make_optimizer(model, lr=self.lr), 0.0, self.steps // 2
        order: list[int] = []
        model.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + repeat)
            for step in range(self.steps):
                order = order or torch.randperm(len(self.batches), generator=generator).tolist()
                x, y = self.batches[order.pop()]
                optimizer.zero_grad()
                loss = self.loss_of(model(x), y)
                if not torch.isfinite(loss):
                    return math.inf
                loss.backward()
                try:
                    optimizer.step()
                except ValueError:  # infinite numbers and NaN do not pass the crossbars' doors
                    return math.inf
                total += float(loss.detach()) if step >= first else 0.0
        return total / (self.steps - first)


def _where(costs: Mapping[str, Gain], together: Gain, trial: _Trial) -> tuple[str, ...]:
    """One tile that surely costs enough of the loss, and surely twice as much as any other; or all; or none."""
    (first, cost), *others = costs.items()
    is_ahead = all(trial.gain(o, first).is_sure and cost.mean > AHEAD * c.mean for o, c in others)
    if is_ahead and cost.is_sure and cost.mean > NOTICED * trial.loss:
        return (first,)
    return tuple(tiles_of(trial.model)) if together.is_sure and together.mean > NOTICED * trial.loss else ()


@torch.no_grad()
def _with_other_noise(model: nn.Module, repeat: int) -> nn.Module:
    """A copy whose crossbars draw other numbers from now on; the same for the same repeat."""
    model = copy.deepcopy(model)
    for tile in tiles_of(model).values():
        for bar in single_crossbars(tile):
            bar.cycles += repeat * NOISE_APART
            for reader in bar.readers.values() if bar.readers is not None else ():
                assert isinstance(reader, Reader)  # said for the type checker
                reader.vectors += repeat * NOISE_APART
                reader.evaluated += repeat * NOISE_APART
    return model


def _check(model: nn.Module, lr: float, steps: int, repeats: int) -> None:
    if not tiles_of(model):
        raise ValueError("diagnose needs a model with tiles, got one without: ohmgrad.convert makes them")
    if not 0 < lr < math.inf:
        raise ValueError(f"diagnose needs a finite lr > 0, got {lr}")
    for name, value in (("steps", steps), ("repeats", repeats)):
        if not (isinstance(value, int) and value >= 2):
            raise ValueError(f"diagnose needs {name} as a whole number >= 2, got {value}")
