"""What settings of algorithms are held to: one sentence that names the value and the rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from torch import Tensor

from ohmgrad.crossbar.elements import Step, own_steps
from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import Cell

STEPS = ("fast_lr", "transfer_lr", "buffer_rate")  # which each replica may have of its own


def need(
    settings: Any,
    *,
    positive: tuple[str, ...] = (),
    not_negative: tuple[str, ...] = (),
    share: tuple[str, ...] = (),
    counts: tuple[str, ...] = (),
) -> None:
    """Raise ValueError where a field breaks its rule, TypeError where a switch or a device is something else.

    positive: finite and > 0. not_negative: finite and >= 0. share: in [0, 1]. counts: whole and >= 1. A step may be a
    tensor (*replica, 1, 1), all of whose values have to hold.
    """
    family = type(settings).__name__
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(field.default, bool) and not isinstance(value, bool):
            raise TypeError(f"{family} needs True or False as {field.name}, got {value!r}")
        if field.name == "fast_device" and not isinstance(value, Device | Cell | None):
            raise TypeError(f"{family} needs a device or None as fast_device, got {value!r}")
    rules: tuple[tuple[tuple[str, ...], str, Callable[[Any], Any]], ...] = (
        (positive, "> 0", lambda v: (v > 0) & (v < math.inf)),
        (not_negative, ">= 0", lambda v: (v >= 0) & (v < math.inf)),
        (share, "in [0, 1]", lambda v: (v >= 0) & (v <= 1)),
    )
    for names, rule, holds in rules:
        for name in names:
            value = getattr(settings, name)
            if name in STEPS and (own := own_steps(f"{family}'s {name}", value)) is not None:
                value = next((v for v in own.flatten().tolist() if not holds(v)), 1.0)
            if not isinstance(value, int | float | Tensor) or (isinstance(value, Tensor) and value.dim()):
                raise ValueError(f"{family} needs a number as {name}, got {value!r}")
            if not holds(value):
                raise ValueError(f"{family} needs {name} {rule}, got {value}")
    for name in counts:
        value = getattr(settings, name)
        if value is not None and not (isinstance(value, int) and value >= 1 and value is not True):
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
