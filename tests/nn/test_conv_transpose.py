"""Transposed convolutions: every option of torch's, where samples come from, groups, biases on tiles, pulses."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from chance import assert_mean
from contracts.layer import assert_close, assert_same_parameters, assert_twins, gaussian, train_once, weights_of
from exact import assert_bits
from ohmgrad import (
    AnalogConvTranspose2d,
    AnalogOptimizer,
    InputRange,
    Mapping,
    PulsedUpdate,
    convert,
    summary,
    to_digital,
)
from ohmgrad.devices import Ideal
from ohmgrad.devices.presets import aihwkit_soft_bounds, asymmetric_linear
from ohmgrad.nn.windows import _FoldedViews, folded

KINDS = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAPPINGS = {
    "plain": None,
    "grid": Mapping(max_input_size=2, max_output_size=3),
    "scaled": Mapping(weight_scaling_omega=0.4, weight_scaling_columnwise=True),
    "bias": Mapping(digital_bias=False, weight_scaling_omega=0.4, max_output_size=3),
}


@st.composite
def transposed(draw: st.DrawFn) -> tuple[nn.Module, torch.Tensor, dict]:
    """A layer of any options, an input that it takes, and arguments of its call."""
    n = draw(st.integers(1, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=n, max_size=n)))

    kernel, stride, dilation, groups = each(1, 3), each(1, 3), each(1, 2), draw(st.integers(1, 3))
    most = [max(s, d) - 1 for s, d in zip(stride, dilation, strict=True)]
    output_padding = tuple(draw(st.integers(0, m)) for m in most)
    padding = each(0, 2)
    torch.manual_seed(0)
    layer = KINDS[n](
        groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2)), kernel, stride, padding, output_padding,
        groups, draw(st.booleans()), dilation, dtype=torch.float64,
    )  # fmt: skip
    # As many positions as leave an output inside the padding.
    size = tuple(draw(st.integers(1, 2)) + -(-2 * p // s) for p, s in zip(padding, stride, strict=True))
    batch = draw(st.sampled_from([(), (1,), (3,)]))
    x, options = gaussian(*batch, layer.in_channels, *size), {}
    if draw(st.booleans()):
        numbers = zip(size, stride, padding, dilation, kernel, strict=True)
        least = [(m - 1) * s - 2 * p + d * (k - 1) + 1 for m, s, p, d, k in numbers]
        asked = [low + draw(st.integers(0, s - 1)) for low, s in zip(least, stride, strict=True)]
        options["output_size"] = draw(st.sampled_from([asked, [*batch, layer.out_channels, *asked]]))
    return layer, x, options


@settings(max_examples=60)
@given(transposed(), st.sampled_from(list(MAPPINGS)))
def test_every_option_is_torchs(drawn, mapping):
    layer, x, options = drawn
    analog = assert_twins(layer, x, mapping=MAPPINGS[mapping], **options)
    assert_close([analog.weight], [layer.weight])


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_several_steps_with_gathered_batches(mapping, batch):
    torch.manual_seed(0)
    digital = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), nn.Tanh(), nn.ConvTranspose2d(6, 2, 2))
    digital = digital.double()
    analog = convert(digital, device=Ideal(), mapping=MAPPINGS[mapping])
    for model, optimizer in (
        (digital, torch.optim.SGD(digital.parameters(), lr=0.01)),
        (analog, AnalogOptimizer(analog, lr=0.01)),
    ):
        for step in range(3):
            optimizer.zero_grad()
            for part in range(2):
                model(gaussian(batch, 4, 3, 2, seed=10 * step + part)).square().sum().backward()
            optimizer.step()
    assert_same_parameters(to_digital(analog), digital)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_pulses_on_ideal_devices_move_the_mean_as_torch_does(mapping):
    # 500 layers side by side see steps that are 5% too large.
    torch.manual_seed(0)
    digital, lr = nn.ConvTranspose1d(2, 3, 3, stride=2, bias=mapping == "bias", dtype=torch.float64), 1e-3
    options = {"device": Ideal(dw_min=1e-3), "update": PulsedUpdate(), "mapping": MAPPINGS[mapping]}
    analog = convert([digital] * 500, **options)
    before, x = copy.deepcopy(digital), gaussian(4, 2, 5)
    optimizers = torch.optim.SGD(digital.parameters(), lr=lr), AnalogOptimizer(analog, lr=lr)
    for y, optimizer in zip((digital(x), analog(x.expand(500, *x.shape))), optimizers, strict=True):
        (y * gaussian(*y.shape[-3:], seed=1)).sum().backward()
        optimizer.step()
    for name, value in digital.named_parameters():
        moved = (getattr(analog, name) - getattr(before, name)).detach().flatten(1)
        for k, expected in enumerate((value - getattr(before, name)).detach().flatten()):
            assert_mean(moved[:, k], float(expected))


def test_every_position_of_the_input_is_one_sample_in_order():
    layer = convert(nn.ConvTranspose1d(1, 1, 2, stride=2, bias=False).double(), device=Ideal())
    x = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]], dtype=torch.float64)
    y = layer(x)
    y.backward(torch.arange(8.0, dtype=torch.float64).reshape(2, 1, 4))
    (update,) = layer.tile.waiting
    assert update.x.tolist() == [[1.0], [2.0], [3.0], [4.0]]
    assert update.d.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]
    AnalogOptimizer(layer, lr=0.1).step()
    assert layer.tile.crossbars[0].counters.cycles == 4


def test_what_overlaps_is_added_and_padding_cuts_it_off():
    layer = AnalogConvTranspose2d(1, 1, (1, 3), padding=(0, 1), bias=False, device=Ideal(), dtype=torch.float64)
    digital = layer.to_digital()
    digital.weight.data[:] = torch.tensor([1.0, 10.0, 100.0])
    y = convert(digital, device=Ideal())(torch.tensor([[[[1.0, 2.0, 3.0]]]], dtype=torch.float64))
    assert y.tolist() == [[[[10.0 + 2.0, 100.0 + 20.0 + 3.0, 200.0 + 30.0]]]]


def test_the_output_is_contiguous_as_torchs():
    for groups in (1, 2):
        layer = convert(nn.ConvTranspose2d(4, 6, 3, padding=1, groups=groups, bias=False).double(), device=Ideal())
        assert layer(gaussian(2, 4, 5, 5)).is_contiguous()


def test_an_empty_batch():
    layer = convert(nn.ConvTranspose2d(4, 6, 3, groups=2).double(), device=Ideal())
    before = layer.weight
    (y,), _ = train_once(layer, (torch.zeros(0, 4, 5, 6, dtype=torch.float64),))
    assert y.shape == (0, 6, 7, 8)
    assert_bits(layer.weight, before)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_both_ways_of_adding_up_are_the_same_to_the_bit(n):
    # Loops, and views in graphs and on GPUs; and the way back of one is the other's way there.
    kernel, stride, dilation, positions = [3, 2, 3][:n], [2, 1, 1][:n], [1, 3, 2][:n], [3, 2, 4][:n]
    numbers = zip(positions, kernel, stride, dilation, strict=True)
    size = [(p - 1) * s + d * (k - 1) + 2 for p, k, s, d in numbers]
    by_loops, by_views = (gaussian(2 * torch.Size(positions).numel(), 5 * torch.Size(kernel).numel()) for _ in "ab")
    y = folded(by_loops.requires_grad_(), size, positions, kernel, stride, dilation)
    parts = by_views.requires_grad_().reshape(2, *positions, 5, *kernel).movedim(1 + n, 1)
    expected = _FoldedViews.apply(parts, tuple(size), tuple(stride), tuple(dilation))
    assert_bits(y.detach(), expected.detach())
    for one in (y, expected):
        (one * gaussian(*one.shape, seed=1)).sum().backward()
    assert_bits(by_loops.grad, by_views.grad)


class TestGroups:
    """A crossbar for each, in the tile's last replica dimension."""

    def test_each_has_devices_of_its_own(self):
        layer = convert(nn.ConvTranspose2d(6, 6, 3, groups=3), device=aihwkit_soft_bounds())
        planes = layer.tile.crossbars[0].params["w_max"]
        assert planes.shape == (3, 18, 2) and planes.unique().numel() == planes.numel()

    def test_one_device_for_each_replica_serves_its_groups(self):
        layers = [nn.ConvTranspose1d(4, 4, 3, groups=2, dtype=torch.float64) for _ in range(2)]
        analog = convert(layers, device=[asymmetric_linear(0.1), asymmetric_linear(0.2)])
        for r, tau in enumerate((0.1, 0.2)):
            assert_bits(analog.weight[r], layers[r].weight.detach().clamp(-tau, tau))


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("groups", [1, 2])
def test_replicas_are_layers_of_their_own(groups, mapping):
    torch.manual_seed(0)
    layers = [nn.ConvTranspose2d(2, 4, 3, padding=1, groups=groups, dtype=torch.float64) for _ in range(3)]
    settings = {"device": aihwkit_soft_bounds(), "mapping": MAPPINGS[mapping]}
    together = convert(layers, **settings, seed=10)
    alone = [convert(m, **settings, seed=10 + r) for r, m in enumerate(layers)]
    x = gaussian(3, 5, 2, 4, 4)
    optimizers = [AnalogOptimizer(m, lr=0.01) for m in (together, *alone)]
    together(x).square().sum().backward()
    for r, model in enumerate(alone):
        model(x[r]).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    for r, model in enumerate(alone):
        assert_close([together.weight[r], together.bias[r]], [model.weight, model.bias])
        assert_close(list(together.to_digital(r).parameters()), list(to_digital(model).parameters()))
    assert together(x[:, 0]).shape == (3, 4, 4, 4)


class TestAnalogBias:
    """A tile of one column, whose input is always 1."""

    MAPPING = Mapping(digital_bias=False, input_range=InputRange(init_from_data=0, init_value=0.3))

    def test_a_range_of_the_inputs_does_not_reach_it(self):
        digital = nn.ConvTranspose1d(2, 3, 3, dtype=torch.float64)
        layer = convert(digital, device=Ideal(), mapping=self.MAPPING)
        assert layer.column.in_range is None and layer.tile.in_range is not None
        x = torch.zeros(1, 2, 4, dtype=torch.float64)
        assert_close([layer(x)], [digital(x)])

    def test_each_position_of_the_output_is_one_sample(self):
        layer = convert(nn.ConvTranspose1d(2, 3, 3, stride=2).double(), device=Ideal(), mapping=self.MAPPING)
        layer(gaussian(2, 2, 4)).sum().backward()
        (update,) = layer.column.waiting
        assert update.x.tolist() == [[1.0]] * (2 * 9) and update.d.tolist() == [[1.0] * 3] * (2 * 9)

    def test_its_devices_are_others_than_those_of_the_kernel(self):
        layer = convert(nn.ConvTranspose1d(1, 3, 1), device=aihwkit_soft_bounds(), mapping=self.MAPPING)
        kernel, column = (tile.crossbars[0].params["w_max"] for tile in (layer.tile, layer.column))
        assert kernel.shape == column.shape == (3, 1) and not (kernel == column).any()

    def test_the_summary_counts_it_as_a_crossbar(self):
        (row,) = summary(convert(nn.ConvTranspose1d(2, 3, 4), device=Ideal(), mapping=self.MAPPING)).rows
        assert row.shapes == ((12, 2), (3, 1)) and (row.crossbars, row.crosspoints) == (2, 27)
        assert row.digital == 1  # the range

    @pytest.mark.parametrize(("frozen", "trained"), [("weight", "bias"), ("bias", "weight")])
    def test_it_is_frozen_by_itself(self, frozen, trained):
        digital = nn.ConvTranspose1d(2, 3, 3, dtype=torch.float64)
        getattr(digital, frozen).requires_grad_(False)
        analog = assert_twins(digital, gaussian(4, 2, 5), mapping=MAPPINGS["bias"])
        assert getattr(to_digital(analog), trained).requires_grad


def test_pulses_train_it():
    torch.manual_seed(0)
    digital = nn.ConvTranspose2d(2, 4, 3, groups=2, dtype=torch.float64)
    layer = convert(digital, device=aihwkit_soft_bounds(), update=PulsedUpdate(), count_pulses=True)
    before = weights_of(layer)[0]
    train_once(layer, (gaussian(2, 2, 5, 5),))
    counters = layer.tile.crossbars[0].counters
    assert counters.cycles == 2 * 5 * 5 and (counters.pulses > 0).all()
    assert (weights_of(layer)[0] != before).any(-1).any(-1).all()
    assert counters.pulses_per_crosspoint.sum((-2, -1)).tolist() == counters.pulses.tolist()


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((5, 3, 8, 8), {}, r"input needs the shape \(\[batch\], 2, size, size\), got \(5, 3, 8, 8\)"),
        ((8, 8), {}, r"input needs the shape .*, got \(8, 8\)"),
        ((5, 2, 8, 0), {}, r"input needs the shape .*, got \(5, 2, 8, 0\)"),
        ((5, 2, 8, 1), {}, r"more places than padding takes away, got an output of the size \[14, 0\]"),
        ((2, 4, 4), {"output_size": [6, 8]}, r"sizes from \[6, 6\] to \[7, 7\] for this input, got \[6, 8\]"),
        ((2, 4, 4), {"output_size": [1, 4, 6, 6]}, r"needs 2 numbers, or 3 with those before, got \[1, 4, 6, 6\]"),
    ],
)
def test_wrong_inputs(shape, options, message):
    layer = AnalogConvTranspose2d(2, 4, 4, stride=2, padding=2, device=Ideal(), dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        layer(gaussian(*shape), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_padding": 1}, r"0 <= output_padding < the larger of stride and dilation, got \(1, 1\), \(1, 1\)"),
        ({"padding": "same"}, "AnalogConvTranspose2d needs numbers as padding, got 'same'"),
        ({"padding": -1}, r"needs padding >= 0, .* got \(-1, -1\)"),
        ({"stride": 0}, r"stride >= 1 .* got \(0, 0\), \(0, 0\) and \(1, 1\)"),
        ({"padding_mode": "circular"}, 'Only "zeros" padding mode is supported'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        AnalogConvTranspose2d(2, 4, 3, **options, device=Ideal())
