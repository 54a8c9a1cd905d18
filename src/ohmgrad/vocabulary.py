"""The few functions that a device's response may call, and how its source moves to another compiler.

A response is written once, as a pure function on scalars, with the names of this module and arithmetic. Here each
name acts on torch tensors; `retarget` rebuilds the same code over another target's names (Numba's, Triton's).

Write float literals as floats (`1.0`, not `1`): `retarget` narrows them to float32 so that no target widens.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Value = Tensor | float


def _tensor(*values: Value, device: torch.device | None = None) -> tuple[Tensor, ...]:
    # Numbers alone stay as precise as they are; `devices.base.step` narrows what comes of them.
    like = next((v for v in values if isinstance(v, Tensor)), torch.empty((), dtype=torch.float64, device=device))
    return tuple(
        v if isinstance(v, Tensor) else torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in values
    )


def where(condition: Tensor | bool, a: Value, b: Value) -> Value:
    """a where the condition holds, b elsewhere."""
    if isinstance(condition, Tensor):
        return torch.where(condition, *_tensor(a, b, device=condition.device))
    return a if condition else b


def minimum(a: Value, b: Value) -> Tensor:
    """The smaller of two, element by element."""
    return torch.minimum(*_tensor(a, b))


def maximum(a: Value, b: Value) -> Tensor:
    """The larger of two, element by element."""
    return torch.maximum(*_tensor(a, b))


def absolute(a: Value) -> Tensor:
    """|a|."""
    return torch.abs(*_tensor(a))


def exp(a: Value) -> Tensor:
    """e to the power a."""
    return torch.exp(*_tensor(a))


def log(a: Value) -> Tensor:
    """The natural logarithm."""
    return torch.log(*_tensor(a))


def sqrt(a: Value) -> Tensor:
    """The square root."""
    return torch.sqrt(*_tensor(a))


def power(a: Value, b: Value) -> Tensor:
    """a to the power b, for a >= 0."""
    return torch.pow(*_tensor(a, b))


NAMES = ("where", "minimum", "maximum", "absolute", "exp", "log", "sqrt", "power")


def retarget(
    function: Callable[..., Any],
    namespace: Mapping[str, Any],
    narrow: Callable[[float], Any],
    compile_: Callable[[Callable[..., Any]], Any],
) -> Any:
    """The same source for another target.

    Args:
        function: a pure function of scalars; calls only the vocabulary and plain functions like itself.
        namespace: the target's function for each name of the vocabulary.
        narrow: turns a float literal into the target's float32.
        compile_: the target's compiler; also given each plain helper function that the source calls.

    Raises:
        NameError: the source uses a name that is neither vocabulary, helper function nor number.
    """
    code = function.__code__
    code = code.replace(co_consts=tuple(narrow(c) if isinstance(c, float) else c for c in code.co_consts))
    scope: dict[str, Any] = {}
    for name in code.co_names:
        if name in namespace:
            scope[name] = namespace[name]
        elif isinstance(value := function.__globals__.get(name), types.FunctionType):
            scope[name] = retarget(value, namespace, narrow, compile_)
        elif isinstance(value, float | int):
            scope[name] = narrow(float(value))
        else:
            raise NameError(
                f"{function.__qualname__} uses {name!r}: a response may call only {', '.join(NAMES)} "
                "and plain functions or numbers of its own module"
            )
    return compile_(types.FunctionType(code, scope, function.__name__, function.__defaults__))
