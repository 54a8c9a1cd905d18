"""What settings of algorithms are held to: one sentence that names the value and the rule."""

from __future__ import annotations

import math
from typing import Any


def need(
    settings: Any,
    *,
    positive: tuple[str, ...] = (),
    not_negative: tuple[str, ...] = (),
    share: tuple[str, ...] = (),
    counts: tuple[str, ...] = (),
) -> None:
    """Raise ValueError where a field breaks its rule.

    positive: finite and > 0. not_negative: finite and >= 0. share: in [0, 1]. counts: whole and >= 1.
    """
    family = type(settings).__name__
    for name in positive:
        if not 0 < getattr(settings, name) < math.inf:
            raise ValueError(f"{family} needs {name} > 0, got {getattr(settings, name)}")
    for name in not_negative:
        if not 0 <= getattr(settings, name) < math.inf:
            raise ValueError(f"{family} needs {name} >= 0, got {getattr(settings, name)}")
    for name in share:
        if not 0 <= getattr(settings, name) <= 1:
            raise ValueError(f"{family} needs {name} in [0, 1], got {getattr(settings, name)}")
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
