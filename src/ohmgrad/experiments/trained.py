"""A network out of a checkpoint of `ohmgrad train`, with the settings and the data that it was trained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from ohmgrad import checkpoint
from ohmgrad.algorithms import ALGORITHMS
from ohmgrad.crossbar.input_range import InputRange
from ohmgrad.crossbar.mapping import Mapping as WeightMapping
from ohmgrad.devices import DEVICES
from ohmgrad.experiments.data import Dataset, load
from ohmgrad.experiments.networks import NETWORKS
from ohmgrad.experiments.train import Run
from ohmgrad.experiments.train_settings import (
    DIGITAL,
    SCHEDULES,
    UPDATES,
    DataSettings,
    LoopSettings,
    TrainSettings,
)
from ohmgrad.periphery import IO

# What sections may hold, by the names that `tables.plain` gives them.
FAMILIES: dict[str, type] = {
    family.__name__: family
    for family in (
        *(*DEVICES, *ALGORITHMS, *NETWORKS.values(), *UPDATES.values(), *DIGITAL, *SCHEDULES.values()),
        *(IO, WeightMapping, InputRange, LoopSettings),
    )
}


def trained(path: Path, name: str | None = None, data_dir: Path | None = None) -> tuple[Run, Dataset]:
    """The run that a checkpoint holds, and its data.

    Args:
        name: of a data set in place of that of the training.
        data_dir: where its files lie.

    Raises:
        ValueError: no checkpoint of `ohmgrad train`, a damaged one, or data of another form. OSError: no such file.
    """
    extra = checkpoint.peek(path)
    settings = _settings(path, extra.get("settings"))
    if name is not None:
        settings = replace(settings, data=DataSettings(name=name))
    data = load(settings.data.name, data_dir)
    with torch.random.fork_rng(devices=[]):
        run = Run(settings, data, path.parent, "cpu")
        checkpoint.load(path, run.model)
    return run, data


def _settings(path: Path, saved: Any) -> TrainSettings:
    if not isinstance(saved, Mapping) or saved.keys() != {f.name for f in fields(TrainSettings)}:
        raise ValueError(f"{path} is a checkpoint, but not of `ohmgrad train`")
    try:
        data = DataSettings(**saved["data"])
        return TrainSettings(data=data, **{k: _built(v) for k, v in saved.items() if k != "data"})
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path} holds settings that this ohmgrad does not know: {error}") from None


def _built(value: Any) -> Any:
    """What `tables.plain` made a dict of."""
    if not isinstance(value, Mapping):
        return value
    family = FAMILIES[value["name"]]
    known = {f.name for f in dataclasses.fields(family)}
    return family(**{k: _built(v) for k, v in value.items() if k != "name" or "name" in known})
