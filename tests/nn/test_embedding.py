"""Embeddings: a table read with one-hot vectors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contracts.layer import assert_twins, train_once
from exact import assert_bits
from ohmgrad import AnalogEmbedding, PulsedUpdate, convert
from ohmgrad.devices import Ideal
from ohmgrad.devices.presets import aihwkit_soft_bounds


@settings(max_examples=20)
@given(st.data())
def test_every_shape_is_torchs(data):
    n, dim = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    padding_idx = data.draw(st.one_of(st.none(), st.integers(-n, n - 1)))
    shape = data.draw(st.sampled_from([(), (0,), (3,), (2, 3), (2, 1, 2)]))
    dtype = data.draw(st.sampled_from([torch.int64, torch.int32]))
    indices = torch.randint(n, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    torch.manual_seed(0)
    analog = assert_twins(nn.Embedding(n, dim, padding_idx, dtype=torch.float64), indices)
    assert analog.weight.shape == (n, dim)


@pytest.mark.parametrize("update", [None, PulsedUpdate()], ids=["expected", "pulses"])
def test_only_vectors_that_were_asked_for_move_and_never_the_padding(update):
    torch.manual_seed(0)
    digital = nn.Embedding(6, 3, padding_idx=1, dtype=torch.float64)
    digital.weight.data.mul_(0.2)
    analog = convert(digital, device=aihwkit_soft_bounds(), update=update)
    before = analog.weight
    train_once(analog, (torch.tensor([1, 4, 4, 1, 2]),))
    moved = (analog.weight != before).any(-1)
    assert moved.tolist() == [False, False, True, False, True, False]


def test_replicas():
    layer = AnalogEmbedding(6, 3, device=Ideal(), replicas=(2,))
    indices = torch.tensor([[0, 5, 2], [3, 3, 1]])
    y = layer(indices)
    for r in range(2):
        assert_bits(y[r].detach(), layer.weight[r][indices[r]])
        assert_bits(layer.to_digital(r).weight.detach(), layer.weight[r])
    assert layer(torch.tensor([4, 1])).shape == (2, 3)
    with pytest.raises(ValueError, match=r"one index for each of the replica dimensions \(2,\), got \(\)"):
        layer.to_digital()


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}], ids=str)
def test_options_that_act_on_weights(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"'0' .Embedding. on tiles: AnalogEmbedding needs {name}=.*, got {value}"):
        convert(nn.Sequential(nn.Embedding(5, 3, **options)), device=Ideal())


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        (torch.tensor([0, 6]), IndexError, "numbers from 0 to 5, got 0 to 6"),
        (torch.tensor([-1]), IndexError, "numbers from 0 to 5, got -1 to -1"),
        (torch.tensor([0.0]), ValueError, "input needs integers"),
    ],
)
def test_wrong_indices(indices, error, message):
    with pytest.raises(error, match=message):
        AnalogEmbedding(6, 3, device=Ideal())(indices)
