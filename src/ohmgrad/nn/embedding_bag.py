"""Sums, means and maxima over bags of vectors, whose table is a tile.

A sum or mean over a bag is one read of the tile with a vector of counts: how often each vector of the table is in the
bag, or the sum of its weights. The currents of a column add up these vectors as they add up any product, so a bag
takes one read, and one sample of an update, instead of one for each of its vectors; the mean is divided digitally.
A crossbar finds no maximum, so there each vector is read on its own with a one-hot vector, as in `AnalogEmbedding`,
and compared digitally.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ohmgrad.nn.embedding import REFUSED
from ohmgrad.nn.function import read
from ohmgrad.nn.hardware import Hardware
from ohmgrad.nn.layer import blank, filled, named_options, of_replica, represented, stacked
from ohmgrad.nn.refusals import check_input
from ohmgrad.nn.weights import fitting, matrix, program_affine, read_only, shown

MODES = ("sum", "mean", "max")


class AnalogEmbeddingBag(nn.Module):
    """The sum, mean or maximum of a bag of vectors, the columns of a tile; on ideal devices `torch.nn.EmbeddingBag`.

    An empty bag gives zeros. Counts are up to the size of a bag: noise management fits them to the converters, and the
    mapping's input range, which is learned from inputs that are dense, is left out.

    Args:
        num_embeddings, embedding_dim, mode, include_last_offset, padding_idx: as in `torch.nn.EmbeddingBag`, whose
            initialisation is used.
        seed: of the tile; one integer or one for each replica. None draws one from torch's default generator.
        replicas: leading dimensions of weight, indices, offsets and outputs.
        **hardware: the fields of `ohmgrad.nn.Hardware`: device, algorithm, update, count_pulses.

    Shapes: indices (*replica, bags, places), or (*replica, places) with offsets (*replica, bags), to (*replica, bags,
        embedding_dim); indices and offsets are int64 or int32, per_sample_weights have the shape of the indices.

    Cost: a read takes one number for each bag (each index, with "max") and entry of the table.

    Raises:
        IndexError: an index is none of the table's.
        ValueError: offsets do not cut the indices into bags; weights of samples without mode "sum"; a digital layer
            with `max_norm`, `scale_grad_by_freq` or `sparse`.

    >>> from ohmgrad.devices import Ideal
    >>> AnalogEmbeddingBag(10, 3, mode="sum", device=Ideal())(torch.tensor([1, 2, 4, 9]), torch.tensor([0, 3])).shape
    torch.Size([2, 3])
    """

    __setattr__, __delattr__, _load_from_state_dict = read_only(lambda layer, name: name == "weight")

    @named_options
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        mode: Literal["sum", "mean", "max"] = "mean",
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
        dtype: torch.dtype | None = None,
        **hardware: Any,  # as in AnalogLinear
    ) -> None:
        super().__init__()
        options = {"mode": mode, "include_last_offset": include_last_offset, "padding_idx": padding_idx}
        layers = [
            nn.EmbeddingBag(num_embeddings, embedding_dim, dtype=dtype, **options) for _ in range(math.prod(replicas))
        ]
        self._place(layers, Hardware(**hardware), seed, replicas)

    @classmethod
    def from_digital(
        cls,
        layers: Sequence[nn.EmbeddingBag],
        *,
        hardware: Hardware,
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
    ) -> AnalogEmbeddingBag:
        """One layer of replicas from as many digital layers, or from one; what is frozen stays frozen."""
        layer = blank(cls)
        layer._place(layers, hardware, seed, replicas)
        return layer

    def _place(
        self,
        layers: Sequence[nn.EmbeddingBag],
        hardware: Hardware,
        seed: int | Sequence[int] | None,
        replicas: Sequence[int],
    ) -> None:
        first = layers[0]
        for name, default in REFUSED.items():
            if (value := getattr(first, name)) != default:
                raise ValueError(f"AnalogEmbeddingBag needs {name}={default}, got {value}")
        if first.mode not in MODES:
            raise ValueError(f"AnalogEmbeddingBag needs a mode of {', '.join(MODES)}, got {first.mode!r}")
        self.num_embeddings, self.embedding_dim = first.num_embeddings, first.embedding_dim
        self.mode, self.include_last_offset = first.mode, first.include_last_offset
        self.padding_idx = first.padding_idx
        self.replicas = tuple(replicas)
        table = stacked(layers, "weight", replicas).mT.contiguous()
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

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """(*replica, bags, places), or (*replica, places) with offsets, to (*replica, bags, embedding_dim)."""
        self._check(input, offsets, per_sample_weights)
        index, bag, n_bags = self._bags(input, offsets)
        if not torch.compiler.is_compiling():
            self._check_numbers(index, offsets)
        is_counted = torch.ones_like(index, dtype=torch.bool) if self.padding_idx is None else index != self.padding_idx
        if self.mode == "max":
            return self._largest(index, torch.where(is_counted, bag, n_bags), n_bags)
        counted = is_counted.to(self.tile.handle.dtype)
        weights = counted if per_sample_weights is None else counted * per_sample_weights.reshape(index.shape)
        y = read(self.tile, self._counts(index, bag, n_bags, weights))
        sizes = counted.new_zeros(*self.replicas, n_bags).scatter_add_(-1, bag, counted).unsqueeze(-1)
        if self.mode == "mean":
            y = y / sizes.clamp(min=1.0)
        # Nothing is read for an empty bag, and no error comes back.
        return torch.where(sizes > 0, y, 0.0)

    def _bags(self, input: Tensor, offsets: Tensor | None) -> tuple[Tensor, Tensor, int]:
        """Indices one after the other, (*replica, places); the number of each one's bag; and how many bags."""
        lead = len(self.replicas)
        index = input.long().flatten(lead)
        if offsets is None:
            n_bags, size = input.shape[lead:]
            return index, torch.arange(n_bags, device=index.device).repeat_interleave(size).expand_as(index), n_bags
        places = torch.arange(index.shape[-1], device=index.device).expand_as(index).contiguous()
        # An empty bag begins where the next one does, and has no place.
        bag = torch.searchsorted(offsets.long().contiguous(), places, right=True) - 1
        return index, bag, offsets.shape[-1] - self.include_last_offset

    def _counts(self, index: Tensor, bag: Tensor, n_bags: int, weights: Tensor) -> Tensor:
        """(*replica, bags, num_embeddings): the sum of the weights of each vector in each bag."""
        n = self.num_embeddings
        is_right = (index >= 0) & (index < n) & (bag >= 0)
        at = torch.where(is_right, bag * n + index, n_bags * n)  # scatter_add refuses what is wrong, in graphs too
        counts = weights.new_zeros(*self.replicas, n_bags * n).scatter_add(-1, at, weights)
        return counts.reshape(*self.replicas, n_bags, n)

    def _largest(self, index: Tensor, bag: Tensor, n_bags: int) -> Tensor:
        """The largest numbers of each bag, (*replica, bags, embedding_dim), of equal ones the first; 0 if it is empty.

        bag: of each index; number n_bags is for those that are in no bag.
        """
        handle = self.tile.handle
        one_hot = torch.zeros(*index.shape, self.num_embeddings, dtype=handle.dtype, device=handle.device)
        y = read(self.tile, one_hot.scatter_(-1, index.unsqueeze(-1), 1.0))
        values, n_places = y.detach(), index.shape[-1]
        bag = bag.unsqueeze(-1).expand_as(y)
        shape = (*self.replicas, n_bags + 1, self.embedding_dim)
        top = values.new_full(shape, -math.inf).scatter_reduce(-2, bag, values, "amax").gather(-2, bag)
        places = torch.arange(n_places, device=y.device).unsqueeze(-1).expand_as(y)
        candidates = torch.where((values == top) | values.isnan(), places, n_places)
        first = places.new_full(shape, n_places).scatter_reduce(-2, bag, candidates, "amin")
        return pad(y, (0, 0, 0, 1)).gather(-2, first[..., :n_bags, :])  # behind the last place there are zeros

    def _check(self, x: Tensor, offsets: Tensor | None, weights: Tensor | None) -> None:
        """Shapes and dtypes."""
        lead = len(self.replicas)
        if isinstance(x, Tensor) and x.is_nested:
            raise ValueError("input needs a plain tensor, got a nested one: its values() and offsets() make bags too")
        check_input(x, "input")
        is_right = not x.is_floating_point() and x.shape[:lead] == self.replicas
        if not is_right or x.dim() != lead + (2 if offsets is None else 1):
            wanted = "bags, places" if offsets is None else "places"
            raise ValueError(
                f"input needs integers of the shape ({', '.join([*map(str, self.replicas), wanted])}) "
                f"{'without' if offsets is None else 'with'} offsets, got {x.dtype} of {tuple(x.shape)}"
            )
        if offsets is not None and (
            offsets.is_floating_point() or offsets.dim() != lead + 1 or offsets.shape[:lead] != self.replicas
        ):
            raise ValueError(
                f"offsets need integers of the shape ({', '.join([*map(str, self.replicas), 'bags'])}), "
                f"got {offsets.dtype} of {tuple(offsets.shape)}"
            )
        if weights is None:
            return
        if self.mode != "sum":
            raise ValueError(f'per_sample_weights need mode="sum", got mode="{self.mode}"')
        if weights.shape != x.shape or weights.dtype != self.tile.handle.dtype:
            raise ValueError(
                f"per_sample_weights need {self.tile.handle.dtype} of the input's shape {tuple(x.shape)}, "
                f"got {weights.dtype} of {tuple(weights.shape)}"
            )

    def _check_numbers(self, index: Tensor, offsets: Tensor | None) -> None:
        """What a graph cannot look at."""
        n = self.num_embeddings
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < n:
            raise IndexError(f"input needs numbers from 0 to {n - 1}, got {int(index.min())} to {int(index.max())}")
        if offsets is None:
            return
        n_places = index.shape[-1]
        ends = offsets[..., -1:]
        is_right = (offsets[..., :1] == 0).all() and (offsets.diff() >= 0).all() and (ends <= n_places).all()
        if self.include_last_offset:
            is_right = is_right and offsets.shape[-1] > 0 and (ends == n_places).all()
        if not is_right or (n_places and not offsets.shape[-1]):
            last = f" and end with {n_places}, as include_last_offset says," if self.include_last_offset else ""
            raise ValueError(
                f"offsets need to begin with 0, never fall{last} and stay within the {n_places} indices, "
                f"got {offsets.tolist()}"
            )

    def to_digital(self, *replica: int) -> nn.EmbeddingBag:
        """torch's layer with the vectors represented now, of one replica where there are replicas."""
        options: dict[str, Any] = {  # of several types
            "mode": self.mode, "include_last_offset": self.include_last_offset, "padding_idx": self.padding_idx,
        }  # fmt: skip
        with torch.device("meta"):
            layer = nn.EmbeddingBag(self.num_embeddings, self.embedding_dim, **options)
        weight = represented(self.tile, self.weight)
        return filled(layer, training=self.training, **of_replica(self.replicas, replica, weight=weight))

    def extra_repr(self) -> str:
        """Sizes, for print(model)."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}, mode={self.mode!r}{padding}"
