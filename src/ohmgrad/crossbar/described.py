"""What the hardware of a model is, as plain data that a file can keep, and where two descriptions differ.

Numbers, strings, bools, None and tensors stand for themselves; lists, tuples and arrays are tuples. A frozen dataclass,
which is what all our settings are, becomes a dict of its fields, with its class's name under "". Of any other object
only the class's name is kept (of a function its own): it may change while it works, so that its attributes do not say
what it was made as.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from enum import Enum
from numbers import Real
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ohmgrad.crossbar.cells import Cells
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.grid import Grid
from ohmgrad.crossbar.input_range import LearnedRange
from ohmgrad.crossbar.tile import Tile

DIRECTIONS = {"read": "forward", "read_transposed": "backward", "read_columns": "transfer"}
KIND = ""  # the key of the class's name: no field has it
LONGEST = 80  # characters of a value in a sentence
ABSENT = {KIND: "absent"}


def hardware(model: nn.Module) -> dict[str, Any]:
    """A description of each tile, grid, crossbar, cell and input range of a model, by its name there.

    >>> from ohmgrad.devices import Ideal
    >>> hardware(Crossbar((1, 2), device=Ideal(dw_min=0.5), seed=0))[""]["device"]["dw_min"]
    0.5
    """
    return {name: {KIND: type(m).__name__, **parts} for name, m in model.named_modules() if (parts := _parts(m))}


def _parts(module: nn.Module) -> dict[str, Any]:
    """What a module is made of, by names that its user knows; nothing for other modules."""
    if isinstance(module, Tile):
        return {"algorithm": plain(module.algorithm), "mapping": plain(module.mapping)}
    if isinstance(module, Grid):
        return {"algorithm": plain(module.algorithm), "rows": len(module.rows), "columns": len(module.columns)}
    if isinstance(module, Cells):
        return {"device": plain(module.device_model)}
    if isinstance(module, LearnedRange):
        return {"settings": plain(module.settings)}
    if not isinstance(module, Crossbar):
        return {}
    readers = cast(dict[str, Any], {} if module.readers is None else dict(module.readers))
    ios = {DIRECTIONS[name]: plain(reader.io) for name, reader in readers.items()}
    return {
        "device": plain(module.devices if len(module.devices) > 1 else module.device_model),
        "update": plain(module.update),
        "periphery": {KIND: "Periphery", **ios} if ios else None,
    }


def plain(value: Any) -> Any:
    """Settings as plain data, see the module.

    >>> from ohmgrad.pulses.settings import ExpectedUpdate
    >>> plain((1.5, ExpectedUpdate(noise=True)))
    (1.5, {'': 'ExpectedUpdate', 'per_sample': False, 'noise': True, 'bit_length': 31})
    """
    if isinstance(value, Enum | torch.dtype | torch.device):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return value.detach() if value.dim() else value.item()
    if isinstance(value, Real):  # NumPy's
        return float(value)
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, set | frozenset):
        return tuple(sorted(map(repr, value)))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if _is_frozen(value):
        own = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.compare}
        return {KIND: type(value).__name__, **own}
    return {KIND: getattr(value, "__name__", type(value).__name__)}


def _is_frozen(value: Any) -> bool:
    is_one = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return is_one and value.__dataclass_params__.frozen  # type: ignore[attr-defined]  # dataclasses keep it there


def differences(a: Any, b: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The places at which two descriptions differ, in the order of b, and what each has there.

    >>> next(differences({"": "A", "x": (1, 2)}, {"": "A", "x": (1, 3)}))
    ('x.1', 2, 3)
    """
    if isinstance(a, dict) and isinstance(b, dict) and _equal(a.get(KIND), b.get(KIND)):
        for key in dict.fromkeys((*b, *a)):
            yield from differences(a.get(key, ABSENT), b.get(key, ABSENT), f"{place}.{key}".lstrip("."))
    elif isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        for k, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from differences(one, other, f"{place}.{k}")
    elif isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape:
        a, b = a.cpu(), b.cpu()
        for k in ((a != b) & ((a == a) | (b == b))).nonzero().tolist():
            yield f"{place}{k}", a[tuple(k)].item(), b[tuple(k)].item()
    elif not _equal(a, b):
        yield place, a, b


def _equal(a: Any, b: Any) -> bool:
    """Equal single values: numbers of whatever type, NaN with NaN."""
    if any(isinstance(v, dict | tuple | list | Tensor) for v in (a, b)):
        return False
    return bool(a == b) or (a != a and b != b)


def shown(value: Any) -> str:
    """A value of a description in a sentence: an object by its class, a tensor by its shape."""
    if isinstance(value, dict):
        return str(value.get(KIND, "a dict"))
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = f"({', '.join(map(shown, value))})" if isinstance(value, tuple) else repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
