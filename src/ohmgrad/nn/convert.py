"""From a digital model to an analog one."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from ohmgrad import random
from ohmgrad.crossbar.tile import Algorithm
from ohmgrad.devices.base import Device
from ohmgrad.nn.linear import AnalogLinear
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate

LAYERS: dict[type[nn.Module], type[AnalogLinear]] = {nn.Linear: AnalogLinear}


def convert(
    model: nn.Module | Sequence[nn.Module],
    *,
    device: Device | Sequence[Device],
    algorithm: Algorithm | None = None,
    update: ExpectedUpdate | PulsedUpdate | None = None,
    seed: int | Sequence[int] = 0,
    replicas: bool | None = None,
) -> nn.Module:
    """The same model with its linear layers on tiles; the model given stays as it is.

    Args:
        model: any module tree; a sequence of equally built ones becomes one model of replicas, each with the
            weights of its own, whose inputs and outputs are (replica, batch, ...).
        device: the devices; a sequence gives one to each replica.
        algorithm: the training algorithm, Analog SGD by default.
        update: `ExpectedUpdate()` by default.
        seed: one integer s (replica r gets s + r), or one for each replica; layer k derives its own from it, so a
            replica draws the same numbers as a model converted alone with its seed.
        replicas: whether shapes have a replica dimension in front; by default where a sequence of several is given.

    Raises:
        ValueError: the models differ in structure, hold layers with parameters that cannot be replicated, or
            have no linear layer.

    >>> from ohmgrad.devices import Ideal
    >>> convert(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), device=Ideal())[0].weight.shape
    torch.Size([2, 3])
    """
    models = [model] if isinstance(model, nn.Module) else list(model)
    if not models:
        raise ValueError("convert needs at least one model, got an empty sequence")
    if replicas is None:
        replicas = len(models) > 1
    elif not replicas and len(models) > 1:
        raise ValueError(f"convert needs one model where replicas=False, got {len(models)}")
    seeds = random.seed_tensor(seed, (len(models),) if replicas else ())
    trees = [dict(m.named_modules(remove_duplicate=True)) for m in models]
    if any(list(tree) != list(trees[0]) for tree in trees):
        raise ValueError("convert needs models of equal structure as replicas, got different module names")
    converted: dict[int, nn.Module] = {}
    for name, module in trees[0].items():
        if type(module) in LAYERS:
            layers = [tree[name] for tree in trees]
            if len({(type(m), *((k, p.shape) for k, p in m.named_parameters())) for m in layers}) != 1:
                raise ValueError(f"convert needs models of equal structure as replicas, got different layers {name!r}")
            own = random.derive(seeds, len(converted)).flatten().tolist()
            converted[id(module)] = LAYERS[type(module)].from_digital(
                layers,  # type: ignore[arg-type]  # the key of LAYERS is their type
                algorithm=algorithm,
                crossbar={"device": device, "update": update},
                seed=own,
                replicas=replicas,
            )
        elif replicas and next(module.parameters(recurse=False), None) is not None:
            raise ValueError(
                f"convert cannot replicate {name!r} ({type(module).__name__}): it keeps digital parameters"
            )
    if not converted:
        raise ValueError(f"convert found no {' or '.join(t.__name__ for t in LAYERS)} in {type(models[0]).__name__}")
    # deepcopy takes what the memo holds instead of copying, wherever a layer hangs, shared ones included.
    return copy.deepcopy(models[0], converted)  # type: ignore[arg-type]
