"""Backward passes that can be differentiated no further."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

try:
    from torch._C._functorch import peek_interpreter_stack
except ImportError:  # another torch, which gives its own words

    def peek_interpreter_stack() -> Any:
        return None


TRANSFORM = (
    "a tile cannot be read inside a transform of torch.func (grad, vmap, jvp, jacrev and so on) or with batched "
    "gradients: train with loss.backward(), or transform ohmgrad.to_digital(model)"
)
TWICE = (
    "a tile cannot be differentiated twice, so a loss on gradients (create_graph=True) does not reach it: use "
    "ohmgrad.to_digital(model) for second derivatives"
)


def once(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """Let a backward pass be differentiated no further: refused, and never silently zero.

    Unlike torch's `once_differentiable`, also where the error that came back is a constant, if `ctx` has a tile: what
    goes on depends on it. `ctx.is_twice` tells the backward pass whether it is to be differentiated.
    """

    @functools.wraps(backward)
    def passed(ctx: Any, *errors: Tensor) -> tuple[Tensor | None, ...]:
        if torch.compiler.is_compiling():  # a graph of torch.compile refuses on its own
            return backward(ctx, *errors)
        if peek_interpreter_stack() is not None:
            raise RuntimeError(TRANSFORM)
        ctx.is_twice = is_twice = torch.is_grad_enabled()
        if not is_twice:
            return backward(ctx, *errors)
        with torch.no_grad():
            results = backward(ctx, *errors)
        others = (ctx.tile.handle, *errors) if hasattr(ctx, "tile") else errors
        return tuple(None if r is None else _Refused.apply(r, *others) for r in results)

    return passed


class _Refused(torch.autograd.Function):
    """A value that depends on others by a derivative that is refused."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *others: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> Any:
        raise RuntimeError(TWICE)
