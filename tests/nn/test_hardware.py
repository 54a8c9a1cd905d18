"""Converters, digital scales and grids under layers: gradients reach all that is digital, and crossbars their parts."""

import pytest
import torch
from torch import nn

from ohmgrad import AnalogOptimizer, Mapping, Periphery, convert, summary, to_digital
from ohmgrad.crossbar import Tile
from ohmgrad.devices import Ideal, SoftBounds
from ohmgrad.experiments.models import lenet5
from ohmgrad.periphery import PERFECT, weight_noise

MAPPINGS = [
    Mapping(weight_scaling_omega=0.6, weight_scaling_columnwise=True),
    Mapping(max_input_size=20, max_output_size=9),
    Mapping(max_input_size=20, learn_out_scaling=True, out_scaling_columnwise=True),
]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(3, 12, 4), nn.Tanh(), nn.Flatten(), nn.Linear(60, 5)).double()


@pytest.mark.parametrize("mapping", MAPPINGS, ids=str)
def test_ideal_parts_are_the_digital_network(mapping):
    perfect = Periphery(forward=PERFECT, backward=PERFECT)
    digital, analog = net(), convert(net(), device=Ideal(), mapping=mapping, periphery=perfect)
    x, y = torch.randn(4, 3, 8, dtype=torch.float64), torch.arange(4)
    steps = torch.optim.SGD(digital.parameters(), lr=0.1), AnalogOptimizer(analog, lr=0.1)
    for model, step in zip((digital, analog), steps, strict=True):
        nn.functional.cross_entropy(model(x), y).backward()
        for scale in (m.out_scale for m in model.modules() if getattr(m, "out_scale", None) is not None):
            assert scale.grad.abs().max() > 0
            scale.grad = None  # else it would be trained too
        step.step()
    for a, b in zip(to_digital(analog).parameters(), digital.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_gradients_reach_all_that_is_digital():
    model = convert(lenet5(), device=SoftBounds(), periphery=Periphery(), mapping=Mapping(learn_out_scaling=True))
    x = torch.randn(2, 1, 28, 28, requires_grad=True)
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in (x, *model.parameters()))


def test_a_frozen_grid_stays():
    digital = net()
    digital[3].weight.requires_grad_(False)
    model = convert(digital, device=Ideal(), mapping=Mapping(max_input_size=20))
    before = model[3].weight
    optimizer = AnalogOptimizer(model, lr=0.1)
    model(torch.randn(4, 3, 8, dtype=torch.float64)).sum().backward()
    optimizer.step()
    assert torch.equal(model[3].weight, before) and not to_digital(model)[3].weight.requires_grad


def test_noise_is_on_and_reproducible_in_evaluation_too():
    one, two = (convert(net(), device=Ideal(), periphery=Periphery(forward=weight_noise(0.1))).eval() for _ in range(2))
    x = torch.randn(4, 3, 8, dtype=torch.float64)
    first = one(x)
    assert torch.equal(first, two(x)) and not torch.equal(one(x), first)


def test_the_summary_counts_crossbars_of_a_grid():
    model = convert(
        net(), device=Ideal(), mapping=Mapping(max_input_size=20, max_output_size=9, learn_out_scaling=True)
    )
    rows = summary(model).rows
    assert [(r.name, r.crossbars, r.crosspoints, r.digital) for r in rows] == [("0", 2, 144, 13), ("3", 3, 300, 6)]
    assert sum(isinstance(m, Tile) for m in model.modules()) == 5
