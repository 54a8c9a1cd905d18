"""States of devices, and initial weights rounded to them."""

import math

import pytest
import torch

from ohmgrad import AnalogLinear, Crossbar, Mapping, TikiTaka, convert
from ohmgrad.algorithms import MixedPrecision
from ohmgrad.crossbar.states import nearest
from ohmgrad.devices import ConstantStep, ExpStep, Ideal, LinearStep, OneSidedCell, PowStep, SoftBounds, VectorCell
from ohmgrad.devices.presets import multi_level

ROUNDED = Mapping(round_to_states=True)
EPS = 1e-5  # of sums of up to 400 steps in float32


def ladder(bar: Crossbar, n: int) -> torch.Tensor:
    """The states that n pulses in one direction, sent by the crossbar itself, lead to from 0, (2 n + 1, out, in)."""
    bar.set_weight(torch.zeros_like(bar.weight))
    found = [bar.weight.clone()]
    for sign in (1.0, -1.0):
        bar.set_weight(torch.zeros_like(bar.weight))
        for _ in range(n):
            x, d = torch.ones(1, bar.shape[1]), torch.full((1, bar.shape[0]), -sign * bar.device_model.granularity)
            bar.pulse(x, d, lr=1.0)  # the expected update of just one pulse
            found.append(bar.weight.clone())
    return torch.stack(found)


SPREAD = {"dw_min": 0.11, "dw_min_dtod": 0.3, "w_max_dtod": 0.2, "w_min_dtod": 0.2, "up_down": 0.1}


@pytest.mark.parametrize(
    "device",
    [
        ConstantStep(dw_min=0.11),
        ConstantStep(**SPREAD),
        SoftBounds(**SPREAD),
        LinearStep(**SPREAD),
        ExpStep(dw_min=0.1),
        PowStep(gamma=1.7, **SPREAD),
        multi_level(4.0),
    ],
    ids=lambda d: f"{type(d).__name__}-{d.dw_min_dtod}",
)
def test_the_nearest_of_the_states_that_pulses_lead_to(device):
    # Against the crossbar's own pulses, tried one by one, and the nearest of all.
    bar = Crossbar((8, 9), device=device, seed=3)
    bar.set_weight(0.5 * torch.randn(8, 9, generator=torch.Generator().manual_seed(0)))
    bar.set_weight(0.8 * bar.weight)  # a bent response takes ever so long to its bound
    w = bar.weight.clone()
    states = ladder(bar, 400)
    best = (states - w).abs().amin(0)
    got = nearest(device, w, bar.params)
    torch.testing.assert_close((got - w).abs(), best, atol=EPS, rtol=0.0)
    assert ((states - got).abs().amin(0) < EPS).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_steps_have_multiples_of_the_step_and_bounds(dtype):
    device, w = ConstantStep(dw_min=0.3), torch.linspace(-1.0, 1.0, 401, dtype=dtype)
    steps = torch.tensor([-1.0, -0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9, 1.0], dtype=dtype)
    got = nearest(device, w, device.nominal())
    torch.testing.assert_close((got - w).abs(), (steps - w[:, None]).abs().amin(1))
    assert len(got.unique()) == len(steps)


def test_ideal_devices_have_multiples_of_their_step_without_end():
    device, w = Ideal(dw_min=0.25), torch.tensor([-1e6 - 0.1, -0.13, 0.12, 7.4], dtype=torch.float64)
    assert nearest(device, w, device.nominal()).tolist() == [-1e6, -0.25, 0.0, 7.5]


def test_a_state_is_its_own_nearest():
    device = SoftBounds(dw_min=0.05)
    w = nearest(device, torch.linspace(-1.0, 1.0, 101, dtype=torch.float64), device.nominal())
    torch.testing.assert_close(nearest(device, w, device.nominal()), w)


@pytest.mark.parametrize("algorithm", [None, TikiTaka(), MixedPrecision()])
@pytest.mark.parametrize("sizes", [{}, {"max_input_size": 3}, {"weight_scaling_omega": 0.8}])
def test_convert_and_set_weight_round(algorithm, sizes):
    layer = torch.nn.Linear(5, 4)
    device, mapping = ConstantStep(dw_min=0.125), Mapping(round_to_states=True, **sizes)
    analog = convert(layer, device=device, algorithm=algorithm, mapping=mapping)
    for _ in range(2):
        scale = analog.tile.scale if "weight_scaling_omega" in sizes else torch.ones(1)
        expected = (layer.weight / scale[..., None] / 0.125).round() * 0.125 * scale[..., None]
        torch.testing.assert_close(analog.weight.detach(), expected.detach())
        assert not torch.allclose(analog.weight, layer.weight, atol=0.01)
        layer = torch.nn.Linear(5, 4)
        analog.set_weight(layer.weight)


def test_replicas_round_by_devices_of_their_own():
    devices = [ConstantStep(dw_min=0.2), ConstantStep(dw_min=0.2, dw_min_dtod=0.5)]
    layer = AnalogLinear(30, 20, device=devices, replicas=(2,), seed=[1, 2], mapping=ROUNDED)
    w, params = layer.weight.detach().clone(), layer.tile.crossbars[0].params
    steps = w / torch.where(w >= 0, params["dw_up"], params["dw_down"])
    inside = (w > params["w_min"]) & (w < params["w_max"])
    assert float((steps - steps.round()).abs()[inside].max()) < 1e-4
    assert len(w[0].unique()) == 3 and len(w[1].unique()) > 100


def test_each_member_of_a_cell_rounds():
    cell = VectorCell(devices=(ConstantStep(dw_min=0.1), ConstantStep(dw_min=0.1)))
    for device in (cell, OneSidedCell(device=ConstantStep(dw_min=0.1))):
        layer = AnalogLinear(5, 4, device=device, mapping=ROUNDED)
        for bar in layer.tile.state.bar.bars:
            steps = bar.weight / 0.1
            torch.testing.assert_close(steps, steps.round(), atol=1e-5, rtol=0.0)


def test_write_noise_is_around_the_state():
    layer = AnalogLinear(5, 4, device=ConstantStep(dw_min=0.1, write_noise=0.5), mapping=ROUNDED)
    layer.set_weight(torch.full((4, 5), 0.34))
    (bar,) = layer.tile.crossbars
    torch.testing.assert_close(bar.persistent, torch.full((4, 5), 0.3))
    assert not (bar.weight == bar.persistent).any()


def test_it_is_off_by_default():
    layer = AnalogLinear(3, 2, device=ConstantStep(dw_min=0.5))
    w = torch.full((2, 3), 1.0 / math.pi)
    layer.set_weight(w)
    assert torch.equal(layer.weight, w)
