"""What the values of a device's fields may be."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from typing import Any

NOT_NEGATIVE = ("_dtod", "_ctoc", "_std", "write_noise", "lifetime", "diffusion", "corrupt_range")  # ends of names


@cache
def kinds(family: type, tables: tuple[str, ...]) -> tuple[tuple[str, type], ...]:
    """What each field holds: a tuple for numbers on a grid, a bool, a str, or a float."""
    fields = dataclasses.fields(family)
    own = [type(f.default) if isinstance(f.default, bool | str) else float for f in fields]
    return tuple((f.name, tuple if f.name in tables else k) for f, k in zip(fields, own, strict=True))


def is_number(value: Any) -> bool:
    """Whether it is a number that a float holds, infinite ones among them."""
    if type(value) is float:  # nearly always
        return not math.isnan(value)
    is_real = isinstance(value, float | int) and not isinstance(value, bool)
    return is_real and (isinstance(value, float) or abs(value) < 10**308) and not math.isnan(value)


def check_number(family: str, name: str, value: Any) -> None:
    """Door for one number."""
    if not is_number(value) or (math.isinf(value) and name not in ("w_min", "w_max")):
        raise ValueError(f"{family} needs a finite number for {name}, got {value!r}")
    if value < 0 and name.endswith(NOT_NEGATIVE):
        raise ValueError(f"{family} needs {name} >= 0, got {value}")


def check_table(family: str, name: str, value: Any) -> tuple[float, ...]:
    """Door for numbers on a grid of states: at least one, and only finite ones."""
    numbers = tuple(value) if isinstance(value, list | tuple) else ()
    is_fine = all(is_number(v) and math.isfinite(v) for v in numbers)
    if not numbers or not is_fine:
        raise ValueError(f"{family} needs at least one finite number for {name}, and only such, got {value!r}")
    return tuple(float(v) for v in numbers)
