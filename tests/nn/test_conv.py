"""Convolutions: every option of torch's, groups and replicas with devices of their own, pulses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contracts.layer import assert_close, assert_twins, gaussian, train_once, weights_of
from exact import assert_bits
from ohmgrad import AnalogConv2d, AnalogOptimizer, PulsedUpdate, convert, to_digital
from ohmgrad.devices import Ideal
from ohmgrad.devices.presets import aihwkit_soft_bounds, asymmetric_linear

KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, torch.Tensor]:
    """A layer of any options, and an input that it takes."""
    n = draw(st.integers(1, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=n, max_size=n)))

    kernel, dilation, groups = each(1, 3), each(1, 2), draw(st.integers(1, 3))
    padding = draw(st.one_of(st.just(each(0, 2)), st.sampled_from(["same", "valid"])))
    stride = (1,) * n if padding == "same" else each(1, 3)
    torch.manual_seed(0)
    layer = KINDS[n](
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 2)),
        kernel,
        stride,
        padding,
        dilation,
        groups,
        draw(st.booleans()),
        draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
        dtype=torch.float64,
    )
    # Room for the kernel without its padding, and for the most padding that "reflect" allows.
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = tuple(max(span, 3) + extra for span, extra in zip(spans, each(0, 2), strict=True))
    batch = draw(st.sampled_from([(), (1,), (3,)]))
    return layer, gaussian(*batch, layer.in_channels, *size)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@settings(max_examples=60)
@given(convolutions())
def test_every_option_is_torchs(drawn):
    layer, x = drawn
    analog = assert_twins(layer, x)
    assert_close([analog.weight], [layer.weight])


def test_every_position_is_one_sample_in_order():
    layer = convert(nn.Conv1d(1, 1, 2, bias=False).double(), device=Ideal())
    layer(torch.tensor([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]], dtype=torch.float64)).sum().backward()
    (update,) = layer.tile.waiting
    assert update.x.tolist() == [[1.0, 2.0], [2.0, 3.0], [4.0, 5.0], [5.0, 6.0]]
    AnalogOptimizer(layer, lr=0.1).step()
    assert layer.tile.crossbars[0].counters.cycles == 4


def test_the_input_is_not_copied_before_the_windows():
    layer = convert(nn.Conv2d(3, 2, 3).double(), device=Ideal())
    x = gaussian(2, 3, 8, 8)
    assert layer.windows(x).data_ptr() == x.data_ptr()


def test_the_output_is_contiguous_as_torchs():
    for groups in (1, 2):
        layer = convert(nn.Conv2d(4, 6, 3, groups=groups).double(), device=Ideal())
        assert layer(gaussian(2, 4, 5, 5)).is_contiguous()


def test_an_empty_batch():
    layer = convert(nn.Conv2d(4, 6, 3, groups=2).double(), device=Ideal())
    before = layer.weight
    (y,), _ = train_once(layer, (torch.zeros(0, 4, 5, 6, dtype=torch.float64),))
    assert y.shape == (0, 6, 3, 4)
    assert_bits(layer.weight, before)


class TestGroups:
    """A crossbar for each, in the tile's last replica dimension."""

    def test_each_has_devices_of_its_own(self):
        layer = convert(nn.Conv2d(6, 6, 3, groups=3), device=aihwkit_soft_bounds())
        planes = layer.tile.crossbars[0].params["w_max"]
        assert planes.shape == (3, 2, 18) and planes.unique().numel() == planes.numel()

    def test_one_device_for_each_replica_serves_its_groups(self):
        layers = [nn.Conv1d(4, 4, 3, groups=2, dtype=torch.float64) for _ in range(2)]
        analog = convert(layers, device=[asymmetric_linear(0.1), asymmetric_linear(0.2)])
        for r, tau in enumerate((0.1, 0.2)):
            assert_bits(analog.weight[r], layers[r].weight.detach().clamp(-tau, tau))


@pytest.mark.parametrize("groups", [1, 2])
def test_replicas_are_layers_of_their_own(groups):
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1, groups=groups, dtype=torch.float64) for _ in range(3)]
    together = convert(layers, device=aihwkit_soft_bounds(), seed=10)
    alone = [convert(m, device=aihwkit_soft_bounds(), seed=10 + r) for r, m in enumerate(layers)]
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


def test_pulses_train_it():
    torch.manual_seed(0)
    digital = nn.Conv2d(2, 4, 3, groups=2, dtype=torch.float64)
    layer = convert(digital, device=aihwkit_soft_bounds(), update=PulsedUpdate(), count_pulses=True)
    before = weights_of(layer)[0]
    train_once(layer, (gaussian(2, 2, 5, 5),))
    counters = layer.tile.crossbars[0].counters
    assert counters.cycles == 2 * 3 * 3 and (counters.pulses > 0).all()
    assert (weights_of(layer)[0] != before).any(-1).any(-1).all()
    assert counters.pulses_per_crosspoint.sum((-2, -1)).tolist() == counters.pulses.tolist()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 3, 8, 8), r"input needs the shape \(\[batch\], 2, size, size\), got \(5, 3, 8, 8\)"),
        ((8, 8), r"input needs the shape .*, got \(8, 8\)"),
        ((1, 5, 2, 8, 8), r"input needs the shape"),
        ((5, 2, 8, 2), "input needs at least 3 places under the kernel, with padding, got 2"),
    ],
)
def test_inputs_of_other_shapes(shape, message):
    layer = AnalogConv2d(2, 4, 3, device=Ideal(), dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        layer(gaussian(*shape))


def test_a_misspelt_setting_of_the_hardware():
    with pytest.raises(TypeError, match="AnalogConv2d has no option 'devise', did you mean 'device'"):
        AnalogConv2d(2, 4, 3, devise=Ideal())
