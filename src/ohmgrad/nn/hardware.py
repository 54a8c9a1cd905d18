"""What the matrices of a layer are made of: the one step from a user's choice of hardware to a tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from ohmgrad.algorithms import AnalogSGD
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.crossbar.grid import Grid, place
from ohmgrad.crossbar.mapping import Mapping as WeightMapping
from ohmgrad.crossbar.tile import Tile
from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import Cell
from ohmgrad.nn.spelling import spelled_fields
from ohmgrad.periphery.settings import Periphery
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate


@spelled_fields
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

    >>> from ohmgrad.devices import Ideal
    >>> Hardware(device=Ideal()).tile(torch.zeros(2, 3)).shape
    (2, 3)
    """

    device: Device | Sequence[Device] | Cell
    algorithm: Algorithm | None = None
    update: ExpectedUpdate | PulsedUpdate | None = None
    count_pulses: bool = False
    periphery: Periphery | None = None
    mapping: WeightMapping | None = None

    def __post_init__(self) -> None:
        given: Any = self.device  # of whatever kind a user thinks of
        devices = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        kinds = {"update": ExpectedUpdate | PulsedUpdate, "periphery": Periphery, "mapping": WeightMapping}
        wrong = [("device", d) for d in devices if not isinstance(d, Device | Cell)]
        wrong += [("algorithm", self.algorithm)] * isinstance(self.algorithm, type | str)
        wrong += [(k, getattr(self, k)) for k, kind in kinds.items() if not isinstance(getattr(self, k), kind | None)]
        for name, value in wrong:
            hint = f"; {value.__name__}() makes one" if isinstance(value, type) else ""
            raise TypeError(f"{name} needs an instance of its own kind, got {value!r}{hint}")

    @classmethod
    def among(cls, options: Mapping[str, Any]) -> tuple[Hardware, dict[str, Any]]:
        """What keyword arguments say of the hardware, and the rest of them.

        >>> from ohmgrad.devices import Ideal
        >>> Hardware.among({"device": Ideal(), "bias": False})[1]
        {'bias': False}
        """
        own = {field.name for field in fields(cls)}
        rest = {name: value for name, value in options.items() if name not in own}
        return cls(**{name: value for name, value in options.items() if name in own}), rest

    def tile(self, weight: Tensor, *, seed: int | Sequence[int] | None = None, has_bias: bool = False) -> Tile | Grid:
        """A tile, or a grid of them, that starts at `weight`, (*replica, out, in), where the weight lies.

        seed: one, or one for each replica; None draws one. has_bias: the last column is a bias.
        """
        tile = place(
            weight.detach().cpu(),
            algorithm=self.algorithm or AnalogSGD(),
            crossbar={k: getattr(self, k) for k in ("device", "update", "count_pulses", "periphery")},
            seed=seed,
            mapping=self.mapping,
            has_bias=has_bias,
        )
        return tile.to(weight.device)

    def affine(
        self, weight: Tensor, bias: nn.Parameter | None, *, is_trained: bool, seed: int | Sequence[int] | None = None
    ) -> tuple[Tile | Grid, nn.Parameter | None]:
        """A tile for a matrix and, where the mapping says so, its bias; and the bias where it stays digital.

        Args:
            weight: (*replica, out, in). bias: as many numbers as the matrix has rows.
            is_trained: whether the tile is.

        Raises:
            ValueError: a bias that goes onto the tile is frozen, and the matrix is not, or the other way round.
        """
        column = None if self.mapping is None or self.mapping.digital_bias else bias
        if column is not None:
            if column.requires_grad != is_trained:
                raise ValueError(
                    "an analog bias (digital_bias=False) is trained with its matrix: freeze both or neither"
                )
            weight = torch.cat([weight, column.detach().reshape(*weight.shape[:-1], 1)], -1)
        tile = self.tile(weight, seed=seed, has_bias=column is not None)
        if not is_trained:
            tile.requires_grad_(False)
        return tile, bias if column is None else None

    def without_range(self) -> Hardware:
        """For inputs that are 0 and 1, which need no range of their own."""
        return self if self.mapping is None else replace(self, mapping=replace(self.mapping, input_range=None))

    def repeated(self, n: int) -> Hardware:
        """For tiles with one more replica dimension, the last, of size n: each replica's device serves all of it."""
        if not isinstance(self.device, Sequence):
            return self
        return replace(self, device=[device for device in self.device for _ in range(n)])
