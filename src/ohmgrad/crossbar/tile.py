"""The tile: what a layer owns. An algorithm's crossbars, read as one matrix, and the updates that wait for it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ohmgrad import random
from ohmgrad.crossbar.crossbar import Crossbar
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
    """Makes one more crossbar of the tile's shape, with a seed of its own; zero unless given a weight."""

    def __call__(self, weight: Tensor | None = None) -> Crossbar: ...


class Algorithm(Protocol):
    """A training algorithm: a few crossbars plus a rule that says which pulses to send."""

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """Crossbars that together represent `weight`."""
        ...

    def mixture(self, state: State) -> Sequence[tuple[float, Crossbar]]:
        """The gains and crossbars whose sum both passes read."""
        ...

    def update(self, state: State, update: Update, lr: float) -> None:
        """Move the represented weight along -lr times the update, by pulses."""
        ...

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """The crossbar that takes the gradient's pulses, and the state it would have if training had converged."""
        ...


class Tile(nn.Module):
    """An algorithm's crossbars behind one matrix, (*replica, out, in).

    Args:
        weight: initial weight, (*replica, out, in); bounds of the devices clip it.
        algorithm: what to do with an update.
        crossbar: keyword arguments of `Crossbar` (device, update, replicas, dtype), the seed aside.
        seed: one integer, or one for each replica. Crossbar number k of the tile derives its own from it.
    """

    def __init__(self, weight: Tensor, *, algorithm: Algorithm, crossbar: dict, seed: int | Sequence[int] = 0) -> None:
        super().__init__()
        shape = (weight.shape[-2], weight.shape[-1])
        replicas = tuple(weight.shape[:-2])
        seeds = random.seed_tensor(seed, replicas)
        count = 0

        def new_crossbar(weight: Tensor | None = None) -> Crossbar:
            nonlocal count
            own = random.derive(seeds, count).flatten().tolist()
            count += 1
            return Crossbar(shape, seed=own, replicas=replicas, weight=weight, dtype=dtype, **crossbar)

        dtype = weight.dtype
        self.algorithm = algorithm
        self.state = algorithm.init(new_crossbar, weight.detach())
        # Stands for the weight in autograd and in optimizers: it makes the graph reach the tile, and its gradient
        # says whether updates wait. It never changes.
        self.handle = nn.Parameter(torch.zeros((), dtype=dtype))
        self.waiting: list[Update] = []
        self._offset: LowRank | None = None

    @property
    def weight(self) -> Tensor:
        """The represented matrix, (*replica, out, in), a new tensor."""
        return _sum(gain * bar.weight for gain, bar in self.algorithm.mixture(self.state))

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.crossbars[0].shape

    @property
    def crossbars(self) -> list[Crossbar]:
        """All crossbars of the tile, also those that no pass reads."""
        return [m for m in self.state.modules() if isinstance(m, Crossbar)]

    def read(self, x: Tensor) -> Tensor:
        """W x: (*replica, batch, in) to (*replica, batch, out)."""
        y = _sum(gain * bar.read(x) for gain, bar in self.algorithm.mixture(self.state))
        return y if self._offset is None else y + (x @ self._offset.V) @ self._offset.U.mT

    def read_transposed(self, d: Tensor) -> Tensor:
        """W' d: (*replica, batch, out) to (*replica, batch, in)."""
        x = _sum(gain * bar.read_transposed(d) for gain, bar in self.algorithm.mixture(self.state))
        return x if self._offset is None else x + (d @ self._offset.U) @ self._offset.V.mT

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
            self.waiting = []
            self.handle.grad = torch.full_like(self.handle, MARK)
        self.waiting.append(update)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Send all waiting updates through the algorithm as one mini-batch, and forget them; then devices relax.

        Time passes with each mini-batch, for every crossbar of the tile, also where nothing waits.
        """
        waiting, self.waiting = self.waiting, []
        if self._is_waiting():
            for update in _merge(waiting):
                self.algorithm.update(self.state, update, lr)
        for bar in self.crossbars:
            bar.relax()

    def _is_waiting(self) -> bool:
        return self.handle.grad is not None and bool(self.handle.grad)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, terms)


def _merge(updates: list[Update]) -> list[Update]:
    """Outer products of one mini-batch in one: samples of accumulated passes follow one another."""
    outers = [u for u in updates if isinstance(u, Outer)]
    others = [u for u in updates if not isinstance(u, Outer)]
    if len(outers) > 1:
        outers = [Outer(torch.cat([u.d for u in outers], -2), torch.cat([u.x for u in outers], -2))]
    return [*outers, *others]
