"""Strides: a state or plane that is not contiguous, however it came, never makes pulses land on other crosspoints."""

import copy

import pytest
import torch

from exact import assert_bits
from ohmgrad import Crossbar, ExpectedUpdate, PulsedUpdate
from ohmgrad.crossbar import make_crossbar
from ohmgrad.devices import SoftBounds, VectorCell
from ohmgrad.nn import AnalogLinear

UPDATES = [ExpectedUpdate(), ExpectedUpdate(per_sample=True), PulsedUpdate(), PulsedUpdate(eager=True)]
REPLICAS = [(), (2,), (2, 3)]
NOISY = SoftBounds(dw_min=0.01, w_max_dtod=0.3, dw_min_dtod=0.3, dw_min_ctoc=0.3, write_noise=2.0)
EXACT = SoftBounds(dw_min=0.01, w_max_dtod=0.3, dw_min_dtod=0.3)


def transposed(t: torch.Tensor) -> torch.Tensor:
    """The same numbers, laid out column by column."""
    return t.mT.contiguous().mT if t.dim() > 1 else t


def assigned(bar: Crossbar) -> None:
    for name, value in list(bar.named_buffers(recurse=False)):
        setattr(bar, name, transposed(value))


def behind(bar: Crossbar) -> None:
    for _, value in bar.named_buffers(recurse=False):
        value.data = transposed(value.data)


def loaded(bar: Crossbar) -> None:
    bar.load_state_dict({k: transposed(v) for k, v in bar.state_dict().items()}, assign=True)


def in_memory_format(bar: Crossbar) -> None:
    bar.to(memory_format=torch.channels_last)


WAYS = [assigned, behind, loaded, in_memory_format]


def crossbar(update, device, replicas):
    return Crossbar((4, 5), device=device, update=update, replicas=replicas, seed=3, count_pulses=True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("device", [NOISY, EXACT], ids=["write noise", "exact"])
@pytest.mark.parametrize("replicas", REPLICAS)
@pytest.mark.parametrize("update", UPDATES)
def test_pulses_land_where_they_should(way, device, replicas, update):
    plain = crossbar(update, device, replicas)
    x, d = torch.rand(3, 5), torch.rand(3, 4) - 0.5
    plain.pulse(x, d, 0.1)
    other = copy.deepcopy(plain)
    other.pulse(x, d, 0.0)  # has met the layout before
    plain.pulse(x, d, 0.0)
    way(other)
    for bar in (plain, other):
        bar.pulse(x, d, 0.1)
        bar.pulse(x, d, 0.1)
        bar.write_columns(torch.tensor([3, 1]), torch.full((*replicas, 2, 4), 0.02), 1.0)
    for name, value in plain.state_dict().items():
        assert_bits(other.state_dict()[name], value)


@pytest.mark.parametrize("way", [assigned, loaded, in_memory_format])
def test_buffers_become_contiguous(way):
    bar = crossbar(PulsedUpdate(), NOISY, (2, 3))
    way(bar)
    assert all(value.is_contiguous() for value in bar.buffers())


def test_an_expanded_state_has_a_number_for_each_crosspoint():
    bar = crossbar(PulsedUpdate(), EXACT, ())
    bar.weight = torch.zeros(1).expand(4, 5)
    bar.pulse(torch.eye(5)[:1], -torch.eye(4)[:1], 0.1)
    assert bar.weight.count_nonzero() == 1


def test_cells_and_layers():
    cells = make_crossbar((4, 5), device=VectorCell(devices=(EXACT, EXACT)), update=PulsedUpdate(), replicas=(2, 3))
    plain = copy.deepcopy(cells)
    x, d = torch.rand(3, 5), torch.rand(3, 4)
    cells.to(memory_format=torch.channels_last)
    for bar in (cells, plain):
        bar.pulse(x, d, 0.1)
    assert_bits(cells.weight, plain.weight)
    layer = AnalogLinear(5, 4, device=EXACT, update=PulsedUpdate(), replicas=(2, 3))
    layer.to(memory_format=torch.channels_last)
    assert all(bar.weight.is_contiguous() for bar in layer.modules() if isinstance(bar, Crossbar))
