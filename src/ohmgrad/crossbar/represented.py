"""What tiles and layers show of their weights: a copy that nobody can write to, so that no write is lost silently.

Reading it, and calculating with it, gives plain tensors. What shares its memory (views, `.data`, `.detach()`) cannot be
written either, and as a NumPy array it is not writeable. A graph of torch.compile that is given one takes it for a
plain tensor; most backends want `.clone()` of it. A layer inside a graph gives a plain tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

COPY = "`weight` (or an analog bias) is a copy of what the devices represent, and "
WRITTEN = COPY + (
    "writing to it would change nothing: `set_weight` programs the devices, and `.clone()` gives a tensor to write to"
)
FROZEN = COPY + (
    "this part of it has no gradient to switch: `layer.weight.requires_grad = False` or `tile.requires_grad_(False)` "
    "freezes the devices, `set_weight` programs them, and `.clone()` gives a tensor of its own"
)
GRADIENT = COPY + (
    "its gradient waits on several tiles, or has more in it than that of this part: ask the parameters of the layer, "
    "layer.parameters(), for their gradients"
)
HOOKED = COPY + "a hook on it sees no gradient of the layer: `set_weight` writes it, `layer.tile` has the updates"

_HOOKS = {Tensor.register_hook, Tensor.register_post_accumulate_grad_hook}
_VALUES = {Tensor.numpy, Tensor.__float__, Tensor.__int__, Tensor.__complex__, Tensor.__format__}
_ITERATOR = type(iter(()))
_NAMED = ("out", "input", "self", "tensor")  # arguments by which functions know what they write to


class Represented(Tensor):
    """A copy of a represented matrix, to be read.

    `requires_grad` of a layer's weight says whether its tile is trained, and setting it freezes the tile.
    """

    # Parameters that are frozen with it, if it stands for a whole matrix.
    _parts: tuple[nn.Parameter, ...] | None = None
    # Why it cannot be frozen alone, if so.
    _refusal: str | None = None

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch, unless it writes."""
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():  # a graph has no memory to look at, and no writes that it could tell
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "__get__" and func == Tensor.requires_grad.__get__ and args[0]._parts is not None:  # type: ignore[attr-defined]  # a property of C
            return any(part.requires_grad for part in args[0]._parts)
        if name == "__get__" and func == Tensor.grad.__get__ and args[0]._parts is not None:  # type: ignore[attr-defined]  # as above
            return _gradient(args[0])
        if name == "__set__" and func == Tensor.grad.__set__ and args[1] is None and args[0]._parts is not None:  # type: ignore[attr-defined]  # as above
            for part in args[0]._parts:
                part.grad = None
            return None
        if func == Tensor.requires_grad_ or (name == "__set__" and func == Tensor.requires_grad.__set__):  # type: ignore[attr-defined]  # as above
            return _freeze(*args, **kwargs)
        _refuse_writes(func, name, args, kwargs)
        own = [t for t in _flat((*args, *kwargs.values())) if isinstance(t, Represented)]
        with torch._C.DisableTorchFunctionSubclass():
            if func in _VALUES:
                args = (args[0].as_subclass(Tensor).detach(), *args[1:])
            before = [t._version for t in own]
            result = func(*args, **kwargs)
            after = [t._version for t in own]  # tells a write whatever it is called: inplace=True, a list, an operator
            if before != after:
                raise RuntimeError(WRITTEN)
            return _guarded(result, {_memory(t) for t in own})

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """For NumPy: its own array where it asks for a copy, else one that is not writeable."""
        values = self.numpy()
        return np.array(values, dtype=dtype) if copy else values.astype(dtype or values.dtype, copy=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """A plain tensor."""
        return memo.setdefault(id(self), plain(self).detach().clone())

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Files hold a plain tensor."""
        return plain(self).detach().clone().__reduce_ex__(protocol)

    def __repr__(self, **options: Any) -> str:
        """As a plain tensor's."""
        return repr(plain(self).detach().requires_grad_(self.requires_grad))


def represent(value: Tensor, parts: Iterable[nn.Parameter] | None = None, *, refusal: str | None = None) -> Represented:
    """A tensor of nobody else's as one to be read.

    Args:
        value: any shape.
        parts: the parameters that freezing it freezes; None where it cannot.
        refusal: a sentence, where freezing it would freeze more than it stands for.
    """
    if value.is_inference():  # whose writes torch would not count
        with torch.inference_mode(False):
            value = value.clone()
    shown = value.as_subclass(Represented)
    shown._parts = None if parts is None else tuple(parts)
    shown._refusal = refusal
    return shown


def plain(value: Tensor) -> Tensor:
    """The same memory as a tensor of torch, for use within the library, which does not write to it."""
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(Tensor) if isinstance(value, Represented) else value


def _refuse_writes(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise where a function is known by its name to write: also where torch would raise something less clear.

    No TypeError, for which Python would take `w += 1` as `w = w + 1`.
    """
    if func in _HOOKS:
        raise RuntimeError(HOOKED)
    if name == "__set__" and func == Tensor.grad.__set__ and args[1] is None:  # type: ignore[attr-defined]  # as above
        return
    is_operator = name.startswith("__i") and name.endswith("__") and name not in ("__int__", "__invert__", "__index__")
    in_place = is_operator or name in ("__setitem__", "__set__", "__dlpack__")
    if in_place or (name.endswith("_") and not name.endswith("__")):
        targets = [*args[:1], *(kwargs[n] for n in _NAMED if n in kwargs)]
    else:
        targets = [kwargs.get("out")]
    if any(isinstance(t, Represented) for t in _flat(targets)):
        raise RuntimeError(WRITTEN)


def _gradient(shown: Represented) -> Tensor | None:
    """The gradient of the matrix, which waits on its tile, where that is the gradient of nothing else."""
    parts = [part for part in shown._parts or () if part.grad is not None]
    if parts and (len(shown._parts or ()) > 1 or shown._refusal is not None):
        raise RuntimeError(GRADIENT)
    return parts[0].grad if parts else None


def _freeze(shown: Represented, requires_grad: bool = True) -> Represented:
    """As `Tensor.requires_grad_`, whose argument has that name."""
    if shown._parts is None:
        raise RuntimeError(FROZEN)
    if requires_grad != shown.requires_grad:
        if shown._refusal is not None:
            raise RuntimeError(shown._refusal)
        for part in shown._parts:
            part.requires_grad_(requires_grad)
    return shown


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def _memory(value: Tensor) -> int:
    return value.untyped_storage()._cdata


def _guarded(result: Any, memory: set[int]) -> Any:
    """What a function gave, to be read alone where it shares that memory."""
    if isinstance(result, Represented):  # the very tensor that was given
        return result
    if isinstance(result, Tensor):
        if result.layout == torch.strided and _memory(result) in memory:
            return result.as_subclass(Represented)
    elif isinstance(result, list | tuple) and type(result) in (list, tuple):
        return type(result)(_guarded(r, memory) for r in result)
    elif isinstance(result, _ITERATOR):  # the rows of `for row in weight`
        return iter([_guarded(r, memory) for r in result])
    elif isinstance(result, np.ndarray):
        result.setflags(write=False)
    return result
