"""One factory for what algorithms work on: a crossbar, or cells of several devices where the device says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.one_sided_cells import OneSidedCells
from ohmgrad.crossbar.vector_cells import VectorCells
from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import Cell, OneSidedCell, VectorCell


def make_crossbar(shape: tuple[int, int], *, device: Device | Sequence[Device] | Cell, **options: Any) -> Crossbar:
    """A `Crossbar` of devices, or `Cells`, which have its face; options: of `Crossbar`.

    >>> from ohmgrad.devices import SoftBounds, VectorCell
    >>> make_crossbar((1, 2), device=VectorCell(devices=(SoftBounds(), SoftBounds()))).weight
    tensor([[0., 0.]])
    """
    if isinstance(device, VectorCell):
        return cast(Crossbar, VectorCells(shape, device=device, **options))  # for all that algorithms ask of it
    if isinstance(device, OneSidedCell):
        return cast(Crossbar, OneSidedCells(shape, device=device, **options))
    return Crossbar(shape, device=device, **options)
