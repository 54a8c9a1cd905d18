"""Floor 4: training algorithms, one file each: which pulses to send to which crossbar."""

from ohmgrad.algorithms.agad import AGAD
from ohmgrad.algorithms.analog_sgd import AnalogSGD
from ohmgrad.algorithms.chopped_tiki_taka_v2 import ChoppedTikiTakaV2
from ohmgrad.algorithms.mixed_precision import MixedPrecision
from ohmgrad.algorithms.multi_tile import MultiTile
from ohmgrad.algorithms.residual_learning import ResidualLearning
from ohmgrad.algorithms.rider import Rider
from ohmgrad.algorithms.stale import Stale
from ohmgrad.algorithms.tiki_taka import TikiTaka
from ohmgrad.algorithms.tiki_taka_v2 import TikiTakaV2

ALGORITHMS = (
    AnalogSGD,
    TikiTaka,
    TikiTakaV2,
    ChoppedTikiTakaV2,
    AGAD,
    MixedPrecision,
    ResidualLearning,
    MultiTile,
    Rider,
    Stale,
)

__all__ = [
    "ALGORITHMS",
    "AGAD",
    "AnalogSGD",
    "ChoppedTikiTakaV2",
    "MixedPrecision",
    "MultiTile",
    "ResidualLearning",
    "Rider",
    "Stale",
    "TikiTaka",
    "TikiTakaV2",
]
