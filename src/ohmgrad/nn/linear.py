"""A linear layer whose matrix is a tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ohmgrad.algorithms import AnalogSGD
from ohmgrad.crossbar.tile import Algorithm, Tile
from ohmgrad.devices.base import Device
from ohmgrad.nn.function import read
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate


class AnalogLinear(nn.Module):
    """y = W x + b with W on a tile and b digital; on ideal devices it is `torch.nn.Linear`.

    Args:
        in_features, out_features, bias: as in `torch.nn.Linear`, whose initialisation is used.
        device: the devices of the tile; a sequence gives one to each replica.
        algorithm: the training algorithm, Analog SGD by default.
        update: `ExpectedUpdate()` by default.
        seed: of the tile; one integer or one for each replica.
        replicas: leading dimensions of weight, bias, inputs and outputs.

    Shapes: (*replica, ..., in) to (*replica, ..., out).

    >>> from ohmgrad.devices import Ideal
    >>> layer = AnalogLinear(3, 2, device=Ideal())
    >>> layer(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: Device | Sequence[Device],
        algorithm: Algorithm | None = None,
        update: ExpectedUpdate | PulsedUpdate | None = None,
        seed: int | Sequence[int] = 0,
        replicas: Sequence[int] = (),
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        n = int(torch.tensor(replicas).prod()) if replicas else 1
        linears = [nn.Linear(in_features, out_features, bias, dtype=dtype) for _ in range(n)]
        self._place(
            torch.stack([m.weight for m in linears]).reshape(*replicas, out_features, in_features),
            torch.stack([m.bias for m in linears]).reshape(*replicas, out_features) if bias else None,
            algorithm=algorithm,
            crossbar={"device": device, "update": update},
            seed=seed,
        )

    @classmethod
    def from_digital(
        cls,
        linears: Sequence[nn.Linear],
        *,
        algorithm: Algorithm | None,
        crossbar: dict[str, Any],
        seed: Sequence[int],
        replicas: bool = False,
    ) -> AnalogLinear:
        """A layer of replicas from several digital layers, or one layer from one; what is frozen stays frozen."""
        layer = cls.__new__(cls)  # not __init__, which would draw weights only to drop them
        nn.Module.__init__(layer)
        weight = torch.stack([m.weight for m in linears]) if replicas else linears[0].weight
        bias = None
        if linears[0].bias is not None:
            bias = torch.stack([m.bias for m in linears]) if replicas else linears[0].bias
        layer._place(weight, bias, algorithm=algorithm, crossbar=crossbar, seed=seed)
        layer.tile.handle.requires_grad_(linears[0].weight.requires_grad)
        if layer.bias is not None:
            layer.bias.requires_grad_(linears[0].bias.requires_grad)
        return layer.train(linears[0].training)

    def _place(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        algorithm: Algorithm | None,
        crossbar: dict,
        seed: int | Sequence[int],
    ) -> None:
        self.out_features, self.in_features = weight.shape[-2:]
        self.tile = Tile(weight, algorithm=algorithm or AnalogSGD(), crossbar=crossbar, seed=seed)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The represented matrix, (*replica, out, in), a new tensor."""
        return self.tile.weight

    def forward(self, x: Tensor) -> Tensor:
        """(*replica, ..., in) to (*replica, ..., out)."""
        y = read(self.tile, x)
        if self.bias is None:
            return y
        shape = (*self.bias.shape[:-1], *[1] * (y.dim() - self.bias.dim()), self.out_features)
        return y + self.bias.reshape(shape)

    def extra_repr(self) -> str:
        """Sizes, for print(model)."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
