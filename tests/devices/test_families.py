"""What single families promise beside the contract: quirks by name, laws of drawn elements, limits."""

import math

import pytest
import torch
from scipy import stats

from chance import assert_correlation, assert_mean, assert_same_law
from ohmgrad import Crossbar, ExpectedUpdate, PulsedUpdate
from ohmgrad.devices import (
    DEVICES,
    ConstantStep,
    ExponentialResponse,
    ExpStep,
    LinearStep,
    LogDomain,
    PiecewiseStep,
    PowerResponse,
    PowStep,
    PowStepReference,
    SoftBounds,
    SoftBoundsReference,
    catalog,
    presets,
)
from ohmgrad.devices.base import draw

SHAPE = (300, 300)  # n = 90,000 sees laws that are 0.9 % apart
W = torch.linspace(-0.5, 0.5, 21, dtype=torch.float64)


def test_granularity_of_the_exponential_step():
    # aihwkit's "mean" of both steps is the down step; reram_es has very different ones: 0.0020, 0.0012 by hand.
    device = presets.reram_es()
    down = (1.0 - 0.259359) * (1.0 + 0.081404 * math.exp(2.5))
    up = 1.0 + 1.18445 * math.exp(-2.5)
    assert device.granularity == pytest.approx(0.00135 * down)
    both = catalog.find("reram-es", granularity_from="mean")
    assert both.granularity == pytest.approx(0.00135 * (up + down) / 2.0)
    # An exponent beyond floats is no step: dw_min stands in for it.
    assert ExpStep(gamma_down=-1e6).granularity == 1e-3


@pytest.mark.parametrize("update", [PulsedUpdate(merge=False), ExpectedUpdate(noise=True, bit_length=1)])
def test_noise_of_the_exponential_step(seed, update):
    # One pulse at w = 0.4 has the deviation s (|dw| + add + slope |w|). n = 90,000 sees an error of 3 % in it.
    device = ExpStep(dw_min=0.01, dw_min_ctoc=0.5, noise_add=0.02, noise_slope=0.05)
    start = torch.full(SHAPE, 0.4)
    bar = Crossbar(SHAPE, device=device, update=update, weight=start, seed=seed)
    step = float(device.step(torch.tensor(0.4), True))
    bar.pulse(torch.ones(1, SHAPE[1]), -torch.ones(1, SHAPE[0]), device.granularity)
    expected = stats.norm(step, 0.5 * (step + 0.02 + 0.05 * 0.4))
    assert_same_law(bar.weight - start, expected)


def test_exponents_of_power_steps(seed):
    # gamma (1 + d xi + r) up and gamma (1 - c + d xi - r) down: correlated by (d^2 - s^2) / (d^2 + s^2) = 0.6.
    device = PowStep(gamma=2.0, gamma_dtod=0.1, gamma_up_down=0.3, gamma_up_down_dtod=0.05)
    params = draw(device, torch.tensor(seed), SHAPE, torch.float64)
    std = math.hypot(0.1, 0.05)
    assert_same_law(params["gamma_up"] / 2.0, stats.norm(1.0, std))
    assert_same_law(params["gamma_down"] / 2.0, stats.norm(0.7, std))
    assert_correlation(params["gamma_up"], params["gamma_down"], 0.6)


def test_exponents_of_the_exponential_response(seed):
    # gamma |1 + d xi|, drawn apart up and down, and q(0) = 1 of each element by its own. Planted: the spread twice; the
    # mean's scale.
    device = ExponentialResponse(gamma_up=2.0, gamma_down=3.0, gamma_up_dtod=0.2, gamma_down_dtod=0.1)
    params = draw(device, torch.tensor(seed), SHAPE, torch.float64)
    assert_same_law(params["gamma_up"] / 2.0, stats.norm(1.0, 0.2))
    assert_same_law(params["gamma_down"] / 3.0, stats.norm(1.0, 0.1))
    assert_correlation(params["gamma_up"], params["gamma_down"])
    for q in (device.q_up, device.q_down):
        assert (q(torch.zeros((), dtype=torch.float64), params) - 1.0).abs().max() < 1e-12


def test_opposite_pulses_cancel_on_drawn_log_domain_elements(seed):
    # Exponent 1: a pulse multiplies the current by exp(+-eps) of its element. Planted: steps to first order.
    device = LogDomain(dw_min=0.05, dw_min_dtod=0.3, reference=2.0)
    params = draw(device, torch.tensor(seed), SHAPE, torch.float64)
    w = torch.full(SHAPE, 0.3, dtype=torch.float64)
    up = w + device.step(w, True, params)
    assert_same_law((up + 2.0).log() - math.log(2.3), stats.lognorm(0.3, scale=0.025))
    assert (up + device.step(up, False, params) - w).abs().max() < 1e-14


def test_the_symmetric_point_of_power_steps_is_taken_off(seed):
    spread = {"dw_min_dtod": 0.2, "up_down_dtod": 0.1, "w_max_dtod": 0.2, "gamma": 1.5, "gamma_dtod": 0.2}
    device = PowStepReference(**spread, subtract_symmetry_point=True, reference_std=0.03)
    params = draw(device, torch.tensor(seed), SHAPE, torch.float64)
    assert_same_law(device.symmetric_point(params), stats.norm(0.0, 0.03))
    # aihwkit's estimate by pulses comes to the same where it has converged.
    few = draw(device, torch.tensor(seed), (5, 6), torch.float64)
    theirs = PowStepReference(**vars(device) | {"n_estimation_steps": -1, "dw_min": 1e-2})
    for name in ("w_max", "w_min", "balance"):
        other = draw(theirs, torch.tensor(seed), (5, 6), torch.float64)[name]
        torch.testing.assert_close(few[name], other, rtol=0.0, atol=1e-6)


def test_the_exponential_response_tends_to_soft_bounds():
    soft = SoftBounds(w_max=0.5, w_min=-0.5)
    bent = ExponentialResponse(w_max=0.5, w_min=-0.5, gamma_up=1e-3, gamma_down=1e-3)
    for up in (True, False):
        # (e^{g x} - 1) / (e^g - 1) = x + g x (x - 1) / 2 + ..., x up to 2.
        assert (bent.step(W, up) / soft.step(W, up) - 1.0)[1:-1].abs().max() < 1e-3


def test_the_power_response_is_a_power_step_of_larger_steps():
    paper, kit = (f(w_max=0.5, w_min=-0.5, gamma=2.5) for f in (PowerResponse, PowStep))
    for up in (True, False):
        torch.testing.assert_close(paper.step(W, up), 2.0**2.5 * kit.step(W, up), rtol=1e-12, atol=0.0)


def test_reversed_slopes_grow_on_the_way():
    # q_up = 1 - w / (w_min - 0.01), which is 0 just below the lower bound.
    device = LinearStep(gamma_up=1.0, gamma_down=0.5, reverse_up=True, reverse_down=True, reverse_offset=0.01)
    torch.testing.assert_close(device.q_up(W), 1.0 + W / 1.01)
    torch.testing.assert_close(device.q_down(W), 1.0 - 0.5 * W / 1.01)
    assert LinearStep(gamma_up=-0.2, allow_increasing=True).q_up(W)[-1] > 1.0


@pytest.mark.parametrize("family", DEVICES)
def test_corrupt_devices(seed, family):
    # A fifth of the devices, stuck anywhere in +-0.1, and no NaN of theirs (the look-up table's once were). Planted:
    # steps that are left; places in +-0.09.
    taken = {"subtract_symmetry_point": True} if family in (SoftBoundsReference, PowStepReference) else {}
    device = family(dw_min=0.01, w_max_dtod=0.2, corrupt=0.2, **taken)
    bar = Crossbar(SHAPE, device=device, update=PulsedUpdate(eager=True), seed=seed)
    is_stuck = torch.as_tensor(bar.params["dw_up"]) == 0.0
    assert_mean(is_stuck.double(), 0.2, std=0.4)
    before = bar.weight.clone()
    assert_same_law(before[is_stuck], stats.uniform(-0.1, 0.2))
    for sign in (-1.0, 1.0, 1.0):
        bar.pulse(torch.ones(1, SHAPE[1]), sign * torch.ones(1, SHAPE[0]), 0.1)
    assert torch.isfinite(bar.weight).all()
    torch.testing.assert_close(bar.weight[is_stuck], before[is_stuck])
    assert (bar.weight != before)[~is_stuck].all()


def test_soft_bounds_by_p_max():
    # "formula": p_max pulses from end to end, both ways, to rounding. "aihwkit": not.
    given = {"p_max": 200, "alpha": 0.01, "range_min": -0.4, "range_max": 0.6}
    for reading, is_met in (("formula", True), ("aihwkit", False)):
        device = presets.soft_bounds_pmax(**given, reading=reading)
        for start, end, up in ((-0.4, 0.6, True), (0.6, -0.4, False)):
            w = torch.tensor(start, dtype=torch.float64)
            for _ in range(200):
                w = w + device.step(w, up)
            assert (abs(w.item() - end) < 1e-12) == is_met


def test_the_leak_of_the_log_domain_element():
    # w decays by exp(-1 / tau) in a mini-batch.
    bar = Crossbar((1, 1), device=presets.log_domain_cell(tau=5.0), weight=torch.tensor([[0.4]]))
    bar.relax()
    assert bar.weight.item() == pytest.approx(0.4 * math.exp(-0.2), rel=1e-6)


@pytest.mark.parametrize("name", catalog.names())
def test_every_name_is_found_in_any_spelling(name):
    device = catalog.find(name)
    for spelling in (name.upper(), name.replace("-", "_"), name.replace("-", "")):
        assert catalog.find(spelling) == device
    if math.isinf(device.n_states):
        with pytest.raises(ValueError, match="ideal has no bounds"):
            catalog.find(name, n_states=20)
    else:
        assert catalog.find(name, n_states=20).n_states == pytest.approx(20.0)


SOFT = SoftBoundsReference
# Reference 4.4: family, dw_min with spread and noise, up_down with spread, bounds with spreads, and the rest.
TABLE = {
    "reram-es": (ExpStep, 0.00135, 0.2, 5.0, 0.259359, 0.05, -1.0, 1.0, 0.3, 0.3, {
        "a": -0.5, "b": -0.5, "gamma_up": 5.0, "gamma_down": 5.0, "A_up": -1.18445, "A_down": -0.081404,
        "write_noise": 75.0,
    }),
    "reram-sb": (SOFT, 0.002, 0.3, 3.75, 0.0, 0.01, -0.75, 1.25, 0.4, 0.24, {"write_noise": 56.0}),
    "capacitor": (LinearStep, 0.005, 0.1, 0.3, 0.0, 0.06, -1.0, 1.0, 0.07, 0.07, {
        "ctoc": "additive", "gamma_up": 0.05, "gamma_down": 0.05, "gamma_up_dtod": 0.01, "gamma_down_dtod": 0.01,
        "lifetime": 1e6, "lifetime_dtod": 0.3,
    }),
    "ecram": (LinearStep, 0.002, 0.1, 0.3, 0.0, 0.01, -0.8276, 1.1724, 0.05, 0.05, {
        "gamma_up": 0.1153, "gamma_down": 0.5085, "gamma_up_dtod": 0.05, "gamma_down_dtod": 0.05,
    }),
    "ecram-mo": (LinearStep, 2.8214e-4, 0.1, 2.0, 0.0, 0.01, -0.8286, 1.1714, 0.05, 0.05, {
        "gamma_up": 0.4152, "gamma_down": 0.7342, "gamma_up_dtod": 0.05, "gamma_down_dtod": 0.05,
    }),
    "idealized": (ConstantStep, 0.0002, 0.3, 0.3, 0.0, 0.0, -1.0, 1.0, 0.3, 0.3, {}),
    "gokmen-vlasov": (ConstantStep, 0.0016, 0.3, 0.3, 0.0, 0.01, -1.0, 1.0, 0.3, 0.3, {}),
    "pcm": (ExpStep, 0.01, 0.2, 0.6, 0.0, 0.05, 0.0, 2.0, 0.0, 0.1, {
        "a": -1.0, "b": 0.0, "gamma_up": 2.5, "gamma_down": 2.5, "A_up": -27.235, "A_down": -2.235,
        "noise_add": 0.042, "noise_slope": 0.108, "reset": 0.01, "reset_dtod": 0.02,
    }),
    "reram-array-om": (SOFT, 0.0949, 0.7829, 0.4158, 0.0, 0.01, -1.0, 1.0, 0.5695, 0.3499, {
        "dw_min_log_normal": True, "write_noise": 1.4113, "subtract_symmetry_point": True, "reference_std": 0.05,
        "corrupt_range": 0.01,
    }),
    "reram-array-hfo2": (SOFT, 0.4622, 0.7125, 0.2174, 0.0, 0.01, -1.0, 1.0, 0.5990, 0.4295, {
        "dw_min_log_normal": True, "write_noise": 0.5841, "subtract_symmetry_point": True, "reference_std": 0.05,
        "corrupt_range": 0.01,
    }),
}  # fmt: skip
COLUMNS = (
    "dw_min", "dw_min_dtod", "dw_min_ctoc", "up_down", "up_down_dtod", "w_min", "w_max", "w_min_dtod", "w_max_dtod",
)  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_every_number_of_the_measured_presets(name):
    family, *numbers, rest = TABLE[name]
    device, expected = catalog.find(name), family(**dict(zip(COLUMNS, numbers, strict=True)), **rest)
    assert type(device) is family
    assert vars(device) == pytest.approx(vars(expected))


@pytest.mark.parametrize(("name", "states"), [
    ("reram-sb", 1000.0), ("ecram", 1000.0), ("ecram-mo", 2.0 / 2.8214e-4), ("capacitor", 400.0),
    ("idealized", 10_000.0), ("reram-array-om", 2.0 / 0.0949), ("reram-array-hfo2", 2.0 / 0.4622), ("multi-level", 4.0),
])  # fmt: skip
def test_states_of_presets(name, states):
    assert catalog.find(name).n_states == pytest.approx(states)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: PowStep(gamma=-1.0), "PowStep needs gamma >= 0, got -1.0"),
    (lambda: PowStep(gamma=2000.0), "PowStep needs gamma <= 100, got 2000.0"),
    (lambda: SoftBounds(dw_min=10**400), "SoftBounds needs a finite number for dw_min"),
    (lambda: PowerResponse(gamma_up_down=2.0), "PowerResponse needs -1 <= gamma_up_down <= 1, got 2.0"),
    (lambda: ExpStep(granularity_from="up"), "granularity_from 'down' or 'mean', got 'up'"),
    (lambda: ExpStep(noise_add=-0.1), "noise_add >= 0, got -0.1"),
    (lambda: ExpStep(w_max=math.inf), "finite number for w_max, got inf"),
    (lambda: ExponentialResponse(gamma_up=0.0), r"0.001 <= \|gamma_up\| <= 50, got 0.0"),
    (lambda: LogDomain(exponent=1.5), r"exponent in \[0, 1\], got 1.5"),
    (lambda: LogDomain(w_min=-1.0), "w_min > -reference, got w_min=-1.0, reference=1.0"),
    (lambda: PiecewiseStep(nodes_up=(1.0, math.nan)), "one finite number for nodes_up"),
    (lambda: PiecewiseStep(nodes_up=()), "one finite number for nodes_up"),
    (lambda: PiecewiseStep(nodes_up=(1.0, 2.0)), "nodes_up and nodes_down of equal length"),
    (lambda: PowStepReference(n_estimation_steps=-2), "whole n_estimation_steps >= -1, got -2"),
    (lambda: SoftBounds(ctoc="own"), "ctoc 'multiplicative' or 'additive', got 'own'"),
    (lambda: SoftBounds(corrupt=1.5), "0 <= corrupt <= 1, got 1.5"),
    (lambda: presets.soft_bounds_pmax(p_max=0), "p_max > 0 and alpha > 0"),
    (lambda: catalog.find("soft-bounds-pmax", fields=1.0), "soft-bounds-pmax has no parameter 'fields'"),
    (lambda: catalog.find("soft-bounds-pmax", reading=1.0), "soft-bounds-pmax needs a word for reading, got 1.0"),
    (lambda: catalog.find("multi-level", n_states="few"), "multi-level needs a number for n_states, got 'few'"),
    (lambda: catalog.find("log-domain-cell", tau=0), "log-domain-cell needs tau > 0, got 0"),
    (lambda: catalog.find("saturating-exponential", gamma=-1e6), "saturating-exponential has no device with gamma=-1"),
    (lambda: catalog.find("ecram", n_states=10**400), "ecram needs a finite n_states > 0"),
    (lambda: catalog.find("reram"), "no device is named 'reram'; there are reram-es, reram-sb"),
    (lambda: catalog.find("ecram", gamma=1.0), "ecram has no parameter 'gamma'"),
    (lambda: catalog.find("ecram", n_states=0), "ecram needs a finite n_states > 0, got 0"),
])  # fmt: skip
def test_wrong_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()
