"""Floor 3: arrays of devices, and the tiles that layers own."""

from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Counters
from ohmgrad.crossbar.grid import Grid, place
from ohmgrad.crossbar.input_range import InputRange
from ohmgrad.crossbar.tile import Algorithm, Mapping, State, Tile

__all__ = ["Algorithm", "Counters", "Crossbar", "Grid", "InputRange", "Mapping", "State", "Tile", "place"]
