"""Floor 5: torch layers on tiles."""

from ohmgrad.nn.convert import convert
from ohmgrad.nn.linear import AnalogLinear

__all__ = ["AnalogLinear", "convert"]
