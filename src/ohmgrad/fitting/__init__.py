"""Floor 4: from measured pulse responses to devices."""

from ohmgrad.fitting.characterise import Characterised, characterise
from ohmgrad.fitting.measured import Measurement, Ramp, read

__all__ = ["Characterised", "Measurement", "Ramp", "characterise", "read"]
