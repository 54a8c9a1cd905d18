"""The tile: what a layer owns. An algorithm's crossbars, read as one matrix, and the updates that wait for it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from ohmgrad import random
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Step
from ohmgrad.crossbar.gradient import Gradient, check_gradient
from ohmgrad.crossbar.handle import WRITTEN, Handle
from ohmgrad.crossbar.held import Held, joined
from ohmgrad.crossbar.make import make_crossbar
from ohmgrad.crossbar.mapping import Mapping
from ohmgrad.crossbar.numbers import number
from ohmgrad.crossbar.programming import placed, program
from ohmgrad.crossbar.represented import Represented, represent
from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import Cell
from ohmgrad.pulses.forms import Dense, LowRank, Update

# By tile, what accumulates the gradient of its leaf: graphs of torch ask by it what autograd wants of them.
NODES: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()


class Tile(nn.Module):
    """An algorithm's crossbars behind one matrix, (*replica, out, in).

    Args:
        weight: initial weight, (*replica, out, in); bounds of the devices clip it.
        algorithm: what to do with an update.
        crossbar: keyword arguments of `Crossbar` (device, update, periphery, count_pulses), seed and shape aside.
        seed: one integer, or one for each replica. Crossbar number k of the tile derives its own from it.
            None draws one from torch's default generator.
        mapping: digital scales; `max_input_size` and `max_output_size` are up to `grid.place`.
        has_bias: the last column is a bias, for `ohmgrad.nn.function.read` to feed a 1.
    """

    handle: Handle
    out_scale: nn.Parameter | None
    scale: Tensor | None
    calls: Tensor

    def __init__(
        self,
        weight: Tensor,
        *,
        algorithm: Algorithm,
        crossbar: dict,
        seed: int | Sequence[int] | None = None,
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
            make = functools.partial(make_crossbar, shape, seed=own, replicas=replicas, dtype=dtype, **options)
            return placed(make, weight, self.mapping.round_to_states)

        dtype = weight.dtype
        self.algorithm = algorithm
        self.register_buffer("scale", self.mapping.scales(weight))
        self.state = algorithm.init(new_crossbar, weight if self.scale is None else weight / self.scale[..., None])
        self.out_scale, self.in_range = self.mapping.learned_scale(weight), self.mapping.learned_range(weight)
        self._adc = self.mapping.largest_output(crossbar.get("periphery"))
        # Stands for the weight in autograd and in optimizers: it makes the graph reach the tile, and its gradient
        # holds the updates that wait. It never changes: `look` sees to it.
        self.handle, self.dtype = Handle(torch.full((), torch.nan, dtype=dtype)), dtype
        self._written = self.handle.writes
        self._new_leaf()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)  # in graphs of torch
        self._offset: LowRank | None = None
        self._begun = [0]  # gradients since the last step, of which all but one were forgotten by zero_grad
        self.changes = 0  # how often the matrix was written
        self.is_wrapped = False  # whether it was read inside DistributedDataParallel

    def _apply(self, fn: Any, recurse: bool = True) -> Tile:
        """`.to`, `.double` and the like: before anything moves, the dtype has to be one that devices can have."""
        dtype = fn(torch.empty(0, dtype=self.handle.dtype)).dtype
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"a tile needs dtype float32 or float64, got {dtype}, in which small pulses would be lost")
        self.look()
        handle = self.handle
        grad, handle.grad = handle.grad, None
        handle.moves = True
        try:
            super()._apply(fn, recurse)
        finally:
            handle.moves = False
        self._keep_handle(handle)
        self._settle()
        if grad is not None:
            self.handle.grad = grad.moved(fn, self.handle) if isinstance(grad, Gradient) else fn(grad)
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.number = number(self)  # a copy is another tile
        self._new_leaf()
        self._written = self.handle.writes

    def _load_from_state_dict(self, *args: Any) -> None:  # type: ignore[override]  # torch passes all by position
        handle = self.handle
        super()._load_from_state_dict(*args)
        self._keep_handle(handle)
        self._settle()
        self.changes += 1

    def _keep_handle(self, handle: Handle) -> None:
        """Put the handle back that optimizers know, where torch has put another in its place."""
        if self.handle is not handle:
            self.handle = handle.like(self.handle)

    def _settle(self) -> None:
        """Take over the handle's dtype and device, and its state as one that nobody wrote."""
        with torch.no_grad():
            self.handle.fill_(torch.nan)
        self._new_leaf()
        self.dtype, self._written = self.handle.dtype, self.handle.writes

    def _new_leaf(self) -> None:
        """Make what stands for the handle in graphs of torch."""
        with torch.inference_mode(False), torch.enable_grad():
            self.leaf = torch.zeros((), dtype=self.handle.dtype, device=self.handle.device, requires_grad=True)
            NODES[self] = get_gradient_edge(self.leaf).node

    def _save_to_state_dict(self, *args: Any) -> None:  # type: ignore[override]  # as above
        self.look()
        super()._save_to_state_dict(*args)
        destination, prefix, _ = args
        destination[f"{prefix}handle"] = torch.zeros_like(self.handle.detach())  # equal to others', as NaN is not

    def wrap(self) -> None:
        """Note that DistributedDataParallel reads the tile, which sent the first rank's handles to all."""
        if not self.is_wrapped:
            self.is_wrapped, self._written = True, self.handle.writes

    def look(self) -> None:
        """Raise RuntimeError where somebody wrote into the handle, and means the matrix."""
        handle: Any = self._parameters["handle"]
        if handle.writes != self._written:
            raise RuntimeError(WRITTEN)

    @property
    def weight(self) -> Represented:
        """The represented matrix, all scales in it, (*replica, out, in), to be read; without gradients, as matrix."""
        return represent(self.matrix if self.out_scale is None else self.matrix * self.out_scale.detach()[..., None])

    @property
    def matrix(self) -> Tensor:
        """The represented matrix, the learned scale aside, (*replica, out, in), a new tensor."""
        self.look()
        w = sum_of(gain * bar.weight for gain, bar in self.algorithm.mixture(self.state))
        return w if self.scale is None else w * self.scale[..., None]

    def set_weight(self, weight: Tensor) -> None:
        """Program (*replica, out, in), or (out, in) for all replicas; what it does is in `programming.program`."""
        self.changes += 1
        program(self, weight)

    def apply(self, fn: Callable[[nn.Module], None]) -> Tile:
        """Nothing: `model.apply(init)` would write into crossbars behind their bounds; `set_weight` is the way."""
        return self

    @property
    def out_limit(self) -> Tensor:
        """The largest output that the ADC can give, the learned scale and range aside, (*replica, out or 1)."""
        if self.scale is not None:
            return self._adc * self.scale
        return torch.full((1,), self._adc, dtype=self.handle.dtype, device=self.handle.device)

    @property
    def crossbars(self) -> list[Crossbar]:
        """All crossbars of the tile, also those that no pass reads."""
        return list(dict.fromkeys(_crossbars(self.state)))

    def read(self, x: Tensor) -> Tensor:
        """W x, the learned scale aside: (*replica, batch, in) to (*replica, batch, out)."""
        bar, weight = self._lines(x)
        y, scale = bar.read(x, weight), self._buffers["scale"]  # by name: half the time of an attribute
        if scale is not None:
            y = y * scale[..., None, :]
        return y if self._offset is None else y + (x @ self._offset.V) @ self._offset.U.mT

    def read_transposed(self, d: Tensor) -> Tensor:
        """W' d, the learned scale aside: (*replica, batch, out) to (*replica, batch, in)."""
        (bar, weight), scale = self._lines(d), self._buffers["scale"]
        x = bar.read_transposed(d if scale is None else d * scale[..., None, :], weight)
        return x if self._offset is None else x + (d @ self._offset.U) @ self._offset.V.mT

    def _lines(self, vectors: Tensor) -> tuple[Crossbar, Tensor | None]:
        """The crossbar whose converters read the vectors, and what they see where more crossbars share its lines."""
        state: Any = self._modules["state"]
        (gain, bar), *others = mixture = self.algorithm.mixture(state)
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

    @property
    def waiting(self) -> list[Update]:
        """The updates of all backward passes since the last zero_grad, with what was done to their gradient."""
        grad = self.handle.grad
        return grad.held.scaled() if isinstance(grad, Gradient) else []

    def forget(self) -> None:
        """Let go of what waits, which was to be seen and not to be sent."""
        self.handle.grad, self._begun[0] = None, 0

    def record(self, update: Update) -> None:
        """Add an update to the gradient, until zero_grad (of optimizer or module) lets go of it.

        Its tensors belong to the tile: nobody may change them afterwards.
        """
        handle: Any = self._parameters["handle"]  # half the time of an attribute
        grad = handle.grad
        if type(grad) is Gradient:
            grad.held.add(update)
            return
        if grad is not None:
            check_gradient(grad, takes_any=True)
        self._begun[0] += 1
        if self._begun[0] == 4:
            warnings.warn(
                "updates that waited on a tile were dropped by zero_grad three times, and none was sent: tiles are "
                "trained by ohmgrad.AnalogOptimizer, not by torch's",
                stacklevel=2,
            )
        handle.grad = self.gradient(update)

    @property
    def members(self) -> list[Tile]:
        """As `Grid.members`."""
        return [self]

    def parts(self, update: Update) -> list[tuple[Tile, Update]]:
        """As `Grid.parts`."""
        return [(self, update)]

    def gradient(self, update: Update) -> Gradient:
        """A gradient of the handle of that update alone."""
        held = Held([], is_wrapped=self.is_wrapped)
        held.add(update)
        handle: Any = self._parameters["handle"]
        return Gradient(handle, held)

    def step(self, lr: Step, weight_decay: float = 0.0) -> None:
        """Send all waiting updates through the algorithm as one mini-batch; then devices relax.

        The updates go on waiting until zero_grad, as the gradients of digital parameters do. Time passes with each
        mini-batch, for every crossbar of the tile, also where nothing waits.

        Args:
            lr: one step for all replicas, or (*replica, 1, 1), one for each.
            weight_decay: share of the matrix in its gradient, which takes a pulse cycle for each row.

        Raises:
            TypeError: the gradient was changed number by number, which pulses cannot follow.
        """
        self.check_gradient()
        with torch.no_grad():
            self.send(lr, weight_decay)

    def check_gradient(self) -> None:
        """Raise TypeError where the gradient cannot reach devices, RuntimeError where the handle was written."""
        self.look()
        handle: Any = self._parameters["handle"]
        if (grad := handle.grad) is not None:
            check_gradient(grad, takes_any=getattr(self.algorithm, "takes_any_gradient", False))

    def send(self, lr: Step, weight_decay: float = 0.0) -> None:
        """As `step`, of a gradient that was checked, and without a graph."""
        self._begun[0] = 0
        handle: Any = self._parameters["handle"]
        with exactly(handle):
            update = self._asked(handle.grad, weight_decay)
            if update is not None:
                self.__dict__["changes"] += 1  # without a module's search for what an attribute is
                self._send(update, lr)
            for bar in self.crossbars:
                bar.relax()

    def _asked(self, grad: Tensor | None, weight_decay: float) -> Update | None:
        """All that waits as one update; where there is a gradient, with the decay in it, as torch does."""
        if not isinstance(grad, Gradient):
            return None
        update = grad.held.merged()
        if not weight_decay:
            return update
        decay = Dense(weight_decay * self.matrix)
        return decay if update is None else joined([update, decay])

    def _send(self, update: Update, lr: Step) -> None:
        """An update of W as one of W_t = W / a, which moves by 1 / a times what W is to move by."""
        state: Any = self._modules["state"]
        if (scale := self._buffers["scale"]) is not None:
            factor = 1.0 / float(scale.mean()) if self.mapping.weight_scaling_lr_compensation else 1.0
            update, lr = update.scaled(1.0 / (scale * factor)), lr * factor
        self.algorithm.update(state, update, lr)

    def _replicate_for_data_parallel(self) -> Tile:
        """What torch.nn.DataParallel asks for at each call."""
        raise RuntimeError(
            "DataParallel would train copies of a tile and drop them: leave it out, and train on one device"
        )

    def __prepare_scriptable__(self) -> Tile:
        """What torch.jit.script asks for."""
        raise RuntimeError(
            "torch.jit.script cannot compile a tile: script ohmgrad.to_digital(model), which computes with the weights "
            "that the tiles represent now"
        )


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
