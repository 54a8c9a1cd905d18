"""What became of a model's layers, as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.grid import Grid
from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices.base import Device
from ohmgrad.nn.convert import LAYERS, reasons


@dataclass(frozen=True, kw_only=True)
class Row:
    """One layer that owns tiles or digital parameters.

    name, kind: its dotted name, and its class. shapes: of its tiles, each (*replica, out, in). crossbars, crosspoints:
    how many, over all tiles and replicas. device, algorithm: of its tiles, None if it has none. digital: numbers in
    parameters that stay digital. why_digital: why the layer has no tile, though tiles know its kind; "" for others.
    """

    name: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    crossbars: int
    crosspoints: int
    device: Device | None
    algorithm: Algorithm | None
    digital: int
    why_digital: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, without the reason."""
        shapes = [
            f"{n}x {shape}" if n > 1 else shape for shape, n in _counted("x".join(map(str, s)) for s in self.shapes)
        ]
        return (
            self.name or "(model)",
            self.kind,
            ", ".join(shapes) or "-",
            str(self.crossbars),
            f"{self.crosspoints:,}",
            type(self.device).__name__ if self.device else "digital",
            type(self.algorithm).__name__ if self.algorithm else "-",
            f"{self.digital:,}",
        )


HEADER = ("layer", "kind", "tiles", "crossbars", "crosspoints", "device", "algorithm", "digital parameters", "because")
BY_CHOICE = "a rule, or added later"
RIGHT = (3, 4, 7)  # columns of numbers


@dataclass(frozen=True)
class Summary:
    """Every layer with tiles or parameters, in the order of the model; its text is a table.

    The last column says why a layer stayed digital that could have tiles; it is there if there is one.
    """

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        total = ("total", "", "", *(f"{sum(getattr(r, k) for r in self.rows):,}" for k in ("crossbars", "crosspoints")))
        total = (*total, "", "", f"{sum(r.digital for r in self.rows):,}", "")
        table = [HEADER, *((*r.cells, r.why_digital) for r in self.rows), total]
        if not any(r.why_digital for r in self.rows):
            table = [row[:-1] for row in table]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(c.rjust(w) if i in RIGHT else c.ljust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True)))
            for r in table
        ]
        return "\n".join(line.rstrip() for line in lines)


def summary(model: nn.Module) -> Summary:
    """What became of each layer of a model: print it for a table, or read its rows.

    A layer of a kind that tiles know, in a model that has some, is digital by a rule or came later if nothing else
    keeps it so.

    >>> from ohmgrad import convert
    >>> from ohmgrad.devices import Ideal
    >>> print(summary(convert(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)), device=Ideal())))
    layer  kind          tiles  crossbars  crosspoints  device   algorithm  digital parameters
    0      AnalogLinear  2x3            1            6  Ideal    AnalogSGD                   2
    1      LayerNorm     -              0            0  digital  -                           4
    total                               1            6                                       6
    """
    seen: set[int] = set()  # a parameter that two modules share counts once
    inside = {id(m) for tile in model.modules() if isinstance(tile, Tile | Grid) for m in tile.modules()}
    whys, rows = _reasons(model, bool(inside)), []
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
        tiles = [m for m in module.children() if isinstance(m, Tile | Grid)]
        if id(module) not in inside and (own or tiles or name in whys):
            own += [tile.out_scale for tile in tiles if tile.out_scale is not None]
            own += [tile.in_range.value for tile in tiles if tile.in_range is not None]
            rows.append(_row(name, module, tiles, sum(p.numel() for p in own), whys.get(name, "")))
            seen |= {id(p) for p in own}
    return Summary(tuple(rows))


def _reasons(model: nn.Module, has_tiles: bool) -> dict[str, str]:
    """Why layers of kinds that tiles know have none, by name."""
    found = reasons(model)
    for name, module in model.named_modules():
        if has_tiles and name not in found and isinstance(module, tuple(LAYERS)):
            found[name] = BY_CHOICE
    return found


def _row(name: str, module: nn.Module, tiles: list[Tile | Grid], digital: int, why_digital: str) -> Row:
    bars = [bar for tile in tiles for bar in tile.crossbars]
    return Row(
        name=name,
        kind=type(module).__name__,
        shapes=tuple(tuple(tile.weight.shape) for tile in tiles),
        crossbars=sum(bar.weight[..., 0, 0].numel() for bar in bars),
        crosspoints=sum(bar.weight.numel() for bar in bars),
        device=bars[0].device_model if bars else None,
        algorithm=tiles[0].algorithm if tiles else None,
        digital=digital,
        why_digital=why_digital,
    )


def _counted(texts: Iterable[str]) -> list[tuple[str, int]]:
    """Each text once, with how often it comes, in the order of their first."""
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    return list(counts.items())
