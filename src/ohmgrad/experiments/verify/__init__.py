"""The theorems as experiments that can fail: one file each, `eNN_name.py`, found by its name.

A file has `Settings`, a frozen dataclass with a `seed`, `QUICK`, smaller ones for tests, `run`, a pure function from
settings to a `Verdict`, and `PLANTED`, errors of `planted.py` on which it has to fail. Numbers E1 to E18 are those of
the technical reference.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from ohmgrad.experiments.verify.verdict import Verdict

Plant = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Experiment:
    """One of them. name: as in "E1"."""

    name: str
    module: ModuleType

    @property
    def planted(self) -> tuple[Plant, ...]:
        """Errors on which it has to fail."""
        return self.module.PLANTED

    def settings(self, *, is_quick: bool = False, seed: int = 0) -> Any:
        """What it runs with."""
        return replace(self.module.QUICK if is_quick else self.module.Settings(), seed=seed)

    def run(self, settings: Any, plant: Plant = nullcontext) -> Verdict:
        """Its verdict, under a planted error where one is given; an exception on the way is a verdict that fails."""
        try:
            with plant():
                return self.module.run(settings)
        except (ArithmeticError, IndexError, RuntimeError, ValueError) as error:
            title = (self.module.__doc__ or "").split("\n", 1)[0]
            return Verdict(
                name=self.name, title=title, statement="", source="", error=f"{type(error).__name__}: {error}"
            )


def experiments() -> dict[str, Experiment]:
    """All of them, by name, in order."""
    found = {}
    for info in pkgutil.iter_modules(__path__):
        if match := re.match(r"e(\d+)_", info.name):
            name = f"E{int(match[1])}"
            found[name] = Experiment(name, importlib.import_module(f"{__name__}.{info.name}"))
    return found


def chosen(names: list[str]) -> list[Experiment]:
    """Those of these names, in any case, each once and in order; all for no names.

    Raises:
        ValueError: an unknown name.
    """
    known = experiments()
    for name in names:
        if name.upper() not in known:
            raise ValueError(f"experiments are {', '.join(known)}, got {name!r}")
    wanted = {name.upper() for name in names} or known.keys()
    return [experiment for name, experiment in known.items() if name in wanted]
