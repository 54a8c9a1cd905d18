"""Devices by name, for the command line: families and presets."""

from __future__ import annotations

import dataclasses
import re

from ohmgrad.devices import DEVICES
from ohmgrad.devices.base import Device
from ohmgrad.devices.presets import PRESETS


def names() -> tuple[str, ...]:
    """Every name that `find` knows.

    >>> "soft-bounds" in names()
    True
    """
    return (*_families(), *(name.replace("_", "-") for name in PRESETS))


def find(name: str, **fields: float | bool | str) -> Device:
    """The device of that name, with some of its fields set.

    Raises:
        ValueError: no such device or field, or a value breaks the device's rule.

    >>> find("soft-bounds", w_max=0.5).w_max
    0.5
    """
    key = name.replace("_", "-").lower()
    if key in _families():
        device: Device = _families()[key]()
    elif (preset := key.replace("-", "_")) in PRESETS:
        device = PRESETS[preset]()
    else:
        raise ValueError(f"no device is named {name!r}; there are {', '.join(names())}")
    known = [f.name for f in dataclasses.fields(device)]
    for field in fields:
        if field not in known:
            raise ValueError(f"{name} has no parameter {field!r}; it has {', '.join(known)}")
    return dataclasses.replace(device, **fields)  # type: ignore[arg-type]  # the device checks its values itself


def _families() -> dict[str, type[Device]]:
    return {re.sub(r"(?<!^)(?=[A-Z])", "-", family.__name__).lower(): family for family in DEVICES}
