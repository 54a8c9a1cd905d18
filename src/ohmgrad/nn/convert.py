"""From a digital model to an analog one, and back."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any, TypeVar, cast

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ohmgrad import random
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.mapping import Mapping as WeightMapping
from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import Cell
from ohmgrad.nn import fused, held, hooks
from ohmgrad.nn.attention import AnalogMultiheadAttention
from ohmgrad.nn.cells import AnalogGRUCell, AnalogLSTMCell, AnalogRNNCell
from ohmgrad.nn.conv import AnalogConv1d, AnalogConv2d, AnalogConv3d
from ohmgrad.nn.conv_transpose import AnalogConvTranspose1d, AnalogConvTranspose2d, AnalogConvTranspose3d
from ohmgrad.nn.embedding import AnalogEmbedding
from ohmgrad.nn.embedding_bag import AnalogEmbeddingBag
from ohmgrad.nn.hardware import Hardware
from ohmgrad.nn.layer import AnalogLayer
from ohmgrad.nn.linear import AnalogLinear
from ohmgrad.nn.rnn import AnalogGRU, AnalogLSTM, AnalogRNN
from ohmgrad.nn.rules import Rule
from ohmgrad.nn.spelling import spelled
from ohmgrad.nn.understood import READ_OUTSIDE, difference, patched
from ohmgrad.periphery.settings import Periphery
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate

LAYERS: dict[type[nn.Module], type[AnalogLayer]] = {
    nn.Linear: AnalogLinear,
    nn.Conv1d: AnalogConv1d,
    nn.Conv2d: AnalogConv2d,
    nn.Conv3d: AnalogConv3d,
    nn.ConvTranspose1d: AnalogConvTranspose1d,
    nn.ConvTranspose2d: AnalogConvTranspose2d,
    nn.ConvTranspose3d: AnalogConvTranspose3d,
    nn.Embedding: AnalogEmbedding,
    nn.EmbeddingBag: AnalogEmbeddingBag,
    nn.RNN: AnalogRNN,
    nn.GRU: AnalogGRU,
    nn.LSTM: AnalogLSTM,
    nn.RNNCell: AnalogRNNCell,
    nn.GRUCell: AnalogGRUCell,
    nn.LSTMCell: AnalogLSTMCell,
    nn.MultiheadAttention: AnalogMultiheadAttention,
}

Tree = dict[str, nn.Module]
K = TypeVar("K", bound=type)


@spelled
def convert(
    model: nn.Module | Sequence[nn.Module],
    *,
    device: Device | Sequence[Device] | Cell | None = None,
    algorithm: Algorithm | None = None,
    update: ExpectedUpdate | PulsedUpdate | None = None,
    seed: int | Sequence[int] | None = None,
    replicas: bool | None = None,
    count_pulses: bool = False,
    periphery: Periphery | None = None,
    mapping: WeightMapping | None = None,
    rules: Rule | Sequence[Rule] = (),
) -> nn.Module:
    """The same model with its layers on tiles; the model given stays as it is.

    Every layer of `LAYERS` becomes analog, unless a rule keeps it digital, or it does something that torch's layer does
    not: its class or the layer itself has another forward or other code, its weights are computed from other parameters
    (`torch.nn.utils.parametrize`, weight_norm, pruning, weight dropping), or it holds more than torch's. `summary`
    lists what became of each, and why. Forward and backward hooks of a layer go with it, those of its state dict do
    not.

    Args:
        model: any module tree; a sequence of equally built ones becomes one model of replicas, each with the
            weights of its own, whose inputs and outputs are (replica, batch, ...).
        device: the devices; a sequence gives one to each replica. May be left out where rules give one to each layer.
        algorithm: the training algorithm, Analog SGD by default.
        update: `ExpectedUpdate()` by default.
        seed: one integer s (replica r gets s + r), or one for each replica; layer k derives its own from it, so a
            replica draws the same numbers as a model converted alone with its seed, and no layer's numbers depend
            on rules. None draws s from torch's default generator, so that two calls differ and `torch.manual_seed`
            repeats a run.
        replicas: whether shapes have a replica dimension in front; by default where a sequence of several is given.
        count_pulses: keep the pulses that reached each crosspoint.
        periphery: converters and noise of reads; ideal reads by default.
        mapping: digital scales, and the largest size of a crossbar.
        rules: exceptions; of those that match a layer, the first decides.

    Raises:
        ValueError: the models differ in structure, or hold layers that cannot be replicated; no layer becomes analog;
            a rule matches no layer; a layer has no device, no weights yet (lazy, or on the meta device), an option that
            no tile can have, or a parameter that it shares with another layer; a function or hook on a module holds
            other parts of the model (a compiled forward, for one); a parameter has hooks on its gradient.
        TypeError: what is given is no module, device, algorithm and so on; a layer is neither float32 nor float64.

    >>> from ohmgrad.devices import Ideal
    >>> convert(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), device=Ideal())[0].weight.shape
    torch.Size([2, 3])
    """
    models = [model] if isinstance(model, nn.Module) else list(model) if isinstance(model, Sequence) else [model]
    for one in models:
        if not isinstance(one, nn.Module):
            raise TypeError(f"convert needs a module, or a sequence of them, got {one!r}")
    rules = [rules] if isinstance(rules, Rule) else rules
    if not models:
        raise ValueError("convert needs at least one model, got an empty sequence")
    if replicas is None:
        replicas = len(models) > 1
    elif not replicas and len(models) > 1:
        raise ValueError(f"convert needs one model where replicas=False, got {len(models)}")
    seeds = random.seed_tensor(seed, (len(models),) if replicas else ())
    trees = [dict(m.named_modules()) for m in models]
    if any(list(tree) != list(trees[0]) for tree in trees):
        raise ValueError("convert needs models of equal structure as replicas, got different module names")
    held.check_gradients(models[0])
    held.check_functions(models[0], "convert")
    found = _find(trees[0])
    settings = {
        "device": device, "algorithm": algorithm, "update": update, "count_pulses": count_pulses,
        "periphery": periphery, "mapping": mapping,
    }  # fmt: skip
    chosen = _choose(models[0], found, rules, settings)
    _check_shared(trees[0], found, chosen)
    if replicas:
        _check_replicas(trees, found, chosen)
    converted: dict[int, nn.Module] = {}
    for k, (name, kind) in enumerate(found.items()):
        if name in chosen:
            own = random.derive(seeds, k).flatten().tolist()
            converted[id(trees[0][name])] = _on_tiles(name, kind, [t[name] for t in trees], chosen[name], own, replicas)
    analog = _copied(models[0], converted, refuses_orphans=True)
    fused.switch_off(analog)
    return analog


@spelled
def to_digital(model: nn.Module, *, replica: int | None = None) -> nn.Module:
    """The same model with torch's layers, of the weights that the tiles represent now; a deep copy.

    Args:
        model: any module tree.
        replica: which one, of a model of replicas.

    Raises:
        ValueError: a model of replicas without `replica`, or one without replicas and with it; a layer whose class or
            instance has another forward; a function or hook on a module holds other parts of the model.

    >>> from ohmgrad.devices import Ideal
    >>> to_digital(convert(nn.Sequential(nn.Linear(3, 2)), device=Ideal()))
    Sequential(
      (0): Linear(in_features=3, out_features=2, bias=True)
    )
    """
    index = () if replica is None else (replica,)
    held.check_functions(model, "to_digital")
    converted: dict[int, nn.Module] = {}
    done: list[str] = []
    for name, module in model.named_modules():
        kind, layer = _kind(module, LAYERS.values()), cast(Any, module)  # an AnalogLayer, if it has a kind
        if kind is not None and not _lies_inside(name, done):
            if reason := patched(module, kind):
                raise ValueError(f"to_digital needs {kind.__name__} as it is, but {name!r} is not: {reason}; undo it")
            converted[id(module)] = layer.to_digital(*index)
            done.append(name)
    digital = _copied(model, converted, refuses_orphans=False)
    fused.restore(digital)
    return digital


def why_digital(module: nn.Module) -> str | None:
    """Say why `convert` leaves a layer as it is, though a tile can do what torch's layer of its kind does.

    Returns:
        A few words; None for a layer that becomes analog, and for a module of no kind that tiles know.

    >>> why_digital(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    'its weight is computed'
    """
    kind = _kind(module, LAYERS)
    return None if kind is None else difference(module, kind)


def _kind(module: nn.Module, kinds: Iterable[K]) -> K | None:
    """The first class that a module is an instance of."""
    return next((kind for kind in kinds if isinstance(module, kind)), None)


def reasons(model: nn.Module) -> dict[str, str]:
    """What `why_digital` says of each layer that does not become analog, by name."""
    modules = dict(model.named_modules())
    inside = {id(m._modules.get("out_proj")) for m in modules.values() if isinstance(m, nn.MultiheadAttention)}
    own = {name: READ_OUTSIDE if id(m) in inside else why_digital(m) for name, m in modules.items()}
    return {name: why for name, why in own.items() if why is not None}


def _copied(model: nn.Module, converted: dict[int, nn.Module], *, refuses_orphans: bool) -> nn.Module:
    """A deep copy in which other layers, with their hooks, stand where those of these ids stood."""
    # deepcopy takes what the memo holds instead of copying, wherever a layer hangs, shared ones included.
    memo: dict[int, Any] = dict(converted)
    for module in model.modules():
        # Weights that a hook or a holder computes before each call; torch copies no tensor that has a history.
        computed = [v for v in vars(module).values() if isinstance(v, Tensor) and not v.is_leaf]
        memo |= {id(value): value.detach().clone() for value in computed}
    copied = copy.deepcopy(model, memo)
    for name, module in model.named_modules():
        if id(module) in converted:
            if refuses_orphans:
                held.check_orphans(name, module, memo)
            hooks.carry(module, converted[id(module)], memo)
    return copied


def _find(tree: Tree) -> dict[str, type[nn.Module]]:
    """The layers that a tile can take the place of, by name, each with the key of LAYERS; none inside another."""
    found: dict[str, type[nn.Module]] = {}
    others = reasons(tree[""])
    for name, module in tree.items():  # holders come first
        kind = _kind(module, LAYERS)
        if kind is not None and name not in others and not _lies_inside(name, found):
            if any(is_lazy(p) or p.is_meta for p in module.parameters()):
                raise ValueError(
                    f"convert needs layers with weights, got {name!r} ({type(module).__name__}) without: "
                    "run a model with lazy layers once before, and one on the meta device has none to convert"
                )
            found[name] = kind
    if not found:
        names = ", ".join(kind.__name__ for kind in LAYERS)
        is_done = any(isinstance(m, tuple(LAYERS.values())) for m in tree.values())
        what = type(tree[""]).__name__ + ", whose layers are analog already" * is_done
        why = "".join(f"; {name!r} stays digital, since {why}" for name, why in list(others.items())[:1])
        raise ValueError(f"convert found no layer for tiles in {what}; it knows {names}{why}")
    return found


def _lies_inside(name: str, holders: Sequence[str] | Mapping[str, object]) -> bool:
    return any(not holder or name.startswith(f"{holder}.") for holder in holders)


def _choose(
    model: nn.Module, found: Mapping[str, type[nn.Module]], rules: Sequence[Rule], settings: dict
) -> dict[str, Hardware]:
    """The hardware of every layer that becomes analog, by name."""
    modules = dict(model.named_modules(remove_duplicate=False))  # a shared layer goes by each of its names
    names: dict[int, list[str]] = {}
    for name, module in modules.items():
        names.setdefault(id(module), []).append(name)
    chosen, unused = {}, list(rules)
    for name in found:
        fitting = [r for r in rules if any(r.matches(n, modules) for n in names[id(modules[name])])]
        unused = [r for r in unused if r not in fitting]
        rule = fitting[0] if fitting else Rule(name)
        if rule.digital:
            continue
        own = settings | rule.settings
        if own["device"] is None:
            raise ValueError(f"convert needs a device for {name!r}: neither device= nor a rule gives it one")
        chosen[name] = Hardware(**own)
    # A digital one may name what stays digital anyway, but no part of a layer.
    others = [name for name in modules if not _lies_inside(name, found)]
    unused = [r for r in unused if not (r.digital and any(r.matches(name, modules) for name in others))]
    if unused:
        rule = unused[0]
        why = reasons(model)
        matched = [f"; {n!r} stays digital, since {why[n]}" for n in others if n in why and rule.matches(n, modules)]
        hint = "".join(matched[:1])
        raise ValueError(f"convert got a rule for {rule.match!r} that matches no layer; there are {list(found)}{hint}")
    if not chosen:
        raise ValueError("convert needs a layer that becomes analog, but rules keep all of them digital")
    return chosen


def _check_shared(tree: Tree, found: Mapping[str, object], chosen: Mapping[str, Hardware]) -> None:
    """Refuse a parameter that an analog layer shares with another module: on a tile it would be a second one."""
    owners: dict[int, tuple[str, str]] = {}
    for name, module in tree.items():
        if _lies_inside(name, found):
            continue
        for parameter, value in module.named_parameters(recurse=name in found):
            first, _ = owners.setdefault(id(value), (name, parameter))
            if first != name and (first in chosen or name in chosen):
                raise ValueError(
                    f"convert cannot put {first!r} or {name!r} on tiles: they share the parameter {parameter!r}. "
                    f"Keep both digital, with Rule({first!r}, digital=True) and Rule({name!r}, digital=True)"
                )


def _check_replicas(trees: Sequence[Tree], found: Mapping[str, object], chosen: Mapping[str, Hardware]) -> None:
    for name, module in trees[0].items():
        if len({_built(tree[name]) for tree in trees}) != 1:
            raise ValueError(f"convert needs models of equal structure as replicas, got different layers {name!r}")
        if name in found:
            layers = [tree[name] for tree in trees]
            if len({(repr(m), *((k, p.shape) for k, p in m.named_parameters())) for m in layers}) != 1:
                raise ValueError(f"convert needs models of equal structure as replicas, got different layers {name!r}")
        is_inside = _lies_inside(name, chosen)
        has_weights = next(module.parameters(recurse=False), None) is not None or why_digital(module) is not None
        if name not in chosen and not is_inside and has_weights:
            raise ValueError(
                f"convert cannot replicate {name!r} ({type(module).__name__}): it keeps digital parameters"
            )


def _built(module: nn.Module) -> tuple[str | None, ...]:
    """What a module computes with, its parts and parameters aside: equal for replicas of one model."""
    code = sorted(k for k, v in vars(module).items() if isinstance(v, FunctionType | MethodType | partial))
    return type(module).__name__, module.extra_repr(), why_digital(module), *code


def _on_tiles(
    name: str, kind: type[nn.Module], layers: list[nn.Module], hardware: Hardware, seed: list[int], replicas: bool
) -> nn.Module:
    """One analog layer; what it refuses is told with its name."""
    try:
        return LAYERS[kind].from_digital(
            layers, hardware=hardware, seed=seed, replicas=(len(layers),) if replicas else ()
        )
    except (ValueError, TypeError) as error:
        raise type(error)(f"convert cannot put {name!r} ({kind.__name__}) on tiles: {error}") from error
