"""Staleness: gradients arrive some mini-batches late, as in a pipeline of layers that never waits.

    W(k+1) = what the algorithm makes of g(W(k - delay)), around any algorithm; of the first `delay` steps, nothing

With Analog SGD it is pipelined Analog SGD (arXiv 2410.15155): layer m of M has the delay 2 (M - m).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ohmgrad.algorithms.analog_sgd import AnalogSGD
from ohmgrad.algorithms.rules import need
from ohmgrad.crossbar.cost import Cost
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.tile import Algorithm, NewCrossbar, State
from ohmgrad.pulses.forms import Outer, Update


class Pipeline(nn.Module):
    """Updates under way, oldest first: buffers d0, x0, d1, ...; a state dict brings its own shapes along."""

    def __len__(self) -> int:
        return len(self._buffers) // 2

    def updates(self) -> list[Outer]:
        """What is under way, oldest first."""
        return [Outer(self.get_buffer(f"d{k}"), self.get_buffer(f"x{k}")) for k in range(len(self))]

    def hold(self, updates: list[Outer]) -> None:
        """Replace what is under way."""
        self._buffers.clear()
        for k, update in enumerate(updates):
            self.register_buffer(f"d{k}", update.d)
            self.register_buffer(f"x{k}", update.x)

    def _load_from_state_dict(  # type: ignore[override]  # torch passes the rest by position
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        names = [name for name in state_dict if name.startswith(prefix)]
        self._buffers.clear()
        for name in names:
            self.register_buffer(name[len(prefix) :], torch.empty_like(state_dict[name]))
        super()._load_from_state_dict(state_dict, prefix, *args)


@dataclass(frozen=True, kw_only=True)
class Stale:
    """Any algorithm, with gradients that arrive `delay` mini-batches late, >= 1. Raises ValueError otherwise."""

    algorithm: Algorithm = field(default_factory=AnalogSGD)
    delay: int = 1

    def __post_init__(self) -> None:
        need(self, counts=("delay",))

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """The algorithm's own, and nothing under way."""
        return State(inner=self.algorithm.init(new_crossbar, weight), pipeline=Pipeline())

    def mixture(self, state: State) -> Any:
        """As the algorithm's."""
        return self.algorithm.mixture(state.inner)

    @torch.no_grad()
    def update(self, state: State, update: Update, lr: float) -> None:
        """The gradient of `delay` mini-batches ago, while this one sets out."""
        under_way = [*state.pipeline.updates(), update.as_outer()]
        if len(under_way) > self.delay:
            self.algorithm.update(state.inner, under_way.pop(0), lr)
        state.pipeline.hold(under_way)

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """As the algorithm's."""
        return self.algorithm.at_rest(state.inner)

    def cost(self, shape: tuple[int, int], batch_size: int = 1) -> Cost:
        """The algorithm's, and memory for what is under way."""
        inner = self.algorithm.cost(shape, batch_size)
        return replace(inner, digital=inner.digital + self.delay * batch_size * sum(shape))
