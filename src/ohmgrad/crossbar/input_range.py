"""A learned input range: what the DAC is given lies in [-r, r], and r is trained with the network.

    u = clip(x, -r, r),    y = r f(u / r)        f the read of the array, whose DAC takes [-1, 1]

With e the error that arrives at u, element by element, r descends along

    c (sum over x >= r of min(e, 0)  -  sum over x <= -r of max(e, 0))  +  decay r [share of |x| < r above min_share]

c = `gradient_scale` r if relative, else 1: clipped inputs can only widen the range, and decay narrows it where hardly
any is clipped. The error passes on to x as if nothing had been clipped.

The same r sets the range of the outputs, which is r out_bound: the ADC takes [-out_bound, out_bound]. A bias on the
tile is one more input, the constant 1, which the DAC has to take in too: where r < 1 inputs are clipped to r all the
same, digitally, and the read is f(u) with 1 in the place of r, in its outputs' range as well. With
`manage_output_clipping` the gradient also has

    - (1 - s) r [s < output_min_share]        s the share of outputs within that range

so that a matrix whose outputs are too large for its ADC gets smaller signals.

Source: Rasch et al. 2023, Nat. Commun. 14:5282; aihwkit `InputRangeParameter`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ohmgrad.crossbar.once import once


@dataclass(frozen=True, kw_only=True)
class InputRange:
    """Settings of a learned input range, one for each matrix; it takes the place of noise management.

    Args:
        learn: False keeps the range where the first batches put it.
        init_value: before any data.
        init_from_data: training batches over which the range is the mean of `init_std_alpha` times the inputs' standard
            deviation; it is not trained before they are over. 0 for none.
        decay, min_share, gradient_scale, gradient_relative: of the gradient, see the module.
        manage_output_clipping, output_min_share: whether, and below which share of outputs within the ADC's range, the
            range grows. Reads of the forward pass need converters without noise and bound management.

    The names are aihwkit's, but for `learn`, `min_share` and `output_min_share` (there `input_min_percentage`,
    `output_min_percentage`). Unlike there, the range is not trained while it follows the data, weights are updated with
    u in the network's own units, and errors pass on straight where an output was clipped.

    >>> InputRange(init_from_data=0).init_value
    3.0
    """

    learn: bool = True
    init_value: float = 3.0
    init_from_data: int = 100
    init_std_alpha: float = 3.0
    decay: float = 0.001
    min_share: float = 0.95
    gradient_scale: float = 1.0
    gradient_relative: bool = True
    manage_output_clipping: bool = False
    output_min_share: float = 0.95

    def __post_init__(self) -> None:
        for name in ("init_value", "init_std_alpha"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"InputRange needs a finite {name} > 0, got {getattr(self, name)}")
        for name in ("init_from_data", "decay", "gradient_scale"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"InputRange needs a finite {name} >= 0, got {getattr(self, name)}")
        for name in ("min_share", "output_min_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"InputRange needs {name} in [0, 1], got {getattr(self, name)}")


class LearnedRange(nn.Module):
    """The range of a matrix's inputs, and how it is found.

    Args:
        settings: of it.
        replicas: leading dimensions.
        dtype: of inputs.

    Its state: `value`, a digital parameter (*replica,), of which the size counts; `batches`, from how many it comes.
    """

    batches: Tensor

    def __init__(self, settings: InputRange, *, replicas: Sequence[int], dtype: torch.dtype) -> None:
        super().__init__()
        self.settings = settings
        start = torch.full(tuple(replicas), settings.init_value, dtype=dtype)
        self.value = nn.Parameter(start, requires_grad=settings.learn)
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @property
    def size(self) -> Tensor:
        """r, (*replica, 1, 1), > 0."""
        value = self.value.detach().abs()
        return value.clamp(min=torch.finfo(value.dtype).tiny)[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (*replica, batch, in) clipped to the range, which follows them while it is to."""
        if self.training and self.settings.init_from_data and x.shape[-2]:
            self._follow(x.detach())
        return _Clip.apply(x, self.value, self)

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        """The mean over the first batches that are not all 0."""
        wide = self.settings.init_std_alpha * x.std((-2, -1), correction=0)
        is_first = (self.batches < self.settings.init_from_data) & (wide > 0).all()
        n = self.batches.to(wide.dtype)
        self.value.copy_(torch.where(is_first, (n * self.value.abs() + wide) / (n + 1), self.value))
        self.batches += is_first

    def gradient(self, x: Tensor, e: Tensor) -> Tensor:
        """What the optimizer gets for the range, (*replica,); 0 while it follows the data."""
        own, r = self.settings, self.size
        widening = torch.where(x >= r, e.clamp(max=0), 0) - torch.where(x <= -r, e.clamp(min=0), 0)
        gradient = widening.sum((-2, -1)) * (own.gradient_scale * r[..., 0, 0] if own.gradient_relative else 1.0)
        share = (x.abs() < r).to(x.dtype).mean((-2, -1))
        gradient = gradient + own.decay * r[..., 0, 0] * (share > own.min_share)
        return torch.where(self.batches < own.init_from_data, 0.0, gradient)

    def of_read(self, has_bias: bool) -> Tensor:
        """What one unit of the DAC's range stands for, (*replica, 1, 1): r, but with a bias on the tile at least 1."""
        return self.size.clamp(min=1.0) if has_bias else self.size

    def manage(self, y: Tensor, limit: Tensor, unit: Tensor) -> Tensor:
        """The outputs as they are, (*replica, batch, out); where too many are at the ADC's bound, the range grows.

        limit: the largest that the ADC can give for each output at a unit of 1, (*replica, out or 1).
        unit: of `of_read`.
        """
        r = self.size
        # Numbers at the bound are multiples of it, but for the rounding of scales.
        share = (y.detach().abs() < 0.999999 * unit * limit[..., None, :]).to(y.dtype).mean((-2, -1))
        gradient = (share - 1.0) * r[..., 0, 0] * (share < self.settings.output_min_share)
        return _Grow.apply(y, self.value, torch.where(self.batches < self.settings.init_from_data, 0.0, gradient))


class _Grow(torch.autograd.Function):
    """Outputs, and a gradient of the range that is known with them."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return y.view_as(y)

    @staticmethod
    @once
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, Tensor | None, None]:  # type: ignore[override]  # torch's own signature is (*grad_outputs)
        (gradient,) = ctx.saved_tensors
        return d, gradient if ctx.needs_input_grad[1] else None, None


class _Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, of: LearnedRange) -> Tensor:
        ctx.of = of
        ctx.save_for_backward(x)
        return torch.clamp(x, -of.size, of.size)

    @staticmethod
    @once
    def backward(ctx: Any, e: Tensor) -> tuple[Tensor, Tensor | None, None]:  # type: ignore[override]  # torch's own signature is (*grad_outputs)
        (x,) = ctx.saved_tensors
        return e, ctx.of.gradient(x, e) if ctx.needs_input_grad[1] else None, None
