"""What a solvable problem offers."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from ohmgrad.pulses.forms import Update


class Instance(abc.ABC):
    """A solvable problem. Weights w and gradients are (*replica, out, in); what is summed over them is (*replica,)."""

    @property
    @abc.abstractmethod
    def optimum(self) -> Tensor:
        """W*, (out, in)."""

    @property
    @abc.abstractmethod
    def smoothness(self) -> float:
        """L: the largest curvature."""

    @property
    @abc.abstractmethod
    def convexity(self) -> float:
        """mu: the smallest curvature, 0 where f is not strongly convex."""

    @property
    @abc.abstractmethod
    def sigma_squared(self) -> float:
        """E||g - grad f||^2 of one update's gradient; at the optimum where it depends on w."""

    @property
    def f_star(self) -> float:
        """f(W*)."""
        return float(self.loss(self.optimum))

    @abc.abstractmethod
    def loss(self, w: Tensor) -> Tensor:
        """f(w), (*replica,)."""

    @abc.abstractmethod
    def gradient(self, w: Tensor) -> Tensor:
        """The exact gradient."""

    @abc.abstractmethod
    def sample(self, w: Tensor, generator: torch.Generator) -> Update:
        """One stochastic gradient of each replica, in the form in which it is written."""

    @abc.abstractmethod
    def mean_modulus(self, w: Tensor) -> Tensor:
        """E|g|, element by element, of such a gradient at w."""

    def noisy_gradient(self, w: Tensor, generator: torch.Generator) -> Tensor:
        """One stochastic gradient of each replica, as a matrix."""
        return self.sample(w, generator).as_dense()


def matrix(family: str, name: str, value: Tensor) -> Tensor:
    """Door for matrices."""
    value = torch.as_tensor(value, dtype=torch.float64)
    if value.dim() != 2 or not value.numel() or not torch.isfinite(value).all():
        raise ValueError(f"{family} needs a matrix of finite numbers as {name}, got shape {tuple(value.shape)}")
    return value
