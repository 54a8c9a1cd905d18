"""Options by name: of one that is misspelt the error names the nearest right one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from difflib import get_close_matches
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def check_options(owner: str, given: Collection[str], known: Collection[str], needed: Collection[str] = ()) -> None:
    """Refuse an option that is not known, and the lack of one that is needed.

    Args:
        owner: what is called, for the message.
        given, known, needed: names of options.

    >>> check_options("AnalogLinear", ["devcie"], ["device", "seed"])
    Traceback (most recent call last):
        ...
    TypeError: AnalogLinear has no option 'devcie', did you mean 'device'? Its options: device, seed
    """
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f", did you mean {near[0]!r}?" if near else "."
            raise TypeError(f"{owner} has no option {name!r}{hint} Its options: {', '.join(known)}")
    for name in needed:
        if name not in given:
            way = ", for example device=ohmgrad.devices.SoftBounds()" if name == "device" else ""
            raise TypeError(f"{owner} needs the option {name}{way}")


def spelled(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose misspelt keywords are told with the nearest right ones."""
    known = keywords(function)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        check_options(function.__name__, kwargs, known)
        return function(*args, **kwargs)

    return checked


def spelled_fields(kind: type[T]) -> type[T]:
    """A dataclass whose misspelt fields are told with the nearest right ones, and fields that are missing."""
    before: Callable[..., None] = kind.__init__
    known = keywords(before)
    needed = [name for name, p in known.items() if p.default is p.empty and p.kind is p.KEYWORD_ONLY]

    @functools.wraps(before)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:  # the dataclass says of which types
        check_options(kind.__name__, kwargs, known, needed)
        before(self, *args, **kwargs)

    kind.__init__ = checked
    return kind


def keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """A function's parameters that may be given by name, in order."""
    parameters = inspect.signature(function).parameters
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: p for name, p in parameters.items() if p.kind in kinds and name != "self"}
