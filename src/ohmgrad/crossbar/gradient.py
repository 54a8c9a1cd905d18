"""The gradient of a tile's matrix, as torch sees it: a tensor that holds updates and no numbers.

`tile.handle.grad` is one. What torch and its users do to gradients reaches the updates where pulses can follow:

    norms, sums, looks for NaN     of the matrix sum_k f_k dW_k, made when it is asked for
    a common factor                goes to the factors f_k: mul_, div_, neg_, clip_grad_norm_
    sums of gradients              put the updates one behind the other
    any other change in place      is made to the matrix, and noted: `Tile.step` refuses it unless the tile's algorithm
                                   keeps its gradient in digital numbers (`MixedPrecision`)
    writes into a plain tensor     raise TypeError: torch's optimizers, a sum over ranks
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ohmgrad.crossbar.handle import READ
from ohmgrad.crossbar.held import Factor, Held
from ohmgrad.pulses.forms import Dense

aten = torch.ops.aten
STRANGER = (
    "a tile takes its gradient from backward passes, got one that somebody else made, {grad}: only what a tile's own "
    "gradient becomes by a common factor or by sums can reach devices"
)


class Gradient(Tensor):
    """What `tile.handle.grad` is; made by `Tile.record`.

    held: the updates. Copies that share it, such as `.data` and `.detach()`, are one gradient.
    """

    held: Held

    @staticmethod
    def __new__(cls, like: Tensor, held: Held) -> Gradient:
        """A gradient of the handle `like`."""
        own = Tensor._make_wrapper_subclass(cls, (), dtype=like.dtype, device=like.device)  # type: ignore[attr-defined]
        own.held = held
        return own

    def __init__(self, like: Tensor, held: Held) -> None:
        pass  # torch's would make another tensor

    @property
    def data(self) -> Gradient:  # type: ignore[override]  # torch's is an attribute
        """The same gradient."""
        return Gradient(self, self.held)

    @data.setter
    def data(self, value: Any) -> None:
        self.copy_(value)

    def __repr__(self, *, tensor_contents: None = None) -> str:
        updates = ", ".join(type(update).__name__ for update, _ in self.held.parts)
        return f"Gradient of a tile, which waits as [{updates}]"

    def moved(self, fn: Callable[[Tensor], Tensor], like: Tensor) -> Gradient:
        """The same gradient after `fn`, such as a move to another device or dtype, for a handle that moved so."""
        parts = [(update.mapped(fn), factor) for update, factor in self.held.parts]
        return Gradient(like, Held(parts, self.held.edit))

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What torch's operators do with gradients of tiles, see the module."""
        kwargs = kwargs or {}
        if (own := OPERATORS.get(func)) is not None and (result := own(*args, **kwargs)) is not NotImplemented:
            return result
        if func.overloadpacket in EACH:
            return _each(func, EACH[func.overloadpacket], args, kwargs)
        if args and isinstance(args[0], list | tuple) and len(args[0]) > 1 and "_foreach_" in func._schema.name:
            return _each(func, None, args, kwargs)  # gradients of tiles and others may be among them
        written = list(_written(func, args, kwargs))
        if any(not isinstance(t, Gradient) for t in written):
            return _write_plain(func, written, _gradients((args, kwargs)))
        numbers = {id(g): _numbers(g) for g in _gradients((args, kwargs))}
        plain = tree_map(lambda a: numbers[id(a)] if isinstance(a, Gradient) else a, (args, kwargs))
        result = func(*plain[0], **plain[1])
        if not written:
            return _of_matrix(func, result, numbers, _gradients((args, kwargs)))
        for g in written:
            assert isinstance(g, Gradient)  # seen to above; said for the type checker
            g.held.become(Dense(numbers[id(g)]), func.overloadpacket._qualified_op_name)
        return written[0] if len(written) == 1 and isinstance(args[0], Gradient) else None


def check_gradient(grad: Tensor, *, takes_any: bool) -> None:
    """Raise TypeError where what is a handle's gradient cannot reach devices.

    takes_any: also changes number by number can.
    """
    if not isinstance(grad, Gradient):
        if grad.any():
            raise TypeError(READ if grad.isnan() else STRANGER.format(grad=grad))
    elif grad.held.edit and not takes_any:
        raise TypeError(
            f"the gradient of a tile was changed number by number ({grad.held.edit}), which pulses of samples cannot "
            "follow. Change all of it by one factor, as clip_grad_norm_ does; train that layer with the algorithm "
            "MixedPrecision, which keeps its gradient in digital numbers; or leave it out, by "
            "[p for p in model.parameters() if p.dim()]"
        )


def _numbers(g: Gradient) -> Tensor:
    """The matrix of a gradient, or the 0 of one without updates."""
    return g.held.dense() if g.held.parts else torch.zeros((), dtype=g.dtype, device=g.device)


def _of_matrix(func: Any, result: Any, numbers: dict[int, Tensor], gradients: list[Gradient]) -> Any:
    """What an operator made of matrices; where it is as one of them number by number, a gradient that was so edited."""
    for g in gradients:
        own = numbers[id(g)]
        if own.dim() and isinstance(result, Tensor) and (result.shape, result.dtype) == (own.shape, own.dtype):
            return Gradient(g, Held([(Dense(result), 1.0)], func.overloadpacket._qualified_op_name))
    return result


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterable[Tensor]:
    """The tensors that an operator changes, by its schema."""
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = kwargs.get(argument.name) if argument.kwarg_only or i >= len(args) else args[i]
            yield from value if isinstance(value, list | tuple) else () if value is None else (value,)


def _gradients(tree: Any) -> list[Gradient]:
    found: list[Gradient] = []
    tree_map(lambda a: found.append(a) if isinstance(a, Gradient) else None, tree)
    return found


def _write_plain(func: Any, written: list[Tensor], gradients: list[Gradient]) -> Tensor:
    """A gradient of a tile would be written into numbers of somebody else."""
    if len(written) == 1 and all(g.held.is_wrapped for g in gradients):
        return written[0].zero_()  # a bucket of DistributedDataParallel, which `_copy` gets back
    name = func.overloadpacket._qualified_op_name
    raise TypeError(
        f"{name} cannot write the gradient of a tile into a plain tensor, for it goes to devices as pulses: tiles are "
        "trained by ohmgrad.AnalogOptimizer, not by torch's optimizers; a sum of gradients begins with one of them, "
        "total = a + b; MixedPrecision is the algorithm that keeps a gradient in digital numbers"
    )


def _number(value: Any) -> Factor | None:
    """A common factor; None if it is none."""
    if isinstance(value, Gradient) or isinstance(value, bool | complex):
        return None
    if isinstance(value, Tensor):
        return None if value.numel() != 1 else value if value.is_cuda else float(value)
    return float(value)


def _scaled(g: Any, value: Any, by: Callable[[Any, Any], Any], *, in_place: bool) -> Any:
    if not isinstance(g, Gradient):  # a number times a gradient
        g, value = value, g
        if by is not _product or in_place:
            return NotImplemented
    if (factor := _number(value)) is None:
        return NotImplemented
    parts = g.held.scale(lambda own: by(own, factor))
    if not in_place:
        return Gradient(g, Held(parts, g.held.edit))
    g.held.parts = parts
    return g


def _product(a: Any, b: Any) -> Any:
    return a * b


def _quotient(a: Any, b: Any) -> Any:
    return a / b if isinstance(a, Tensor) or isinstance(b, Tensor) or b else a * float("inf")


def _sum(g: Any, other: Any, *, alpha: Any = 1, sign: float = 1.0, in_place: bool) -> Any:
    """The sum of two gradients; of a gradient and a plain 0, with which sum() begins."""
    if not isinstance(g, Gradient) or _number(alpha) is None:
        return NotImplemented
    if not isinstance(other, Gradient):
        is_number = not isinstance(other, Tensor) or not other.dim()
        if is_number and other != other:
            raise TypeError(READ)
        if not is_number or other != 0:
            return NotImplemented
        return g if in_place else _clone(g)
    factor = sign * float(alpha)
    parts = [*g.held.parts, *(other.held.parts if factor == 1.0 else other.held.scale(lambda own: own * factor))]
    edit = g.held.edit or other.held.edit
    if not in_place:
        return Gradient(g, Held(parts, edit))
    g.held.parts, g.held.edit = parts, edit
    return g


def _norm(
    g: Gradient, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Any:
    """The norm that clipping asks for; others are taken of the matrix."""
    return g.held.norm().to(dtype or g.dtype) if ord == 2 and dim is None else NotImplemented


def _clone(g: Gradient, **_: Any) -> Gradient:
    return Gradient(g, Held(list(g.held.parts), g.held.edit))


def _shared(g: Gradient, *_: Any) -> Gradient:
    return Gradient(g, g.held)


def _zero(g: Gradient) -> Gradient:
    g.held.parts, g.held.edit = [], None
    return g


def _copy(g: Any, source: Any, *_: Any) -> Any:
    """One gradient takes over another's updates."""
    if not isinstance(g, Gradient) or not isinstance(source, Gradient):
        is_zero = isinstance(g, Gradient) and not source.dim() and not source.any()
        return (g if g.held.is_wrapped else _zero(g)) if is_zero else NotImplemented
    g.held.parts, g.held.edit = list(source.held.parts), source.held.edit
    return g


def _item(g: Gradient) -> Any:
    """One number of a matrix, which only one of a single number has."""
    numbers = _numbers(g)
    if numbers.numel() != 1:
        raise RuntimeError(
            f"the gradient of a tile is a matrix of {numbers.numel()} numbers, got item(): norm(), sum() and the like "
            "make one number of them"
        )
    return numbers.item()


def _unscale(grads: Sequence[Tensor], found_inf: Tensor, by: Tensor) -> None:
    """What torch.amp.GradScaler does: undo the loss's scale, and note numbers that are not finite."""
    if plain := [g for g in grads if not isinstance(g, Gradient)]:
        aten._amp_foreach_non_finite_check_and_unscale_(plain, found_inf, by)
    for g in grads:
        if isinstance(g, Gradient):
            found_inf.logical_or_(~_numbers(g).isfinite().all())
            g.mul_(by)


def _each(func: Any, one: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operator on lists of tensors, one tensor after the other: by an operator on tensors, or on lists of one."""
    first, *rest = args
    results: list[Any] = []
    for i, t in enumerate(first):
        own = [(r[i] if one else r[i : i + 1]) if isinstance(r, list | tuple) else r for r in rest]
        if one:
            results.append(one(t, *own, **kwargs))
        else:
            results += func([t], *own, **kwargs) or []
    return None if func._schema.name.endswith("_") else results


_multiplied = functools.partial(_scaled, by=_product)
_divided = functools.partial(_scaled, by=_quotient)
OPERATORS: dict[Any, Callable[..., Any]] = {
    aten.mul.Tensor: functools.partial(_multiplied, in_place=False),
    aten.mul.Scalar: functools.partial(_multiplied, in_place=False),
    aten.mul_.Tensor: functools.partial(_multiplied, in_place=True),
    aten.mul_.Scalar: functools.partial(_multiplied, in_place=True),
    aten.div.Tensor: functools.partial(_divided, in_place=False),
    aten.div.Scalar: functools.partial(_divided, in_place=False),
    aten.div_.Tensor: functools.partial(_divided, in_place=True),
    aten.div_.Scalar: functools.partial(_divided, in_place=True),
    aten.neg.default: lambda g: _scaled(g, -1.0, _product, in_place=False),
    aten.neg_.default: lambda g: _scaled(g, -1.0, _product, in_place=True),
    aten.add.Tensor: functools.partial(_sum, in_place=False),
    aten.add_.Tensor: functools.partial(_sum, in_place=True),
    aten.sub.Tensor: functools.partial(_sum, sign=-1.0, in_place=False),
    aten.sub_.Tensor: functools.partial(_sum, sign=-1.0, in_place=True),
    aten.linalg_vector_norm.default: _norm,
    aten.clone.default: _clone,
    aten.detach.default: _shared,
    aten.alias.default: _shared,
    aten.zero_.default: _zero,
    aten._local_scalar_dense.default: _item,
    aten.copy_.default: _copy,
    aten._amp_foreach_non_finite_check_and_unscale_.default: _unscale,
    aten.zeros_like.default: lambda g, **_: Gradient(g, Held([])),
}
# torch's operators on lists, which clipping and optimizers use on GPUs.
EACH: dict[Any, Callable[..., Any]] = {
    aten._foreach_norm: torch.linalg.vector_norm,
    aten._foreach_mul: torch.mul,
    aten._foreach_div: torch.div,
    aten._foreach_neg: torch.neg,
    aten._foreach_mul_: lambda t, value: t.mul_(value),
    aten._foreach_div_: lambda t, value: t.div_(value),
    aten._foreach_neg_: lambda t: t.neg_(),
    aten._foreach_zero_: lambda t: t.zero_(),
}
