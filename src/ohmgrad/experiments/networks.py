"""Digital networks by name, which `convert` then puts on tiles. A further one is a dataclass and a line in NETWORKS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from torch import nn

from ohmgrad.experiments.compare import ACTIVATIONS, MAX_HIDDEN
from ohmgrad.experiments.models import lenet5


class Network(Protocol):
    """Settings of a network."""

    def build(self, n_pixels: int, n_classes: int) -> nn.Module:
        """From (batch, n_pixels) to logits (batch, n_classes); weights from torch's random generator.

        Raises:
            ValueError: the network does not take images of that size.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class MLP:
    """A multilayer perceptron.

    hidden: sizes of the hidden layers. activation: after each of them, tanh, sigmoid or relu.
    dropout: share of the hidden units that training leaves out.
    """

    hidden: tuple[int, ...] = (32,)
    activation: str = "tanh"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if any(not 1 <= h <= MAX_HIDDEN for h in self.hidden):
            raise ValueError(f"hidden needs sizes in 1 ... {MAX_HIDDEN}, got {self.hidden}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation needs one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout needs a share in [0, 1), got {self.dropout}")

    def build(self, n_pixels: int, n_classes: int) -> nn.Module:
        """Linear layers with activations between, and dropout if asked for."""
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((n_pixels, *self.hidden, n_classes)):
            layers += [nn.Linear(n_in, n_out), ACTIVATIONS[self.activation]()]
            layers += [nn.Dropout(self.dropout)] * bool(self.dropout)
        return nn.Sequential(*layers[: len(layers) - 1 - bool(self.dropout)])


@dataclass(frozen=True, kw_only=True)
class LeNet5:
    """Two convolutions, each with pooling, and two linear layers, for 28 x 28 pixels. Source: LeCun et al. 1998."""

    activation: str = "tanh"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation needs one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")

    def build(self, n_pixels: int, n_classes: int) -> nn.Module:
        """As `models.lenet5`, from flat images."""
        if n_pixels != 28 * 28:
            raise ValueError(f"model.kind lenet5 needs images of 28 x 28 pixels, got {math.sqrt(n_pixels):g} squared")
        return nn.Sequential(nn.Unflatten(1, (1, 28, 28)), *lenet5(n_classes, ACTIVATIONS[self.activation]))


NETWORKS: dict[str, type[MLP] | type[LeNet5]] = {"mlp": MLP, "lenet5": LeNet5}
