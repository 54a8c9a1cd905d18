"""What settings of algorithms are held to: one sentence that names the value and the rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ohmgrad.crossbar.elements import Step


def need(
    settings: Any,
    *,
    positive: tuple[str, ...] = (),
    not_negative: tuple[str, ...] = (),
    share: tuple[str, ...] = (),
    counts: tuple[str, ...] = (),
) -> None:
    """Raise ValueError where a field breaks its rule.

    positive: finite and > 0. not_negative: finite and >= 0. share: in [0, 1]. counts: whole and >= 1. Of a tensor, a
    value for each replica, all have to hold.
    """
    family = type(settings).__name__
    rules: tuple[tuple[tuple[str, ...], str, Callable[[Any], Any]], ...] = (
        (positive, "> 0", lambda v: (v > 0) & (v < math.inf)),
        (not_negative, ">= 0", lambda v: (v >= 0) & (v < math.inf)),
        (share, "in [0, 1]", lambda v: (v >= 0) & (v <= 1)),
    )
    for names, rule, holds in rules:
        for name in names:
            value = getattr(settings, name)
            if isinstance(value, Tensor):
                value = next((v for v in value.flatten().tolist() if not holds(v)), 1.0)
            if not holds(value):
                raise ValueError(f"{family} needs {name} {rule}, got {value}")
    for name in counts:
        value = getattr(settings, name)
        if value is not None and not (isinstance(value, int) and value >= 1):
            raise ValueError(f"{family} needs a whole {name} >= 1, got {value}")


def need_lines(settings: Any, n_lines: int) -> None:
    """Raise ValueError where a transfer would read more lines than the matrix has."""
    if (settings.n_reads or 1) > n_lines:
        what = "columns" if settings.transfer_columns else "rows"
        raise ValueError(
            f"{type(settings).__name__} needs n_reads <= {n_lines}, the matrix's {what}, got {settings.n_reads}; "
            f"None reads them all"
        )


def scaled(settings: Any, name: str, lr: Step) -> Step:
    """A step of the settings as it is now: times the optimizer's lr where `scale_` that name says so."""
    step = getattr(settings, name)
    return step * lr if getattr(settings, f"scale_{name}") else step
