"""What the matrices of a layer are made of: the one step from a user's choice of hardware to a tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ohmgrad.algorithms import AnalogSGD
from ohmgrad.crossbar.tile import Algorithm, Tile
from ohmgrad.devices.base import Device
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Makes the tiles of a layer, which asks for nothing else.

    Args:
        device: the devices of every crossbar; a sequence gives one to each replica.
        algorithm: the training algorithm, Analog SGD by default.
        update: how devices are written, `ExpectedUpdate()` by default.
        count_pulses: keep the pulses that reached each crosspoint (endurance).

    >>> import torch
    >>> from ohmgrad.devices import Ideal
    >>> Hardware(device=Ideal()).tile(torch.zeros(2, 3)).shape
    (2, 3)
    """

    device: Device | Sequence[Device]
    algorithm: Algorithm | None = None
    update: ExpectedUpdate | PulsedUpdate | None = None
    count_pulses: bool = False

    def tile(self, weight: Tensor, *, seed: int | Sequence[int] = 0) -> Tile:
        """A tile that starts at `weight`, (*replica, out, in), where the weight lies; one seed, or one per replica."""
        crossbar = {"device": self.device, "update": self.update, "count_pulses": self.count_pulses}
        tile = Tile(weight.detach().cpu(), algorithm=self.algorithm or AnalogSGD(), crossbar=crossbar, seed=seed)
        return tile.to(weight.device)

    def repeated(self, n: int) -> Hardware:
        """For tiles with one more replica dimension, the last, of size n: each replica's device serves all of it."""
        if isinstance(self.device, Device):
            return self
        return replace(self, device=[device for device in self.device for _ in range(n)])
