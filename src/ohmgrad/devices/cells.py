"""Unit cells: several devices at one crosspoint. What they are; how they work stands in `ohmgrad.crossbar`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ohmgrad.devices.base import Device

POLICIES = ("all", "fixed", "sequential", "random")


@dataclass(frozen=True, kw_only=True)
class VectorCell:
    """n devices whose states add up: W = sum_k gains_k W_k. Source: aihwkit `VectorUnitCell`.

    Args:
        devices: one or more.
        gains: one for each device, 1/n by default. A cell of one device against a reference has 1 and -1.
        policy: which devices get the pulses of a mini-batch: "all", "fixed" (the one numbered `first`), in turn
            ("sequential"), or one at "random". Each gets what the whole cell was asked for: where one of n with gains
            1/n does, the weight moves by 1/n of it. Under "all" the devices stand on the same lines and get the same
            pulses, counted in the mean of their steps, as in aihwkit: one of twice the step moves twice as far. Under
            the others a train is made for one device and counted in its own step (in aihwkit, in the mean).
        first: the device of the policy "fixed", and of the first mini-batch of "sequential".
        by_gain: devices with gains below 0 get their pulses the other way round, as a differential pair does.

    Raises:
        ValueError: a value breaks its rule.
    """

    devices: tuple[Device, ...]
    gains: tuple[float, ...] | None = None
    policy: Literal["all", "fixed", "sequential", "random"] = "all"
    first: int = 0
    by_gain: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "devices", tuple(self.devices))
        n = len(self.devices)
        if not n:
            raise ValueError("VectorCell needs at least one device")
        object.__setattr__(self, "gains", tuple(self.gains) if self.gains is not None else (1.0 / n,) * n)
        if len(self.weights) != n or not all(map(math.isfinite, self.weights)):
            raise ValueError(f"VectorCell needs a finite gain for each of its {n} devices, got {self.gains}")
        if not any(self.weights):
            raise ValueError(f"VectorCell needs a gain that is not 0, got {self.gains}")
        if self.policy not in POLICIES:
            raise ValueError(f"VectorCell needs a policy of {', '.join(POLICIES)}, got {self.policy!r}")
        if not 0 <= self.first < n:
            raise ValueError(f"VectorCell needs first in 0 ... {n - 1}, got {self.first}")

    @property
    def weights(self) -> tuple[float, ...]:
        """The gains."""
        return self.gains or ()

    @property
    def granularity(self) -> float:
        """Mean over the devices."""
        return sum(device.granularity for device in self.devices) / len(self.devices)

    @property
    def shares_trains(self) -> bool:
        """Whether all devices take the same pulses: they stand on the same lines."""
        return self.policy == "all"


@dataclass(frozen=True, kw_only=True)
class OneSidedCell:
    """A pair W = W_plus - W_minus, of which each takes the pulses of one direction, always as up pulses.

    Every `refresh_every` mini-batches both are read column by column. Where the larger is above `refresh_upper` and the
    smaller above `refresh_lower`, in units of w_max, both are reset and the difference written to one of them, with one
    train and no check. Source: aihwkit `OneSidedUnitCell`, with its units of mini-batches.

    Args:
        device: what both devices are.
        refresh_every: mini-batches (updates), 0 for never.
        refresh_upper, refresh_lower: thresholds.

    Raises:
        ValueError: a value breaks its rule.
    """

    device: Device
    refresh_every: int = 0
    refresh_upper: float = 0.75
    refresh_lower: float = 0.25

    def __post_init__(self) -> None:
        if self.refresh_every < 0:
            raise ValueError(f"OneSidedCell needs refresh_every >= 0, got {self.refresh_every}")
        for name in ("refresh_upper", "refresh_lower"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"OneSidedCell needs a finite number for {name}, got {getattr(self, name)}")

    @property
    def devices(self) -> tuple[Device, Device]:
        """Plus and minus."""
        return self.device, self.device

    @property
    def weights(self) -> tuple[float, float]:
        """The gains."""
        return 1.0, -1.0

    @property
    def granularity(self) -> float:
        """That of the device."""
        return self.device.granularity

    @property
    def shares_trains(self) -> bool:
        """No: plus and minus have trains of their own, each of its direction."""
        return False


Cell = VectorCell | OneSidedCell


def reference_cell(device: Device, reference: Device | None = None) -> VectorCell:
    """A device against a reference, which gets no pulses: W = W_0 - W_1. Source: aihwkit `ReferenceUnitCell`.

    The reference starts at 0; program another state with `cells.bars[1].set_weight`.
    """
    return VectorCell(devices=(device, reference or device), gains=(1.0, -1.0), policy="fixed")
