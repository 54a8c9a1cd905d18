"""Transposed convolutions whose kernels are a tile: every position of the input is one vector of channels that is read.

The kernel, (in, out / groups, *kernel), is the matrix (out / groups * prod(kernel), in / groups). A read gives what one
position of the input adds to the outputs under its kernel, and these parts are added up digitally; on the way back each
position gathers the errors of those outputs. So a mini-batch of N inputs with P positions each is one mini-batch of N P
samples, in their order: with stride 2 that is a quarter of the reads, in two dimensions, that a convolution of the
input with zeros put between its places would take. Groups have crossbars of their own, as those of a convolution.

An output has no read of its own, so a bias that is to be analog is a tile beside the kernel's, (out, 1), whose input
is 1 at every position of the output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from ohmgrad.crossbar.grid import Grid
from ohmgrad.crossbar.tile import Tile
from ohmgrad.nn.function import read
from ohmgrad.nn.hardware import Hardware
from ohmgrad.nn.layer import (
    blank,
    child_seeds,
    digital_copy,
    filled,
    named_options,
    of_replica,
    represented,
    stacked,
    with_bias,
)
from ohmgrad.nn.refusals import check_input
from ohmgrad.nn.weights import fitting, matrix, need_bias, program_affine, read_only, shown
from ohmgrad.nn.windows import folded

Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


class AnalogConvTranspose(nn.Module):
    """What transposed convolutions of any dimension share; `AnalogConvTranspose1d`, `2d` and `3d` are the layers.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode:
            as in torch's layer, whose initialisation is used.
        seed: of the tile; one integer or one for each replica. None draws one from torch's default generator.
        replicas: leading dimensions of weight, bias, inputs and outputs.
        **hardware: the fields of `ohmgrad.nn.Hardware`: device, algorithm, update, count_pulses.

    Shapes: (*replica, batch, in, *positions) to (*replica, batch, out, *size); the batch may be missing.

    Cost: the errors that the positions gather, up to prod(kernel) times the output, are kept until the optimizer steps.

    Raises:
        ValueError: as torch's layer; or input has another shape, or the output would be empty.
    """

    __setattr__, __delattr__, _load_from_state_dict = read_only(
        lambda layer, name: name == "weight" or (name == "bias" and layer.column is not None)
    )
    digital: ClassVar[type[nn.ConvTranspose1d] | type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]]

    @named_options
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,  # int | tuple of as many as the layer has dimensions, which torch checks; so the next three
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,  # as kernel_size
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        *,
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
        dtype: torch.dtype | None = None,
        **hardware: Any,  # as in AnalogLinear
    ) -> None:
        super().__init__()
        shape = (in_channels, out_channels, kernel_size, stride, padding, output_padding)
        options = (groups, bias, dilation, padding_mode)
        layers = [self.digital(*shape, *options, dtype=dtype) for _ in range(math.prod(replicas))]
        self._place(layers, Hardware(**hardware), seed, replicas)

    @classmethod
    def from_digital(
        cls,
        layers: Sequence[Transposed],
        *,
        hardware: Hardware,
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
    ) -> Self:
        """One layer of replicas from as many digital layers, or from one; what is frozen stays frozen."""
        layer = blank(cls)
        layer._place(layers, hardware, seed, replicas)
        return layer

    def _place(
        self,
        layers: Sequence[Transposed],
        hardware: Hardware,
        seed: int | Sequence[int] | None,
        replicas: Sequence[int],
    ) -> None:
        first = layers[0]
        self.in_channels, self.out_channels, self.groups = first.in_channels, first.out_channels, first.groups
        self.kernel_size, self.stride, self.dilation = first.kernel_size, first.stride, first.dilation
        self.padding: Any = first.padding  # numbers; torch's type has the words of a convolution too
        self.output_padding, self.padding_mode = first.output_padding, first.padding_mode
        self._check_options()
        self.replicas = tuple(replicas)
        for_kernel, for_bias = child_seeds(seed, replicas, 2)
        matrix, own = self._matrix(stacked(layers, "weight", replicas)), hardware
        if self.groups > 1:
            for_kernel = torch.tensor(child_seeds(for_kernel, replicas, self.groups)).T.flatten().tolist()
            own = hardware.repeated(self.groups)
        self.tile, _ = own.affine(matrix, None, is_trained=first.weight.requires_grad, seed=for_kernel)
        # Not by register_parameter, which refuses the name of a property.
        bias = self._parameters["bias"] = digital_copy(layers, "bias", replicas)
        self.column: Tile | Grid | None = None
        if bias is not None and hardware.mapping is not None and not hardware.mapping.digital_bias:
            self._parameters["bias"] = None
            self.column, _ = hardware.without_range().affine(
                bias.detach().unsqueeze(-1), None, is_trained=bias.requires_grad, seed=for_bias
            )
        self.train(first.training)

    def _check_options(self) -> None:
        if any(isinstance(padding, str) for padding in self.padding):
            raise ValueError(f"{type(self).__name__} needs numbers as padding, got {''.join(self.padding)!r}")
        sizes = zip(self.padding, self.output_padding, self.stride, self.dilation, strict=True)
        for padding, output_padding, stride, dilation in sizes:
            if padding < 0 or stride < 1 or dilation < 1:
                raise ValueError(
                    f"{type(self).__name__} needs padding >= 0, stride >= 1 and dilation >= 1, got "
                    f"{self.padding}, {self.stride} and {self.dilation}"
                )
            if not 0 <= output_padding < max(stride, dilation):
                raise ValueError(
                    f"{type(self).__name__} needs 0 <= output_padding < the larger of stride and dilation, got "
                    f"{self.output_padding}, {self.stride} and {self.dilation}"
                )

    @property
    def weight(self) -> Tensor:
        """The represented kernels, (*replica, in, out / groups, *kernel), a copy to be read: `set_weight` writes."""
        return shown(matrix(self.tile).mT.reshape(*self.replicas, *self._kernel_shape), self.tile)

    @property
    def bias(self) -> Tensor | None:
        """The digital parameter, or what its tile represents, a copy to be read, (*replica, out); None for none."""
        if self.column is None:
            return self._parameters["bias"]
        return shown(matrix(self.column)[..., 0], self.column)

    def set_weight(self, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
        """As `AnalogLinear.set_weight`, of kernels (*replica, in, out / groups, *kernel)."""
        digital = self._parameters["bias"]
        weight = fitting(self, "weight", weight, self._kernel_shape, self.tile.handle)
        if bias is not None:
            need_bias(self, "bias", self.column is not None or digital is not None)
        bias = fitting(self, "bias", bias, (self.out_channels,), self.tile.handle)
        program_affine(self.tile, None if weight is None else self._matrix(weight), bias, digital)
        if self.column is not None and bias is not None:
            self.column.set_weight(bias[..., None])

    @property
    def _kernel_shape(self) -> tuple[int, ...]:
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    def _matrix(self, kernels: Tensor) -> Tensor:
        """Kernels as the tile has them, (*replica, [group], out / groups * prod(kernel), in / groups)."""
        matrix = kernels.flatten(-1 - len(self.kernel_size))
        return (matrix.unflatten(-2, (self.groups, -1)) if self.groups > 1 else matrix).mT.contiguous()

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(*replica, batch, in, *positions) to (*replica, batch, out, *size).

        output_size: of the output, where the stride leaves several; with or without the dimensions before its size.
        """
        n = len(self.kernel_size)
        self._check(input)
        size = self._size(input, output_size)
        y = self._added(read(self.tile, self._vectors(input)), input.shape[-n:], size)
        y = y.reshape(*input.shape[: -1 - n], self.out_channels, *size)
        if self.column is not None:
            y = y + self._analog_bias(y)
        elif (bias := self._parameters["bias"]) is not None:
            lead = (*self.replicas, *[1] * (y.dim() - 1 - n - len(self.replicas)))
            y = with_bias(y, bias.reshape(*lead, self.out_channels, *[1] * n))
        return y.contiguous()  # as torch's, so that .view works on it

    def _vectors(self, x: Tensor) -> Tensor:
        """Inputs of the tile, (*replica, [group], batch * positions, in / groups)."""
        n, per_group = len(self.kernel_size), self.in_channels // self.groups
        batch = x.shape[len(self.replicas)] if self._is_batched(x) else 1
        n_positions = math.prod(x.shape[-n:])
        parts = x.reshape(math.prod(self.replicas), batch, self.groups, per_group, n_positions)
        return parts.permute(0, 2, 1, 4, 3).reshape(*self._lead, batch * n_positions, per_group)

    def _added(self, y: Tensor, positions: Sequence[int], size: Sequence[int]) -> Tensor:
        """What the tile gave, (*replica, [group], batch * positions, out / groups * kernel), as (replica, batch, group,
        out / groups, *size)."""
        whole = [n + 2 * padding for n, padding in zip(size, self.padding, strict=True)]
        rows = y.reshape(-1, y.shape[-1])
        sums = folded(rows, whole, positions, self.kernel_size, self.stride, self.dilation)
        inside = (slice(padding, padding + n) for n, padding in zip(size, self.padding, strict=True))
        parts = sums[(..., *inside)]
        parts = parts.reshape(math.prod(self.replicas), self.groups, -1, *parts.shape[1:])
        return parts.transpose(1, 2)

    def _analog_bias(self, y: Tensor) -> Tensor:
        """Read with a 1 for each position of the output y; in its shape."""
        assert self.column is not None  # said for the type checker
        n, lead = len(self.kernel_size), len(self.replicas)
        batch = y.shape[lead : -1 - n]
        ones = y.new_ones(*self.replicas, *batch, *y.shape[-n:], 1)
        return read(self.column, ones).movedim(-1, -1 - n)

    def _size(self, x: Tensor, output_size: Sequence[int] | None) -> list[int]:
        """Sizes of the output: those asked for, or what `output_padding` makes of the input's."""
        n = len(self.kernel_size)
        numbers = zip(x.shape[-n:], self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        least = [(size - 1) * s - 2 * p + d * (k - 1) + 1 for size, k, s, p, d in numbers]
        if output_size is None:
            sizes = [low + extra for low, extra in zip(least, self.output_padding, strict=True)]
        elif len(output_size) in (n, x.dim()):
            sizes = list(output_size[-n:])
            most = [low + s - 1 for low, s in zip(least, self.stride, strict=True)]
            if not all(low <= size <= high for low, size, high in zip(least, sizes, most, strict=True)):
                raise ValueError(f"output_size needs sizes from {least} to {most} for this input, got {sizes}")
        else:
            raise ValueError(f"output_size needs {n} numbers, or {x.dim()} with those before, got {list(output_size)}")
        if min(sizes) < 1:
            raise ValueError(f"input needs more places than padding takes away, got an output of the size {sizes}")
        return sizes

    def _is_batched(self, x: Tensor) -> bool:
        return x.dim() == len(self.replicas) + len(self.kernel_size) + 2

    @property
    def _lead(self) -> tuple[int, ...]:
        """The tile's replica dimensions."""
        return (*self.replicas, self.groups) if self.groups > 1 else self.replicas

    def _check(self, x: Tensor) -> None:
        check_input(x, "input")
        n, lead = len(self.kernel_size), len(self.replicas)
        is_right = x.dim() in (lead + n + 1, lead + n + 2) and x.shape[:lead] == self.replicas
        if not is_right or x.shape[-1 - n] != self.in_channels or 0 in x.shape[-n:]:
            sizes = ", ".join([*map(str, self.replicas), "[batch]", str(self.in_channels), *["size"] * n])
            raise ValueError(f"input needs the shape ({sizes}), got {tuple(x.shape)}")

    def to_digital(self, *replica: int) -> Transposed:
        """torch's layer with the weights represented now, of one replica where there are replicas."""
        options: dict[str, Any] = {  # sizes as many as this layer has dimensions
            "kernel_size": self.kernel_size, "stride": self.stride, "padding": self.padding,
            "output_padding": self.output_padding, "groups": self.groups, "bias": self.bias is not None,
            "dilation": self.dilation, "padding_mode": self.padding_mode,
        }  # fmt: skip
        with torch.device("meta"):
            layer = self.digital(self.in_channels, self.out_channels, **options)
        weight, bias = represented(self.tile, self.weight), represented(self.column or self.tile, self.bias)
        return filled(layer, training=self.training, **of_replica(self.replicas, replica, weight=weight, bias=bias))

    def extra_repr(self) -> str:
        """Sizes, for print(model)."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, output_padding={self.output_padding}, dilation={self.dilation}, "
            f"groups={self.groups}, bias={self.bias is not None}"
        )


class AnalogConvTranspose1d(AnalogConvTranspose):
    """`torch.nn.ConvTranspose1d` with its kernels on a tile; arguments as in `AnalogConvTranspose`.

    >>> from ohmgrad.devices import Ideal
    >>> AnalogConvTranspose1d(2, 4, 3, stride=2, device=Ideal())(torch.zeros(5, 2, 8)).shape
    torch.Size([5, 4, 17])
    """

    digital = nn.ConvTranspose1d


class AnalogConvTranspose2d(AnalogConvTranspose):
    """`torch.nn.ConvTranspose2d` with its kernels on a tile; arguments as in `AnalogConvTranspose`.

    >>> from ohmgrad.devices import Ideal
    >>> AnalogConvTranspose2d(2, 4, 4, stride=2, padding=1, device=Ideal())(torch.zeros(5, 2, 8, 8)).shape
    torch.Size([5, 4, 16, 16])
    """

    digital = nn.ConvTranspose2d


class AnalogConvTranspose3d(AnalogConvTranspose):
    """`torch.nn.ConvTranspose3d` with its kernels on a tile; arguments as in `AnalogConvTranspose`.

    >>> from ohmgrad.devices import Ideal
    >>> AnalogConvTranspose3d(2, 4, 3, groups=2, device=Ideal())(torch.zeros(5, 2, 4, 4, 4)).shape
    torch.Size([5, 4, 6, 6, 6])
    """

    digital = nn.ConvTranspose3d
