"""The script that compares merged pulses with single ones: it passes equal laws and finds unequal ones."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from ohmgrad import PulsedUpdate

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "merged_law.py"


@pytest.fixture(scope="module")
def law():
    spec = importlib.util.spec_from_file_location("merged_law", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # its dataclass looks itself up there
        spec.loader.exec_module(module)
        yield module


def test_moments_and_their_errors(law):
    w = np.random.default_rng(0).normal(3.0, 2.0, 100_000)
    (mean, mean_error), (variance, variance_error), (skewness, skewness_error) = law.moments(w).values()
    assert (mean, variance) == (pytest.approx(w.mean()), pytest.approx(w.var()))
    assert abs(skewness) < 5.0 * skewness_error
    errors = [2.0 / 100_000**0.5, 4.0 * (2.0 / 100_000) ** 0.5, (6.0 / 100_000) ** 0.5]  # of a normal law
    assert [mean_error, variance_error, skewness_error] == pytest.approx(errors, rel=0.03)


def test_a_constant_has_no_skewness_and_equals_itself(law):
    w = np.full(1000, 0.588, np.float32)
    assert np.isnan(law.moments(w)["skewness"][0])
    assert law.compare(w, w)["p"] == 1.0


@pytest.mark.parametrize(
    ("shift", "scale", "seen"), [(0.0, 1.0, False), (0.05, 1.0, True), (0.0, 1.05, True)], ids=["same", "mean", "std"]
)
def test_unequal_laws_are_found(law, shift, scale, seen):
    # 50,000 a side: eight standard errors in the mean, eleven in the variance, to which the KS distance is blind.
    rng = np.random.default_rng(1)
    row = law.compare(rng.normal(size=50_000), rng.normal(shift, scale, 50_000))
    assert bool(law.failures([row])) == seen


def test_the_cases_are_all_there_and_differ(law):
    cases = list(law.cases())
    assert len(set(cases)) == 3 * 4 * 4 * 4 * 3


def test_it_ends_with_1_where_laws_differ(law, tmp_path, monkeypatch):
    options = {"devices": 2000, "seed": 0, "every": 40, "show": 3, "threads": 1}
    law.main(**options, out=tmp_path / "law.json")
    report = json.loads((tmp_path / "law.json").read_text())
    assert (report["cases"], report["failed"], len(report["rows"])) == (15, 0, 3)
    # Single pulses of a train that is cut to 5 slots: the counts betray it.
    monkeypatch.setattr(law, "PulsedUpdate", lambda merge: PulsedUpdate(merge=merge, bit_length=31 if merge else 5))
    with pytest.raises(RuntimeError, match="pulses were asked for"):
        law.main(**options, out=None)
    monkeypatch.undo()
    weights = law.weights
    monkeypatch.setattr(law, "weights", lambda *args, merge, seed: weights(*args, merge=merge, seed=seed) + 0.1 * merge)
    with pytest.raises(typer.Exit) as stop:
        law.main(**options, out=None)
    assert stop.value.exit_code == 1
