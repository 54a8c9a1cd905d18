"""One way of reading a crossbar, with what its lines keep: their spread, a running average, how many vectors came."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ohmgrad import random
from ohmgrad.periphery import cpu
from ohmgrad.periphery.product import Lines, input_scale, largest_size, noise_of, product, running_average
from ohmgrad.periphery.settings import IO, Periphery

# What spreads from line to line.
NOISE, SLOPE, OFFSET, ASYMMETRY = range(4)


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


class Reader(nn.Module):
    """Reads of one direction.

    Args:
        io: the settings.
        direction: a number that tells this reader's noise from that of the crossbar's others.
        replicas: leading dimensions.
        dtype: of inputs and weights.

    Its state, in state_dict: `vectors`, how many were read, of which every noise is a function; `average`, where noise
    management keeps one.
    """

    vectors: Tensor
    average: Tensor

    def __init__(self, io: IO, *, direction: int, replicas: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__()
        self.io, self.direction = io, direction
        self.register_buffer("vectors", torch.zeros((), dtype=torch.int64))
        if io.noise_management == "average-abs-max" and not io.is_perfect:
            self.register_buffer("average", torch.full(replicas, torch.nan, dtype=dtype))
        self._lines: tuple[tuple, Lines] | None = None

    @torch.no_grad()
    def forward(self, w: Tensor, x: Tensor, seed: Tensor) -> Tensor:
        """W x: w (*replica, out, in), x (*replica, batch, in), seed (*replica,); (*replica, batch, out)."""
        io, first = self.io, int(self.vectors)
        if io.is_perfect:
            return x @ w.mT * io.out_scale
        if x.dim() == 1:
            return self.forward(w, x[None], seed)[0]
        self.vectors.add_(x.shape[-2])
        is_fused = cpu.is_fused(io, w) and w.dim() == 2
        x = x.contiguous()
        scale = self._scale(x, cpu.largest_size(x) if is_fused else largest_size(x))
        lines = self._lines_of(w, seed)
        if is_fused:
            return cpu.fused(w, x, io, lines, int(seed), self.direction, first, scale)
        return product(w, x, io, lines, noise_of(seed, self.direction, first), scale)

    def _scale(self, x: Tensor, largest: Tensor) -> Tensor:
        if self.io.noise_management != "average-abs-max":
            return input_scale(x, self.io, largest)
        scale = running_average(largest, self.average, self.io.nm_decay)
        if scale.shape[-2]:
            self.average.copy_(scale[..., -1, 0])
        return scale

    def _lines_of(self, w: Tensor, seed: Tensor) -> Lines:
        """The lines' spread: a function of the seed, kept while weight's and seed's kinds stay the same."""
        kind = (w.shape, w.dtype, w.device, tuple(seed.flatten().tolist()))
        if self._lines is None or self._lines[0] != kind:
            self._lines = (kind, self._draw(w, seed))
        return self._lines[1]

    def _draw(self, w: Tensor, seed: Tensor) -> Lines:
        io = self.io

        def normal(what: int, rows: int, columns: int) -> Tensor:
            return random.normal_plane(seed, (random.Stream.LINES, self.direction, what), rows, columns, w.dtype)

        n_out, n_in = w.shape[-2:]
        noise: Tensor | float = io.out_noise
        if io.out_noise_std:
            noise = (noise * (1.0 + io.out_noise_std * normal(NOISE, 1, n_out))).abs()
        slope: Tensor | float = io.out_nonlinearity / io.out_bound
        if slope and io.out_nonlinearity_std:
            slope = (slope * (1.0 + io.out_nonlinearity_std * normal(SLOPE, 1, n_out))).abs()
        offset = (io.v_offset_std * normal(OFFSET, 1, n_out)).clamp(min=0) if io.v_offset_std else 0.0
        is_split = io.w_read_asymmetry_dtod > 0 and io.mv_type != "one-pass"
        asymmetry = io.w_read_asymmetry_dtod * normal(ASYMMETRY, n_out, n_in) if is_split else None
        return Lines(out_noise=noise, slope=slope, offset=offset, asymmetry=asymmetry)
