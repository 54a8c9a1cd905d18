"""Recurrent layers: every option of torch's, packed sequences, states, pulses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from contracts.layer import assert_close, assert_twins, gaussian, train_once, weights_of
from exact import assert_bits
from ohmgrad import AnalogLSTM, AnalogOptimizer, PulsedUpdate, convert
from ohmgrad.devices import Ideal
from ohmgrad.devices.presets import aihwkit_soft_bounds


@st.composite
def recurrent_layers(draw: st.DrawFn) -> tuple[nn.RNNBase, tuple]:
    """A layer of any options, and inputs that it takes."""
    kind = draw(st.sampled_from([nn.RNN, nn.GRU, nn.LSTM]))
    options = {name: draw(st.booleans()) for name in ("bias", "batch_first", "bidirectional")}
    hidden = draw(st.integers(1, 3))
    if kind is nn.RNN:
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    if kind is nn.LSTM:
        options["proj_size"] = draw(st.integers(0, hidden - 1))
    torch.manual_seed(0)
    layer = kind(draw(st.integers(1, 3)), hidden, draw(st.integers(1, 2)), dtype=torch.float64, **options)
    form = draw(st.sampled_from(["padded", "packed", "unbatched"]))
    if form == "packed":
        lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        x = pack_sequence([gaussian(n, layer.input_size, seed=n) for n in lengths], enforce_sorted=False)
        batch = (len(lengths),)
    else:
        n_steps, batch = draw(st.integers(1, 4)), (draw(st.integers(1, 3)),)
        batch = () if form == "unbatched" else batch
        lead = (*batch, n_steps) if layer.batch_first else (n_steps, *batch)
        x = gaussian(*lead, layer.input_size)
    if draw(st.booleans()):
        return layer, (x,)
    n = layer.num_layers * (1 + layer.bidirectional)
    h, c = gaussian(n, *batch, layer.proj_size or hidden, seed=1), gaussian(n, *batch, hidden, seed=2)
    return layer, (x, (h, c) if kind is nn.LSTM else h)


@settings(max_examples=60)
@given(recurrent_layers())
def test_every_option_is_torchs(drawn):
    layer, inputs = drawn
    analog = assert_twins(layer, *inputs)
    for name, weight in analog.weights.items():
        assert_close([weight], [getattr(layer, name)])


@pytest.mark.parametrize("batch_first", [False, True])
def test_dropout_between_layers_is_torchs(batch_first):
    torch.manual_seed(0)
    digital = nn.LSTM(3, 4, 3, dropout=0.5, bidirectional=True, batch_first=batch_first, dtype=torch.float64)
    assert_twins(digital, gaussian(5, 4, 3))
    # And none in evaluation.
    analog = convert(digital.eval(), device=Ideal())
    assert_close([analog(gaussian(5, 4, 3))[0]], [digital(gaussian(5, 4, 3))[0]])


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_outputs_have_torchs_form(kind):
    digital = kind(3, 4, bidirectional=True)
    analog = convert(digital, device=Ideal())
    x = pack_padded_sequence(torch.zeros(5, 3, 3), torch.tensor([2, 5, 1]), enforce_sorted=False)
    (ours, ours_state), (theirs, theirs_state) = analog(x), digital(x)
    assert type(ours) is type(theirs) and type(ours_state) is type(theirs_state)
    assert [t.shape for t in pad_packed_sequence(ours)] == [t.shape for t in pad_packed_sequence(theirs)]


def test_all_time_steps_of_the_input_are_one_read():
    layer = convert(nn.GRU(3, 4), device=Ideal())
    layer(torch.zeros(5, 2, 3))[0].sum().backward()
    assert len(layer.tile_ih_l0.waiting) == 1 and len(layer.tile_hh_l0.waiting) == 5
    AnalogOptimizer(layer, lr=0.1).step()
    assert [t.crossbars[0].counters.cycles for t in (layer.tile_ih_l0, layer.tile_hh_l0)] == [10, 10]


def test_every_tile_has_devices_of_its_own():
    layer = convert(nn.LSTM(4, 4, 2, bidirectional=True), device=aihwkit_soft_bounds())
    tiles = dict(layer.named_children())
    assert list(tiles)[:4] == ["tile_ih_l0", "tile_hh_l0", "tile_ih_l0_reverse", "tile_hh_l0_reverse"]
    assert len({int(t.crossbars[0].seed) for t in tiles.values()}) == 8


def test_pulses_train_it():
    torch.manual_seed(0)
    layer = AnalogLSTM(3, 4, 2, device=aihwkit_soft_bounds(), update=PulsedUpdate(), dtype=torch.float64)
    before = weights_of(layer)
    train_once(layer, (gaussian(5, 2, 3),))
    for a, b in zip(weights_of(layer), before, strict=True):
        assert (a != b).any() and torch.isfinite(a).all()


def test_training_through_a_carried_state_stops_at_detach():
    # Truncated backpropagation through time, as torch users write it.
    torch.manual_seed(0)
    digital = nn.LSTM(2, 3, dtype=torch.float64)
    analog = convert(digital, device=Ideal())
    for model, optimizer in (
        (digital, torch.optim.SGD(digital.parameters(), lr=0.1)),
        (analog, AnalogOptimizer(analog, lr=0.1)),
    ):
        state = None
        for k in range(3):
            optimizer.zero_grad()
            y, state = model(gaussian(4, 2, 2, seed=k), state)
            y.square().sum().backward()
            optimizer.step()
            state = tuple(s.detach() for s in state)
    for name, weight in analog.weights.items():
        assert_close([weight], [getattr(digital, name)])


def test_what_cudnn_needs_is_not_needed():
    layer = convert(nn.LSTM(2, 3), device=Ideal())
    before = layer.weights["weight_hh_l0"]
    layer.flatten_parameters()
    assert_bits(layer.weights["weight_hh_l0"], before)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((torch.zeros(5, 2, 4),), r"input needs the shape \(time, batch, 3\) or \(time, 3\), got \(5, 2, 4\)"),
        ((torch.zeros(3),), "input needs the shape"),
        ((torch.zeros(0, 2, 3),), "input needs at least one time step"),
        ((torch.zeros(5, 2, 3), torch.zeros(1, 2, 4)), r"hx needs \(h, c\), got 1 tensors"),
        ((torch.zeros(5, 2, 3), (torch.zeros(1, 2, 4), torch.zeros(1, 1, 4))), r"hx needs the shape \(1, 2, 4\)"),
    ],
)
def test_inputs_of_other_shapes(inputs, message):
    with pytest.raises(ValueError, match=message):
        AnalogLSTM(3, 4, device=Ideal())(*inputs)


def test_a_packed_sequence_has_no_replicas():
    layer = convert([nn.LSTM(3, 4), nn.LSTM(3, 4)], device=Ideal())
    with pytest.raises(ValueError, match="AnalogLSTM with replicas needs a padded input, got a PackedSequence"):
        layer(pack_sequence([torch.zeros(2, 3)]))
