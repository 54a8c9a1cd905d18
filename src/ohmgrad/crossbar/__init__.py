"""Floor 3: arrays of devices, and the tiles that layers own."""

from ohmgrad.crossbar.crossbar import Counters, Crossbar
from ohmgrad.crossbar.tile import Algorithm, State, Tile

__all__ = ["Algorithm", "Counters", "Crossbar", "State", "Tile"]
