"""Devices by name, for the command line: families, presets, and unit cells of presets."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from ohmgrad.devices import DEVICES
from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import Cell
from ohmgrad.devices.presets import CELLS, PRESETS


def names() -> tuple[str, ...]:
    """Every name that `find` knows.

    >>> "soft-bounds" in names()
    True
    """
    return tuple(_devices())


def family_names() -> tuple[str, ...]:
    """Names of the families alone.

    >>> family_names()[0]
    'ideal'
    """
    return tuple(_families())


def cell_names() -> tuple[str, ...]:
    """Every name that `find_cell` knows.

    >>> "reram-es-2" in cell_names()
    True
    """
    return tuple(_cells())


def find(name: str, **fields: Any) -> Device:
    """The device of that name, with some of its fields set.

    Args:
        name: in any case, with hyphens, underscores or none. fields: of the device, or of a preset's own; `n_states`
            gives the step by the number of states.

    Raises:
        ValueError: no such device or field, or a value breaks the device's rule.

    >>> find("SoftBounds", w_max=0.5).w_max
    0.5
    >>> find("reram-es", n_states=20).n_states
    20.0
    """
    make = _pick(name, _devices(), "device")
    own = {} if isinstance(make, type) else inspect.signature(make).parameters  # a preset's
    given = {k: v for k, v in fields.items() if k in own}
    device = make(**given)
    fields = {k: v for k, v in fields.items() if k not in given}
    n_states = fields.pop("n_states", None)
    known = [f.name for f in dataclasses.fields(device)]
    for field in fields:
        if field not in known:
            raise ValueError(f"{name} has no parameter {field!r}; it has {', '.join([*known, 'n_states'])}")
    device = dataclasses.replace(device, **fields)
    if n_states is None:
        return device
    if isinstance(n_states, bool) or not isinstance(n_states, float | int) or not 0 < n_states < math.inf:
        raise ValueError(f"{name} needs a finite n_states > 0, got {n_states!r}")
    if math.isinf(device.n_states):
        raise ValueError(f"{name} has no bounds, and so no n_states")
    return dataclasses.replace(device, dw_min=device.dw_min * device.n_states / n_states)


def find_cell(name: str) -> Cell:
    """The unit cell of that name.

    Raises:
        ValueError: no such cell.

    >>> find_cell("EcRam_4").policy
    'random'
    """
    return _pick(name, _cells(), "unit cell")()


def _pick(name: str, known: dict[str, Any], kind: str) -> Any:
    by_letters = {_letters(key): make for key, make in known.items()}
    if make := by_letters.get(_letters(name)):
        return make
    near = difflib.get_close_matches(_letters(name), by_letters, n=3)
    close = [key for key in known if _letters(key) in near]
    raise ValueError(f"no {kind} is named {name!r}; there are {', '.join(close or known)}")


def _letters(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


def _devices() -> dict[str, Callable[..., Device]]:
    return {**_families(), **_kebab(PRESETS)}


def _families() -> dict[str, type[Device]]:
    return {re.sub(r"(?<!^)(?=[A-Z])", "-", family.__name__).lower(): family for family in DEVICES}


def _cells() -> dict[str, Callable[[], Cell]]:
    return _kebab(CELLS)


def _kebab(made: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): make for key, make in made.items()}
