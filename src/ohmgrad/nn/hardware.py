"""What the matrices of a layer are made of: the one step from a user's choice of hardware to a tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ohmgrad.algorithms import AnalogSGD
from ohmgrad.crossbar.grid import Grid, place
from ohmgrad.crossbar.tile import Algorithm, Mapping, Tile
from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import Cell
from ohmgrad.periphery.settings import Periphery
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Makes the tiles of a layer, which asks for nothing else.

    Args:
        device: the devices of every crossbar, or its unit cells; a sequence gives one to each replica.
        algorithm: the training algorithm, Analog SGD by default.
        update: how devices are written, `ExpectedUpdate()` by default.
        count_pulses: keep the pulses that reached each crosspoint (endurance).
        periphery: converters and noise of reads, ideal by default.
        mapping: digital scales and the largest size of a crossbar, none by default.

    >>> import torch
    >>> from ohmgrad.devices import Ideal
    >>> Hardware(device=Ideal()).tile(torch.zeros(2, 3)).shape
    (2, 3)
    """

    device: Device | Sequence[Device] | Cell
    algorithm: Algorithm | None = None
    update: ExpectedUpdate | PulsedUpdate | None = None
    count_pulses: bool = False
    periphery: Periphery | None = None
    mapping: Mapping | None = None

    def tile(self, weight: Tensor, *, seed: int | Sequence[int] = 0) -> Tile | Grid:
        """A tile, or a grid of them, that starts at `weight`, (*replica, out, in), where the weight lies.

        seed: one, or one for each replica.
        """
        tile = place(
            weight.detach().cpu(),
            algorithm=self.algorithm or AnalogSGD(),
            crossbar={k: getattr(self, k) for k in ("device", "update", "count_pulses", "periphery")},
            seed=seed,
            mapping=self.mapping,
        )
        return tile.to(weight.device)

    def repeated(self, n: int) -> Hardware:
        """For tiles with one more replica dimension, the last, of size n: each replica's device serves all of it."""
        if not isinstance(self.device, Sequence):
            return self
        return replace(self, device=[device for device in self.device for _ in range(n)])
