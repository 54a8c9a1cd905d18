"""The tile: what a layer owns. An algorithm's crossbars, read as one matrix, and the updates that wait for it."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ohmgrad import random
from ohmgrad.crossbar.cost import Cost
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Step
from ohmgrad.crossbar.input_range import InputRange, LearnedRange
from ohmgrad.crossbar.make import make_crossbar
from ohmgrad.crossbar.numbers import number
from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import Cell
from ohmgrad.periphery.settings import Periphery
from ohmgrad.pulses.forms import LowRank, Outer, Update

# What a handle's gradient is while updates wait: seen by zero_grad, which sets it to None or 0, but too small for a
# norm over all gradients to notice.
MARK = 1e-20


class State(nn.Module):
    """What an algorithm keeps between updates: crossbars (or lists of them) and tensors, by name.

    All of it travels with state_dict, `.to(device)` and deepcopy.

    >>> State(step=torch.zeros((), dtype=torch.int64)).step
    tensor(0)
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, **entries: nn.Module | Tensor) -> None:
        super().__init__()
        for name, entry in entries.items():
            if isinstance(entry, Tensor):
                self.register_buffer(name, entry)
            else:
                self.add_module(name, entry)


class NewCrossbar(Protocol):
    """Makes one more crossbar of the tile's shape, with a seed of its own; zero unless given a weight.

    device: its devices, where they are others than those of the tile.
    """

    def __call__(self, weight: Tensor | None = None, *, device: Device | Cell | None = None) -> Crossbar: ...


class Algorithm(Protocol):
    """A training algorithm: a few crossbars plus a rule that says which pulses to send."""

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """Crossbars that together represent `weight`."""
        ...

    def mixture(self, state: State) -> Sequence[tuple[float | Tensor, Crossbar]]:
        """The gains and crossbars whose sum both passes read; a gain may be a plane (*replica, out, in) of signs."""
        ...

    def update(self, state: State, update: Update, lr: Step) -> None:
        """Move the represented weight along -lr times the update, by pulses; lr as in `Crossbar.write`."""
        ...

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """The crossbar that takes the gradient's pulses, and the state it would have if training had converged."""
        ...

    def cost(self, shape: tuple[int, int], batch_size: int = 1) -> Cost:
        """What a tile of that shape holds, and what one sample of such mini-batches takes."""
        ...


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """How a layer's matrix W is put onto crossbars: W = a W_t with digital scales a, split where it is too large.

    Args:
        digital_bias: False puts a layer's bias onto the crossbar too: one more column, whose input is always 1. It is
            scaled, split, read and pulsed with the rest. Converters that would cut off that 1 are refused, and an
            input range below 1 limits the other inputs, not the DAC.
        weight_scaling_omega: the largest |W_t| at the start; 0 for no scaling, a = 1. Keep it below
            w_max (1 - 2 w_max_dtod).
        weight_scaling_columnwise: a scale for each output instead of one.
        weight_scaling_lr_compensation: send updates with lr / mean(a) and errors that are as much larger, which
            matters to update management and to an absolute `fast_lr`.
        learn_out_scaling: a digital factor of the output, trained as any digital parameter; it starts at 1.
        out_scaling_columnwise: such a factor for each output.
        max_input_size, max_output_size: the largest crossbar; larger matrices go onto several, whose partial sums are
            added digitally. None for no limit.
        input_range: a learned range of the inputs; None for none, where noise management scales each vector.

    Source: aihwkit `MappingParameter` and `InputRangeParameter`, whose names these are.
    """

    digital_bias: bool = True
    weight_scaling_omega: float = 0.0
    weight_scaling_columnwise: bool = False
    weight_scaling_lr_compensation: bool = False
    learn_out_scaling: bool = False
    out_scaling_columnwise: bool = False
    max_input_size: int | None = None
    max_output_size: int | None = None
    input_range: InputRange | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.weight_scaling_omega < math.inf:
            raise ValueError(f"Mapping needs a finite weight_scaling_omega >= 0, got {self.weight_scaling_omega}")
        for name in ("max_input_size", "max_output_size"):
            if (size := getattr(self, name)) is not None and size < 1:
                raise ValueError(f"Mapping needs {name} >= 1 or None, got {size}")
        if not isinstance(self.input_range, InputRange | None):
            raise TypeError(f"Mapping needs an InputRange or None as input_range, got {self.input_range!r}")

    def scales(self, weight: Tensor) -> Tensor | None:
        """The scales a of a matrix (*replica, out, in): (*replica, out), or (*replica, 1) for one; 1 where W is 0."""
        if not self.weight_scaling_omega:
            return None
        largest = weight.abs().amax(-1)
        if not self.weight_scaling_columnwise:
            largest = largest.amax(-1, keepdim=True)
        return torch.where(largest > 0, largest / self.weight_scaling_omega, 1.0)

    def learned_scale(self, weight: Tensor) -> nn.Parameter | None:
        """The factor of the output that is trained, (*replica, out), or (*replica, 1) for one."""
        n = weight.shape[-2] if self.out_scaling_columnwise else 1
        return nn.Parameter(weight.new_ones(*weight.shape[:-2], n)) if self.learn_out_scaling else None

    def largest_output(self, periphery: Periphery | None) -> float:
        """What the ADC gives at its bound; only a range that manages output clipping asks for it."""
        io = None if periphery is None else periphery.forward
        if self.input_range is not None and self.input_range.manage_output_clipping:
            if io is None or io.is_perfect:
                raise ValueError(
                    "manage_output_clipping needs a periphery whose ADC has an out_bound, got perfect reads"
                )
            if (io.noise_management, io.bound_management) != ("none", "none"):
                raise ValueError(
                    'manage_output_clipping needs noise_management and bound_management "none" in forward reads, got '
                    f'"{io.noise_management}" and "{io.bound_management}"'
                )
        return math.inf if io is None else io.out_bound * abs(io.out_scale)

    def learned_range(self, weight: Tensor) -> LearnedRange | None:
        """The range of the inputs of a matrix (*replica, out, in)."""
        if self.input_range is None:
            return None
        return LearnedRange(self.input_range, replicas=weight.shape[:-2], dtype=weight.dtype)


class Tile(nn.Module):
    """An algorithm's crossbars behind one matrix, (*replica, out, in).

    Args:
        weight: initial weight, (*replica, out, in); bounds of the devices clip it.
        algorithm: what to do with an update.
        crossbar: keyword arguments of `Crossbar` (device, update, periphery, count_pulses), seed and shape aside.
        seed: one integer, or one for each replica. Crossbar number k of the tile derives its own from it.
        mapping: digital scales; `max_input_size` and `max_output_size` are up to `grid.place`.
        has_bias: the last column is a bias, for `ohmgrad.nn.function.read` to feed a 1.
    """

    out_scale: nn.Parameter | None
    scale: Tensor | None
    calls: Tensor

    def __init__(
        self,
        weight: Tensor,
        *,
        algorithm: Algorithm,
        crossbar: dict,
        seed: int | Sequence[int] = 0,
        mapping: Mapping | None = None,
        has_bias: bool = False,
    ) -> None:
        super().__init__()
        self.mapping, self.has_bias, self.number = mapping or Mapping(), has_bias, number(self)
        weight = weight.detach()
        self.shape = shape = (weight.shape[-2], weight.shape[-1])
        self.replicas = replicas = tuple(weight.shape[:-2])
        seeds = random.seed_tensor(seed, replicas)
        count = 0

        def new_crossbar(weight: Tensor | None = None, *, device: Device | Cell | None = None) -> Crossbar:
            nonlocal count
            own = random.derive(seeds, count).flatten().tolist()
            count += 1
            options = crossbar if device is None else {**crossbar, "device": device}
            return make_crossbar(shape, seed=own, replicas=replicas, weight=weight, dtype=dtype, **options)

        dtype = weight.dtype
        self.algorithm = algorithm
        self.register_buffer("scale", self.mapping.scales(weight))
        self.state = algorithm.init(new_crossbar, weight if self.scale is None else weight / self.scale[..., None])
        self.out_scale, self.in_range = self.mapping.learned_scale(weight), self.mapping.learned_range(weight)
        self._adc = self.mapping.largest_output(crossbar.get("periphery"))
        # Stands for the weight in autograd and in optimizers: it makes the graph reach the tile, and its gradient
        # says whether updates wait. It never changes.
        self.handle = nn.Parameter(torch.zeros((), dtype=dtype))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)  # in graphs of torch
        self.waiting: list[Update] = []
        self._offset: LowRank | None = None
        self._lost = 0  # passes in a row whose updates were forgotten by zero_grad of something else than our optimizer

    def _apply(self, fn: Any, recurse: bool = True) -> Tile:
        """`.to`, `.double` and the like: before anything moves, the dtype has to be one that devices can have."""
        dtype = fn(torch.empty(0, dtype=self.handle.dtype)).dtype
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"a tile needs dtype float32 or float64, got {dtype}, in which small pulses would be lost")
        return super()._apply(fn, recurse)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.number = number(self)  # a copy is another tile

    @property
    def weight(self) -> Tensor:
        """The represented matrix, all digital scales in it, (*replica, out, in), a new tensor."""
        w = sum_of(gain * bar.weight for gain, bar in self.algorithm.mixture(self.state))
        for scale in (self.scale, self.out_scale):
            if scale is not None:
                w = w * scale.detach()[..., None]
        return w

    @property
    def out_limit(self) -> Tensor:
        """The largest output that the ADC can give, the learned scale and range aside, (*replica, out or 1)."""
        return self.handle.new_full((1,), self._adc) if self.scale is None else self._adc * self.scale

    @property
    def crossbars(self) -> list[Crossbar]:
        """All crossbars of the tile, also those that no pass reads."""
        return list(dict.fromkeys(_crossbars(self.state)))

    def read(self, x: Tensor) -> Tensor:
        """W x, the learned scale aside: (*replica, batch, in) to (*replica, batch, out)."""
        bar, weight = self._lines(x)
        y = bar.read(x, weight)
        if self.scale is not None:
            y = y * self.scale[..., None, :]
        return y if self._offset is None else y + (x @ self._offset.V) @ self._offset.U.mT

    def read_transposed(self, d: Tensor) -> Tensor:
        """W' d, the learned scale aside: (*replica, batch, out) to (*replica, batch, in)."""
        bar, weight = self._lines(d)
        x = bar.read_transposed(d if self.scale is None else d * self.scale[..., None, :], weight)
        return x if self._offset is None else x + (d @ self._offset.U) @ self._offset.V.mT

    def _lines(self, vectors: Tensor) -> tuple[Crossbar, Tensor | None]:
        """The crossbar whose converters read the vectors, and what they see where more crossbars share its lines."""
        (gain, bar), *others = mixture = self.algorithm.mixture(self.state)
        if not others and gain == 1.0:
            return bar, None
        for _, other in others:
            other.count_reads(vectors)
        return bar, sum_of(gain * bar.weight for gain, bar in mixture)

    @contextmanager
    def offset(self, U: Tensor, V: Tensor) -> Iterator[None]:
        """Inside, both reads return (W + U V')x: a point that was never written, the second term digital.

        Args:
            U: (*replica, out, rank). V: (*replica, in, rank).
        """
        before, self._offset = self._offset, LowRank(U, V)
        try:
            yield
        finally:
            self._offset = before

    def record(self, update: Update) -> None:
        """Keep an update until the optimizer steps; zero_grad (of optimizer or module) lets go of what waits."""
        if not self._is_waiting():
            self._lost = self._lost + 1 if self.waiting else 0
            if self._lost == 3:
                warnings.warn(
                    "updates that waited on a tile were dropped by zero_grad three times, and none was sent: tiles are "
                    "trained by ohmgrad.AnalogOptimizer, not by torch's",
                    stacklevel=2,
                )
            self.waiting = []
            self.handle.grad = torch.full_like(self.handle, MARK)
        self.waiting.append(update)

    @torch.no_grad()
    def step(self, lr: Step) -> None:
        """Send all waiting updates through the algorithm as one mini-batch, and forget them; then devices relax.

        Time passes with each mini-batch, for every crossbar of the tile, also where nothing waits.

        Args:
            lr: one step for all replicas, or (*replica, 1, 1), one for each.
        """
        waiting, self.waiting, self._lost = self.waiting, [], 0
        with exactly(self.handle):
            if self._is_waiting():
                for update in _merge(waiting):
                    self._send(update, lr)
            for bar in self.crossbars:
                bar.relax()

    def _send(self, update: Update, lr: Step) -> None:
        """An update of W as one of W_t = W / a, which moves by 1 / a times what W is to move by."""
        if self.scale is not None:
            factor = 1.0 / float(self.scale.mean()) if self.mapping.weight_scaling_lr_compensation else 1.0
            update, lr = update.scaled(1.0 / (self.scale * factor)), lr * factor
        self.algorithm.update(self.state, update, lr)

    def _is_waiting(self) -> bool:
        return self.handle.grad is not None and bool(self.handle.grad)


def exactly(like: Tensor) -> AbstractContextManager:
    """Inside, torch.autocast does nothing: rounding is up to converters, and devices have the tile's own dtype."""
    kind = like.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor."""
    return functools.reduce(torch.add, terms)


def _crossbars(module: nn.Module) -> Iterator[Crossbar]:
    """Not by way of `modules`, which also looks inside crossbars: each step asks."""
    for child in module._modules.values():
        if isinstance(child, Crossbar):
            yield child
        elif child is not None:
            yield from _crossbars(child)


def _merge(updates: list[Update]) -> list[Update]:
    """Outer products of one mini-batch in one: samples of accumulated passes follow one another."""
    outers = [u for u in updates if isinstance(u, Outer)]
    others = [u for u in updates if not isinstance(u, Outer)]
    if len(outers) > 1:
        outers = [Outer(torch.cat([u.d for u in outers], -2), torch.cat([u.x for u in outers], -2))]
    return [*outers, *others]
