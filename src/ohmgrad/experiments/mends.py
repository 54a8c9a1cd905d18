"""What may be done about an effect: another setting of the tile, or another algorithm on the same devices.

Each is tried by training on, so that what is recommended is what has helped. Algorithms have the settings of
`ohmgrad.experiments.methods`, which suit small networks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.algorithms.chopper import symmetric_point
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.changed import changed
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.make import make_crossbar
from ohmgrad.crossbar.tile import Tile, sum_of
from ohmgrad.crossbar.vector_cells import VectorCells
from ohmgrad.devices import Device, Ideal, reference_cell
from ohmgrad.devices.cells import Cell
from ohmgrad.experiments.effects import each_crossbar, long_trains
from ohmgrad.experiments.methods import METHODS
from ohmgrad.periphery import IO, Periphery

READS = 16  # how many are averaged


@dataclass(frozen=True)
class Mend:
    """A change of a tile.

    words: what to set, in the library's own names, and what it costs. apply: does it, in place; the tile goes on from
    the weights that it has.
    """

    words: str
    apply: Callable[[Tile], None]


def restart(tile: Tile, algorithm: Algorithm | None = None, factor: float = 1.0) -> None:
    """The tile's weight on the same devices under another algorithm, its digital scale times a factor.

    Whatever else the algorithm keeps (fast crossbars, buffers) starts anew; further crossbars draw their own devices.
    """
    mixture = tile.algorithm.mixture(tile.state)
    own, held = mixture[0][1], sum_of(gain * bar.weight for gain, bar in mixture)
    made: list[Crossbar] = []

    def new_crossbar(weight: Tensor | None = None, *, device: Device | Cell | None = None) -> Crossbar:
        made.append(copy.deepcopy(own) if not made else _sibling(own, device or own.device_model, len(made)))
        made[-1].set_weight(torch.zeros_like(own.weight) if weight is None else weight)
        return made[-1]

    if algorithm is not None:
        tile.algorithm = algorithm
    tile.state = tile.algorithm.init(new_crossbar, held / factor)
    if factor != 1.0:
        tile.scale = factor * (held.new_ones(*tile.replicas, 1) if tile.scale is None else tile.scale)


def mends(effect: str, tile: Tile) -> list[Mend]:
    """What may help against an effect on that tile; empty where only other hardware would."""
    by_effect: dict[str, list[Mend]] = {
        "narrow range": [*(_scaled(s) for s in (2.0, 4.0, 8.0)), *_algorithms("tiki-taka", "residual-learning")],
        "shifted symmetric point": [_ZERO_SHIFT] * _has_point(tile) + _algorithms("tiki-taka", "agad", "rider"),
        "coarse steps": [*_algorithms("mixed-precision", "tiki-taka-v2", "multi-tile"), _scaled(0.5)],
        "short trains": [Mend("trains 16 times as long (bit_length), which takes longer", long_trains)],
        "noisy steps": [*_algorithms("mixed-precision", "tiki-taka-v2"), _scaled(0.5)],
        "read noise": [_AVERAGED, _scaled(0.5)],
        "converter steps": [_range_of_adc(0.25), _scaled(0.5)],
        "clipped converter": [_range_of_adc(4.0), _range_of_adc(16.0), _MANAGED, _scaled(4.0)],
    }
    return by_effect.get(effect, [])


def _scaled(factor: float) -> Mend:
    what = "smaller on the devices, which have more range and coarser steps for them"
    if factor < 1.0:
        what = "larger on the devices, which have finer steps and less noise for them, and less range"
    size = factor if factor > 1.0 else 1.0 / factor
    return Mend(
        f"a digital scale {factor:g} times as large (Mapping.weight_scaling_omega): weights are {size:g} times {what}",
        lambda tile: restart(tile, factor=factor),
    )


def _algorithms(*names: str) -> list[Mend]:
    def mend(name: str) -> Mend:
        method = METHODS[name]
        words = f"{method.label} in place of the present algorithm: it {method.strength}"
        return Mend(words, lambda tile: restart(tile, method.algorithm))

    return [mend(name) for name in names]


def _with_reads(words: str, io: Callable[[IO], IO]) -> Mend:
    return Mend(words, lambda tile: each_crossbar(tile, lambda bar: changed(bar, io=io)))


def _range_of_adc(factor: float) -> Mend:
    steps = "coarser" if factor > 1.0 else "finer"
    return _with_reads(
        f"an ADC range {factor:g} times as large (IO.out_bound), with as many steps, which are {steps}",
        lambda io: replace(io, out_bound=io.out_bound * factor, out_nonlinearity=io.out_nonlinearity * factor),
    )


def _averaged(io: IO) -> IO:
    names = ("inp_noise", "w_noise", "out_noise")
    return replace(io, **{name: getattr(io, name) / READS**0.5 for name in names})


_AVERAGED = _with_reads(
    f"{READS} reads averaged (IO.out_noise and the like over {READS**0.5:g}), in {READS} times the time",
    _averaged,
)
_MANAGED = _with_reads(
    "bound management of forward reads (IO.bound_management = 'iterative'), which reads again what has clipped",
    lambda io: replace(io, bound_management="iterative"),
)


def _zero_shift(tile: Tile) -> None:
    def referenced(bar: Crossbar) -> Crossbar:
        reference, ideal = symmetric_point(bar), Ideal()
        cell, seed = reference_cell(bar.device_model, ideal), bar.seed.flatten().tolist()
        made: Any = VectorCells(bar.shape, device=cell, seed=seed, **_options(bar))
        cells = made.to(bar.weight.device)
        cells._bars[0] = copy.deepcopy(bar)
        cells.bars[1].set_weight(reference)
        cells.set_weight(bar.weight)
        return cells

    each_crossbar(tile, referenced)


_ZERO_SHIFT = Mend(
    "zero-shifting (crossbar.zero_shift, devices.reference_cell): a reference array in the symmetric points",
    _zero_shift,
)


def _has_point(tile: Tile) -> bool:
    bars = [bar for _, bar in tile.algorithm.mixture(tile.state)]
    return all(isinstance(bar, Crossbar) and bool(symmetric_point(bar).any()) for bar in bars)


def _options(bar: Crossbar) -> dict[str, Any]:
    """What a crossbar like this one is made with, devices and seed aside."""
    periphery = None
    if bar.readers is not None:
        names = zip(("forward", "backward", "transfer"), ("read", "read_transposed", "read_columns"), strict=True)
        ios: Any = {way: bar.readers[name].io for way, name in names}
        periphery = Periphery(**ios)
    return {"update": bar.update, "replicas": bar.replicas, "dtype": bar.weight.dtype, "periphery": periphery}


def _sibling(bar: Any, device: Device | Cell, number: int) -> Crossbar:
    """One more crossbar of the same make."""
    first = bar if isinstance(bar, Crossbar) else bar.bars[0]
    seed = random.derive(bar.seed, number).flatten().tolist()
    return make_crossbar(bar.shape, device=device, seed=seed, **_options(first)).to(first.weight.device)
