"""Figures of one tile against numbers by hand.

Soft bounds of +-0.5 at w: F = 1, G = w / 0.5. For a gradient with mean m and mean modulus a at each device the drift is
a |w| / 0.5, the pull |m|, and pulses balance at -a w / 0.5.
"""

import math

import pytest
import torch

from ohmgrad import IO, Dense, ExpectedUpdate, Outer, Periphery, PulsedUpdate, Tile
from ohmgrad.algorithms import AnalogSGD, TikiTaka
from ohmgrad.devices import ConstantStep, SoftBounds, VectorCell
from ohmgrad.theory.diagnosis import device_figures, lost, read_error, saturated

SOFT = SoftBounds(w_max=0.5, w_min=-0.5, dw_min=0.01)
W = torch.tensor([[0.1, -0.48]], dtype=torch.float64)


def tile_of(device=SOFT, weight=W, algorithm=None, **crossbar) -> Tile:
    return Tile(weight, algorithm=algorithm or AnalogSGD(), crossbar={"device": device, **crossbar}, seed=0)


def test_drift_pull_and_floor_by_hand():
    mean, mean_abs = torch.tensor([[0.3, -0.1]]).double(), torch.tensor([[1.0, 2.0]]).double()
    found = device_figures(tile_of(), mean, mean_abs)
    assert found.distance == pytest.approx((0.1 + 0.48) / 2 / 0.5)
    assert found.drift == pytest.approx((1.0 * 0.2 + 2.0 * 0.96) / 2)
    assert found.pull == pytest.approx(0.2)
    assert found.floor_predicted == pytest.approx(0.2**2 + 1.92**2)
    assert saturated(tile_of()) == 0.5  # 0.48 is beyond 0.45


def test_tiki_taka_is_looked_at_where_the_pulses_go():
    """Its fast crossbar rests at 0: no drift there, and no floor, while the slow one is as saturated as it is."""
    tile = tile_of(algorithm=TikiTaka())
    found = device_figures(tile, torch.ones(1, 2).double(), torch.ones(1, 2).double())
    assert (found.drift, found.floor_predicted, found.distance, found.pull) == (0.0, 0.0, 0.0, 1.0)
    assert saturated(tile) == 0.5


def test_unit_cells_have_no_such_figures():
    found = device_figures(tile_of(VectorCell(devices=(SOFT, SOFT))), W, W)
    assert all(math.isnan(v) for v in vars(found).values())


def test_what_is_lost_by_hand():
    """Of 0.004 and 0.03, 0.004 is below half a step of 0.01; up from 0.49 at bounds of 0.5, 0.02 is lost."""
    hard = ConstantStep(w_max=0.5, w_min=-0.5, dw_min=0.01)
    bar = tile_of(hard, torch.tensor([[0.0, 0.49]]).double()).crossbars[0]
    found = lost(bar, Dense(-torch.tensor([[0.04, 0.3]]).double()), 0.1)
    assert found.below_half_step == pytest.approx(0.004 / 0.034)
    assert found.at_bounds == pytest.approx(0.02 / 0.034)
    assert found.in_trains == 0.0


@pytest.mark.parametrize(("length", "share"), [(10, 0.75), (40, 0.0)])
def test_trains_that_are_too_short_lose_pulses(length, share):
    """40 pulses are wanted: a train of 10 brings 10."""
    bar = tile_of(update=PulsedUpdate(bit_length=length)).crossbars[0]
    one = Outer(torch.tensor([[0.4]]).double(), torch.tensor([[1.0, 1.0]]).double())
    assert lost(bar, one, 1.0).in_trains == pytest.approx(share, abs=1e-6)


def test_samples_count_one_by_one_where_they_are_applied_so():
    """Two samples of +0.004 and -0.004: each is below half a step; their sum asks for nothing."""
    pair = Outer(torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double())
    single, summed = (tile_of(update=ExpectedUpdate(per_sample=p)).crossbars[0] for p in (True, False))
    assert lost(single, pair, 0.004).below_half_step == 1.0
    assert lost(summed, pair, 0.004).below_half_step == 0.0


def test_errors_of_reads_are_told_apart():
    """Inputs of 1 on weights 0.1 and -0.48 make -0.38. A bound of 0.2 alone leaves 0.18; noise alone, all of it."""
    x = torch.ones(4000, 2, dtype=torch.float64)
    plain = {"inp_res": 0.0, "out_res": 0.0, "out_noise": 0.0, "noise_management": "none", "bound_management": "none"}

    def error(**io):
        io = IO(**plain | io)
        return read_error(tile_of(periphery=Periphery(forward=io, backward=io)), x, is_forward=True)

    clipped = error(out_bound=0.2)
    assert clipped.relative == pytest.approx(0.18 / 0.38)
    assert (clipped.noise, clipped.steps, clipped.clipping) == (0.0, 0.0, 1.0)
    noisy = error(out_noise=0.1)
    assert noisy.relative == pytest.approx(0.1 / 0.38, rel=0.1)  # 4000 draws: 1.1 % is one standard error
    assert (noisy.noise, noisy.steps, noisy.clipping) == (1.0, 0.0, 0.0)
    coarse = error(out_bound=1.0, out_res=0.25)  # steps of 0.5
    assert coarse.relative == pytest.approx(0.12 / 0.38)
    assert (coarse.noise, coarse.steps, coarse.clipping) == (0.0, 1.0, 0.0)
    backward = read_error(tile_of(), torch.ones(3, 1).double(), is_forward=False)
    assert backward.relative == 0.0
