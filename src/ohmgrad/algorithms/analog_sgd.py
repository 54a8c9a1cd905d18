"""Analog SGD: the gradient's pulses go straight to the one crossbar that holds the weight."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ohmgrad.crossbar.algorithm import NewCrossbar, State
from ohmgrad.crossbar.cost import Cost, cost
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Step
from ohmgrad.pulses.forms import Update


@dataclass(frozen=True, kw_only=True)
class AnalogSGD:
    """W <- W - lr g * F(W) - lr |g| * G(W). On ideal devices this is SGD. Source: Wu et al. 2024, eq. 3 and 8."""

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """One crossbar, which holds the weight."""
        return State(bar=new_crossbar(weight))

    def mixture(self, state: State) -> list[tuple[float, Crossbar]]:
        """Both passes read that crossbar."""
        return [(1.0, state.bar)]

    def update(self, state: State, update: Update, lr: Step) -> None:
        """W <- W - lr g, through the devices."""
        state.bar.write(update, lr)

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """The gradient's pulses balance at the weight itself."""
        return state.bar, state.bar.weight

    def cost(self, shape: tuple[int, int], batch_size: int = 1) -> Cost:
        """One array, no transfers."""
        return cost(shape)
