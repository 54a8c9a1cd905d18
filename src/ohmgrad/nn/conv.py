"""Convolutions whose kernels are a tile: every position of the kernel on the input is one vector that is read.

The kernel, (out, in / groups, *kernel), is the matrix (out, in / groups * prod(kernel)); with several groups each has
a crossbar of its own, and the replica dimension behind the layer's own carries them. A mini-batch of N inputs with P
positions each is one mini-batch of N P samples, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

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
from ohmgrad.nn.weights import (
    fitting,
    matrix_and_bias,
    need_bias,
    program_affine,
    read_only,
    shown,
    shows_weight_and_bias,
)
from ohmgrad.nn.windows import rows, seen

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


class AnalogConv(nn.Module):
    """What convolutions of any dimension share; `AnalogConv1d`, `AnalogConv2d` and `AnalogConv3d` are the layers.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in torch's
            layer, whose initialisation is used.
        seed: of the tile; one integer or one for each replica. None draws one from torch's default generator.
        replicas: leading dimensions of weight, bias, inputs and outputs.
        **hardware: the fields of `ohmgrad.nn.Hardware`: device, algorithm, update, count_pulses.

    Shapes: (*replica, batch, in, *size) to (*replica, batch, out, *positions); the batch may be missing.

    Cost: the vectors, up to prod(kernel) times the input, are kept until the optimizer steps.

    Raises:
        ValueError: as torch's layer; or input has another shape, or is smaller than the kernel.
    """

    digital: ClassVar[type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]]
    __setattr__, __delattr__, _load_from_state_dict = read_only(shows_weight_and_bias)

    @named_options
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,  # int | tuple of as many as the layer has dimensions, which torch checks; so the next three
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        *,
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
        dtype: torch.dtype | None = None,
        **hardware: Any,  # as in AnalogLinear
    ) -> None:
        super().__init__()
        options = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
        layers = [self.digital(*options, dtype=dtype) for _ in range(math.prod(replicas))]
        self._place(layers, Hardware(**hardware), seed, replicas)

    @classmethod
    def from_digital(
        cls,
        layers: Sequence[Convolution],
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
        layers: Sequence[Convolution],
        hardware: Hardware,
        seed: int | Sequence[int] | None,
        replicas: Sequence[int],
    ) -> None:
        first = layers[0]
        self.in_channels, self.out_channels, self.groups = first.in_channels, first.out_channels, first.groups
        self.kernel_size, self.stride, self.dilation = first.kernel_size, first.stride, first.dilation
        self.padding, self.padding_mode = first.padding, first.padding_mode
        self.replicas = tuple(replicas)
        # Both ends of the last dimension first, as F.pad has it; for "same" torch has worked them out already.
        self._pads = tuple(first._reversed_padding_repeated_twice)
        matrix = self._matrix(stacked(layers, "weight", replicas))
        if self.groups > 1:
            seed = torch.tensor(child_seeds(seed, replicas, self.groups)).T.flatten().tolist()
            hardware = hardware.repeated(self.groups)
        # Not by register_parameter, which refuses the name of a property.
        self.tile, self._parameters["bias"] = hardware.affine(
            matrix, digital_copy(layers, "bias", replicas), is_trained=first.weight.requires_grad, seed=seed
        )
        self.train(first.training)

    @property
    def weight(self) -> Tensor:
        """The represented kernels, (*replica, out, in / groups, *kernel), a copy to be read: `set_weight` writes."""
        return shown(matrix_and_bias(self.tile)[0].reshape(*self.replicas, *self._kernel_shape), self.tile)

    @property
    def bias(self) -> Tensor | None:
        """The digital parameter, or what the tile represents, a copy to be read, (*replica, out); None for none."""
        _, bias = matrix_and_bias(self.tile) if self.tile.has_bias else (None, None)
        if bias is None:
            return self._parameters["bias"]
        return shown(bias.reshape(*self.replicas, self.out_channels), self.tile)

    def set_weight(self, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
        """As `AnalogLinear.set_weight`, of kernels (*replica, out, in / groups, *kernel)."""
        handle, digital = self.tile.handle, self._parameters["bias"]
        weight = fitting(self, "weight", weight, self._kernel_shape, handle)
        if bias is not None:
            need_bias(self, "bias", self.tile.has_bias or digital is not None)
        bias = fitting(self, "bias", bias, (self.out_channels,), handle)
        program_affine(self.tile, None if weight is None else self._matrix(weight), bias, digital)

    @property
    def _kernel_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def _matrix(self, kernels: Tensor) -> Tensor:
        """Kernels as the tile has them, (*replica, [group], out / groups, in / groups * prod(kernel))."""
        matrix = kernels.flatten(-1 - len(self.kernel_size))
        return matrix.unflatten(-2, (self.groups, -1)) if self.groups > 1 else matrix

    def forward(self, input: Tensor) -> Tensor:
        """(*replica, batch, in, *size) to (*replica, batch, out, *positions)."""
        n = len(self.kernel_size)
        self._check(input)
        vectors, positions = self._vectors(input.reshape(-1, *input.shape[-1 - n :]))
        y = self._rejoin(read(self.tile, vectors, owns_x=self._has_rows(input)), positions)
        y = y.reshape(*input.shape[: -1 - n], self.out_channels, *positions)
        bias = self._parameters["bias"]
        if bias is not None:
            lead = (*self.replicas, *[1] * (y.dim() - 1 - n - len(self.replicas)))
            y = with_bias(y, bias.reshape(*lead, self.out_channels, *[1] * n))
        return y.contiguous()  # as torch's, so that .view works on it

    def windows(self, x: Tensor) -> Tensor:
        """What the kernel sees: (batch, in, *size) to (batch, in, *positions, *kernel), a view of the padded input."""
        return seen(self._padded(x), self.kernel_size, self.stride, self.dilation)

    def _padded(self, x: Tensor) -> Tensor:
        if any(self._pads):
            x = pad(x, self._pads, "constant" if self.padding_mode == "zeros" else self.padding_mode)
        for n, size, dilation in zip(x.shape[2:], self.kernel_size, self.dilation, strict=True):
            if n < (span := dilation * (size - 1) + 1):
                raise ValueError(f"input needs at least {span} places under the kernel, with padding, got {n}")
        return x

    def _vectors(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """Inputs of the tile, (*replica, [group], batch * positions, in / groups * kernel), and the positions."""
        if self._has_rows(x):
            vectors, positions = rows(self._padded(x), self.kernel_size, self.stride, self.dilation)
            return vectors.reshape(*self._lead, -1, vectors.shape[-1]), positions
        windows, n, n_replicas = self.windows(x), len(self.kernel_size), math.prod(self.replicas)
        batch, channels = windows.shape[0] // n_replicas, self.in_channels // self.groups
        parts = windows.reshape(n_replicas, batch, self.groups, channels, *windows.shape[2:])
        # The one copy on the way.
        vectors = parts.permute(0, 2, 1, *range(4, 4 + n), 3, *range(4 + n, 4 + 2 * n))
        positions = list(windows.shape[2 : 2 + n])
        n_samples = batch * math.prod(positions)
        return vectors.reshape(*self._lead, n_samples, channels * math.prod(self.kernel_size)), positions

    def _has_rows(self, x: Tensor) -> bool:
        """Whether a loop of our own makes the vectors, in new memory."""
        is_plain = self.groups == 1 and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
        return is_plain and not torch.compiler.is_compiling()

    def _rejoin(self, y: Tensor, positions: Sequence[int]) -> Tensor:
        """What the tile gave, (*replica, [group], batch * positions, out / groups), as (replica, batch, group, out /
        groups, *positions)."""
        n, n_replicas = len(positions), math.prod(self.replicas)
        batch = y.shape[-2] // math.prod(positions)
        parts = y.reshape(n_replicas, self.groups, batch, *positions, y.shape[-1])
        return parts.permute(0, 2, 1, 3 + n, *range(3, 3 + n))

    @property
    def _lead(self) -> tuple[int, ...]:
        """The tile's replica dimensions."""
        return (*self.replicas, self.groups) if self.groups > 1 else self.replicas

    def _check(self, x: Tensor) -> None:
        check_input(x, "input")
        n, lead = len(self.kernel_size), len(self.replicas)
        is_right = x.dim() in (lead + n + 1, lead + n + 2) and x.shape[:lead] == self.replicas
        if not is_right or x.shape[-1 - n] != self.in_channels:
            sizes = ", ".join([*map(str, self.replicas), "[batch]", str(self.in_channels), *["size"] * n])
            raise ValueError(f"input needs the shape ({sizes}), got {tuple(x.shape)}")

    def to_digital(self, *replica: int) -> Convolution:
        """torch's layer with the weights represented now, of one replica where there are replicas."""
        options: dict[str, Any] = {  # sizes as many as this layer has dimensions
            "kernel_size": self.kernel_size, "stride": self.stride, "padding": self.padding, "dilation": self.dilation,
            "groups": self.groups, "bias": self.bias is not None, "padding_mode": self.padding_mode,
        }  # fmt: skip
        with torch.device("meta"):
            layer = self.digital(self.in_channels, self.out_channels, **options)
        parameters = {name: represented(self.tile, getattr(self, name)) for name in ("weight", "bias")}
        return filled(layer, training=self.training, **of_replica(self.replicas, replica, **parameters))

    def extra_repr(self) -> str:
        """Sizes, for print(model)."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}, "
            f"padding_mode={self.padding_mode}"
        )


class AnalogConv1d(AnalogConv):
    """`torch.nn.Conv1d` with its kernels on a tile; arguments as in `AnalogConv`.

    >>> from ohmgrad.devices import Ideal
    >>> AnalogConv1d(2, 4, 3, padding="same", device=Ideal())(torch.zeros(5, 2, 8)).shape
    torch.Size([5, 4, 8])
    """

    digital = nn.Conv1d


class AnalogConv2d(AnalogConv):
    """`torch.nn.Conv2d` with its kernels on a tile; arguments as in `AnalogConv`.

    >>> from ohmgrad.devices import Ideal
    >>> AnalogConv2d(2, 4, 3, groups=2, device=Ideal())(torch.zeros(5, 2, 8, 8)).shape
    torch.Size([5, 4, 6, 6])
    """

    digital = nn.Conv2d


class AnalogConv3d(AnalogConv):
    """`torch.nn.Conv3d` with its kernels on a tile; arguments as in `AnalogConv`.

    >>> from ohmgrad.devices import Ideal
    >>> AnalogConv3d(2, 4, 3, stride=2, device=Ideal())(torch.zeros(5, 2, 8, 8, 8)).shape
    torch.Size([5, 4, 3, 3, 3])
    """

    digital = nn.Conv3d
