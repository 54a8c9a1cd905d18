"""Errors planted in the library for as long as a `with` lasts, to see an experiment fail on them.

Each changes what crossbars and algorithms do, and nothing of what the theory says about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from ohmgrad.algorithms import Rider, chopper, transfer
from ohmgrad.crossbar import elements
from ohmgrad.devices import Device
from ohmgrad.pulses import expected


@contextmanager
def doubled_asymmetry() -> Iterator[None]:
    """The asymmetric term counts twice: F dw - 2 G |dw|."""
    step = expected.step

    def wrong(family: type[Device], w: Tensor, up: Tensor, params: Any) -> Tensor:
        rise, fall = step(family, w, True, params), step(family, w, False, params)
        return torch.where(up, rise, fall) + (rise + fall) / 2.0

    with patch.object(expected, "step", wrong):
        yield


@contextmanager
def bounds_ignored() -> Iterator[None]:
    """The response takes bounds of 1, whatever they are."""
    step = expected.step

    def wrong(family: type[Device], w: Tensor, up: Tensor, params: Any) -> Tensor:
        return step(family, w, up, {**params, "w_max": 1.0, "w_min": -1.0})

    with patch.object(expected, "step", wrong):
        yield


@contextmanager
def symmetric_point_shifted() -> Iterator[None]:
    """The response is that of the state less 0.1: symmetric points lie at 0.1."""
    step = expected.step
    with patch.object(expected, "step", lambda family, w, up, params: step(family, w - 0.1, up, params)):
        yield


@contextmanager
def transfer_sign_flipped() -> Iterator[None]:
    """What is read from the fast crossbar is taken from the slow one."""
    write = transfer.write_lines

    def wrong(bar: Any, lines: Tensor, values: Tensor, lr: float, columns: bool) -> None:
        write(bar, lines, values, -lr, columns)

    with patch.object(transfer, "write_lines", wrong):
        yield


@contextmanager
def choppers_stuck() -> Iterator[None]:
    """No sign ever flips."""
    with patch.object(chopper, "flip", lambda *args: None):
        yield


@contextmanager
def reference_not_tracked() -> Iterator[None]:
    """RIDER's Q stays where it began."""
    update = Rider.update

    def wrong(self: Rider, *args: Any) -> None:
        update(replace(self, tracking_rate=1e-12), *args)

    with patch.object(Rider, "update", wrong):
        yield


@contextmanager
def cycle_noise_halved() -> Iterator[None]:
    """Noise from pulse to pulse is half of what was asked for."""
    with _devices(lambda device: replace(device, dw_min_ctoc=device.dw_min_ctoc / 2.0)):
        yield


@contextmanager
def steps_doubled() -> Iterator[None]:
    """Devices have half of the states that were asked for."""
    with _devices(lambda device: replace(device, dw_min=device.dw_min * 2.0)):
        yield


@contextmanager
def _devices(change: Callable[[Device], Device]) -> Iterator[None]:
    listed = elements.device_list

    def wrong(device: Device | Sequence[Device]) -> list[Device]:
        return [change(d) for d in listed(device)]

    with patch.object(elements, "device_list", wrong):
        yield
