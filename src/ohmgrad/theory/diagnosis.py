"""What of one tile's training goes to the device and what is lost: pull, saturation, pulses, errors of reads.

Gradients come from outside, as figures over mini-batches; nothing is trained here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.crossbar.changed import changed
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices.base import Device
from ohmgrad.periphery import without
from ohmgrad.periphery.reader import Reader
from ohmgrad.periphery.settings import IO
from ohmgrad.pulses.forms import Update
from ohmgrad.pulses.settings import PulsedUpdate
from ohmgrad.pulses.train import trains
from ohmgrad.theory.error import balanced_gradient, saturation

SATURATED = 0.9  # of the bound
SAMPLES = 64  # whose outer products are looked at one by one, at most


@dataclass(frozen=True)
class ReadError:
    """Error of reads in one direction.

    relative: root of the mean square error over that of the exact product. noise, steps, clipping: share of the mean
    square error that is gone with that effect alone switched off, in [0, 1]; they need not add up to 1.
    """

    relative: float = 0.0
    noise: float = 0.0
    steps: float = 0.0
    clipping: float = 0.0


@dataclass(frozen=True)
class Lost:
    """Shares of the change that a mini-batch asks of the devices, in [0, 1].

    below_half_step: comes in portions below half a step, which only chance turns into pulses. in_trains: lost where
    odds of a pulse would be above 1, on trains too short. at_bounds: lost at the bounds of devices.
    """

    below_half_step: float = 0.0
    in_trains: float = 0.0
    at_bounds: float = 0.0


@dataclass(frozen=True)
class TileDiagnosis:
    """One tile in figures; NaN where a device has none, such as a unit cell. Figures of devices are of the crossbar
    that takes the gradient's pulses, but `saturated`, which is of the one that holds the weights.

    name: of the tile in its model. shape: (out, in).
    gradient, noise: of a mini-batch's gradient at each device, the root mean square over devices of mean and standard
        deviation.
    saturated: share of devices beyond 0.9 of their bound.
    distance: mean |w - symmetric point| over half the range.
    drift, pull: of one mini-batch, per unit of the step: mean over devices of E|g| |G(w)|, toward the symmetric point,
        and of |E g| F(w) (Wu et al. 2024, arXiv 2406.12774, eq. 8).
    lost: of the change asked for. forward, backward: errors of reads.
    floor_measured, floor_predicted: squared norm of the gradient now, unbiased, and where pulses balance
        (`balanced_gradient`), for the algorithm's own state at rest.
    """

    name: str
    shape: tuple[int, int]
    gradient: float
    noise: float
    saturated: float
    distance: float
    drift: float
    pull: float
    lost: Lost
    forward: ReadError
    backward: ReadError
    floor_measured: float
    floor_predicted: float


@dataclass(frozen=True)
class DeviceFigures:
    """`distance`, `drift`, `pull` and `floor_predicted` of `TileDiagnosis`."""

    distance: float = math.nan
    drift: float = math.nan
    pull: float = math.nan
    floor_predicted: float = math.nan


def device_figures(tile: Tile, mean: Tensor, mean_abs: Tensor) -> DeviceFigures:
    """Pull and predicted floor on the crossbar that takes the gradient's pulses; NaN for unit cells.

    mean, mean_abs: E g and E|g| of the tile's matrix, (*replica, out, in), as `balanced_gradient` wants them.
    """
    bar, rest = tile.algorithm.at_rest(tile.state)
    device = bar.device_model
    if not isinstance(device, Device):
        return DeviceFigures()
    w, params = bar.weight.double(), bar.params
    balanced = balanced_gradient(device, rest.double(), mean_abs, params)
    return DeviceFigures(
        distance=_distance(bar),
        drift=float((mean_abs * device.G(w, params).abs()).mean()),
        pull=float((mean.abs() * device.F(w, params)).mean()),
        floor_predicted=_norm(balanced),
    )


def saturated(tile: Tile) -> float:
    """Share of the devices that hold weights beyond 0.9 of their bound."""
    _, bar = tile.algorithm.mixture(tile.state)[0]
    if not isinstance(bar, Crossbar):
        return math.nan
    return float((saturation(bar.weight, bar.params) > SATURATED).double().mean())


def lost(bar: Crossbar, update: Update, lr: float) -> Lost:
    """What of an update is lost on its way to the devices of that crossbar, which stays as it is."""
    device = bar.device_model
    if not isinstance(device, Device):
        return Lost(math.nan, math.nan, math.nan)
    outer, g = update.as_outer(), device.granularity
    x, d = outer.x.flatten(0, -2), outer.d.flatten(0, -2)  # samples of all replicas
    some = torch.linspace(0, len(x) - 1, min(len(x), SAMPLES)).long()
    asked = abs(lr) * (d[some, :, None] * x[some, None, :]).abs() if bar.update.per_sample else None
    asked = (lr * update.as_dense()).abs() if asked is None else asked
    below = _share(torch.where(asked < g / 2.0, asked, 0.0).sum(), asked.sum())
    in_trains = 0.0
    if isinstance(bar.update, PulsedUpdate):
        t = trains(x, d, lr, g, bar.update, 0, 0)
        sent = t.bit_length * t.p_x.double().sum(-1) * t.p_d.double().sum(-1)
        wanted = abs(lr) * x.double().abs().sum(-1) * d.double().abs().sum(-1) / g
        in_trains = 1.0 - _share(torch.minimum(sent, wanted).sum(), wanted.sum(), empty=1.0)
    return Lost(below, max(in_trains, 0.0), _lost_at_bounds(bar, -lr * update.as_dense()))


def read_error(tile: Tile, vectors: Tensor, *, is_forward: bool) -> ReadError:
    """Error of a tile's reads of these vectors, (*replica, batch, lines), and what it comes from.

    vectors: as the crossbar gets them, digital scales aside. The tile stays as it is; all reads draw the same noise.
    """
    mixture = tile.algorithm.mixture(tile.state)
    bar = mixture[0][1]
    first = bar if isinstance(bar, Crossbar) else bar.bars[0]
    if first.readers is None:
        return ReadError()
    w = sum(gain * other.weight for gain, other in mixture)
    assert isinstance(w, Tensor)  # a mixture is never empty; said for the type checker
    reader = first.readers["read" if is_forward else "read_transposed"]
    assert isinstance(reader, Reader)
    exact = (vectors @ w.mT if is_forward else vectors @ w) * reader.io.out_scale

    def error(io: Callable[[IO], IO]) -> float:
        copy = changed(first, io=io)
        read = copy.read(vectors, w) if is_forward else copy.read_transposed(vectors, w)
        return float((read - exact).double().square().mean())

    total = error(lambda io: io)
    shares = [1.0 - error(f) / total if total else 0.0 for f in (without.noise, without.steps, without.clipping)]
    size = float(exact.double().square().mean())
    return ReadError(math.sqrt(total / size) if size else 0.0, *(min(max(s, 0.0), 1.0) for s in shares))


def _distance(bar: Crossbar) -> float:
    params = bar.params
    try:
        point = bar.device_model.symmetric_point(params)
    except ValueError:  # some element's steps differ everywhere
        return math.nan
    low, high = (torch.as_tensor(params[k], dtype=torch.float64) for k in ("w_min", "w_max"))
    distance = (bar.weight.double() - point).abs() / ((high - low) / 2.0)
    return float(distance.nan_to_num(0.0).mean())


def _lost_at_bounds(bar: Crossbar, delta: Tensor) -> float:
    params = bar.params
    change = delta.abs() / bar.device_model.granularity * bar.device_model.step(bar.weight, delta > 0, params)
    low, high = (torch.as_tensor(params[k]).to(bar.weight) for k in ("w_min", "w_max"))
    to = bar.weight + change
    return _share((to - to.clamp(low, high)).abs().sum(), change.abs().sum())


def _share(part: Tensor, whole: Tensor, empty: float = 0.0) -> float:
    return float(part / whole) if whole else empty


def _norm(plane: Tensor) -> float:
    """Squared norm, the mean over replicas."""
    return float(plane.square().sum((-2, -1)).mean())
