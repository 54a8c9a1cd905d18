"""Learned input ranges: what they do to a read, where they start, and the gradient by which they go on."""

import math
from dataclasses import replace

import pytest
import torch

from exact import assert_bits
from ohmgrad import IO, AnalogLinear, AnalogOptimizer, AnalogSGD, InputRange, Mapping, Periphery, Rule, convert
from ohmgrad.crossbar import Tile, place
from ohmgrad.devices import Ideal
from ohmgrad.nn.function import read
from ohmgrad.periphery import PERFECT

QUIET = IO(out_noise=0.0, out_res=0.0, noise_management="none", bound_management="none")


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


W, X, D = numbers(7, 11), 2.0 * numbers(50, 11, seed=1), numbers(50, 7, seed=2)


def make(settings: InputRange, w: torch.Tensor = W, **options) -> Tile:
    seed = list(range(len(w))) if w.dim() > 2 else 0
    crossbar, mapping = {"device": Ideal(), **options}, Mapping(input_range=settings)
    tile = place(w, algorithm=AnalogSGD(), crossbar=crossbar, seed=seed, mapping=mapping)
    assert isinstance(tile, Tile)
    return tile


@pytest.mark.parametrize("r", [0.5, 4.5])
@pytest.mark.parametrize("relative", [True, False])
def test_the_gradient_is_the_clips_own_where_it_widens_and_the_decay(r, relative):
    settings = InputRange(init_value=r, init_from_data=0, decay=0.1, gradient_scale=2.0, gradient_relative=relative)
    tile, x = make(settings), X.clone().requires_grad_()
    read(tile, x).backward(D)
    limits = torch.full_like(X, r, requires_grad=True)  # a range for each input, so that autograd tells them apart
    torch.where(X >= limits, limits, torch.where(X <= -limits, -limits, X)).matmul(W.mT).backward(D)
    is_rarely_clipped = float((X.abs() < r).double().mean()) > 0.95
    assert is_rarely_clipped == (r > 1.0)  # both cases of the decay are seen
    expected = limits.grad.clamp(max=0).sum() * (2.0 * r if relative else 1.0) + 0.1 * r * is_rarely_clipped
    torch.testing.assert_close(tile.in_range.value.grad, expected)
    torch.testing.assert_close(x.grad, D @ W)  # straight through


def test_the_range_is_the_dacs():
    y = read(make(InputRange(init_value=1.5, init_from_data=0), periphery=Periphery(forward=QUIET)), X)
    step = 1.5 * QUIET.inp_step
    torch.testing.assert_close(y, torch.round(X.clamp(-1.5, 1.5) / step) * step @ W.mT)


def test_it_starts_at_the_mean_width_of_the_first_batches():
    tile = make(InputRange(init_from_data=3, init_std_alpha=2.0))
    batches = [numbers(20, 11, seed=k) * (k + 1) for k in range(5)]
    for k, x in enumerate(batches):
        tile.eval()
        read(tile, 9.0 * x)  # no data of training
        tile.train()
        read(tile, torch.zeros_like(x))  # tells nothing
        tile.zero_grad()
        read(tile, x).sum().backward()
        seen = batches[: min(k + 1, 3)]
        torch.testing.assert_close(
            tile.in_range.value.detach(), torch.stack([2.0 * b.std(correction=0) for b in seen]).mean()
        )
        assert (tile.in_range.value.grad != 0) == (k >= 2)
        tile.step(0.0)


def test_the_update_is_that_of_the_clipped_inputs():
    tile = make(InputRange(init_value=0.5, init_from_data=0))
    read(tile, X).backward(D)
    tile.step(0.1)
    torch.testing.assert_close(tile.weight, W - 0.1 * D.mT @ X.clamp(-0.5, 0.5))


def test_replicas_have_ranges_of_their_own():
    w, x, d = numbers(2, 4, 6), torch.stack([numbers(9, 6), 5.0 * numbers(9, 6, seed=1)]), numbers(2, 9, 4, seed=3)
    both = make(InputRange(init_from_data=1), w)
    alone = [make(InputRange(init_from_data=1), w[r]) for r in range(2)]
    for tile, inputs, errors in ((both, x, d), *((alone[r], x[r], d[r]) for r in range(2))):
        read(tile, inputs).backward(errors)
    values = [tile.in_range.value for tile in alone]
    torch.testing.assert_close(both.in_range.value, torch.stack(values))
    torch.testing.assert_close(both.in_range.value.grad, torch.stack([value.grad for value in values]))


def test_an_optimizer_widens_a_range_that_clips_too_much():
    torch.manual_seed(0)
    mapping = Mapping(input_range=InputRange(init_value=0.3, init_from_data=0), max_input_size=5)
    layer = convert(torch.nn.Linear(11, 7).double(), device=Ideal(), mapping=mapping)
    optimizer = AnalogOptimizer(layer, lr=0.02)
    before = layer.weight
    for _ in range(100):
        optimizer.zero_grad()
        (layer(X) - X @ W.mT).square().mean().backward()
        optimizer.step()
    assert layer.tile.in_range.value > 1.0 and not torch.equal(layer.weight, before)


NARROW = replace(QUIET, out_bound=0.75)


@pytest.mark.parametrize("options", [{}, {"weight_scaling_omega": 0.6, "weight_scaling_columnwise": True}])
@pytest.mark.parametrize("size", [None, 3])
def test_outputs_at_the_adcs_bound_widen_the_range(options, size):
    # Beside the network's own arithmetic: at |W x| >= r out_bound (times the scale of its row) an output is clipped.
    settings = InputRange(init_value=1.5, init_from_data=0, decay=0.0, manage_output_clipping=True)
    mapping = Mapping(input_range=settings, max_output_size=size, **options)
    crossbar = {"device": Ideal(), "periphery": Periphery(forward=replace(NARROW, inp_res=0.0), backward=PERFECT)}
    tile = place(W, algorithm=AnalogSGD(), crossbar=crossbar, mapping=mapping)
    scale = W.abs().amax(-1) / 0.6 if options else torch.ones(7, dtype=torch.float64)
    share = ((X.clamp(-1.5, 1.5) @ W.mT).abs() < 1.5 * 0.75 * scale).double().mean()
    assert 0.1 < share < 0.9
    for d, expected in ((D, -(1.0 - share) * 1.5), (0.0 * D, -(1.0 - share) * 1.5)):
        plain = make(replace(settings, manage_output_clipping=False))
        for one in (tile, plain):
            one.zero_grad()
            read(one, X).backward(d)
        torch.testing.assert_close(tile.in_range.value.grad - plain.in_range.value.grad, expected)
    read(tile, X / 100.0).backward(D)  # nothing is clipped: adds nothing
    torch.testing.assert_close(tile.in_range.value.grad, expected)


def test_an_optimizer_brings_outputs_into_the_adcs_range():
    torch.manual_seed(0)  # the range stops at a share of 0.95 give or take an output, whatever the weights
    mapping = Mapping(input_range=InputRange(init_value=1.5, init_from_data=0, manage_output_clipping=True))
    layer = convert(
        torch.nn.Linear(11, 7).double(), device=Ideal(), mapping=mapping, periphery=Periphery(forward=NARROW)
    )
    optimizer = AnalogOptimizer(layer, lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        (0.0 * layer(X)).sum().backward()
        optimizer.step()
    r = float(layer.tile.in_range.value.detach())
    within = (layer(X) - layer.bias).abs() < 0.999 * r * 0.75
    assert r > 1.5 and within.double().mean() >= 0.95


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a periphery whose ADC has an out_bound, got perfect reads"),
        ({"periphery": Periphery()}, 'bound_management "none" in forward reads, got "abs-max" and "iterative"'),
        ({"periphery": Periphery(forward=NARROW), "max_input_size": 6}, "got sums over 2 crossbars"),
    ],
)
def test_where_outputs_cannot_be_managed(options, message):
    size = options.pop("max_input_size", None)
    mapping = Mapping(input_range=InputRange(manage_output_clipping=True), max_input_size=size)
    with pytest.raises(ValueError, match=f"manage_output_clipping needs .*{message}"):
        place(W, algorithm=AnalogSGD(), crossbar={"device": Ideal(), **options}, mapping=mapping)


def test_what_has_no_range_and_what_is_not_trained():
    mapping = Mapping(input_range=InputRange(learn=False))
    model = convert(
        torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)),
        device=Ideal(), mapping=mapping, rules=[Rule("2", mapping=Mapping(input_range=InputRange()))],
    )  # fmt: skip
    assert model[0].tile.in_range is None  # its inputs are 0 and 1
    assert [model[k].tile.in_range.value.requires_grad for k in (1, 2)] == [False, True]
    model(torch.arange(5)).sum().backward()
    assert model[1].tile.in_range.batches == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("init_value", 0.0),
        ("init_std_alpha", math.nan),
        ("init_from_data", -1),
        ("decay", -0.1),
        ("min_share", 1.1),
        ("output_min_share", -0.1),
    ],
)
def test_the_door(name, value):
    with pytest.raises(ValueError, match=f"InputRange needs .*{name} .*got {value}"):
        InputRange(**{name: value})


class TestAnalogBias:
    """What the contract of layers cannot see."""

    def test_it_is_read_where_all_inputs_are_0(self):
        # Noise management scales by the constant 1, and the ADC rounds the bias.
        io = IO(out_noise=0.0)
        layer = AnalogLinear(3, 2, device=Ideal(), mapping=Mapping(digital_bias=False), periphery=Periphery(forward=io))
        expected = torch.round(layer.bias / io.out_step) * io.out_step
        torch.testing.assert_close(layer(torch.zeros(1, 3))[0].detach(), expected)

    def test_it_is_frozen_with_its_matrix_only(self):
        digital = torch.nn.Linear(3, 2)
        digital.bias.requires_grad_(False)
        with pytest.raises(ValueError, match=r"'' \(Linear\) on tiles: an analog bias .* freeze both or neither"):
            convert(digital, device=Ideal(), mapping=Mapping(digital_bias=False))

    def test_it_takes_part_in_scales_and_bounds(self):
        digital = torch.nn.Linear(3, 2)
        with torch.no_grad():
            digital.bias.fill_(5.0)
        layer = convert(digital, device=Ideal(), mapping=Mapping(digital_bias=False, weight_scaling_omega=0.5))
        assert float(layer.tile.crossbars[0].weight.max()) == 0.5
        assert_bits(layer.bias, digital.bias.detach())
