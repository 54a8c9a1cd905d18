"""A matrix that is larger than a crossbar may be: a grid of tiles, whose partial sums are added digitally."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ohmgrad import random
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.mapping import Mapping
from ohmgrad.crossbar.numbers import number
from ohmgrad.crossbar.programming import checked, restart_scale
from ohmgrad.crossbar.represented import Represented, represent
from ohmgrad.crossbar.tile import Tile, sum_of
from ohmgrad.periphery.settings import Periphery
from ohmgrad.pulses.forms import Dense, LowRank, Outer, Update


def place(
    weight: Tensor,
    *,
    algorithm: Algorithm,
    crossbar: dict,
    seed: int | Sequence[int] | None = None,
    mapping: Mapping | None = None,
    has_bias: bool = False,
) -> Tile | Grid:
    """A matrix on one tile, or on a grid of tiles where it is larger than `mapping` allows. Arguments as of `Tile`.

    Raises:
        ValueError: a bias on the tile, and converters that cut off its input, the constant 1.
    """
    mapping = mapping or Mapping()
    if has_bias:
        need_whole_bias(crossbar.get("periphery"), mapping)
    parts = [
        _parts(n, most)
        for n, most in zip(weight.shape[-2:], (mapping.max_output_size, mapping.max_input_size), strict=True)
    ]
    if all(len(p) == 1 for p in parts):
        return Tile(weight, algorithm=algorithm, crossbar=crossbar, seed=seed, mapping=mapping, has_bias=has_bias)
    return Grid(weight, *parts, algorithm=algorithm, crossbar=crossbar, seed=seed, mapping=mapping, has_bias=has_bias)


class Grid(nn.Module):
    """Tiles side by side behind one matrix, (*replica, out, in), with the face of a `Tile`.

    Args:
        rows, columns: which outputs and inputs the tiles of each row and column of the grid take.
        others: as of `Tile`; tile number k derives its seed from the grid's.
    """

    calls: Tensor

    def __init__(
        self,
        weight: Tensor,
        rows: Sequence[slice],
        columns: Sequence[slice],
        *,
        algorithm: Algorithm,
        crossbar: dict,
        seed: int | Sequence[int] | None,
        mapping: Mapping,
        has_bias: bool = False,
    ) -> None:
        super().__init__()
        self.has_bias, self.number = has_bias, number(self)
        self.replicas = tuple(weight.shape[:-2])
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)  # as a tile's
        self.rows, self.columns = tuple(rows), tuple(columns)
        self.shape = (weight.shape[-2], weight.shape[-1])
        self.replicas = tuple(weight.shape[:-2])
        self.algorithm = algorithm
        managed = mapping.input_range is not None and mapping.input_range.manage_output_clipping
        if managed and len(columns) > 1:
            raise ValueError(
                f"manage_output_clipping needs outputs of one crossbar each, got sums over {len(columns)} crossbars: a "
                "larger max_input_size makes them one"
            )
        mapping.largest_output(crossbar.get("periphery"))
        # Of the whole matrix: a factor of the sums, and a range of all inputs.
        self.out_scale, self.in_range = mapping.learned_scale(weight), mapping.learned_range(weight)
        seeds = random.seed_tensor(seed, weight.shape[:-2])
        self.tiles = nn.ModuleList(
            Tile(
                weight[..., row, column],
                algorithm=algorithm,
                crossbar=crossbar,
                seed=random.derive(seeds, k).flatten().tolist(),
                mapping=replace(mapping, learn_out_scaling=False, input_range=None),
            )
            for k, (row, column) in enumerate(self._places())
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.number = number(self)  # a copy is another grid

    @property
    def changes(self) -> int:
        """How often a tile was written."""
        return sum(tile.changes for tile in self.members)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its tiles."""
        return self.members[0].dtype

    @property
    def handle(self) -> nn.Parameter:
        """What stands for the matrix in autograd: the first tile's; each tile has its own in optimizers."""
        return self._grid()[0][0].handle

    @property
    def weight(self) -> Represented:
        """As `Tile.weight`."""
        return represent(self.matrix if self.out_scale is None else self.matrix * self.out_scale.detach()[..., None])

    @property
    def matrix(self) -> Tensor:
        """As `Tile.matrix`."""
        return torch.cat([torch.cat([tile.matrix for tile in row], -1) for row in self._grid()], -2)

    def set_weight(self, weight: Tensor) -> None:
        """As `Tile.set_weight`: each tile programs its part."""
        weight = checked("weight", weight, like=self.handle, replicas=self.replicas, shape=self.shape)
        restart_scale(self.out_scale)
        for (row, column), tile in zip(self._places(), self.tiles, strict=True):
            assert isinstance(tile, Tile)  # said for the type checker
            tile.set_weight(weight[..., row, column])

    def apply(self, fn: Callable[[nn.Module], None]) -> Grid:
        """As `Tile.apply`: nothing."""
        return self

    @property
    def out_limit(self) -> Tensor:
        """As `Tile.out_limit`, (*replica, out): of its rows, where they have one tile each."""
        limits = [row[0].out_limit.expand(*self.replicas, row[0].shape[0]) for row in self._grid()]
        return torch.cat(limits, -1)

    @property
    def crossbars(self) -> list[Crossbar]:
        """All crossbars of all tiles."""
        return [bar for row in self._grid() for tile in row for bar in tile.crossbars]

    def read(self, x: Tensor) -> Tensor:
        """W x, the learned scale aside: (*replica, batch, in) to (*replica, batch, out)."""
        parts = [x[..., column] for column in self.columns]
        sums = [sum_of([tile.read(part) for tile, part in zip(row, parts, strict=True)]) for row in self._grid()]
        return torch.cat(sums, -1)

    def read_transposed(self, d: Tensor) -> Tensor:
        """W' d, the learned scale aside: (*replica, batch, out) to (*replica, batch, in)."""
        parts, grid = [d[..., row] for row in self.rows], self._grid()
        sums = [
            sum_of([grid[i][j].read_transposed(part) for i, part in enumerate(parts)]) for j in range(len(self.columns))
        ]
        return torch.cat(sums, -1)

    @contextmanager
    def offset(self, U: Tensor, V: Tensor) -> Iterator[None]:
        """As `Tile.offset`: each tile reads its part of W + U V'."""
        with ExitStack() as stack:
            for (row, column), tile in zip(self._places(), self.tiles, strict=True):
                assert isinstance(tile, Tile)  # said for the type checker
                stack.enter_context(tile.offset(U[..., row, :], V[..., column, :]))
            yield

    def record(self, update: Update) -> None:
        """Each tile keeps its part until zero_grad."""
        for tile, part in self.parts(update):
            tile.record(part)

    def parts(self, update: Update) -> list[tuple[Tile, Update]]:
        """Every tile with its part of an update."""
        return [(t, _part(update, *place)) for t, place in zip(self.members, self._places(), strict=True)]

    @property
    def members(self) -> list[Tile]:
        """The tiles, row by row."""
        return list(self.tiles)  # type: ignore[arg-type]  # a ModuleList knows no types

    def _places(self) -> list[tuple[slice, slice]]:
        return [(row, column) for row in self.rows for column in self.columns]

    def _grid(self) -> list[list[Tile]]:
        """Tiles by rows."""
        n, tiles = len(self.columns), list(self.tiles)
        return [tiles[k : k + n] for k in range(0, len(tiles), n)]  # type: ignore[misc]  # each is a Tile


def need_whole_bias(periphery: Periphery | None, mapping: Mapping) -> None:
    """Refuse forward reads whose DAC may cut off a bias line's input, the constant 1."""
    io = None if periphery is None else periphery.forward
    if io is None or io.is_perfect:
        return
    kind = f"noise_management={io.noise_management!r}"
    if io.largest_input < 1.0:
        name = "inp_bound" if io.noise_management == "none" else "nm_thres"
        raise ValueError(
            f"an analog bias (digital_bias=False) needs forward reads that take in its input, the constant 1, got "
            f"{name}={getattr(io, name)} with {kind}, which clips inputs there: a larger {name} mends it, or "
            "digital_bias=True"
        )
    if mapping.input_range is not None and io.noise_management == "average-abs-max":
        raise ValueError(
            f"an analog bias (digital_bias=False) with an input range needs noise_management without memory, got "
            f"{kind}, whose average lags behind the range and clips the bias: 'none' leaves scaling to the range"
        )


def _part(update: Update, row: slice, column: slice) -> Update:
    if isinstance(update, Outer):
        return Outer(update.d[..., row], update.x[..., column])
    if isinstance(update, LowRank):
        return LowRank(update.U[..., row, :], update.V[..., column, :])
    return Dense(update.dW[..., row, column])


def _parts(n: int, most: int | None) -> list[slice]:
    """As few parts as allowed, as equal as can be.

    >>> _parts(10, 4)
    [slice(0, 4, None), slice(4, 7, None), slice(7, 10, None)]
    """
    count = max(1, -(-n // (most or max(1, n))))
    sizes = [n // count + (k < n % count) for k in range(count)]
    ends = [sum(sizes[: k + 1]) for k in range(count)]
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
