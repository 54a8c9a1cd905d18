"""Devices by name, for the command line: families, presets, unit cells of presets, and files.

A file is TOML with a section [device]: `name`, of a family or preset, and those of its fields that differ, as
`ohmgrad device fit` writes it.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ohmgrad.devices import DEVICES
from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import Cell
from ohmgrad.devices.presets import CELLS, PRESETS
from ohmgrad.devices.values import is_number


def names() -> tuple[str, ...]:
    """Every name that `find` knows.

    >>> "soft-bounds" in names()
    True
    """
    return tuple(_devices())


def family_names() -> tuple[str, ...]:
    """Names of the families alone, which stand for their devices with all defaults.

    >>> family_names()[0]
    'ideal'
    """
    return tuple(name_of(family) for family in DEVICES)


def preset_names() -> tuple[str, ...]:
    """Names of the devices from the literature."""
    return tuple(_kebab(PRESETS))


def cell_names() -> tuple[str, ...]:
    """Every name that `find_cell` knows.

    >>> "reram-es-2" in cell_names()
    True
    """
    return tuple(_cells())


def find(name: str, **fields: Any) -> Device:
    """The device of that name, or in that file NAME.toml, with some of its fields set.

    Args:
        name: in any case, with hyphens, underscores or none.
        fields: of the device, or of a preset's own; `n_states` gives the step by the number of states.

    What was measured as write noise is how far a read strays in the range of the weight, whatever the step: another
    `n_states` leaves it there, and so changes `write_noise`, which is in units of the step, unless `fields` says that
    too. `dw_min_ctoc` stays a share of the step.

    Raises:
        ValueError: no such device or field, or a value breaks the device's rule.
        OSError: the file cannot be read.

    >>> find("SoftBounds", w_max=0.5).w_max
    0.5
    >>> round(find("reram-es", n_states=20).n_states, 6)
    20.0
    """
    if _letters(name) in map(_letters, cell_names()):
        raise ValueError(f"{name} is a unit cell of several devices, and here one device is needed")
    make = partial(read, Path(name)) if is_file(name) else pick(name, _devices(), "device")
    given = {k: fields[k] for k in fields.keys() & _own(make).keys()}
    device = _made(name, make, given)
    fields = {k: v for k, v in fields.items() if k not in given}
    n_states = fields.pop("n_states", None)
    known = [f.name for f in dataclasses.fields(device)]
    for field in fields:
        if field not in known:
            raise ValueError(f"{name} has no parameter {field!r}; it has {', '.join([*known, 'n_states'])}")
    device = dataclasses.replace(device, **fields)
    if n_states is None:
        return device
    if not is_number(n_states) or not 0 < n_states < math.inf:
        raise ValueError(f"{name} needs a finite n_states > 0, got {n_states!r}")
    if math.isinf(device.n_states):
        raise ValueError(f"{name} has no bounds, and so no n_states")
    coarser = device.n_states / n_states
    noise = device.write_noise if "write_noise" in fields else device.write_noise / coarser
    return dataclasses.replace(device, dw_min=device.dw_min * coarser, write_noise=noise)


def _own(make: Callable[..., Device]) -> dict[str, Any]:
    """A preset's own parameters with their defaults."""
    if isinstance(make, type):
        return {}
    return {k: p.default for k, p in inspect.signature(make).parameters.items() if p.default is not p.empty}


def _made(name: str, make: Callable[..., Device], given: dict[str, Any]) -> Device:
    for key, value in given.items():
        is_word = isinstance(_own(make)[key], str)
        if not (isinstance(value, str) if is_word else is_number(value)):
            raise ValueError(f"{name} needs a {'word' if is_word else 'number'} for {key}, got {value!r}")
    try:
        return make(**given)
    except ArithmeticError:  # of a circuit's time constant of 0, say
        raise ValueError(f"{name} has no device with {', '.join(f'{k}={v}' for k, v in given.items())}") from None


def name_of(family: type[Device]) -> str:
    """The family's name here.

    >>> from ohmgrad.devices import SoftBounds
    >>> name_of(SoftBounds)
    'soft-bounds'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "-", family.__name__).lower()


def is_file(name: str) -> bool:
    """Whether `find` takes that name for a file's."""
    return name.lower().endswith(".toml")


def read(path: Path) -> Device:
    """The device in a file.

    Raises:
        ValueError: it is no TOML, has no section [device] with a name, or holds no device; the message names the file.
        OSError: it cannot be read.
    """
    try:
        table = tomllib.loads(path.read_bytes().decode()).get("device")
        if not isinstance(table, dict) or not isinstance(table.get("name"), str):
            raise ValueError("it needs a section [device] with a name")
        if is_file(table["name"]):
            raise ValueError("device.name needs a family or a preset, not a file")
        return find(**table)
    except RecursionError:
        raise ValueError(f"{path}: lists or tables lie too deep in one another") from None
    except (ValueError, TypeError) as error:  # of TOML and of UTF-8 too
        raise ValueError(f"{path}: {error}") from None


def section(device: Device) -> str:
    """The section [device] that `read` makes this device of.

    >>> from ohmgrad.devices import SoftBounds
    >>> print(section(SoftBounds(w_max=0.5)))
    [device]
    name = "soft-bounds"
    w_min = -1.0
    w_max = 0.5
    dw_min = 0.001
    """
    lines = ["[device]", f"name = {json.dumps(name_of(type(device)))}"]
    for field in dataclasses.fields(device):
        value = getattr(device, field.name)
        if field.name in ("w_min", "w_max", "dw_min") or value != field.default:
            lines.append(f"{field.name} = {json.dumps(value) if isinstance(value, str | bool) else _toml(value)}")
    return "\n".join(lines)


def _toml(value: float | tuple[float, ...]) -> str:
    return f"[{', '.join(map(repr, value))}]" if isinstance(value, tuple) else repr(float(value))


def find_cell(name: str) -> Cell:
    """The unit cell of that name.

    Raises:
        ValueError: no such cell.

    >>> find_cell("EcRam_4").policy
    'random'
    """
    return pick(name, _cells(), "unit cell")()


def pick(name: str, known: dict[str, Any], kind: str) -> Any:
    """What a name in any spelling stands for. Raises ValueError, with the nearest ones, if for nothing."""
    by_letters = {_letters(key): make for key, make in known.items()}
    if make := by_letters.get(_letters(name)):
        return make
    near = difflib.get_close_matches(_letters(name), by_letters, n=3)
    close = [key for key in known if _letters(key) in near]
    raise ValueError(f"no {kind} is named {name!r}; there are {', '.join(close or known)}")


def _letters(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


def _devices() -> dict[str, Callable[..., Device]]:
    return {**{name_of(family): family for family in DEVICES}, **_kebab(PRESETS)}


def _cells() -> dict[str, Callable[[], Cell]]:
    return _kebab(CELLS)


def _kebab(made: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): make for key, make in made.items()}
