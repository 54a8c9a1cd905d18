"""ohmgrad: train neural networks on simulated analog in-memory hardware, and learn where and why it stops short."""

from ohmgrad import algorithms, devices, periphery, theory
from ohmgrad.algorithms import AnalogSGD, TikiTaka
from ohmgrad.checkpoint import load, save
from ohmgrad.crossbar import Crossbar, InputRange, Mapping, Tile
from ohmgrad.devices import presets
from ohmgrad.experiments.diagnose import diagnose
from ohmgrad.nn import (
    AnalogConv1d,
    AnalogConv2d,
    AnalogConv3d,
    AnalogConvTranspose1d,
    AnalogConvTranspose2d,
    AnalogConvTranspose3d,
    AnalogEmbedding,
    AnalogEmbeddingBag,
    AnalogGRU,
    AnalogGRUCell,
    AnalogLinear,
    AnalogLSTM,
    AnalogLSTMCell,
    AnalogMultiheadAttention,
    AnalogRNN,
    AnalogRNNCell,
    Rule,
    convert,
    load_digital,
    summary,
    to_digital,
)
from ohmgrad.optim import AnalogOptimizer
from ohmgrad.periphery import IO, Periphery
from ohmgrad.pulses.forms import Dense, LowRank, Outer
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate

__version__ = "0.1.0"

__all__ = [
    "AnalogConv1d",
    "AnalogConv2d",
    "AnalogConv3d",
    "AnalogConvTranspose1d",
    "AnalogConvTranspose2d",
    "AnalogConvTranspose3d",
    "AnalogEmbedding",
    "AnalogEmbeddingBag",
    "AnalogGRU",
    "AnalogGRUCell",
    "AnalogLSTM",
    "AnalogLSTMCell",
    "AnalogLinear",
    "AnalogMultiheadAttention",
    "AnalogOptimizer",
    "AnalogRNN",
    "AnalogRNNCell",
    "AnalogSGD",
    "Crossbar",
    "Dense",
    "ExpectedUpdate",
    "IO",
    "InputRange",
    "LowRank",
    "Mapping",
    "Outer",
    "Periphery",
    "PulsedUpdate",
    "Rule",
    "TikiTaka",
    "Tile",
    "algorithms",
    "convert",
    "devices",
    "diagnose",
    "load",
    "load_digital",
    "periphery",
    "presets",
    "save",
    "summary",
    "theory",
    "to_digital",
]
