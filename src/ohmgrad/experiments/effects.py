"""Effects of imperfect hardware, each of which can be switched off alone, on one tile of a model.

Devices are taken apart at w = 0. Their response is G(w) = G(0) + (G(w) - G(0)): the first is the shift of the symmetric
point, which two step sizes mend; the second is what a narrow range does, and it is gone, with the bounds, where the
response is everywhere what it is at 0. So the two overlap in no device. Coarse steps are those of a device that gets a
pulse for each of them: finer ones, with as much noise from pulse to pulse, leave the expected change alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ohmgrad.algorithms import AnalogSGD
from ohmgrad.crossbar.algorithm import State
from ohmgrad.crossbar.changed import changed
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.tile import Tile, sum_of
from ohmgrad.devices import Ideal
from ohmgrad.periphery import IO, PERFECT, without
from ohmgrad.periphery.reader import Reader
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate

FINER = 16  # how much finer steps are made, and how much longer trains; a power of 2, so that no number is rounded
STEEPEST = 10.0  # how far the step of one direction may be changed to match the other's
RELAXATION = ("lifetime", "diffusion", "reset")


@dataclass(frozen=True)
class Effect:
    """One effect.

    name: a word or two. words: what it does, to follow a tile's name. off: switches it off on a tile, in place.
    is_present: whether the tile has it at all.
    """

    name: str
    words: str
    off: Callable[[Tile], None]
    is_present: Callable[[Tile], bool]


def each_crossbar(tile: Tile, change: Callable[[Crossbar], Crossbar]) -> None:
    """Put what `change` makes of each crossbar of a tile, those inside unit cells too, in its place."""
    for holder in list(tile.state.modules()):
        for name, child in holder._modules.items():
            if isinstance(child, Crossbar):
                holder._modules[name] = change(child)


def single_crossbars(tile: Tile) -> list[Crossbar]:
    """All crossbars of a tile, with those inside unit cells in the cells' place."""
    return [m for m in tile.state.modules() if isinstance(m, Crossbar)]


def make_ideal(tile: Tile) -> None:
    """Digital SGD from the weight that the tile has: no bounds, asymmetry, noise or steps, and exact reads.

    The algorithm goes too: Tiki-Taka and its like need the pull of their fast devices, without which they swing.
    """
    weight, first = (
        sum_of(gain * bar.weight for gain, bar in tile.algorithm.mixture(tile.state)),
        single_crossbars(tile)[0],
    )
    g, own = first.granularity, first.device_model.granularity
    params = {"w_min": -math.inf, "w_max": math.inf, "dw_up": g, "dw_down": g}
    bar = changed(first, device=Ideal(dw_min=own), params=params, update=ExpectedUpdate(), io=lambda io: PERFECT)
    bar.set_weight(weight)
    tile.algorithm, tile.state = AnalogSGD(), State(bar=bar)


def wide_range(tile: Tile) -> None:
    """The response of what holds the weight is everywhere what it is at 0, and there are no bounds.

    Fast crossbars stay: see `make_ideal`.
    """
    (_, holder), *_ = tile.algorithm.mixture(tile.state)
    held = [m for m in holder.modules() if isinstance(m, Crossbar)]

    def wide(bar: Crossbar) -> Crossbar:
        if not any(bar is one for one in held):
            return bar
        model, old = bar.device_model, bar.params
        up, down = _steps_at_zero(bar)
        params = {"w_min": -math.inf, "w_max": math.inf, "dw_up": up, "dw_down": down}
        same = ("dw_min_ctoc", "lifetime", "lifetime_dtod", "diffusion", "diffusion_dtod", "reset", "reset_dtod")
        device = Ideal(
            dw_min=model.granularity,
            write_noise=model.write_noise * model.dw_min / model.granularity,
            ctoc="multiplicative" if model.ctoc == "own" else model.ctoc,
            reset_std=model.reset_std,
            **{name: getattr(model, name) for name in same},
        )
        return changed(bar, device=device, params=params | {k: old[k] for k in RELAXATION if k in old})

    each_crossbar(tile, wide)


def symmetric_at_zero(tile: Tile) -> None:
    """Up and down steps are so scaled, element by element, that they are equal at 0."""

    def balanced(bar: Crossbar) -> Crossbar:
        up, down = _steps_at_zero(bar)
        mean, params = (up + down) / 2.0, bar.params
        for name, step in (("dw_up", up), ("dw_down", down)):
            factor = torch.where(step > 0.0, mean / step.where(step > 0.0, 1.0), 1.0)
            params[name] = params[name] * factor.clamp(1.0 / STEEPEST, STEEPEST)
        return changed(bar, device=bar.device_model, params=params)

    each_crossbar(tile, balanced)


def finer_steps(tile: Tile) -> None:
    """Steps FINER times finer, and as many more, in the mean; noise from pulse to pulse adds up to what it was."""

    def finer(bar: Crossbar) -> Crossbar:
        model = bar.device_model
        device = dataclasses.replace(
            model,
            dw_min=model.dw_min / FINER,
            dw_min_ctoc=model.dw_min_ctoc * math.sqrt(FINER),
            write_noise=model.write_noise * FINER,
        )
        params = bar.params
        params |= {name: params[name] / FINER for name in ("dw_up", "dw_down")}
        return changed(bar, device=device, params=params, update=_longer(bar.update))

    each_crossbar(tile, finer)
    tile.algorithm = _with_finer_pulses(tile.algorithm)


def long_trains(tile: Tile) -> None:
    """Trains FINER times as long, where bits are sent."""
    each_crossbar(tile, lambda bar: changed(bar, update=_longer(bar.update)))


def sure_steps(tile: Tile) -> None:
    """No noise from pulse to pulse, and none of the weight that is seen around the state."""

    def sure(bar: Crossbar) -> Crossbar:
        device = dataclasses.replace(bar.device_model, dw_min_ctoc=0.0, write_noise=0.0)
        return changed(bar, device=device, params=bar.params)

    each_crossbar(tile, sure)


def lasting(tile: Tile) -> None:
    """No decay and no diffusion."""

    def kept(bar: Crossbar) -> Crossbar:
        device = dataclasses.replace(bar.device_model, lifetime=0.0, diffusion=0.0)
        params = {k: v for k, v in bar.params.items() if k not in ("lifetime", "diffusion")}
        return changed(bar, device=device, params=params)

    each_crossbar(tile, kept)


def reads(io: Callable[[IO], IO]) -> Callable[[Tile], None]:
    """Switches off an effect of reads."""
    return lambda tile: each_crossbar(tile, lambda bar: changed(bar, io=io))


def _longer(update: ExpectedUpdate | PulsedUpdate) -> ExpectedUpdate | PulsedUpdate:
    return dataclasses.replace(update, bit_length=min(update.bit_length * FINER, 65535))


def _steps_at_zero(bar: Crossbar) -> tuple[Any, Any]:
    params = bar.params
    low, high = (torch.as_tensor(params[k]).to(bar.weight) for k in ("w_min", "w_max"))
    zero = torch.zeros_like(bar.weight).clamp(low, high)
    up, down = (bar.device_model.step(zero, is_up, params) for is_up in (True, False))
    return up.clamp(min=0.0), (-down).clamp(min=0.0)


def _with_finer_pulses(algorithm: Any) -> Any:
    """An algorithm's settings that count pulses, for finer ones."""
    inside = getattr(algorithm, "algorithm", None)
    changes = {} if inside is None else {"algorithm": _with_finer_pulses(inside)}
    if getattr(algorithm, "max_pulses", None):
        changes["max_pulses"] = algorithm.max_pulses * FINER
    if getattr(algorithm, "granularity", None):
        changes["granularity"] = algorithm.granularity / FINER
    return dataclasses.replace(algorithm, **changes) if changes else algorithm


def _has_shift(tile: Tile) -> bool:
    return any(
        bool(((up - down).abs() > 2e-3 * (up + down)).any()) for up, down in map(_steps_at_zero, single_crossbars(tile))
    )


def _has_range(tile: Tile) -> bool:
    return any(not isinstance(bar.device_model, Ideal) for bar in single_crossbars(tile))


def _has_steps(tile: Tile) -> bool:
    """Whether changes come in steps: by pulses, by noise as of pulses, or from a buffer that sends whole pulses."""
    has_buffer = any(name.endswith(("chi", "buffer")) for name, _ in tile.state.named_buffers())
    return has_buffer or any(isinstance(b.update, PulsedUpdate) or b.update.noise for b in single_crossbars(tile))


def _device_has(*names: str) -> Callable[[Tile], bool]:
    return lambda tile: any(getattr(bar.device_model, name) for bar in single_crossbars(tile) for name in names)


def _reads_have(of: Callable[[IO], bool]) -> Callable[[Tile], bool]:
    """Whether some reader of the tile, which is not exact, has that."""

    def is_present(tile: Tile) -> bool:
        found = [r for bar in single_crossbars(tile) if bar.readers is not None for r in bar.readers.values()]
        return any(isinstance(r, Reader) and not r.io.is_perfect and of(r.io) for r in found)

    return is_present


EFFECTS = (
    Effect("narrow range", "pulls weights back and holds them inside its bounds", wide_range, _has_range),
    Effect("shifted symmetric point", "pulls weights to a state that is not 0", symmetric_at_zero, _has_shift),
    Effect("coarse steps", "changes weights by steps that are too coarse", finer_steps, _has_steps),
    Effect(
        "short trains",
        "gets less than asked for, by trains that are too short",
        long_trains,
        lambda tile: any(isinstance(bar.update, PulsedUpdate) for bar in single_crossbars(tile)),
    ),
    Effect("noisy steps", "answers pulses with noise", sure_steps, _device_has("dw_min_ctoc", "write_noise")),
    Effect("forgetting", "forgets its weights", lasting, _device_has("lifetime", "diffusion")),
    Effect(
        "read noise",
        "is read with noise",
        reads(without.noise),
        _reads_have(lambda io: io.inp_noise + io.w_noise + io.out_noise > 0),
    ),
    Effect(
        "converter steps",
        "is read in steps that are too coarse",
        reads(without.steps),
        _reads_have(lambda io: io.inp_step + io.out_step > 0),
    ),
    Effect(
        "clipped converter",
        "is read by converters that clip",
        reads(without.clipping),
        _reads_have(lambda io: math.isfinite(io.out_bound)),
    ),
    Effect(
        "line effects",
        "loses voltage on its lines",
        reads(without.line_effects),
        _reads_have(lambda io: without.line_effects(io) != io),
    ),
)
