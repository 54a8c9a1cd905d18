"""What the kernel of a convolution sees at each position, as rows of a matrix, and the way back: loops for CPUs.

torch's views do the same (`AnalogConv.windows`), but are copied number by number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ohmgrad.crossbar.once import once
from ohmgrad.pulses.numba_target import specialised

WIDTH, IS_BACK = 1, False  # of a template: the kernel's last size, and whether rows are added to what they came from


def rows(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> tuple[Tensor, list[int]]:
    """Padded input (batch, in, *size), on a CPU, as (batch * positions, in * kernel), differentiable; the positions."""
    sizes, steps, gaps = x.shape[2:], tuple(stride), tuple(dilation)
    positions = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(sizes, kernel, steps, gaps, strict=True)]
    three = [1] * (3 - len(kernel))  # missing dimensions, in front
    numbers = x.shape[:2], *((*three, *values) for values in (sizes, positions, kernel, steps, gaps))
    return cast(Tensor, _Rows.apply(x, np.concatenate(numbers).astype(np.uint64))), positions


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
