"""Floor 5: torch layers on tiles."""

from ohmgrad.nn.attention import AnalogMultiheadAttention
from ohmgrad.nn.cells import AnalogGRUCell, AnalogLSTMCell, AnalogRNNCell
from ohmgrad.nn.conv import AnalogConv1d, AnalogConv2d, AnalogConv3d
from ohmgrad.nn.conv_transpose import AnalogConvTranspose1d, AnalogConvTranspose2d, AnalogConvTranspose3d
from ohmgrad.nn.convert import convert, to_digital
from ohmgrad.nn.embedding import AnalogEmbedding
from ohmgrad.nn.embedding_bag import AnalogEmbeddingBag
from ohmgrad.nn.hardware import Hardware
from ohmgrad.nn.linear import AnalogLinear
from ohmgrad.nn.load import load_digital
from ohmgrad.nn.rnn import AnalogGRU, AnalogLSTM, AnalogRNN
from ohmgrad.nn.rules import Rule
from ohmgrad.nn.summary import summary

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
    "AnalogRNN",
    "AnalogRNNCell",
    "Hardware",
    "Rule",
    "convert",
    "load_digital",
    "summary",
    "to_digital",
]
