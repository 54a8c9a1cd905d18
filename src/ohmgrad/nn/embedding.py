"""An embedding whose table is a tile, read with one-hot vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ohmgrad.nn.function import read
from ohmgrad.nn.hardware import Hardware
from ohmgrad.nn.layer import blank, filled, named_options, of_replica, represented, stacked
from ohmgrad.nn.refusals import check_input
from ohmgrad.nn.weights import fitting, matrix, program_affine, read_only, shown

# Options of torch's layer that act on its weights or on their gradient, and have no meaning on a tile.
REFUSED = {"max_norm": None, "scale_grad_by_freq": False, "sparse": False}


class AnalogEmbedding(nn.Module):
    """The vector of each index, from a tile whose columns are the vectors; ideal devices make it `torch.nn.Embedding`.

    Args:
        num_embeddings, embedding_dim, padding_idx: as in `torch.nn.Embedding`, whose initialisation is used.
        seed: of the tile; one integer or one for each replica. None draws one from torch's default generator.
        replicas: leading dimensions of weight, indices and outputs.
        **hardware: the fields of `ohmgrad.nn.Hardware`: device, algorithm, update, count_pulses.

    Shapes: indices (*replica, ...), int64 or int32, to (*replica, ..., embedding_dim).

    Cost: a read takes one number for each index and entry of the table, as the crossbar's input lines do.

    Raises:
        IndexError: an index is none of the table's.
        ValueError: from a digital layer with `max_norm`, `scale_grad_by_freq` or `sparse`.

    >>> from ohmgrad.devices import Ideal
    >>> AnalogEmbedding(10, 3, device=Ideal())(torch.tensor([[1, 2], [4, 9]])).shape
    torch.Size([2, 2, 3])
    """

    __setattr__, __delattr__, _load_from_state_dict = read_only(lambda layer, name: name == "weight")

    @named_options
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
        dtype: torch.dtype | None = None,
        **hardware: Any,  # as in AnalogLinear
    ) -> None:
        super().__init__()
        layers = [
            nn.Embedding(num_embeddings, embedding_dim, padding_idx, dtype=dtype) for _ in range(math.prod(replicas))
        ]
        self._place(layers, Hardware(**hardware), seed, replicas)

    @classmethod
    def from_digital(
        cls,
        layers: Sequence[nn.Embedding],
        *,
        hardware: Hardware,
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
    ) -> AnalogEmbedding:
        """One layer of replicas from as many digital layers, or from one; what is frozen stays frozen."""
        layer = blank(cls)
        layer._place(layers, hardware, seed, replicas)
        return layer

    def _place(
        self,
        layers: Sequence[nn.Embedding],
        hardware: Hardware,
        seed: int | Sequence[int] | None,
        replicas: Sequence[int],
    ) -> None:
        first = layers[0]
        for name, default in REFUSED.items():
            if (value := getattr(first, name)) != default:
                raise ValueError(f"AnalogEmbedding needs {name}={default}, got {value}")
        self.num_embeddings, self.embedding_dim = first.num_embeddings, first.embedding_dim
        self.padding_idx = first.padding_idx
        self.replicas = tuple(replicas)
        table = stacked(layers, "weight", replicas).mT
        self.tile, _ = hardware.without_range().affine(table, None, is_trained=first.weight.requires_grad, seed=seed)
        self.train(first.training)

    @property
    def weight(self) -> Tensor:
        """The represented table as torch has it, (*replica, num_embeddings, embedding_dim), a copy to be read."""
        return shown(matrix(self.tile).mT, self.tile)

    def set_weight(self, weight: Tensor) -> None:
        """As `AnalogLinear.set_weight`, of the table (*replica, num_embeddings, embedding_dim)."""
        table = fitting(self, "weight", weight, (self.num_embeddings, self.embedding_dim), self.tile.handle)
        program_affine(self.tile, None if table is None else table.mT, None, None)

    def forward(self, input: Tensor) -> Tensor:
        """(*replica, ...) to (*replica, ..., embedding_dim)."""
        check_input(input, "input")
        if input.is_floating_point() or input.shape[: len(self.replicas)] != self.replicas:
            raise ValueError(
                f"input needs integers of the shape {(*self.replicas, '...')}, "
                f"got {input.dtype} of {tuple(input.shape)}"
            )
        # A graph cannot look at them; there scatter_ refuses.
        if (
            not torch.compiler.is_compiling()
            and input.numel()
            and not 0 <= int(input.min()) <= int(input.max()) < self.num_embeddings
        ):
            raise IndexError(
                f"input needs numbers from 0 to {self.num_embeddings - 1}, got {int(input.min())} to {int(input.max())}"
            )
        handle = self.tile.handle
        one_hot = torch.zeros(*input.shape, self.num_embeddings, dtype=handle.dtype, device=handle.device)
        y = read(self.tile, one_hot.scatter_(-1, input.long().unsqueeze(-1), 1.0))
        if self.padding_idx is None:
            return y
        # No error reaches the tile from here, so that its vector stays.
        return torch.where((input == self.padding_idx).unsqueeze(-1), y.detach(), y)

    def to_digital(self, *replica: int) -> nn.Embedding:
        """torch's layer with the vectors represented now, of one replica where there are replicas."""
        with torch.device("meta"):
            layer = nn.Embedding(self.num_embeddings, self.embedding_dim, self.padding_idx)
        weight = represented(self.tile, self.weight)
        return filled(layer, training=self.training, **of_replica(self.replicas, replica, weight=weight))

    def extra_repr(self) -> str:
        """Sizes, for print(model)."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
