"""Intervals cover as often as they say, and claims hold only where the whole interval is accepted."""

import math

import pytest
import torch

from chance import assert_counts
from ohmgrad.experiments.verify import Experiment, chosen, planted
from ohmgrad.experiments.verify.e12_granularity import Settings, predicted
from ohmgrad.experiments.verify.pairs import modulus, rest, resting_point
from ohmgrad.experiments.verify.verdict import (
    CONFIDENCE,
    Estimate,
    Verdict,
    at_least,
    at_most,
    equal,
    mean,
    of_groups,
    of_runs,
    slope,
    worst,
)


def covered(estimates: list[Estimate], truth: float) -> int:
    return sum(abs(e.value - truth) <= e.half_width for e in estimates)


@pytest.mark.parametrize("kind", ["mean", "of_groups", "of_runs"])
def test_intervals_cover_as_often_as_they_say(kind, seed):
    # 3,000 of samples of 100: sees intervals that are 12 % too narrow, such as those of a normal law for few samples.
    x = torch.randn(3000, 100, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if kind == "mean":
        estimates = [mean(row[:10]) for row in x]
    elif kind == "of_groups":
        estimates = [of_groups(lambda m: float(m), row) for row in x]
    else:
        estimates = [of_runs(1.0 + 0.01 * row[:50], 1.0 + 0.01 * row[50:]) for row in x]
    assert_counts(covered(estimates, 1.0 if kind == "of_runs" else 0.0), 3000, CONFIDENCE)


def test_a_claim_holds_where_the_whole_interval_is_accepted():
    def ends(value: float, half_width: float) -> list[bool]:
        e = Estimate(value, half_width)
        claims = (
            equal("", 1.0, e, within=0.1, because=""),
            at_most("", 1.1, e, because=""),
            at_least("", 0.9, e, because=""),
        )
        return [claim.holds for claim in claims]

    assert ends(1.0, 0.09) == [True, True, True]
    assert ends(1.0, 0.2) == [False, False, False]  # measured as predicted, but not known well enough
    assert ends(1.2, 0.05) == [False, False, True]
    assert ends(0.8, 0.05) == [False, True, False]
    assert ends(math.nan, 0.0) == ends(1.0, math.nan) == [False, False, False]


def test_a_verdict_needs_claims():
    assert not Verdict(name="E0", title="", statement="", source="").holds


def test_small_helpers():
    x = torch.tensor([1.0, 2.0, 4.0])
    assert slope(x, 3.0 * x**-2) == pytest.approx(-2.0)
    assert worst([Estimate(1.1), Estimate(0.95, 0.2), Estimate(1.0)], 1.0).value == 0.95
    assert Estimate(2.0, 0.5).times(-2.0) == Estimate(-4.0, 1.0)
    assert modulus(0.3, 0.1) == pytest.approx(0.3, abs=1e-3) and modulus(0.0, 1.0) == pytest.approx(0.797885)
    assert resting_point(0.4, 0.3, 1.0, lambda w: w) == pytest.approx(0.32059, abs=1e-5)


def test_pairs_of_opposite_noise_lose_its_linear_part(seed):
    # On ideal devices all of it: the mean of a pair is that of no noise. On others the pull of |g| stays.
    from ohmgrad import AnalogSGD
    from ohmgrad.devices import Ideal
    from ohmgrad.devices.presets import asymmetric_linear

    run = {"sigma": 0.3, "lr": 0.1, "start": 0.4, "settle": 1.0, "times": 1.0, "seed": seed, "shape": (1, 200)}
    w = rest(AnalogSGD(), Ideal(), lambda w: w - 0.4, **run).w
    assert (w - 0.4).abs().max() < 1e-12
    w = rest(AnalogSGD(), asymmetric_linear(), lambda w: w - 0.4, **run).w
    assert w.mean() < 0.39


def test_the_walk_of_whole_pulses():
    # Two limits: fine steps, where the variance is dw_min E|noise| / 2; coarse ones, where w sits on the two states
    # beside the optimum, with the odds that keep its mean there: E (w - w*)^2 = dw_min^2 / 6 over all offsets.
    settings = Settings(sigma=0.05)
    fine, coarse = predicted(settings, 1e-4), predicted(settings, 5.0)
    assert fine == pytest.approx(1e-4 * 0.05 * math.sqrt(2.0 / math.pi) / 2.0, rel=0.01)
    assert coarse == pytest.approx(25.0 / 6.0, rel=0.02)


def test_names():
    assert [e.name for e in chosen(["e7", "E1", "E7"])] == ["E1", "E7"]
    with pytest.raises(ValueError, match=r"experiments are E1, .*, E18, got 'E19'"):
        chosen(["E19"])


def test_an_exception_is_a_verdict_that_fails():
    def run(settings):
        raise ValueError("w_star out of bounds")

    module = type("Module", (), {"run": staticmethod(run), "__doc__": "A title.\n\nMore."})
    verdict = Experiment("E0", module).run(None)  # type: ignore[arg-type]
    assert not verdict.holds
    assert verdict.error == "ValueError: w_star out of bounds"


def test_planted_errors_are_taken_out_again(seed):
    from ohmgrad import AnalogSGD, Dense, Tile
    from ohmgrad.devices.presets import asymmetric_linear

    def moved() -> float:
        tile = Tile(torch.full((1, 1), 0.5).double(), algorithm=AnalogSGD(), crossbar={"device": asymmetric_linear()})
        tile.algorithm.update(tile.state, Dense(torch.full((1, 1), -1.0).double()), 0.1)
        return float(tile.weight) - 0.5

    assert moved() == pytest.approx(0.05)
    with planted.doubled_asymmetry():
        assert moved() == pytest.approx(0.0)
    with planted.symmetric_point_shifted():
        assert moved() == pytest.approx(0.06)
    assert moved() == pytest.approx(0.05)
