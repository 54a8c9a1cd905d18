"""Weights of a digital model into a converted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ohmgrad.nn.convert import LAYERS, to_digital


def load_digital(
    model: nn.Module, state_dict: Mapping[str, Any] | Sequence[Mapping[str, Any]], strict: bool = True
) -> Any:
    """Load what `state_dict()` of a digital model gave into a converted model of the same structure, in place.

    Names are those of `to_digital(model).state_dict()`. Analog layers take theirs by `set_weight`: through bounds,
    write noise and digital scales, where the algorithm starts anew. Digital parts take theirs as by `load_state_dict`.
    Everything is checked before anything is written.

    Args:
        model: a converted model, or one analog layer.
        state_dict: of the digital model; for a model of replicas a sequence, one for each.
        strict: as in `load_state_dict`: raise where names are missing or unexpected; else what is missing stays.

    Returns:
        The missing and the unexpected names, as `load_state_dict` gives them; those of the first replica.

    Raises:
        RuntimeError: as `load_state_dict`, for names and shapes.
        ValueError: a number for an analog layer is not finite; not one state dict for each replica.

    Cost: memory of one digital copy of the model for each replica, on the way.

    >>> from ohmgrad import convert
    >>> from ohmgrad.devices import Ideal
    >>> digital = nn.Sequential(nn.Linear(3, 2))
    >>> analog = convert(nn.Sequential(nn.Linear(3, 2)), device=Ideal())
    >>> load_digital(analog, digital.state_dict())
    <All keys matched successfully>
    >>> torch.equal(analog[0].weight, digital[0].weight)
    True
    """
    kinds = tuple(LAYERS.values())
    # Any: they are modules, and analog layers.
    layers: dict[str, Any] = {n: m for n, m in model.named_modules(remove_duplicate=False) if isinstance(m, kinds)}
    replicas = next((m.replicas for m in layers.values()), ())
    states = [state_dict] if isinstance(state_dict, Mapping) else list(state_dict)
    if isinstance(state_dict, Mapping) == bool(replicas) or len(states) != (replicas[0] if replicas else 1):
        needed = f"a sequence of {replicas[0]} state dicts, one for each replica" if replicas else "one state dict"
        raise ValueError(f"load_digital needs {needed}, got a {type(state_dict).__name__} of {len(state_dict)}")
    twins = [to_digital(model, replica=r if replicas else None) for r in range(len(states))]
    found = [twin.load_state_dict(state, strict=strict) for twin, state in zip(twins, states, strict=True)]
    given = _given(twins, layers, {name for one in found for name in one.missing_keys})
    rest = _rest(twins, layers)
    for name, parameters in given.items():
        layers[name].set_weight(**{n: v if replicas else v[0] for n, v in parameters.items()})
    model.load_state_dict(rest, strict=False)
    return found[0]


def _given(
    twins: Sequence[nn.Module], layers: Mapping[str, nn.Module], missing: set[str]
) -> dict[str, dict[str, Tensor]]:
    """What analog layers are to be given, by one name of each, (replica, ...). Raises ValueError if not finite."""
    given: dict[str, dict[str, Tensor]] = {}
    first: dict[int, str] = {}  # a shared layer goes by each of its names
    trees = [dict(twin.named_modules(remove_duplicate=False)) for twin in twins]
    for name, layer in layers.items():
        for parameter in dict(trees[0][name].named_parameters(recurse=False)) if name in trees[0] else ():
            full = f"{name}.{parameter}" if name else parameter
            if full in missing:
                continue
            value = torch.stack([tree[name].get_parameter(parameter).detach() for tree in trees])
            if not torch.isfinite(value).all():
                raise ValueError(f"{full} of the state dict needs finite numbers, got NaN or infinity")
            given.setdefault(first.setdefault(id(layer), name), {})[parameter] = value
    return given


def _rest(twins: Sequence[nn.Module], layers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """What stays digital. Raises ValueError where replicas, which share it, are given different numbers."""
    states = [twin.state_dict() for twin in twins]
    inside = tuple(f"{name}." if name else "" for name in layers)
    for name in [name for name in states[0] if name.startswith(inside)] if inside else []:
        for state in states:
            del state[name]
    for state in states[1:]:
        for name, value in state.items():
            if isinstance(value, Tensor) and not torch.equal(value, states[0][name]):
                raise ValueError(f"replicas share {name!r}, got state dicts in which it differs")
    return states[0]
