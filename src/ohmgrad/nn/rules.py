"""Which layers of a model are to be analog, and of what hardware."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.mapping import Mapping as WeightMapping
from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import Cell
from ohmgrad.nn.spelling import spelled_fields
from ohmgrad.periphery.settings import Periphery
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate

SETTINGS = ("device", "algorithm", "update", "count_pulses", "periphery", "mapping")


@spelled_fields
@dataclass(frozen=True)
class Rule:
    """What `convert` does with some layers. Of several rules that match a layer, the first decides.

    Args:
        match: a pattern of the layer's dotted name, as the shell's ("encoder.*", "*.out_proj"), or a type of module, or
            a tuple of types. A rule that matches a module also matches every layer inside.
        digital: these layers stay as they are.
        device, algorithm, update, count_pulses, periphery, mapping: theirs; where None, what `convert` was given.

    Raises:
        ValueError: a digital rule with settings of hardware. TypeError: match is of another kind.

    >>> Rule("head", digital=True).match
    'head'
    """

    match: str | type[nn.Module] | tuple[type[nn.Module], ...]
    _: KW_ONLY
    digital: bool = False
    device: Device | Sequence[Device] | Cell | None = None
    algorithm: Algorithm | None = None
    update: ExpectedUpdate | PulsedUpdate | None = None
    count_pulses: bool | None = None
    periphery: Periphery | None = None
    mapping: WeightMapping | None = None

    def __post_init__(self) -> None:
        kinds = self.match if isinstance(self.match, tuple) else (self.match,)
        is_name = isinstance(self.match, str)
        if not is_name and not (kinds and all(isinstance(k, type) and issubclass(k, nn.Module) for k in kinds)):
            raise TypeError(f"Rule needs a name pattern, a type of module or a tuple of types, got {self.match!r}")
        if self.digital and self.settings:
            raise ValueError(f"Rule({self.match!r}, digital=True) has no use for {', '.join(self.settings)}")

    @property
    def settings(self) -> dict[str, Any]:  # the fields of Hardware, each of its own type
        """What it says of the hardware, by the names of `Hardware`."""
        values = {name: getattr(self, name) for name in SETTINGS}
        return {name: value for name, value in values.items() if value is not None}

    def matches(self, name: str, modules: Mapping[str, nn.Module]) -> bool:
        """Whether it names the module of that dotted name or one that holds it; modules are a model's, by name."""
        parts = name.split(".") if name else []
        path = [".".join(parts[:i]) for i in range(len(parts) + 1)]
        if isinstance(self.match, str):
            return any(fnmatchcase(holder, self.match) for holder in path)
        return any(isinstance(modules[holder], self.match) for holder in path)
