"""An analog bias is read as it is, whatever range the DAC has: solved where the range is learned, else refused."""

import pytest
import torch
from torch import nn

from exact import assert_within_ulps
from ohmgrad import IO, AnalogLinear, AnalogOptimizer, Crossbar, InputRange, Mapping, Periphery, convert
from ohmgrad.devices import Ideal

QUIET = {"out_noise": 0.0, "inp_res": 0.0, "out_res": 0.0, "bound_management": "none"}
GRIDS = [{}, {"max_input_size": 2, "max_output_size": 1}]


def analog(layer: nn.Module, r: float | None, io: IO | None = None, **mapping) -> nn.Module:
    limits = None if r is None else InputRange(init_value=r, init_from_data=0, learn=False)
    return convert(
        layer, device=Ideal(), periphery=io and Periphery(forward=io),
        mapping=Mapping(digital_bias=False, input_range=limits, **mapping),
    )  # fmt: skip


@pytest.mark.parametrize("r", [0.05, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("grid", GRIDS, ids=["tile", "grid"])
@pytest.mark.parametrize("io", [None, IO(**QUIET, noise_management="none"), IO(**QUIET)], ids=["exact", "none", "max"])
def test_a_bias_of_a_half_is_read_as_a_half(r, grid, io):
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.bias.fill_(0.5)
        x = torch.linspace(-0.04, 0.04, 12).reshape(4, 3)  # within every range
        expected = layer(x)
        beyond = layer((50.0 * x).clamp(-r, r))
    model = analog(layer, r, io, **grid)
    torch.testing.assert_close(model(torch.zeros(1, 3)), torch.full((1, 2), 0.5))
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model(50.0 * x), beyond)  # the other inputs are clipped to r


@pytest.mark.parametrize("make", [
    lambda: (nn.Linear(4, 3), torch.randn(5, 4)),
    lambda: (nn.Conv2d(2, 4, 2, groups=2), torch.randn(3, 2, 4, 4)),
    lambda: (nn.GRU(3, 2), torch.randn(4, 2, 3)),
], ids=["linear", "conv", "gru"])  # fmt: skip
@pytest.mark.parametrize("grid", GRIDS, ids=["tile", "grid"])
def test_outputs_gradients_and_updates_are_torchs(make, grid):
    torch.manual_seed(0)
    layer, x = make()
    layer, x, r = layer.double(), 0.1 * x.double(), 0.6  # hidden states are small, too
    model = analog(layer, r, **grid)
    twin = model.to_digital() if hasattr(model, "to_digital") else layer
    ours, theirs = AnalogOptimizer(model, lr=0.1), torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(3):
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [net(i) for net, i in zip((model, twin), inputs, strict=True)]
        outputs = [y[0] if isinstance(y, tuple) else y for y in outputs]
        torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
        for optimizer, y in zip((ours, theirs), outputs, strict=True):
            optimizer.zero_grad()
            (y - 0.3).square().sum().backward()
            optimizer.step()
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=0, atol=1e-12)
    after = model.to_digital().state_dict()
    for name, value in twin.state_dict().items():
        assert_within_ulps(after[name], value, 64)


def test_replicas_have_units_of_their_own():
    mapping = Mapping(digital_bias=False, input_range=InputRange(init_from_data=0))
    periphery = Periphery(forward=IO(**QUIET, noise_management="none"))
    layer = AnalogLinear(2, 1, device=Ideal(), replicas=(2,), mapping=mapping, periphery=periphery)
    with torch.no_grad():
        layer.tile.in_range.value.copy_(torch.tensor([0.2, 2.0]))
    torch.testing.assert_close(layer(torch.zeros(2, 3, 2)), layer.bias[:, None].expand(2, 3, 1))


@pytest.mark.parametrize(("settings", "named"), [
    ({"noise_management": "none", "inp_bound": 0.5}, "inp_bound=0.5"),
    ({"noise_management": "constant", "nm_thres": 0.5}, "nm_thres=0.5"),
    ({"noise_management": "abs-max", "nm_thres": 0.5}, "nm_thres=0.5"),
    ({"noise_management": "max", "nm_thres": 0.9}, "nm_thres=0.9"),
    ({"noise_management": "abs-max-np-sum", "nm_thres": 0.5}, "nm_thres=0.5"),
])  # fmt: skip
@pytest.mark.parametrize(
    "layer", [nn.Linear(3, 2), nn.Conv1d(2, 2, 2), nn.LSTMCell(3, 2)], ids=lambda m: type(m).__name__
)
def test_what_cuts_off_the_constant_1_is_refused(layer, settings, named):
    for grid in GRIDS:
        with pytest.raises(ValueError, match=f"an analog bias .* the constant 1, got {named} with noise_management"):
            analog(layer, None, IO(**QUIET, **settings), **grid)
    no_bias = nn.Linear(3, 2, bias=False)
    analog(no_bias, None, IO(**QUIET, **settings))  # has no such line


@pytest.mark.parametrize("settings", [
    {"noise_management": "none"},
    {"noise_management": "constant"},
    {"noise_management": "constant", "nm_thres": 2.0},
    {"noise_management": "abs-max", "nm_thres": 1.0},
    {"noise_management": "max"},
    {"noise_management": "abs-max-np-sum"},
    {"noise_management": "average-abs-max"},
])  # fmt: skip
def test_what_takes_in_the_constant_1_reads_the_bias(settings):
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.bias.fill_(0.5)
    for x in (torch.zeros(2, 3), torch.full((2, 3), 0.3)):
        torch.testing.assert_close(analog(layer, None, IO(**QUIET, **settings))(x), layer(x))


def test_an_average_lags_behind_a_range():
    with pytest.raises(
        ValueError, match=r"an input range needs noise_management without memory, got .*average-abs-max"
    ):
        analog(nn.Linear(3, 2), 0.5, IO(**QUIET, noise_management="average-abs-max"))


def test_a_transfers_line_is_driven_within_the_dac():
    # One-hot inputs are a constant 1 as well: at inp_bound 0.5 a transfer read half the column.
    w = torch.linspace(-0.6, 0.6, 6).reshape(2, 3)
    io = IO(**QUIET, noise_management="none", inp_bound=0.5)
    bar = Crossbar((2, 3), device=Ideal(), weight=w, periphery=Periphery(forward=io))
    torch.testing.assert_close(bar.read_columns(torch.tensor([2, 0])), w[:, [2, 0]].mT)
    torch.testing.assert_close(bar.read_rows(torch.tensor([1])), w[[1]])
