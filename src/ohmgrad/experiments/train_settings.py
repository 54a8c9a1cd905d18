"""What `ohmgrad train` reads: a TOML file, one section for each thing that is chosen.

    [data]       name, dir
    [model]      kind and its fields (experiments/networks.py)
    [device]     name (devices/catalog.py), which may be a file of a device, NAME.toml, and its fields
    [algorithm]  name (algorithms/) and its fields
    [periphery]  name of a set of converters (ideal, default, preset, standard), and fields, of both directions
    [mapping]    digital scales and the largest size of a crossbar (crossbar/tile.py); [mapping.input_range]
    [update]     kind, expected or pulsed, and its fields (pulses/settings.py)
    [optimizer]  digital, of the parameters that are not on tiles: sgd, adam or adamw, and its fields
    [schedule]   kind of the learning rate's course: none, step, multi-step or cosine, and its fields
    [train]      epochs, batch_size, seed, checkpoint_every_minutes, checkpoint_every_epochs, threads

"none" stands for None. [periphery], [mapping], [update] and [schedule] may be absent, the rest may not.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.optim import lr_scheduler

from ohmgrad.algorithms import ALGORITHMS
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.mapping import Mapping as WeightMapping
from ohmgrad.devices import Device, catalog
from ohmgrad.experiments.data import DATASETS
from ohmgrad.experiments.networks import NETWORKS, Network
from ohmgrad.experiments.tables import build, chosen
from ohmgrad.optim import AnalogOptimizer
from ohmgrad.periphery import DEFAULT, IO, PERFECT, PRESET, STANDARD
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """name: of the data set. dir: directory of its files; OHMGRAD_DATA if absent."""

    name: str
    dir: str | None = None

    def __post_init__(self) -> None:
        if self.name not in DATASETS:
            raise ValueError(f"name needs one of {', '.join(DATASETS)}, got {self.name!r}")


def _need(settings: Any, names: tuple[str, ...], low: float = 0.0, *, is_open: bool = False) -> None:
    """Raises ValueError where a field is not a finite number >= low, or > low if open."""
    for name in names:
        value = getattr(settings, name)
        if not low <= value < math.inf or (is_open and value == low):
            raise ValueError(f"{name} needs a finite number {'>' if is_open else '>='} {low:g}, got {value}")


@dataclass(frozen=True, kw_only=True)
class SGD:
    """`torch.optim.SGD` for digital parameters; lr also of the tiles."""

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        _need(self, ("lr",), is_open=True)
        _need(self, ("momentum", "dampening", "weight_decay"))
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("nesterov needs a momentum > 0 and no dampening")


@dataclass(frozen=True, kw_only=True)
class Adam:
    """`torch.optim.Adam` for digital parameters; lr also of the tiles."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False

    def __post_init__(self) -> None:
        _need(self, ("lr",), is_open=True)
        _need(self, ("eps", "weight_decay"))
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas needs two numbers in [0, 1), got {self.betas}")


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """`torch.optim.AdamW` for digital parameters; lr also of the tiles."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    amsgrad: bool = False

    def __post_init__(self) -> None:
        Adam(**vars(self))  # its rules


OptimizerSettings = SGD | Adam | AdamW
DIGITAL = {SGD: torch.optim.SGD, Adam: torch.optim.Adam, AdamW: torch.optim.AdamW}


def optimizer_of(model: torch.nn.Module, settings: OptimizerSettings) -> AnalogOptimizer:
    """The optimizer of that model."""
    return AnalogOptimizer(model, digital=DIGITAL[type(settings)], **vars(settings))


class Schedule(Protocol):
    """Course of the learning rate over the epochs."""

    def make(self, optimizer: AnalogOptimizer, epochs: int) -> lr_scheduler.LRScheduler | None:
        """A scheduler to be stepped after every epoch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The learning rate stays."""

    def make(self, optimizer: AnalogOptimizer, epochs: int) -> None:
        """No scheduler."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Times gamma every so many epochs."""

    every: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _need(self, ("every",), 1)
        _need(self, ("gamma",), is_open=True)

    def make(self, optimizer: AnalogOptimizer, epochs: int) -> lr_scheduler.LRScheduler:
        """`StepLR`."""
        return lr_scheduler.StepLR(optimizer, self.every, self.gamma)


@dataclass(frozen=True, kw_only=True)
class MultiStep:
    """Times gamma after each of these epochs."""

    milestones: tuple[int, ...]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if not self.milestones or min(self.milestones) < 1:
            raise ValueError(f"milestones needs at least one epoch, each >= 1, got {self.milestones}")
        _need(self, ("gamma",), is_open=True)

    def make(self, optimizer: AnalogOptimizer, epochs: int) -> lr_scheduler.LRScheduler:
        """`MultiStepLR`."""
        return lr_scheduler.MultiStepLR(optimizer, self.milestones, self.gamma)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine from the learning rate down to lr_min at the last epoch."""

    lr_min: float = 0.0

    def __post_init__(self) -> None:
        _need(self, ("lr_min",))

    def make(self, optimizer: AnalogOptimizer, epochs: int) -> lr_scheduler.LRScheduler:
        """`CosineAnnealingLR`."""
        return lr_scheduler.CosineAnnealingLR(optimizer, epochs, self.lr_min)


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """The loop.

    seed: of the weights, the devices, the order of the samples and dropout.
    checkpoint_every_minutes, checkpoint_every_epochs: whichever comes first; inf and none for never.
    threads: of the CPU.
    """

    epochs: int
    batch_size: int
    seed: int = 0
    checkpoint_every_minutes: float = 10.0
    checkpoint_every_epochs: int | None = 1
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size)):
            if value < 1:
                raise ValueError(f"{name} needs a whole number >= 1, got {value}")
        if self.seed < 0:
            raise ValueError(f"seed needs a whole number in 0 ... 2**63 - 1, got {self.seed}")
        if not self.checkpoint_every_minutes > 0:
            raise ValueError(f"checkpoint_every_minutes needs a number > 0, got {self.checkpoint_every_minutes}")
        if self.checkpoint_every_epochs is not None and self.checkpoint_every_epochs < 1:
            raise ValueError(
                f"checkpoint_every_epochs needs a whole number >= 1, or none, got {self.checkpoint_every_epochs}"
            )
        if not 1 <= self.threads <= 1024:
            raise ValueError(f"threads needs 1 ... 1024, got {self.threads}")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One run. Every part has checked its own rules."""

    data: DataSettings
    model: Network
    device: Device
    algorithm: Algorithm
    periphery: IO = PERFECT
    mapping: WeightMapping = field(default_factory=WeightMapping)
    update: ExpectedUpdate | PulsedUpdate = field(default_factory=ExpectedUpdate)
    optimizer: OptimizerSettings
    schedule: Schedule = field(default_factory=Constant)
    train: LoopSettings


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


CONVERTERS = {"ideal": PERFECT, "default": DEFAULT, "preset": PRESET, "standard": STANDARD}
UPDATES = {"expected": ExpectedUpdate, "pulsed": PulsedUpdate}
OPTIMIZERS: dict[str, type[OptimizerSettings]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
SCHEDULES: dict[str, type[Constant] | type[Step] | type[MultiStep] | type[Cosine]] = {
    "none": Constant,
    "step": Step,
    "multi-step": MultiStep,
    "cosine": Cosine,
}
# Section: the key that picks, among what, and what an absent key picks.
PICKS: dict[str, tuple[str, Mapping[str, Any], str | None]] = {
    "model": ("kind", NETWORKS, None),
    "device": ("name", {name: catalog.find(name) for name in catalog.names()}, None),
    "algorithm": ("name", {_kebab(a.__name__): a for a in ALGORITHMS}, None),
    "periphery": ("name", CONVERTERS, "ideal"),
    "update": ("kind", UPDATES, "expected"),
    "optimizer": ("digital", OPTIMIZERS, "sgd"),
    "schedule": ("kind", SCHEDULES, "none"),
}
SECTIONS = {f.name: f for f in fields(TrainSettings)}
PLAIN = {"data": DataSettings, "mapping": WeightMapping, "train": LoopSettings}
MAY_BE_ABSENT = ("periphery", "mapping", "update", "schedule")


def read(path: Path, device_model: str | None = None) -> TrainSettings:
    """The settings in that TOML file; device_model: a name or file that stands for its section [device].

    Raises:
        ValueError: it is no TOML, or a section, key or value breaks its rule; the message names file and section.key.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    try:
        tables = tomllib.loads(content.decode("utf-8-sig"))
        return from_tables(tables if device_model is None else {**tables, "device": {"name": device_model}})
    except RecursionError:
        raise ValueError(f"{path}: lists or tables lie too deep in one another") from None
    except ValueError as error:  # of TOML and of UTF-8 too
        raise ValueError(f"{path}: {error}") from None


def from_tables(tables: Mapping[str, Any]) -> TrainSettings:
    """The settings in parsed TOML. Raises ValueError as `read`."""
    for section, table in tables.items():
        if section not in SECTIONS:
            raise ValueError(f"section [{section}] is unknown; there are {', '.join(SECTIONS)}")
        if not isinstance(table, Mapping):
            raise ValueError(f"{section} needs to be a section, [{section}] with keys below")
    for section in SECTIONS:
        if section not in tables and section not in MAY_BE_ABSENT:
            raise ValueError(f"section [{section}] is missing")
    parts: dict[str, Any] = {}
    for section in SECTIONS:
        table = tables.get(section, {})
        if section == "algorithm" and isinstance(inner := table.get("fast_device"), Mapping):
            algorithm = _picked(section, {k: v for k, v in table.items() if k != "fast_device"}, section)
            if hasattr(algorithm, "fast_device"):
                parts[section] = replace(algorithm, fast_device=_picked("device", inner, "algorithm.fast_device"))
                continue
        parts[section] = _picked(section, table, section) if section in PICKS else build(PLAIN[section], table, section)
    idle = [k for k in tables.get("periphery", {}) if k not in ("name", "is_perfect")]
    if idle and parts["periphery"].is_perfect:
        raise ValueError(f"periphery.{idle[0]} does nothing where reads are ideal: periphery.name needs another set")
    return TrainSettings(**parts)


def _picked(section: str, table: Mapping[str, Any], where: str) -> Any:
    """What a section's key picks, with its fields; where: how errors name the section."""
    key, families, default = PICKS[section]
    if section == "device" and isinstance(name := table.get(key), str) and catalog.is_file(name):
        families = {name: catalog.find(name)}
    of = chosen(table, where, key, families, default)
    return build(of, {k: v for k, v in table.items() if k != key}, where)
