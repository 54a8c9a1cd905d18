"""Floor 3: arrays of devices, and the tiles that layers own."""

from ohmgrad.crossbar.algorithm import Algorithm, State
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Counters
from ohmgrad.crossbar.grid import Grid, place
from ohmgrad.crossbar.input_range import InputRange
from ohmgrad.crossbar.make import make_crossbar
from ohmgrad.crossbar.mapping import Mapping
from ohmgrad.crossbar.tile import Tile
from ohmgrad.crossbar.zero_shift import zero_shift

__all__ = [
    "Algorithm",
    "Counters",
    "Crossbar",
    "Grid",
    "InputRange",
    "Mapping",
    "State",
    "Tile",
    "make_crossbar",
    "place",
    "zero_shift",
]
