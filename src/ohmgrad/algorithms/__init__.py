"""Floor 4: training algorithms, one file each: which pulses to send to which crossbar."""

from ohmgrad.algorithms.analog_sgd import AnalogSGD
from ohmgrad.algorithms.tiki_taka import TikiTaka

ALGORITHMS = (AnalogSGD, TikiTaka)

__all__ = ["ALGORITHMS", "AnalogSGD", "TikiTaka"]
