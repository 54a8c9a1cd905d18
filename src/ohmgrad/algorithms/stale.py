"""Staleness: gradients arrive some mini-batches late, as in a pipeline of layers that never waits.

    W(k+1) = what the algorithm makes of g(W(k - delay)), around any algorithm; of the first `delay` steps, nothing

With Analog SGD it is pipelined Analog SGD (arXiv 2410.15155): layer m of M has the delay 2 (M - m).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from ohmgrad.algorithms.analog_sgd import AnalogSGD
from ohmgrad.algorithms.rules import need
from ohmgrad.crossbar.algorithm import Algorithm, NewCrossbar, State
from ohmgrad.crossbar.cost import Cost
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Step
from ohmgrad.pulses.forms import Outer, Update


class Pipeline(nn.Module):
    """Updates under way, oldest first. Its state in a state dict is no tensor, for their number and sizes change."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: list[Outer] = []

    def get_extra_state(self) -> list[tuple[Tensor, Tensor, int]]:
        """The vectors d and x of each, and its digital memory."""
        return [(u.d, u.x, u.digital_memory) for u in self.under_way]

    def set_extra_state(self, state: list[tuple[Tensor, Tensor, int]]) -> None:
        """What `get_extra_state` gave."""
        self.under_way = [Outer(d.clone(), x.clone(), memory) for d, x, memory in state]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.under_way = [replace(u, d=fn(u.d), x=fn(u.x)) for u in self.under_way]
        return super()._apply(fn, recurse)


@dataclass(frozen=True, kw_only=True)
class Stale:
    """Any algorithm, with gradients that arrive `delay` mini-batches late, >= 1.

    Raises:
        ValueError: delay breaks its rule. TypeError: what is to be delayed is no algorithm.
    """

    algorithm: Algorithm = field(default_factory=AnalogSGD)
    delay: int = 1

    def __post_init__(self) -> None:
        need(self, counts=("delay",))
        if isinstance(self.algorithm, type) or not hasattr(self.algorithm, "update"):
            raise TypeError(f"Stale needs an algorithm to delay, such as AnalogSGD(), got {self.algorithm!r}")

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """The algorithm's own, and nothing under way."""
        return State(inner=self.algorithm.init(new_crossbar, weight), pipeline=Pipeline())

    def mixture(self, state: State) -> Any:
        """As the algorithm's."""
        return self.algorithm.mixture(state.inner)

    def update(self, state: State, update: Update, lr: Step) -> None:
        """The gradient of `delay` mini-batches ago, while this one sets out."""
        outer = update.as_outer()
        state.pipeline.under_way.append(replace(outer, d=outer.d.detach().clone(), x=outer.x.detach().clone()))
        if len(state.pipeline.under_way) > self.delay:
            self.algorithm.update(state.inner, state.pipeline.under_way.pop(0), lr)

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """As the algorithm's."""
        return self.algorithm.at_rest(state.inner)

    def cost(self, shape: tuple[int, int], batch_size: int = 1) -> Cost:
        """The algorithm's, and memory for what is under way."""
        inner = self.algorithm.cost(shape, batch_size)
        return replace(inner, digital=inner.digital + self.delay * batch_size * sum(shape))
