"""A linear layer whose matrix is a tile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ohmgrad.nn.function import read
from ohmgrad.nn.hardware import Hardware
from ohmgrad.nn.layer import blank, digital_copy, filled, named_options, of_replica, represented, stacked, with_bias
from ohmgrad.nn.weights import (
    fitting,
    matrix_and_bias,
    need_bias,
    program_affine,
    read_only,
    shown,
    shows_weight_and_bias,
)


class AnalogLinear(nn.Module):
    """y = W x + b with W on a tile, and b too or digital; on ideal devices it is `torch.nn.Linear`.

    Args:
        in_features, out_features, bias: as in `torch.nn.Linear`, whose initialisation is used.
        seed: of the tile; one integer or one for each replica. None draws one from torch's default generator.
        replicas: leading dimensions of weight, bias, inputs and outputs.
        **hardware: the fields of `ohmgrad.nn.Hardware`: device, algorithm, update, count_pulses.

    Shapes: (*replica, ..., in) to (*replica, ..., out).

    >>> from ohmgrad.devices import Ideal
    >>> layer = AnalogLinear(3, 2, device=Ideal())
    >>> layer(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """

    __setattr__, __delattr__, _load_from_state_dict = read_only(shows_weight_and_bias)

    @named_options
    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
        dtype: torch.dtype | None = None,
        **hardware: Any,  # Hardware refuses what is no field of it, and its next field needs no line here
    ) -> None:
        super().__init__()
        layers = [nn.Linear(in_features, out_features, bias, dtype=dtype) for _ in range(math.prod(replicas))]
        self._place(layers, Hardware(**hardware), seed, replicas)

    @classmethod
    def from_digital(
        cls,
        layers: Sequence[nn.Linear],
        *,
        hardware: Hardware,
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
    ) -> AnalogLinear:
        """One layer of replicas from as many digital layers, or from one; what is frozen stays frozen."""
        layer = blank(cls)
        layer._place(layers, hardware, seed, replicas)
        return layer

    def _place(
        self, layers: Sequence[nn.Linear], hardware: Hardware, seed: int | Sequence[int] | None, replicas: Sequence[int]
    ) -> None:
        first = layers[0]
        self.in_features, self.out_features = first.in_features, first.out_features
        self.replicas = tuple(replicas)
        weight, bias = stacked(layers, "weight", replicas), digital_copy(layers, "bias", replicas)
        # Not by register_parameter, which refuses the name of a property.
        self.tile, self._parameters["bias"] = hardware.affine(
            weight, bias, is_trained=first.weight.requires_grad, seed=seed
        )
        self.train(first.training)

    @property
    def weight(self) -> Tensor:
        """The represented matrix, (*replica, out, in), a copy to be read: `set_weight` writes."""
        return shown(matrix_and_bias(self.tile)[0], self.tile)

    @property
    def bias(self) -> Tensor | None:
        """The digital parameter, or what the tile represents, a copy to be read, (*replica, out); None for none."""
        _, bias = matrix_and_bias(self.tile) if self.tile.has_bias else (None, None)
        return self._parameters["bias"] if bias is None else shown(bias, self.tile)

    def set_weight(self, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
        """Program what the tile represents, through bounds, write noise and digital scales; the algorithm starts anew.

        Args:
            weight: (*replica, out, in), or (out, in) for all replicas. bias: (*replica, out) or (out,). None: it stays.

        Raises:
            TypeError, ValueError: one has another shape, dtype or device, or is not finite; or there is no bias.
        """
        handle, digital = self.tile.handle, self._parameters["bias"]
        weight = fitting(self, "weight", weight, (self.out_features, self.in_features), handle)
        if bias is not None:
            need_bias(self, "bias", self.tile.has_bias or digital is not None)
        program_affine(self.tile, weight, fitting(self, "bias", bias, (self.out_features,), handle), digital)

    def forward(self, input: Tensor) -> Tensor:
        """(*replica, ..., in) to (*replica, ..., out)."""
        y, bias = read(self.tile, input), self._parameters["bias"]
        if bias is None:
            return y
        return with_bias(y, bias.reshape(*bias.shape[:-1], *[1] * (y.dim() - bias.dim()), self.out_features))

    def to_digital(self, *replica: int) -> nn.Linear:
        """torch's layer with the weights represented now, of one replica where there are replicas."""
        with torch.device("meta"):
            layer = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        parameters = {name: represented(self.tile, getattr(self, name)) for name in ("weight", "bias")}
        return filled(layer, training=self.training, **of_replica(self.replicas, replica, **parameters))

    def extra_repr(self) -> str:
        """Sizes, for print(model)."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
