"""The few functions that a device's response may call, and how its source moves to another compiler.

A response is written once, as a pure function on scalars, with the names of this module and arithmetic. Here each
name acts on torch tensors; `retarget` rebuilds the same code over another target's names (Numba's, Triton's).

Number literals are narrowed to float32 on the way, so that no target widens.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Value = Tensor | float
Words = Tensor | int


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


def interpolate(table: Sequence[float], x: Value) -> Tensor:
    """Straight lines through the numbers of a table, which stand at 0, ..., 1 in equal steps; level beyond.

    >>> interpolate((1.0, 3.0, 2.0), torch.tensor([-1.0, 0.25, 0.75, 1.0]))
    tensor([1.0000, 2.0000, 2.5000, 2.0000])
    """
    (x,) = _tensor(x)
    nodes, last = torch.as_tensor(table, dtype=x.dtype, device=x.device), len(table) - 1
    y = torch.clamp(x * last, 0.0, last)
    i = torch.clamp(y.long(), max=max(last - 1, 0))
    a, b = nodes[i], nodes[torch.clamp(i + 1, max=last)]
    return a + (y - i) * (b - a)


def u32(a: Words) -> Words:
    """a modulo 2**32: a 32-bit word."""
    return a & 0xFFFFFFFF


def popcount(a: Words) -> Words:
    """Set bits of a 32-bit word."""
    a = a - ((a >> 1) & 0x55555555)
    a = (a & 0x33333333) + ((a >> 2) & 0x33333333)
    return u32(((a + (a >> 4)) & 0x0F0F0F0F) * 0x01010101) >> 24


def to_float(a: Words) -> Tensor:
    """A word below 2**31 as a float32 number."""
    return torch.as_tensor(a).to(torch.float32)


def signed(a: Words) -> Tensor:
    """A word read as a signed 32-bit integer, as a float32 number."""
    return torch.as_tensor(a).to(torch.int32).to(torch.float32)  # int64 to int32 keeps the low 32 bits


def as_word(a: Tensor) -> Tensor:
    """The bits of a float32 number."""
    return a.view(torch.int32).to(torch.int64) & 0xFFFFFFFF


def as_float(a: Tensor) -> Tensor:
    """The float32 number of these bits."""
    return a.to(torch.int32).view(torch.float32)


# What a response may call, and what else our own kernel sources call.
NAMES = ("where", "minimum", "maximum", "absolute", "exp", "log", "sqrt", "power", "interpolate")
WORDS = ("u32", "popcount", "to_float", "signed", "as_word", "as_float")


@dataclass(frozen=True)
class Target:
    """Another compiler.

    namespace: its function for each name of the vocabulary.
    number, word: make its float32 and its 32-bit word of a literal.
    compile: compiles a function; also given each plain function that it calls.
    """

    namespace: Mapping[str, Any]
    number: Callable[[float], Any]
    word: Callable[[int], Any]
    compile: Callable[[Callable[..., Any]], Any]


def retarget(function: Callable[..., Any], target: Target, *, words: bool = False) -> Any:
    """The same source for another target.

    Args:
        function: a pure function of scalars; calls only the vocabulary and plain functions like itself.
        words: whole numbers in the source are 32-bit words; otherwise they are narrowed to float32 like all others.

    Raises:
        NameError: the source uses a name that is neither vocabulary, helper function nor number.
    """
    known = NAMES + WORDS if words else NAMES

    def narrow(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, float | int):
            return value
        return target.word(value) if words and isinstance(value, int) else target.number(float(value))

    # The module's name lets compilers that cache on disk find their way back.
    scope: dict[str, Any] = {"__name__": function.__module__}
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if name in known and name in target.namespace:
            scope[name] = target.namespace[name]
        elif isinstance(value, types.FunctionType):
            scope[name] = retarget(value, target, words=words)
        elif isinstance(value, float | int):
            scope[name] = narrow(value)
        else:
            raise NameError(
                f"{function.__qualname__} uses {name!r}: a response may call only {', '.join(NAMES)} "
                "and plain functions or numbers of its own module"
            )
    if function.__code__.co_freevars:
        raise NameError(f"{function.__qualname__} uses {function.__code__.co_freevars[0]!r} of an enclosing function")
    code = function.__code__.replace(co_consts=tuple(narrow(c) for c in function.__code__.co_consts))
    return target.compile(types.FunctionType(code, scope, function.__name__, function.__defaults__))


def fingerprint(function: Callable[..., Any]) -> str:
    """What a pure function does, as 16 hexadecimal digits: its code, and that of the functions and numbers it uses."""
    code = function.__code__
    used = [(name, function.__globals__.get(name)) for name in code.co_names if name not in NAMES]
    parts: list[Any] = [code.co_code.hex(), code.co_consts, code.co_names, code.co_varnames, function.__defaults__]
    parts += [(name, fingerprint(v) if isinstance(v, types.FunctionType) else repr(v)) for name, v in used]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
