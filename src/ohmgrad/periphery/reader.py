"""One way of reading a crossbar, with what its lines keep: their spread, a running average, how many vectors came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ohmgrad import random
from ohmgrad.periphery import cpu, fused
from ohmgrad.periphery.product import (
    Lines,
    average_so_far,
    input_scale,
    largest_size,
    noise_of,
    product,
    running_average,
)
from ohmgrad.periphery.settings import IO, Periphery
from ohmgrad.pulses.op import is_for_gpu

Read = Callable[[Tensor, Tensor], Tensor]
# What spreads from line to line.
NOISE, SLOPE, OFFSET, ASYMMETRY = range(4)
# Added to a direction: the key of its noise in evaluation, which is independent of training's.
EVALUATION = 8


def readers(periphery: Periphery, replicas: tuple[int, ...], dtype: torch.dtype) -> nn.ModuleDict:
    """Readers of a crossbar, by the names of its methods."""
    transfer = periphery.transfer or periphery.forward
    ios = {
        "read": periphery.forward,
        "read_transposed": replace(periphery.backward, bound_management="none"),
        "read_columns": replace(transfer, noise_management="none", bound_management="none"),
    }
    made = {n: Reader(io, direction=k, replicas=replicas, dtype=dtype) for k, (n, io) in enumerate(ios.items())}
    return nn.ModuleDict(made)


class _Way(NamedTuple):
    """How weights of one kind, (shape, dtype, device), are read, and the tensors that `read` holds on to."""

    kind: tuple[torch.Size, torch.dtype, torch.device]
    seed: Tensor
    vectors: Tensor
    read: Read


class Reader(nn.Module):
    """Reads of one direction.

    Args:
        io: the settings.
        direction: a number that tells this reader's noise from that of the crossbar's others.
        replicas: leading dimensions.
        dtype: of inputs and weights.

    Its state, in state_dict: `vectors`, how many were read in training, of which every noise is a function;
    `evaluated`, how many in evaluation (`eval()`), which has noise of its own, so that training goes on as if there
    were none; `average`, where noise management keeps one, which evaluation takes as it is.
    """

    vectors: Tensor
    evaluated: Tensor
    _buffers: dict[str, Any]  # asked by name where speed matters
    average: Tensor

    def __init__(self, io: IO, *, direction: int, replicas: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__()
        self.io, self.direction = io, direction
        self.register_buffer("vectors", torch.zeros((), dtype=torch.int64))
        self.register_buffer("evaluated", torch.zeros((), dtype=torch.int64))
        if io.noise_management == "average-abs-max" and not io.is_perfect:
            self.register_buffer("average", torch.full(replicas, torch.nan, dtype=dtype))
        self._is_scaled = fused.way_of_scale(io) != fused.GIVEN
        self._ways: dict[bool, _Way] = {}  # in evaluation and in training

    def forward(self, w: Tensor, x: Tensor, seed: Tensor) -> Tensor:
        """W x: w (*replica, out, in), x (*replica, batch, in), seed (*replica,); (*replica, batch, out)."""
        if x.dim() == 1:
            return self.forward(w, x[None], seed)[0]
        kind, is_trained = (w.shape, w.dtype, w.device), self.training
        way, vectors = self._ways.get(is_trained), self._buffers["vectors" if is_trained else "evaluated"]
        if way is None or way.kind != kind or way.seed is not seed or way.vectors is not vectors:
            self._ways[is_trained] = way = _Way(kind, seed, vectors, self._bind(w, seed, vectors))
        return way.read(w, x)

    def lines(self, w: Tensor, lines: Tensor, seed: Tensor) -> Tensor:
        """Reads with one-hot inputs: columns of w, by their indices, (n,) or (*replica, n), to (*replica, n, out).

        A DAC whose range ends below 1 drives a line at its bound, and the outputs are as much larger.
        """
        most = min(1.0, self.io.inp_bound)
        one_hot = most * torch.nn.functional.one_hot(lines.to(w.device), w.shape[-1]).to(w.dtype)
        y = self(w, one_hot.expand(*w.shape[:-2], *one_hot.shape[-2:]), seed)
        return y if most == 1.0 else y / most

    @torch.no_grad()
    def _bind(self, w: Tensor, seed: Tensor, vectors: Tensor) -> Read:
        """The way that weights of this shape, dtype and device are read, with all that stays from call to call."""
        io, direction = self.io, self.direction + (0 if self.training else EVALUATION)
        if io.is_perfect:
            return lambda w, x: x @ w.mT * io.out_scale
        lines = self._draw(w, seed)
        if fused.is_fused(io, w) and (kernels := self._kernels(lines, seed, direction, w, vectors)):

            def by_kernels(w: Tensor, x: Tensor) -> Tensor:
                return kernels(w.detach(), x, None if self._is_scaled else self._scale(x))

            return by_kernels

        @torch.no_grad()
        def plainly(w: Tensor, x: Tensor) -> Tensor:
            first = int(vectors)
            vectors.add_(x.shape[-2])
            return product(w, x, io, lines, noise_of(seed, direction, first), self._scale(x))

        return plainly

    def _kernels(self, lines: Lines, seed: Tensor, direction: int, w: Tensor, vectors: Tensor) -> fused.Read | None:
        """Those for the processor that holds the weight."""
        given = self.io, lines, int(seed), direction, w, vectors
        if is_for_gpu(w):
            from ohmgrad.periphery import gpu  # needs Triton, which machines without a GPU may lack

            return gpu.launcher(*given) if gpu.is_fused(self.io) else None
        return cpu.launcher(*given) if w.device.type == "cpu" else None

    @torch.no_grad()
    def _scale(self, x: Tensor) -> Tensor:
        """Noise management, (*replica, batch, 1)."""
        largest = largest_size(x)
        if self.io.noise_management != "average-abs-max":
            return input_scale(x, self.io, largest)
        if not self.training:
            return average_so_far(largest, self.average, self.io.nm_decay)
        scale = running_average(largest, self.average, self.io.nm_decay)
        if scale.shape[-2]:
            self.average.copy_(scale[..., -1, 0])
        return scale

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._ways = {}  # it is of what was before this move
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ways": {}}  # a copy finds its own

    def _load_from_state_dict(  # type: ignore[override]  # torch passes the rest by position
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        self._ways = {}  # the seed may be another
        if f"{prefix}vectors" in state_dict:  # of a time when evaluation had no counter
            state_dict.setdefault(f"{prefix}evaluated", torch.zeros_like(self.evaluated))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _draw(self, w: Tensor, seed: Tensor) -> Lines:
        io = self.io

        def normal(what: int, rows: int, columns: int) -> Tensor:
            return random.normal_plane(seed, (random.Stream.LINES, self.direction, what), rows, columns, w.dtype)

        n_out, n_in = w.shape[-2:]
        noise: Tensor | float = io.out_noise
        if io.out_noise_std:
            noise = (noise * (1.0 + io.out_noise_std * normal(NOISE, 1, n_out))).abs()
        slope: Tensor | float = io.out_nonlinearity / io.out_unit
        if slope and io.out_nonlinearity_std:
            slope = (slope * (1.0 + io.out_nonlinearity_std * normal(SLOPE, 1, n_out))).abs()
        offset = (io.v_offset_std * normal(OFFSET, 1, n_out)).clamp(min=0) if io.v_offset_std else 0.0
        is_split = io.w_read_asymmetry_dtod > 0 and io.mv_type != "one-pass"
        asymmetry = io.w_read_asymmetry_dtod * normal(ASYMMETRY, n_out, n_in) if is_split else None
        return Lines(out_noise=noise, slope=slope, offset=offset, asymmetry=asymmetry)
