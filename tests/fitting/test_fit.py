"""Fits recover what ramps were made with, and say how well; the right family is found; spreads between devices."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats

from chance import assert_counts
from ohmgrad import Crossbar, ExpectedUpdate
from ohmgrad.devices import (
    DEVICES,
    ConstantStep,
    Device,
    ExponentialResponse,
    ExpStep,
    Ideal,
    LinearStep,
    LogDomain,
    LookUpTable,
    PiecewiseStep,
    PowerResponse,
    PowStep,
    PowStepReference,
    SoftBounds,
    SoftBoundsReference,
)
from ohmgrad.fitting.filter import predict
from ohmgrad.fitting.fit import Fit, fit, log_terms
from ohmgrad.fitting.rank import Ranked, _beside, _place, rank
from ohmgrad.fitting.readings import Readings
from ohmgrad.fitting.spread import make_of
from users import Bent

COMMON = {"w_max": 0.9, "w_min": -1.0, "dw_min": 0.02, "up_down": 0.15, "dw_min_ctoc": 0.3, "write_noise": 0.5}
RISING, FALLING = (0.3, 0.9, 1.1, 1.4), (1.5, 1.0, 1.2, 0.4)
TRUE: dict[type[Device], Device] = {
    type(device): device
    for device in (
        ConstantStep(**COMMON),
        LinearStep(**COMMON, gamma_up=0.4, gamma_down=0.25),
        SoftBounds(**COMMON),
        SoftBoundsReference(**COMMON),
        # The papers' saturating exponentials, a little apart.
        ExpStep(**COMMON, a=0.5, b=0.0, A_up=0.2, A_down=0.1, gamma_up=3.0, gamma_down=4.0),
        PowStep(**{**COMMON, "dw_min": 0.06}, gamma=1.5, gamma_up_down=0.2),
        PowStepReference(**{**COMMON, "dw_min": 0.06}, gamma=1.5, gamma_up_down=0.2),
        PowerResponse(**COMMON, gamma=1.5),
        ExponentialResponse(**COMMON, gamma_up=1.0, gamma_down=2.0),
        LogDomain(**{**COMMON, "w_min": -0.9}, exponent=0.7, reference=1.3),
        PiecewiseStep(**COMMON, nodes_up=FALLING, nodes_down=RISING),
        LookUpTable(
            **COMMON, step_up=FALLING, step_down=RISING, noise_up=(2.0, 1.0, 1.0, 1.5), noise_down=(1.0, 1.0, 2.0, 0.5)
        ),
    )
}


def test_every_family_has_a_true_device():
    assert set(TRUE) == set(DEVICES) - {Ideal}  # which has no bounds: no measured device is one


def ramps(device: Device, n_ramps: int, n_pulses: int, seed: int, *, is_make: bool = False) -> list[Readings]:
    """Ramps up and down in turn, from near the other bound, one pulse at a time with all its noise.

    is_make: each pair of ramps is another device of the make; else one device takes them all, end to end.
    """
    ends = (0.95 * device.w_min, 0.95 * device.w_max)
    n_devices = n_ramps // 2 if is_make else n_ramps
    own = device if is_make else dataclasses.replace(device, **{f"{k}_dtod": 0.0 for k in ("dw_min", "w_max", "w_min")})
    taken = []
    for up in (True, False) if is_make else (None,):
        ups = torch.arange(n_devices) % 2 == 0 if up is None else torch.full((n_devices,), up)
        # The same seed: the same devices, whose noise goes on with the cycles.
        bar = Crossbar((1, n_devices), device=own, update=ExpectedUpdate(noise=True), seed=seed, dtype=torch.float64)
        bar.cycles += 0 if up is not False else 10_000
        bar.set_weight(torch.where(ups, *ends).double()[None])
        states = [bar.weight[0].clone()]
        for _ in range(n_pulses):
            bar.pulse(torch.where(ups, 1.0, -1.0).double()[None], -torch.ones(1, 1).double(), lr=own.granularity)
            states.append(bar.weight[0].clone())
        taken.append((torch.stack(states).numpy(), ups.numpy()))
    y = np.stack([states for states, _ in taken], 1)  # (pulses, kinds, devices)
    up = np.broadcast_to(np.stack([ups for _, ups in taken]), y.shape)
    first = np.broadcast_to(np.arange(len(y))[:, None, None] == 0, y.shape)
    parts = [[np.ascontiguousarray(a[:, :, k].T).ravel() for a in (y, up, first)] for k in range(n_devices)]
    if is_make:
        return [Readings(*part) for part in parts]
    return [Readings(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))]


def refit(true: Device, readings: Readings) -> Fit:
    """The family, which knows its kind of noise, the unit of its tables and how many states they have, and no more."""
    kept = {"ctoc": true.ctoc} | ({"a": true.a, "b": true.b} if isinstance(true, ExpStep) else {})
    if not type(true).tables:
        return fit(type(true)(**kept), readings)
    bounds = {"w_min": readings.y.min(), "w_max": readings.y.max()}
    unit = dataclasses.replace(true, **{name: (1.0,) * 4 for name in type(true).tables}, **bounds)
    return fit(unit, readings, [unit])


def deviations(true: Device, found: Fit) -> dict[str, float]:
    """Estimates less the truth, in standard errors."""

    def number(device: Device, name: str) -> float:
        field, _, index = name.rstrip("]").partition("[")
        value = getattr(device, field)
        return value[int(index)] if index else value

    names = [name for name in found.errors if name not in ("dw_up", "dw_down")]
    return {name: (number(found.device, name) - number(true, name)) / found.errors[name] for name in names}


def assert_recovered(*cases: tuple[Device, Fit, Readings]) -> None:
    """The likelihood and the standard errors are as theory has them: three alarms of 1e-6 each, whatever the number.

    Parameters of one fit go together, fits of other readings do not. So: the truth lies as far below the top as the
    chi-squared law says (Wilks), which a wrong likelihood or a climb that stops early would break; no number is off by
    more than a normal law allows at 1e-6 / n; and fits with one beyond 3 standard errors are as rare as the sum of
    their chances. 120 fits see standard errors that are 1.5 times too small.
    """
    z = [np.array(list(deviations(true, found).values())) for true, found, _ in cases]
    every, n_free = np.concatenate(z), sum(found.n_free for _, found, _ in cases)
    assert np.isfinite(every).all()
    below = sum(found.log_likelihood - log_likelihood(true, readings) for true, found, readings in cases)
    assert stats.chi2.ppf(5e-7, n_free) < 2.0 * below < stats.chi2.isf(5e-7, n_free)
    assert np.abs(every).max() < stats.norm.isf(5e-7 / every.size)
    p = min(1.0, 2.0 * stats.norm.sf(3.0) * every.size / len(z))
    assert_counts(sum((np.abs(one) > 3.0).any() for one in z), len(z), p)
    if len(z) >= 30:  # all of a fit as one at worst: sees standard errors that are twice too large
        assert sum((one**2).mean() for one in z) > stats.chi2.ppf(5e-7, len(z))


def log_likelihood(device: Device, readings: Readings) -> float:
    """Of all scored readings."""
    terms = log_terms(predict(device, readings), readings)
    return float(terms.sum()) - 0.5 * len(terms) * math.log(2.0 * math.pi)


@pytest.mark.parametrize("family", [SoftBounds, LookUpTable])
def test_parameters_are_recovered(family):
    true, readings = TRUE[family], ramps(TRUE[family], 20, 200, seed=7)[0]
    assert_recovered((true, refit(true, readings), readings))


def test_standard_errors():
    """20 short measurements: sees errors that are half as large as stated ones should be."""
    true = dataclasses.replace(TRUE[SoftBounds], dw_min=0.06)
    given = [ramps(true, 20, 40, seed=s)[0] for s in range(20)]
    assert_recovered(*((true, refit(true, readings), readings) for readings in given))


@pytest.mark.slow
def test_parameters_of_every_family_are_recovered():
    """20 ramps each, 10 seeds: some 1,000 deviations, of which 3 are expected beyond 3 standard errors."""
    given = [(t, ramps(t, 20, 300, seed=100 * s + k)[0]) for s in range(10) for k, t in enumerate(TRUE.values())]
    assert_recovered(*((true, refit(true, readings), readings) for true, readings in given))


SHAPES = [
    ExpStep(**COMMON),  # aihwkit's, strongly bent
    ExpStep(**COMMON, a=-0.5, b=-0.5, A_up=-1.18445, A_down=-0.081404, gamma_up=5.0, gamma_down=5.0),  # reram-es'
]


@pytest.mark.parametrize("true", SHAPES)
def test_exponential_steps_of_every_shape_are_found(true):
    """From `starts`: the top that a climb from the truth finds, and no other; a wrong shape lacks hundreds."""
    readings = ramps(true, 20, 150, seed=2)[0]
    found, top = fit(ExpStep(), readings), fit(true, readings, [true])
    assert found.log_likelihood > top.log_likelihood - 0.5


def test_a_family_of_a_users_own_is_fitted_by_its_response_alone():
    true = Bent(**COMMON, steepness=0.8, steepness_dtod=0.0)
    readings = ramps(true, 20, 150, seed=2)[0]
    found = fit(Bent(steepness_dtod=0.0), readings)
    assert "steepness" in found.errors
    assert_recovered((true, found, readings))


@pytest.mark.parametrize("family", [ConstantStep, LinearStep])
def test_the_right_family_comes_first(family):
    """Also the constant step, which a linear step without slope is as well: the simpler one of two that tie."""
    rows, failed = rank([LinearStep(), SoftBounds(), ConstantStep()], ramps(TRUE[family], 20, 150, seed=3))
    assert not failed and rows[0].family is family
    # Held out, an unbiased description errs by its noise alone: of the reading (0.01) and, along a ramp, of steps.
    assert rows[0].error < 0.05 < rows[-1].error


def test_of_families_that_tie_the_simplest_comes_first():
    """By hand: 100 groups of one reading each, whose scores differ by 0.1 +- 1 between 6 and 8 free parameters."""

    def row(n_free: int, by_group: np.ndarray) -> Ranked:
        found = Fit(ConstantStep(), {}, 0.0, n_free, 100)
        return Ranked((found,), float(by_group.mean()), 0.0, by_group)

    gain = np.where(np.arange(100) % 2, 1.1, -0.9)
    for lead, order in ((gain, [6, 8, 7]), (2.0 + gain, [8, 6, 7])):
        rows = [row(8, lead), row(7, np.full(100, -9.0)), row(6, np.zeros(100))]
        placed = sorted((_beside(rows[0], r) for r in rows), key=_place)
        assert [r.fits[0].n_free for r in placed] == order
        assert placed[1].below_se == pytest.approx(1.0 / math.sqrt(99.0)) or placed[1].below == 0.0
    # No error, and a charge of log(100) / 2 = 2.303 for each of two parameters: 4.606. Equal numbers go by score.
    for lead, order in ((3.5, [0.0, -1.0, 3.5]), (4.7, [4.7, 0.0, -1.0])):
        rows = [row(8, np.full(100, lead / 100)), row(6, np.full(100, -0.01)), row(6, np.zeros(100))]
        placed = sorted((_beside(rows[0], r) for r in rows), key=_place)
        assert [100 * r.score for r in placed] == pytest.approx(order)


def test_families_with_one_law():
    """A reference moves bounds and steps of the mean device, and no more: readings cannot tell these pairs apart."""
    readings = ramps(TRUE[SoftBounds], 2, 20, seed=0)[0]
    for one, other in ((SoftBounds, SoftBoundsReference), (PowStep, PowStepReference)):
        own = dataclasses.replace(TRUE[other], ctoc=TRUE[one].ctoc)
        assert log_likelihood(TRUE[one], readings) == log_likelihood(own, readings)


@pytest.mark.slow
@pytest.mark.parametrize("family", [f for f in TRUE if f not in (SoftBoundsReference, PowStepReference)])
def test_the_right_family_comes_first_in_9_of_10(family):
    """Against all others of another law, from ramps that come to rest, as measured ones do, and are read to a tenth of
    a step. (CrossSim's go on for 170 pulses, those of Gong et al. for 1,000; CrossSim's are read to a twentieth.)"""
    bases = [f() for f in TRUE if f not in (SoftBoundsReference, PowStepReference)]
    bases = [dataclasses.replace(b, **{name: (1.0,) * 4 for name in type(b).tables}) for b in bases]
    true = dataclasses.replace(TRUE[family], write_noise=0.1)
    first = [rank(bases, ramps(true, 20, 200, seed))[0][0].family for seed in range(10)]
    assert first.count(family) >= 9, first


def test_spread_between_devices():
    """30 devices with 10 % spread of steps and 5 % of bounds, an up and a down ramp of each: sees a spread 60 % off."""
    spread = {"dw_min_dtod": 0.1, "w_max_dtod": 0.05, "w_min_dtod": 0.05}
    true = SoftBounds(**{**COMMON, "dw_min_ctoc": 0.1, "write_noise": 0.2}, **spread)
    make, errors = make_of([fit(SoftBounds(), r) for r in ramps(true, 60, 150, seed=5, is_make=True)])
    z = {
        name: (getattr(make, name) - getattr(true, name)) / errors[name]
        for name in (*spread, "dw_min", "w_max", "w_min")
    }
    assert max(map(abs, z.values())) < stats.norm.isf(5e-7 / len(z)), z
    assert all(errors[name] < 0.3 * getattr(true, name) for name in spread)


def test_what_estimates_err_by_is_no_spread(rng):
    """Devices 0.1 apart, each known to 0.2 only: 5,000 of them show a spread that is 20 % off."""
    one = fit(ConstantStep(), ramps(ConstantStep(**COMMON), 2, 30, seed=0)[0])
    estimates = 1.0 + rng.normal(0.0, math.hypot(0.1, 0.2), 5_000)
    errors = {**one.errors, "w_max": 0.2}
    fits = [dataclasses.replace(one, device=ConstantStep(w_max=abs(w)), errors=errors) for w in estimates]
    make, stated = make_of(fits)
    assert abs(make.w_max_dtod - 0.1) < 4.9 * stated["w_max_dtod"] and stated["w_max_dtod"] < 0.006


def test_the_filter_on_a_line_is_least_squares():
    """No step noise: readings scatter about a line, whose slope is the step; by hand in closed form."""
    rng = np.random.default_rng(0)
    n, dw, s = 40, 0.01, 0.02
    y = -0.5 + dw * np.arange(n) + s * rng.normal(size=n)
    device = ConstantStep(dw_min=dw, write_noise=s / dw)
    readings = Readings(y, np.ones(n, bool), np.arange(n) == 0)
    p = predict(device, readings)
    # Given k readings of one state each moved by dw, their mean is known to s^2 / k.
    k = np.arange(1, n)
    means = np.array([np.mean(y[:i] + dw * (i - np.arange(i))) for i in k])
    np.testing.assert_allclose(p.mean[1:], means, rtol=1e-12)
    np.testing.assert_allclose(p.variance[1:], s**2 * (1.0 + 1.0 / k), rtol=1e-12)


def test_the_filter_of_soft_bounds_between_readings():
    """No step noise, 10 pulses without a reading: each takes a tenth of the way, and of what is unknown."""
    s, n = 0.01, 10
    y = np.full(n + 1, np.nan)
    y[0] = -0.5
    p = predict(SoftBounds(dw_min=0.1, write_noise=s / 0.1), Readings(y, np.ones(n + 1, bool), np.arange(n + 1) == 0))
    np.testing.assert_allclose(p.mean[n], 1.0 - 1.5 * 0.9**n, rtol=1e-12)
    np.testing.assert_allclose(p.variance[n], s**2 * (1.0 + 0.9 ** (2 * n)), rtol=1e-9)
