"""The same crossbar with other devices, updates or converters: what a comparison with one effect switched off needs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ohmgrad.crossbar.crossbar import FRESH, Crossbar
from ohmgrad.devices.base import Device
from ohmgrad.periphery.reader import Reader
from ohmgrad.periphery.settings import IO
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate


@torch.no_grad()
def changed(
    bar: Crossbar,
    *,
    device: Device | None = None,
    params: Mapping[str, Any] | None = None,
    update: ExpectedUpdate | PulsedUpdate | None = None,
    io: Callable[[IO], IO] | None = None,
) -> Crossbar:
    """A copy of a crossbar in its present state, which stays as it is; what is None is as it was.

    Args:
        device: the family and what all elements share. params: of the elements, as `Crossbar.params`; of the device's
            family. Both or neither. A device without write noise shows the persistent state.
        update: how changes are made.
        io: new settings of each reader from its old ones. Numbers of noise and what lines keep go on as they were.

    The copy draws the same numbers for its noise as the original would, as far as both draw any.
    """
    new = copy.deepcopy(bar)
    if device is not None and params is not None:
        _replace_devices(new, device, params)
    if update is not None:
        new.update = update
        if new.pulse_counts is not None:
            new.pulse_counts = new.pulse_counts.to(torch.int64 if isinstance(update, PulsedUpdate) else torch.float64)
    if io is not None and new.readers is not None:
        new.readers = nn.ModuleDict({name: _reader(reader, io, new) for name, reader in new.readers.items()})
    new.__dict__.update(FRESH | {"_law": new._number_of_law(), "_accepted": None})
    return new


def _replace_devices(bar: Crossbar, device: Device, params: Mapping[str, Any]) -> None:
    if bar.device_model.write_noise and not device.write_noise:
        bar.weight.copy_(bar.persistent)
        del bar.persistent
    for name in bar._plane_names:
        del bar._buffers[f"device_{name}"]
    bar.granularity *= device.granularity / bar.device_model.granularity
    bar._plane_names, bar._numbers, bar.device_model, bar.devices = [], {}, device, [device]
    for name, value in params.items():
        if isinstance(value, Tensor):
            bar.register_buffer(f"device_{name}", value.to(bar.weight))
            bar._plane_names.append(name)
        else:
            bar._numbers[name] = value if isinstance(value, tuple) else float(value)


def _reader(old: nn.Module, io: Callable[[IO], IO], bar: Crossbar) -> Reader:
    assert isinstance(old, Reader)  # said for the type checker
    made = Reader(io(old.io), direction=old.direction, replicas=bar.replicas, dtype=bar.weight.dtype)
    new = made.to(bar.weight.device)
    for name, value in new.named_buffers():
        if (before := old._buffers.get(name)) is not None:
            value.copy_(before)
    return new
