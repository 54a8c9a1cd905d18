"""Soft bounds against a reference: laws of the drawn elements, and what the weight sees of them."""

import math

import pytest
import torch
from scipy import stats

from chance import assert_correlation, assert_same_law
from exact import assert_bits, assert_within_ulps
from ohmgrad import Crossbar, Dense, PulsedUpdate
from ohmgrad.devices import SoftBounds, SoftBoundsReference
from ohmgrad.devices.base import draw

# n = 160,000: the laws may be 0.7 % apart.
SHAPE = (400, 400)
SPREAD = {"dw_min_dtod": 0.3, "up_down_dtod": 0.05, "w_max_dtod": 0.2, "w_min_dtod": 0.2}
FULL = SPREAD | {"slope_up_dtod": 0.1, "slope_down_dtod": 0.1, "reference_std": 0.05}


def planes(seed: int, **fields: float | bool) -> dict:
    return draw(SoftBoundsReference(**fields), torch.tensor(seed), SHAPE, torch.float64)


def test_references(seed):
    params = planes(seed, reference_mean=0.1, reference_std=0.05, w_max=0.6, w_min=-0.4)
    assert_same_law(params["reference"], stats.norm(0.1, 0.05))
    # The weight is the state less the reference, and so are its bounds.
    assert_within_ulps(params["w_max"] + params["reference"], torch.full(SHAPE, 0.6, dtype=torch.float64), ulps=2)
    assert_within_ulps(params["w_min"] + params["reference"], torch.full(SHAPE, -0.4, dtype=torch.float64), ulps=4)


def test_slopes(seed):
    # Slopes dw / b are multiplied by |1 + slope_dtod xi|. Planted: bounds multiplied instead of divided.
    params = planes(seed, w_max=0.5, w_min=-0.8, slope_up_dtod=0.5, slope_down_dtod=0.7)
    assert_same_law(0.5 / params["w_max"], stats.foldnorm(1.0 / 0.5, scale=0.5))
    assert_same_law(-0.8 / params["w_min"], stats.foldnorm(1.0 / 0.7, scale=0.7))
    assert_correlation(params["w_max"].log(), (-params["w_min"]).log())


def test_the_symmetric_point_is_the_references_error_alone(seed):
    # Found by bisection of the responses. Planted: the symmetric point before the slopes' spread.
    params = planes(seed, **FULL | {"reference_mean": 0.02}, subtract_symmetry_point=True)
    point = SoftBoundsReference().symmetric_point(params)
    assert_same_law(point, stats.norm(-0.02, 0.05))
    params = planes(seed, **FULL | {"reference_std": 0.0}, subtract_symmetry_point=True)
    assert SoftBoundsReference().symmetric_point(params).abs().max() < 1e-13


def test_without_reference_it_is_soft_bounds(seed):
    # The same numbers are drawn in the same order.
    ours = planes(seed, **SPREAD)
    theirs = draw(SoftBounds(**SPREAD), torch.tensor(seed), SHAPE, torch.float64)
    assert all(torch.equal(torch.as_tensor(ours[k]), torch.as_tensor(theirs[k])) for k in theirs)
    assert ours["reference"] == 0.0


@pytest.mark.parametrize("merge", [True, False])
def test_additive_noise_does_not_vanish_at_the_bound(seed, merge):
    # At its upper bound an up pulse moves an element by its noise alone, which the bound halves; aihwkit's default.
    device = SoftBoundsReference(w_max=0.6, w_min=-0.6, dw_min=0.01, dw_min_ctoc=0.5, reference_mean=0.1)
    start = torch.full(SHAPE, 0.5)
    bar = Crossbar(SHAPE, device=device, update=PulsedUpdate(merge=merge), weight=start, seed=seed)
    bar.pulse(torch.ones(1, SHAPE[1]), -torch.ones(1, SHAPE[0]), 0.01)
    moved = (bar.weight - start)[bar.weight < start]
    assert_same_law(-moved / 0.005, stats.halfnorm())


def test_the_pulses_of_a_crossbar_by_hand():
    # b = +-1, r = 0.5: the weight's bounds are 0.5 and -1.5. From w = 0, a step up of 0.1 is 0.1 (1 - 0.5), a step
    # down 0.1 (1 + 0.5).
    device = SoftBoundsReference(dw_min=0.1, reference_mean=0.5)
    bar = Crossbar((1, 2), device=device, dtype=torch.float64)
    bar.write(Dense(torch.tensor([[-0.1, 0.1]], dtype=torch.float64)), lr=1.0)
    assert_within_ulps(bar.weight, torch.tensor([[0.05, -0.15]], dtype=torch.float64), ulps=4)


@pytest.mark.parametrize("write_noise", [0.0, 1.0])
def test_bounds_that_leave_out_zero(write_noise):
    # References 0.7 below or above 0, bounds +-0.6: weights start on the bound that is nearest to 0.
    for mean, edge in ((-0.7, 0.1), (0.7, -0.1)):
        device = SoftBoundsReference(w_max=0.6, w_min=-0.6, reference_mean=mean, write_noise=write_noise)
        bar = Crossbar((3, 4), device=device, dtype=torch.float64)
        assert_within_ulps(bar._state, torch.full((3, 4), edge, dtype=torch.float64), ulps=4)
        bar.set_weight(torch.zeros(3, 4, dtype=torch.float64))
        assert_within_ulps(bar._state, torch.full((3, 4), edge, dtype=torch.float64), ulps=4)


def test_reset_adds_the_symmetric_point_where_it_is_subtracted():
    # Steps 1 and 0.8 between +-0.9 balance at 0.1; a reset state of 0.2 becomes 0.3 (reference 2.4).
    for subtract, state in ((False, 0.2), (True, 0.3)):
        device = SoftBoundsReference(
            w_max=0.9, w_min=-0.9, up_down=0.2, subtract_symmetry_point=subtract, reset=0.2, reset_std=0.0
        )
        bar = Crossbar((2, 3), device=device, dtype=torch.float64)
        bar.reset()
        assert_within_ulps(bar.weight, torch.full((2, 3), state, dtype=torch.float64), ulps=4)


def test_reset_to_each_elements_own_point():
    device = SoftBoundsReference(**SPREAD, subtract_symmetry_point=True, reset_std=0.0)
    bar = Crossbar((4, 5), device=device, dtype=torch.float64)
    bar.reset(torch.tensor([1, 3]))
    # Without the references' error they are the symmetric points themselves.
    expected = bar.params["reference"][:, [1, 3]].clamp(bar.params["w_min"][:, [1, 3]], bar.params["w_max"][:, [1, 3]])
    assert_within_ulps(bar.weight[:, [1, 3]], expected, ulps=64)
    assert (bar.weight[:, [0, 2, 4]] == 0.0).all()


def test_the_kernel_equals_the_eager_reference():
    device = SoftBoundsReference(**FULL, subtract_symmetry_point=True, dw_min=0.01, dw_min_ctoc=0.3)
    x, d = torch.randn(6, 5), torch.randn(6, 4)
    bars = [Crossbar((4, 5), device=device, update=PulsedUpdate(eager=eager), seed=0) for eager in (True, False)]
    for bar in bars:
        bar.pulse(x, d, 0.1)
    assert_bits(bars[0].pulses, bars[1].pulses)
    torch.testing.assert_close(bars[0].weight, bars[1].weight, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"w_max": 0.0}, "w_min < 0 < w_max, got w_min=-1.0, w_max=0.0"),
        ({"w_min": -math.inf}, "a finite number for w_min, got -inf"),
        ({"reference_std": -0.1}, "reference_std >= 0, got -0.1"),
        ({"reference_mean": math.nan}, "a finite number for reference_mean, got nan"),
        ({"slope_up_dtod": -0.1}, "slope_up_dtod >= 0, got -0.1"),
        ({"subtract_symmetry_point": 1.0}, "a bool for subtract_symmetry_point, got 1.0"),
    ],
)
def test_wrong_values(fields, message):
    with pytest.raises(ValueError, match=f"SoftBoundsReference needs {message}"):
        SoftBoundsReference(**fields)


def test_replicas_subtract_alike():
    devices = [SoftBoundsReference(), SoftBoundsReference(subtract_symmetry_point=True)]
    with pytest.raises(ValueError, match=r"equal granularity, .*subtract_symmetry_point"):
        Crossbar((2, 3), device=devices, replicas=(2,))
