"""Floor 0: nested values as JSON and a flat table of tensors, and back, exactly.

Strings, whole and finite numbers, bools, None and lists are their own JSON. Everything else is an object of one key,
which says what it is: {"tensor": NAME}, {"float": "inf"}, {"tuple": [...]}, {"dict": [[KEY, VALUE], ...]}. Keys are
values too, so that 0 and "0" stay apart.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from typing import Any

import torch
from torch import Tensor

# What state dicts are made of: of modules, of optimizers, and of MultiStepLR, which counts its milestones.
DICTS: dict[str, type[dict]] = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}

# What a safetensors file holds.
DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.bool, torch.complex64),
)


def pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for that value; its tensors go into the table `tensors`, dense, on the CPU, named for their place.

    Args:
        name: of the value, for names and errors.

    Raises:
        TypeError: a value is of another type; the message names its place.

    >>> table = {}
    >>> packed = pack({0: (1.5, math.inf), "w": [torch.ones(2)]}, "state", table)
    >>> packed
    {'dict': [[0, {'tuple': [1.5, {'float': 'inf'}]}], ['w', [{'tensor': 'state.w.0'}]]]}
    >>> unpack(packed, table)
    {0: (1.5, inf), 'w': [tensor([1., 1.])]}
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, Tensor):
        return {"tensor": _keep(value, name, tensors)}
    if type(value) in (list, tuple):
        items = [pack(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
        return items if type(value) is list else {"tuple": items}
    for kind, family in DICTS.items():
        if type(value) is family:
            return {kind: [[pack(k, name, tensors), pack(v, f"{name}.{k}", tensors)] for k, v in value.items()]}
    raise TypeError(
        f"{name} needs numbers, strings, bools, None, tensors, or lists, tuples and dicts of them, "
        f"got {type(value).__name__}"
    )


def unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    """The value that `pack` was given; tensors are copies.

    Raises:
        ValueError, TypeError, LookupError, ArithmeticError: nothing that `pack` makes.
    """
    if isinstance(packed, list):
        return [unpack(item, tensors) for item in packed]
    if not isinstance(packed, dict):
        return packed
    ((kind, content),) = packed.items()
    if kind == "tensor":
        return tensors[content].clone()
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple(unpack(item, tensors) for item in content)
    return DICTS[kind]({unpack(k, tensors): unpack(v, tensors) for k, v in content})


def _keep(tensor: Tensor, name: str, tensors: dict[str, Tensor]) -> str:
    """Put a tensor into the table, under a name that is free."""
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.dtype not in DTYPES:
        kind = f"{tensor.dtype}, {tensor.layout}" + ", on no device" * tensor.is_meta
        raise TypeError(f"{name} needs a dense tensor of a dtype that safetensors holds, got {kind}")
    while name in tensors:  # {0: a, "0": b}
        name += "_"
    tensors[name] = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return name
