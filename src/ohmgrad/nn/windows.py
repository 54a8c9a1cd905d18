"""What the kernel of a convolution sees at each position, as rows of a matrix, and the way back.

Loops for CPUs, and torch's views for the rest, which do the same but are copied number by number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ohmgrad.crossbar.once import once
from ohmgrad.pulses.numba_target import specialised

WIDTH, IS_BACK = 1, False  # of a template: the kernel's last size, and whether rows are added to what they came from


def seen(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """What a kernel sees: (batch, channels, *size) as (batch, channels, *positions, *kernel), a view."""
    for dim, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
        x = x.unfold(dim, gap * (size - 1) + 1, step)[..., ::gap]
    return x


def rows(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> tuple[Tensor, list[int]]:
    """Padded input (batch, in, *size), on a CPU, as (batch * positions, in * kernel), differentiable; the positions."""
    sizes = x.shape[2:]
    positions = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)]
    geometry = _geometry(x.shape[:2], sizes, positions, kernel, stride, dilation)
    return cast(Tensor, _Rows.apply(x, geometry)), positions


def folded(
    parts: Tensor,
    size: Sequence[int],
    positions: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Rows (batch * positions, channels * kernel) added up where they came from: (batch, channels, *size).

    The opposite of `rows`, differentiable; both ways give the same numbers to the bit.

    >>> folded(torch.ones(2, 3), [4], [2], [3], [1], [1])
    tensor([[[1., 2., 2., 1.]]])
    """
    shape = (parts.shape[0] // math.prod(positions), parts.shape[1] // math.prod(kernel))
    is_plain = parts.device.type == "cpu" and parts.dtype in (torch.float32, torch.float64)
    if is_plain and not torch.compiler.is_compiling():
        geometry = _geometry(shape, size, positions, kernel, stride, dilation)
        return cast(Tensor, _Folded.apply(parts, geometry)).reshape(*shape, *size)
    n = len(kernel)
    parts = parts.reshape(shape[0], *positions, shape[1], *kernel).movedim(1 + n, 1)
    return cast(Tensor, _FoldedViews.apply(parts, tuple(size), tuple(stride), tuple(dilation)))


def _geometry(shape: Sequence[int], *values: Sequence[int]) -> np.ndarray:
    """As `move` takes it: batch and channels, then sizes, positions, kernel, stride and dilation."""
    three = [1] * (3 - len(values[0]))  # missing dimensions, in front
    return np.concatenate([shape, *((*three, *numbers) for numbers in values)]).astype(np.uint64)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, geometry: np.ndarray) -> Tensor:
        ctx.geometry, ctx.shape = geometry, x.shape
        batch, channels, *_ = geometry.tolist()
        out = x.new_empty(batch * int(geometry[5:8].prod()), channels * int(geometry[8:11].prod()))
        _kernel(int(geometry[10]), False)(_flat(x), _flat(out), geometry)
        return out

    @staticmethod
    @once
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]  # torch's own signature is (*grad_outputs)
        dx = d.new_zeros(ctx.shape)
        _kernel(int(ctx.geometry[10]), True)(_flat(dx), _flat(d), ctx.geometry)
        return dx, None


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parts: Tensor, geometry: np.ndarray) -> Tensor:
        ctx.geometry, ctx.shape = geometry, parts.shape
        x = parts.new_zeros(*geometry[:5].tolist())
        _kernel(int(geometry[10]), True)(_flat(x), _flat(parts), geometry)
        return x

    @staticmethod
    @once
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]  # torch's own signature is (*grad_outputs)
        out = d.new_empty(ctx.shape)
        _kernel(int(ctx.geometry[10]), False)(_flat(d), _flat(out), ctx.geometry)
        return out, None


class _FoldedViews(torch.autograd.Function):
    """The same of (batch, channels, *positions, *kernel); torch itself would copy d for each place of the kernel."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, size: tuple[int, ...], stride: Any, dilation: Any) -> Tensor:
        n = len(size)
        positions, kernel = parts.shape[2 : 2 + n], parts.shape[2 + n :]
        ctx.numbers = positions, kernel, stride, dilation
        x = parts.new_zeros(*parts.shape[:2], *size)
        # From the last place to the first, which is the order of positions, as the loops go.
        for place in product(*(range(k - 1, -1, -1) for k in kernel)):
            at = zip(place, positions, stride, dilation, strict=True)
            under = x[(..., *(slice(k * gap, k * gap + (p - 1) * step + 1, step) for k, p, step, gap in at))]
            under += parts[(..., *place)]
        return x

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]  # as above
        positions, kernel, stride, dilation = ctx.numbers
        windows = seen(d, kernel, stride, dilation)
        return windows[(slice(None), slice(None), *(slice(p) for p in positions))], None, None, None


def _flat(t: Tensor) -> np.ndarray:
    return t.detach().resolve_neg().contiguous().view(-1).numpy()


@cache
def _kernel(width: int, is_back: bool) -> Any:
    """Compiled for a width, since loops of a known length are short code."""
    return specialised(move, f"move_{width}_{is_back}", WIDTH=width, IS_BACK=is_back)


def move(x, out, geometry):
    """From x to rows, or back.

    geometry, uint64, by which no index is looked at for its sign: batch, channels, then for three dimensions the sizes
    of x, positions, kernel, stride and dilation.
    """
    g, row = geometry, np.uint64(0)
    for n in range(g[0]):
        for i in range(g[5]):
            for j in range(g[6]):
                for k in range(g[7]):
                    for c in range(g[1]):
                        for p in range(g[8]):
                            for q in range(g[9]):
                                plane = (n * g[1] + c) * g[2] + i * g[11] + p * g[14]
                                at = (plane * g[3] + j * g[12] + q * g[15]) * g[4] + k * g[13]
                                for r in range(np.uint64(WIDTH)):
                                    if IS_BACK:
                                        x[at + r * g[16]] += out[row + r]
                                    else:
                                        out[row + r] = x[at + r * g[16]]
                                row += np.uint64(WIDTH)
