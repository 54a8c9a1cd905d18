"""Floor 1: what one resistive element does when a pulse arrives."""

from ohmgrad.devices.base import Device
from ohmgrad.devices.constant_step import ConstantStep
from ohmgrad.devices.ideal import Ideal
from ohmgrad.devices.linear_step import LinearStep
from ohmgrad.devices.soft_bounds import SoftBounds
from ohmgrad.devices.soft_bounds_reference import SoftBoundsReference

DEVICES: tuple[type[Device], ...] = (Ideal, ConstantStep, LinearStep, SoftBounds, SoftBoundsReference)

__all__ = ["DEVICES", "ConstantStep", "Device", "Ideal", "LinearStep", "SoftBounds", "SoftBoundsReference"]
