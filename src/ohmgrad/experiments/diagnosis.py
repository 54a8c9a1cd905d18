"""What `diagnose` finds: figures of tiles, what each tile, effect and mend is worth, and the same in plain words."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from ohmgrad.crossbar.tile import Tile
from ohmgrad.experiments.effects import EFFECTS
from ohmgrad.experiments.figures import tile_name
from ohmgrad.experiments.mends import mends
from ohmgrad.theory.diagnosis import TileDiagnosis

SURE = 3.0  # standard errors from which on a difference counts


@dataclass(frozen=True)
class Gain:
    """What the loss of training on falls by with one change: mean over the repeats and its standard error."""

    mean: float
    error: float

    @property
    def is_sure(self) -> bool:
        """Whether it is above 0 by three standard errors.

        >>> Gain(0.2, 0.05).is_sure, Gain(0.2, 0.1).is_sure
        (True, False)
        """
        return math.isfinite(self.mean) and self.mean > SURE * self.error

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.error:.1g}" if math.isfinite(self.mean) else "no finite loss"


@dataclass(frozen=True)
class Diagnosis:
    """What was found; `print` says it in plain words.

    tiles: figures of each, in the model's order. loss: of training on as it is. costs: gain with one tile ideal, the
    costliest first; together: with all of them ideal. where: the tile that dominates; all tiles where none does and
    together they cost enough; none where they do not. effects: gain with one effect switched off there, the largest
    first. mends: gain with each mend that was tried there, by its words, the largest first.
    """

    tiles: tuple[TileDiagnosis, ...]
    loss: float
    costs: Mapping[str, Gain]
    together: Gain
    where: tuple[str, ...] = ()
    effects: Mapping[str, Gain] = field(default_factory=dict)
    mends: Mapping[str, Gain] = field(default_factory=dict)

    @property
    def culprit(self) -> str | None:
        """The tile that dominates; None if none does."""
        return self.where[0] if len(self.where) == 1 else None

    @property
    def effect(self) -> str | None:
        """The effect that costs most there; None where none surely does."""
        return _first_sure(self.effects)

    @property
    def recommendation(self) -> str | None:
        """The mend that helped most, in words; None where none surely did."""
        return _first_sure(self.mends)

    def mend(self, model: nn.Module) -> nn.Module:
        """A copy of the model with the recommended mend; the model itself stays as it is.

        Raises:
            ValueError: nothing is recommended.
        """
        if self.effect is None or self.recommendation is None:
            raise ValueError("nothing is recommended: " + str(self))
        mended = copy.deepcopy(model)
        tiles = tiles_of(mended)
        for name in self.where:
            for mend in mends(self.effect, tiles[name]):
                if mend.words == self.recommendation:
                    mend.apply(tiles[name])
        return mended

    def __str__(self) -> str:
        return " ".join([*_of_tiles(self), *_of_effects(self), *_of_mends(self)])


def tiles_of(model: nn.Module) -> dict[str, Tile]:
    """The tiles of a model by name."""
    return {tile_name(name): m for name, m in model.named_modules() if isinstance(m, Tile)}


def _first_sure(gains: Mapping[str, Gain]) -> str | None:
    name = next(iter(gains), None)
    return name if name is not None and gains[name].is_sure else None


def _of_tiles(found: Diagnosis) -> list[str]:
    first, *others = found.costs
    shapes = {tile.name: f"{tile.shape[1]} to {tile.shape[0]}" for tile in found.tiles}
    cost = f"made ideal, it lowers the loss, {found.loss:.3g}, by {found.costs[first]}"
    if found.culprit:
        next_one = [f"; the next, {other}, by {found.costs[other]}" for other in others[:1]]
        return [f"Tile {first} ({shapes[first]}) dominates: {cost}{''.join(next_one)}."]
    all_of_them = f"all tiles made ideal lower it by {found.together}."
    start = f"No tile dominates: of the costliest, {first} ({shapes[first]}), {cost};"
    return [start, all_of_them if found.where else all_of_them[:-1] + ", so nothing dominates."]


def _of_effects(found: Diagnosis) -> list[str]:
    if not found.where:
        return []
    here = "There" if found.culprit else "On all of them"
    if found.effect is None:
        return [f"{here} no single effect surely costs anything: they act together."]
    words = next(e.words for e in EFFECTS if e.name == found.effect)
    return [
        f"{here} it is the {found.effect} that costs most: the tile {words}. "
        f"With this alone switched off, the loss falls by {found.effects[found.effect]}."
    ]


def _of_mends(found: Diagnosis) -> list[str]:
    if not found.where or found.effect is None:
        return []
    if found.recommendation is None:
        return ["No setting and no algorithm that was tried mends it: other devices or converters would."]
    return [f"Recommended: {found.recommendation}. With it the loss fell by {found.mends[found.recommendation]}."]
