"""Effects switched off one at a time: each takes away what it says, and leaves the rest as it was.

The device by hand, soft bounds of +-0.5 with down steps c = 0.6 times the up steps: q_up = 1 - w / 0.5,
q_down = 0.6 (1 + w / 0.5), so F(0) = 0.8 and G(0) = -0.2.
"""

import copy

import pytest
import torch

from exact import assert_bits, assert_within_ulps
from ohmgrad import IO, ExpectedUpdate, Outer, Periphery, PulsedUpdate, Tile
from ohmgrad.algorithms import AnalogSGD, MixedPrecision, TikiTaka
from ohmgrad.devices import SoftBounds
from ohmgrad.experiments.effects import EFFECTS, FINER, make_ideal
from ohmgrad.experiments.mends import mends, restart

OFF = {effect.name: effect.off for effect in EFFECTS}
DEVICE = SoftBounds(w_max=0.5, w_min=-0.5, dw_min=0.01, up_down=0.4, dw_min_ctoc=0.3)
CONVERTERS = IO(out_noise=0.1, out_bound=1.0, bound_management="none")


def tile_of(algorithm=None, update=None, periphery=None, device=DEVICE) -> Tile:
    weight = torch.tensor([[0.0, 0.2], [-0.2, 0.15]], dtype=torch.float64)
    options = {"device": device, "update": update, "periphery": periphery}
    return Tile(weight, algorithm=algorithm or AnalogSGD(), crossbar=options, seed=3)


def responses(tile: Tile, w: float) -> tuple[float, float]:
    """F and G of the first device at a state."""
    (bar, *_) = tile.crossbars
    state = torch.full_like(bar.weight, w)
    F, G = (f(state, bar.params).flatten()[0].item() for f in (bar.device_model.F, bar.device_model.G))
    return F, G


def test_a_shift_and_a_range_are_what_they_are_by_hand():
    tile = tile_of()
    assert responses(tile, 0.0) == pytest.approx((0.8, -0.2))
    assert responses(tile, 0.25) == pytest.approx((0.7, 0.2))  # q_up = 0.5, q_down = 0.9
    wide, symmetric = copy.deepcopy(tile), copy.deepcopy(tile)
    OFF["narrow range"](wide)
    assert responses(wide, 0.25) == pytest.approx((0.8, -0.2))  # as at 0, the shift stays
    OFF["shifted symmetric point"](symmetric)
    assert responses(symmetric, 0.0) == pytest.approx((0.8, 0.0))  # the mean step stays
    assert responses(symmetric, 0.25) == pytest.approx((0.8, 0.4))  # 0.8 (1 -+ 1/2): the range stays
    OFF["shifted symmetric point"](wide)
    assert responses(wide, 7.0) == pytest.approx((0.8, 0.0))
    assert_bits(wide.weight, tile.weight)


@pytest.mark.parametrize("algorithm", [AnalogSGD(), TikiTaka(n_reads=None), MixedPrecision()])
def test_an_ideal_tile_is_digital_sgd(algorithm):
    tile = tile_of(algorithm, periphery=Periphery(forward=CONVERTERS, backward=CONVERTERS))
    before = tile.weight
    make_ideal(tile)
    g = torch.tensor([[1.0, -2.0], [0.5, 0.0]], dtype=torch.float64)
    tile.algorithm.update(tile.state, Outer(g.mT.contiguous(), torch.eye(2, dtype=torch.float64)), 0.1)
    moved = tile.weight - before
    assert_within_ulps(moved, -0.1 * g, ulps=8)
    x = torch.randn(5, 2, dtype=torch.float64)
    assert_within_ulps(tile.read(x), x @ tile.weight.mT, ulps=8)


def test_finer_steps_ask_for_more_pulses_of_the_same_sum_and_noise():
    """The expected change stays, the noise of whole pulses goes, and that from pulse to pulse adds up as before."""
    tile = tile_of(update=ExpectedUpdate(noise=False))
    bar = tile.crossbars[0]
    w, up = torch.zeros_like(bar.weight), torch.tensor(True)
    step = bar.device_model.step(w, up, bar.params)
    OFF["coarse steps"](tile)
    (fine,) = tile.crossbars
    assert_within_ulps(fine.device_model.step(w, up, fine.params) * FINER, step, ulps=2)
    assert fine.device_model.granularity * FINER == pytest.approx(bar.device_model.granularity)
    # FINER pulses of a step s / FINER, each with deviation c sqrt(FINER) of it, vary by c^2 s^2 in all.
    assert fine.device_model.dw_min_ctoc**2 / FINER == pytest.approx(bar.device_model.dw_min_ctoc**2)
    assert fine.update.bit_length == FINER * bar.update.bit_length


def test_reads_lose_one_effect_each_and_keep_their_noise():
    """Without noise 0.9 is read as the nearest step; without clipping 2 is read as 2 and not as the bound, 1."""
    device = SoftBounds(w_max=10.0, w_min=-10.0)
    io = IO(out_noise=0.01, out_bound=1.0, out_res=0.05, inp_res=0.0, noise_management="none", bound_management="none")
    options = {"device": device, "periphery": Periphery(forward=io, backward=io)}
    tile = Tile(torch.tensor([[0.92], [2.0]]), algorithm=AnalogSGD(), crossbar=options, seed=0)
    x = torch.ones(200, 1)

    def read(*names: str) -> torch.Tensor:
        other = copy.deepcopy(tile)
        for name in names:
            OFF[name](other)
        return other.read(x)

    assert (read()[:, 1] == 1.0).all() and (read("read noise")[:, 0] - 0.9).abs().max() < 1e-6
    assert (read("clipped converter")[:, 1] - 2.0).abs().max() < 0.11  # steps of 0.1, noise of 0.01
    assert read("clipped converter", "converter steps", "read noise").mean(0).tolist() == pytest.approx([0.92, 2.0])
    smooth = read("converter steps")[:, 0] - 0.92
    assert 0.005 < float(smooth.std()) < 0.02
    assert_bits(read()[:, 0], read("clipped converter")[:, 0])  # the same numbers of noise


def test_effects_that_a_tile_lacks_are_not_looked_at():
    plain = tile_of(device=SoftBounds())
    assert [e.name for e in EFFECTS if e.is_present(plain)] == ["narrow range"]
    everything = tile_of(update=PulsedUpdate(), periphery=Periphery(forward=CONVERTERS, backward=CONVERTERS))
    missing = {e.name for e in EFFECTS if not e.is_present(everything)}
    assert missing == {"forgetting", "line effects"}


@pytest.mark.parametrize("effect", OFF)
def test_mends_leave_the_weight_where_it_is_and_go_on(effect):
    """Each mend keeps what the tile represents, and takes an update and a read after it."""
    tile = tile_of(update=ExpectedUpdate(noise=True), periphery=Periphery(forward=CONVERTERS, backward=CONVERTERS))
    for mend in mends(effect, tile):
        mended = copy.deepcopy(tile)
        mend.apply(mended)
        assert (mended.weight - tile.weight).abs().max() < 1e-12
        g = Outer(torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))
        mended.algorithm.update(mended.state, g, 0.1)
        assert torch.isfinite(mended.read(torch.ones(3, 2, dtype=torch.float64))).all()


def test_a_digital_scale_keeps_the_weight_and_widens_its_range():
    tile = tile_of()
    before = tile.weight
    restart(tile, factor=4.0)
    assert_within_ulps(tile.weight, before, ulps=2)
    assert_within_ulps(tile.crossbars[0].weight, before / 4.0, ulps=2)
