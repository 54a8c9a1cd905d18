"""Functions that hold on to parts of a model: a copy of the model would go on calling the parts of the first one.

A deep copy takes bound methods and `functools.partial` along: they belong to the copy. A plain function it shares with
the original, and all that the function's closure, defaults and global names reach; weak references likewise. Where such
a function hangs on a module (`net.forward = torch.compile(net.forward)`, `net.act = lambda x: net.lin(x)`, a hook), the
copy would compute with layers that nobody trains.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator, Mapping
from types import BuiltinMethodType, CodeType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from ohmgrad.crossbar.tile import Tile

CONTAINERS = list | tuple | set | frozenset
# Where modules keep their own parts, which a copy has anew; and what torch.compile leaves out of copies.
OWN = {"_modules", "_parameters", "_buffers", "_compiled_call_impl"}


def check_functions(model: nn.Module, name: str) -> None:
    """Refuse a model that its copy would share functions with which use parts of the model.

    Args:
        model: any module tree.
        name: of the function that is to copy it, for the message.

    Raises:
        ValueError: a function on a module holds a module or a parameter of the model.
    """
    named = [*model.named_modules(), *model.named_parameters()]
    own = {id(part): f"{path!r} of the model given" if path else "the model given" for path, part in named}
    for path, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute in OWN or (attribute == "forward" and _is_compiled(module)):
                continue
            held = _held(value, own, False, set())
            if held is not None:
                where = f"{path}.{attribute}" if path else attribute
                raise ValueError(
                    f"{name} copies the model, but a function in {where!r} would go on to use {own[held]}: "
                    f"call {name} first, then compile, replace methods and register hooks on its result"
                )


def check_orphans(name: str, layer: nn.Module, memo: Mapping[int, Any]) -> None:
    """Refuse a layer's parameter that a deep copy has met outside of the layer, which another one took the place of.

    Args:
        name: of the layer. memo: of the deep copy.

    Raises:
        ValueError: a list, an optimizer or another object in the model holds a parameter of the layer.
    """
    for parameter, value in layer.named_parameters():
        if id(value) in memo:
            raise ValueError(
                f"convert cannot put {name!r} on tiles: something else in the model (a list, an optimizer, an object) "
                f"holds its parameter {parameter!r}, and would go on with the old one. Make that after convert, or "
                f"keep the layer digital, with Rule({name!r}, digital=True)"
            )


def check_gradients(model: nn.Module) -> None:
    """Refuse hooks on gradients of parameters: copies of parameters have none, and a tile has no gradient.

    Raises:
        ValueError: a parameter has such hooks.
    """
    on_tiles = {id(p) for tile in model.modules() if isinstance(tile, Tile) for p in tile.parameters()}
    for path, parameter in model.named_parameters():
        has_hooks = parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None)
        if has_hooks and id(parameter) not in on_tiles:
            raise ValueError(
                f"convert cannot take along the hooks on the gradient of {path!r}: remove them, and register them on "
                "the converted model; a weight on a tile has no gradient, and Rule(name, digital=True) keeps it digital"
            )


def _is_compiled(module: nn.Module) -> bool:
    """Whether a module is what torch.compile made of another; a copy makes its forward anew."""
    return type(module).__module__.startswith("torch._dynamo") and "_orig_mod" in module._modules


def _held(value: Any, own: Mapping[int, str], shared: bool, seen: set[tuple[int, bool]]) -> int | None:
    """The id of a part of the model that a deep copy of a value would share with it.

    Args:
        value: anything. own: ids of the model's parts.
        shared: whether copies share the value already.
        seen: what was looked into.
    """
    if isinstance(value, nn.Module | Tensor):
        return id(value) if shared and id(value) in own else None
    if isinstance(value, weakref.ref):
        target = value()
        return id(target) if isinstance(target, nn.Module) and id(target) in own else None
    if (id(value), shared) in seen:
        return None
    seen.add((id(value), shared))
    shared = shared or isinstance(value, FunctionType | BuiltinMethodType)
    return next((h for part in _parts(value) if (h := _held(part, own, shared, seen)) is not None), None)


def _parts(value: Any) -> Iterator[Any]:
    """What calling a value may use."""
    if isinstance(value, FunctionType):
        yield from _captured(value)
    elif isinstance(value, MethodType):
        yield value.__func__
        yield value.__self__
    elif isinstance(value, BuiltinMethodType):
        yield value.__self__
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values(), *vars(value).values())
    elif isinstance(value, CONTAINERS):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()
    elif callable(value) and not isinstance(value, type):
        yield from vars(value).values() if hasattr(value, "__dict__") else ()


def _captured(function: FunctionType) -> Iterator[Any]:
    """What a function reaches by its closure, its defaults, its attributes and its global names."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from vars(function).values()
    for name in _names(function.__code__):
        value = function.__globals__.get(name)
        is_near = isinstance(value, FunctionType) and value.__globals__ is function.__globals__
        if is_near or isinstance(value, nn.Module | Tensor | MethodType | functools.partial | CONTAINERS | dict):
            yield value


def _names(code: CodeType) -> Iterator[str]:
    """Names in a function's code and in the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
