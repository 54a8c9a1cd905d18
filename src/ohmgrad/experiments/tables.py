"""From a table of a configuration file to a frozen dataclass: every key known, every value of its field's type."""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import torch

T = TypeVar("T")
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
LARGEST = torch.finfo(torch.float32).max
NONE = "none"  # TOML has no word for None


def build(kind: type[T] | T, table: Mapping[str, Any], section: str) -> T:
    """The dataclass with what the table says; an instance in place of a class gives the values of absent keys.

    Raises:
        ValueError: a key is unknown or missing, a value is of another type or breaks the dataclass's rule; the
            message names section.key and the rule.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Box:
    ...     width: float
    ...     label: str | None = None
    >>> build(Box, {"width": 2, "label": "none"}, "box")
    Box(width=2.0, label=None)
    >>> build(Box, {"width": "2"}, "box")
    Traceback (most recent call last):
    ValueError: box.width needs a number, got '2'
    """
    of = kind if isinstance(kind, type) else type(kind)
    hints, fields = typing.get_type_hints(of), dataclasses.fields(of)  # type: ignore[arg-type]  # a dataclass, by contract
    names = [field.name for field in fields]
    for key in table:
        if key not in names:
            raise ValueError(f"{section}.{key} is unknown; {section} has {', '.join(names) or 'no keys'}")
    if isinstance(kind, type):
        for field in fields:
            if field.name not in table and field.default is field.default_factory is dataclasses.MISSING:
                raise ValueError(f"{section}.{field.name} is missing")
    values = {key: typed(value, hints[key], f"{section}.{key}") for key, value in table.items()}
    try:
        return kind(**values) if isinstance(kind, type) else dataclasses.replace(kind, **values)  # type: ignore[type-var]
    except ValueError as error:
        raise ValueError(_located(str(error), table, section)) from None


def typed(value: Any, hint: Any, where: str) -> Any:
    """That value as the annotation has it: lists as tuples, tables as dataclasses, whole numbers as floats, "none" as
    None.

    Raises:
        ValueError: it is of another type.
    """
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        # X | None, and float | Tensor, of which a file has the number; no other unions
        (inner,) = (h for h in typing.get_args(hint) if h not in (types.NoneType, torch.Tensor))
        may_be_none = types.NoneType in typing.get_args(hint)
        return None if may_be_none and value == NONE else typed(value, inner, where)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} needs a section, [{where}] with keys below, got {reprlib.repr(value)}")
        return build(hint, value, where)
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint) or isinstance(value, bool):
            raise ValueError(f"{where} needs one of {', '.join(typing.get_args(hint))}, got {reprlib.repr(value)}")
        return value
    if typing.get_origin(hint) is tuple:
        return _tuple(value, typing.get_args(hint), where)
    if hint not in WORDS:
        raise ValueError(f"{where} is no plain value, and can be set in Python alone")
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where} needs {WORDS[hint]}, got {reprlib.repr(value)}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{where} needs a number of at most 63 bits, got {reprlib.repr(value)}")
    if isinstance(value, float) and LARGEST < abs(value) < math.inf:
        raise ValueError(f"{where} needs a number of at most {LARGEST:.2g} in size, which float32 holds, got {value}")
    return hint(value)


def chosen(
    table: Mapping[str, Any], section: str, key: str, families: Mapping[str, T], default: str | None = None
) -> T:
    """What the table's key picks among the families.

    Raises:
        ValueError: the key is missing, or names none of them.
    """
    name = table.get(key, default)
    if name is None:
        raise ValueError(f"{section}.{key} is missing; it needs one of {', '.join(families)}")
    if not isinstance(name, str) or name not in families:
        raise ValueError(f"{section}.{key} needs one of {', '.join(families)}, got {reprlib.repr(name)}")
    return families[name]


def plain(settings: Any) -> Any:
    """Nested dataclasses as dicts, each with its name."""
    if not dataclasses.is_dataclass(settings):
        return settings
    fields = {f.name: plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}
    return {"name": type(settings).__name__, **fields}


def _tuple(value: Any, hints: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{where} needs a list, got {reprlib.repr(value)}")
    if hints[-1] is Ellipsis:
        hints = hints[:1] * len(value)
    if len(hints) != len(value):
        raise ValueError(f"{where} needs a list of {len(hints)}, got {reprlib.repr(value)}")
    return tuple(typed(item, hint, where) for item, hint in zip(value, hints, strict=True))


def _located(message: str, table: Mapping[str, Any], section: str) -> str:
    """The message with section.key in front, for the first key of the table that it speaks of."""
    first = message.split(" ", 1)[0]
    if first in table:
        return f"{section}.{message}"
    key = next((k for k in table if re.search(rf"\b{k}\b", message)), None)
    return f"{section}.{key}: {message}" if key else f"{section}: {message}"
