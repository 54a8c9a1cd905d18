"""Every experiment of `ohmgrad verify`: it holds, and it fails on the errors that are planted for it."""

import pytest

from ohmgrad.experiments.verify import experiments

EXPERIMENTS = experiments()
# Of two or more seconds: their planted errors.
SLOW = {"E2", "E5", "E7", "E8", "E10", "E14", "E15", "E17"}
HOLDS_SLOW = {"E17"}


def cases(slow: set[str]) -> list:
    return [pytest.param(e, id=n, marks=[pytest.mark.slow] * (n in slow)) for n, e in EXPERIMENTS.items()]


def plants() -> list:
    return [
        pytest.param(e, plant, id=f"{name}-{plant.__name__}", marks=[pytest.mark.slow] * (name in SLOW))
        for name, e in EXPERIMENTS.items()
        for plant in e.planted
    ]


def test_there_are_eighteen():
    assert list(EXPERIMENTS) == [f"E{n}" for n in range(1, 19)]


@pytest.mark.parametrize("experiment", cases(HOLDS_SLOW))
def test_it_holds(experiment, seed):
    verdict = experiment.run(experiment.settings(is_quick=True, seed=seed))
    assert verdict.name == experiment.name and verdict.statement and verdict.source and verdict.panels
    assert not verdict.error
    assert not [claim for claim in verdict.claims if not claim.holds]
    for claim in verdict.claims:
        assert claim.because
        # What is accepted has more room than what chance takes: a claim does not hold by luck.
        low, high = claim.accepted
        assert claim.high - claim.low < high - low


@pytest.mark.parametrize(("experiment", "plant"), plants())
def test_it_fails_on_a_planted_error(experiment, plant, seed):
    verdict = experiment.run(experiment.settings(is_quick=True, seed=seed), plant)
    assert not verdict.holds
    # By its numbers, not by a crash.
    assert not verdict.error
