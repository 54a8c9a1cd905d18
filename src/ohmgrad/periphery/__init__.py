"""Floor 2: what stands between a crossbar and the digital world: converters, ranges, noise of reads."""

from ohmgrad.periphery.reader import Reader, readers
from ohmgrad.periphery.settings import DEFAULT, IO, PERFECT, PRESET, STANDARD, Periphery, weight_noise

__all__ = ["DEFAULT", "IO", "PERFECT", "PRESET", "STANDARD", "Periphery", "Reader", "readers", "weight_noise"]
