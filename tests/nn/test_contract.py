"""The contract of layers, for every layer that `convert` makes."""

from typing import Any

import pytest
import torch
from torch import nn

from contracts.layer import Case, LayerContract, gaussian
from ohmgrad.nn.convert import LAYERS


def case(kind: type[nn.Module], *sizes: Any, inputs: tuple, **arguments: Any) -> Case:
    """As the layer's own call, and its inputs."""
    return Case(kind, sizes, inputs, arguments)


x = gaussian(5, 3, 6)
CASES: dict[type[nn.Module], list[Case]] = {
    nn.Linear: [case(nn.Linear, 6, 4, inputs=(x,)), case(nn.Linear, 6, 4, bias=False, inputs=(x,))],
    nn.Conv1d: [case(nn.Conv1d, 3, 4, 3, padding="same", inputs=(x,))],
    nn.Conv2d: [case(nn.Conv2d, 4, 6, (3, 2), stride=2, padding=1, groups=2, inputs=(gaussian(2, 4, 6, 5),))],
    nn.Conv3d: [case(nn.Conv3d, 2, 3, 2, dilation=2, bias=False, inputs=(gaussian(2, 2, 4, 3, 5),))],
    nn.ConvTranspose1d: [case(nn.ConvTranspose1d, 3, 4, 3, stride=2, padding=1, output_padding=1, inputs=(x,))],
    nn.ConvTranspose2d: [
        case(nn.ConvTranspose2d, 4, 6, (3, 2), stride=2, padding=1, groups=2, inputs=(gaussian(2, 4, 6, 5),))
    ],
    nn.ConvTranspose3d: [
        case(nn.ConvTranspose3d, 2, 3, 2, dilation=2, bias=False, inputs=(gaussian(2, 2, 4, 3, 5),)),
    ],
    nn.Embedding: [case(nn.Embedding, 7, 4, padding_idx=2, inputs=(torch.tensor([[1, 2, 6], [2, 1, 1]]),))],
    nn.EmbeddingBag: [
        case(nn.EmbeddingBag, 7, 4, padding_idx=2, inputs=(torch.tensor([[1, 2, 6], [2, 1, 1]]),)),
        case(
            nn.EmbeddingBag, 7, 4, mode="sum",
            inputs=(torch.tensor([1, 0, 6, 1, 1, 5]), torch.tensor([0, 0, 2, 6]), gaussian(6)),
        ),
        case(nn.EmbeddingBag, 7, 4, mode="max", inputs=(torch.tensor([4, 4, 6, 0]), torch.tensor([0, 3]))),
    ],
    nn.RNN: [case(nn.RNN, 6, 4, nonlinearity="relu", inputs=(x,))],
    nn.GRU: [case(nn.GRU, 6, 4, num_layers=2, batch_first=True, inputs=(x,))],
    nn.LSTM: [
        case(nn.LSTM, 6, 4, bidirectional=True, inputs=(x,)),
        case(nn.LSTM, 6, 4, proj_size=2, inputs=(x, (gaussian(1, 3, 2), gaussian(1, 3, 4)))),
    ],
    nn.RNNCell: [case(nn.RNNCell, 6, 4, nonlinearity="relu", inputs=(x[0],))],
    nn.GRUCell: [case(nn.GRUCell, 6, 4, bias=False, inputs=(x[0, 0], gaussian(4)))],
    nn.LSTMCell: [case(nn.LSTMCell, 6, 4, inputs=(x[0], (gaussian(3, 4), gaussian(3, 4, seed=1))))],
    nn.MultiheadAttention: [
        case(nn.MultiheadAttention, 6, 2, batch_first=True, inputs=(x, x, x)),
        case(
            nn.MultiheadAttention, 6, 3, kdim=4, vdim=5, bias=False,
            inputs=(x, gaussian(2, 3, 4), gaussian(2, 3, 5)),
        ),
    ],
}  # fmt: skip


def cases() -> list:
    """Every case of every layer; a layer without one gets a case that fails."""
    pairs = [(kind, one) for kind in LAYERS for one in CASES.get(kind, [None])]
    return [pytest.param(one, id=f"{kind.__name__}-{i}") for i, (kind, one) in enumerate(pairs)]


@pytest.fixture(params=cases())
def case_of_layer(request: pytest.FixtureRequest) -> Case:
    """One case; none fails, so that no layer goes untested."""
    if request.param is None:
        pytest.fail("this layer of LAYERS has no case here")
    return request.param


class TestLayers(LayerContract):
    """The contract over all layers."""

    @pytest.fixture
    def case(self, case_of_layer: Case) -> Case:
        return case_of_layer
