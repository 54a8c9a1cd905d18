"""Figures of a model's tiles from some mini-batches: gradients, pulses asked for and lost, errors of reads."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor, nn

from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.tile import Tile
from ohmgrad.experiments.measure import Gradients, tile_gradients
from ohmgrad.pulses.forms import Update
from ohmgrad.theory.diagnosis import Lost, ReadError, TileDiagnosis, device_figures, lost, read_error, saturated

GRADIENT_BATCHES = 150
VECTORS = 256  # that are read for errors of reads, at most


def tile_figures(
    model: nn.Module, batches: Sequence[tuple[Any, Any]], loss: Callable[[Any, Any], Tensor], lr: float
) -> tuple[TileDiagnosis, ...]:
    """Figures of each tile; the model's counters go on, and nothing is updated.

    lr: of the tiles, in their algorithms' sense.
    """
    tiles = {name: m for name, m in model.named_modules() if isinstance(m, Tile)}
    some = batches[:GRADIENT_BATCHES]
    model.train()
    gradients = tile_gradients(model, iter(some), loss)
    model.zero_grad()
    loss(model(some[0][0]), some[0][1]).backward()
    share_unseen = 1.0 - len(some) / len(batches)
    return tuple(_figures(name, tile, gradients[name], len(some), share_unseen, lr) for name, tile in tiles.items())


def tile_name(name: str) -> str:
    """A tile by the name of its layer, and its number where the layer has a grid of them.

    >>> tile_name("encoder.0.tile"), tile_name("head.tile.tiles.2")
    ('encoder.0', 'head[2]')
    """
    return re.sub(r"\.tile\.tiles\.(\d+)$", r"[\1]", name).removesuffix(".tile")


def _figures(name: str, tile: Tile, g: Gradients, n: int, share_unseen: float, lr: float) -> TileDiagnosis:
    updates = tile.waiting
    forward, backward = _reads(tile, updates)
    device = device_figures(tile, g.mean, g.mean_abs)
    measured = g.mean.square().sum((-2, -1)) - share_unseen * g.variance.sum((-2, -1)) / n
    return TileDiagnosis(
        name=tile_name(name),
        shape=tile.shape,
        gradient=float(g.mean.square().mean().sqrt()),
        noise=float(g.variance.clamp(min=0.0).mean().sqrt()),
        saturated=saturated(tile),
        lost=_lost(tile, lr),
        forward=forward,
        backward=backward,
        floor_measured=float(measured.mean()),
        **vars(device),
    )


def _reads(tile: Tile, updates: Sequence[Update]) -> tuple[ReadError, ReadError]:
    """Errors of the reads that the mini-batch was made of."""
    if not updates:
        return ReadError(), ReadError()
    x, d = (torch.cat([getattr(u.as_outer(), name) for u in updates], -2) for name in ("x", "d"))
    some = torch.linspace(0, x.shape[-2] - 1, min(x.shape[-2], VECTORS)).long()
    x, d = x[..., some, :], d[..., some, :]
    x = x if tile.in_range is None else x / tile.in_range.size
    d = d if tile.scale is None else d * tile.scale[..., None, :]
    return read_error(tile, x, is_forward=True), read_error(tile, d, is_forward=False)


def _lost(tile: Tile, lr: float) -> Lost:
    """What is lost of the mini-batch that waits on the tile: a copy of it takes the step, and its crossbar tells."""
    copied = copy.deepcopy(tile)
    bar, _ = copied.algorithm.at_rest(copied.state)
    asked: list[Lost] = []
    if not isinstance(bar, Crossbar):
        return Lost(math.nan, math.nan, math.nan)
    write = bar.write
    copied.handle.grad = tile.handle.grad  # which a deep copy leaves out, and without which nothing waits

    def note(update: Update, lr: float) -> None:
        asked.append(lost(bar, update, lr))
        write(update, lr)

    bar.write = note  # type: ignore[method-assign]  # of this copy alone
    copied.step(lr)
    if not asked:
        return Lost()
    means = [sum(values) / len(asked) for values in zip(*map(astuple, asked), strict=True)]
    return Lost(*means)
