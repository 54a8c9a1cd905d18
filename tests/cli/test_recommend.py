"""`ohmgrad recommend`: every algorithm gets the same budget, and the ranking says what was measured."""

import json
import math

import pytest
from typer.testing import CliRunner

from ohmgrad.cli import app
from ohmgrad.cli.recommend import reason
from ohmgrad.devices import SoftBounds
from ohmgrad.devices.presets import CELLS
from ohmgrad.experiments import recommend
from ohmgrad.experiments.data import load
from ohmgrad.experiments.methods import METHODS
from ohmgrad.experiments.recommend import LR, RecommendSettings, Result, points, ranking


def test_a_small_run_ranks_and_writes(tmp_path):
    options = ["--methods", "analog-sgd,tiki-taka", "--trials", "1", "--epochs", "1", "--seeds", "2"]
    done = CliRunner().invoke(app, ["recommend", *options, "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    content = json.loads((tmp_path / "recommend.json").read_text())
    assert {row["method"] for row in content["ranking"]} == {"analog-sgd", "tiki-taka"}
    losses = [row["digits"]["loss"] for row in content["ranking"]]
    assert losses == sorted(losses)
    assert content["ranking"][0]["is_tied"]
    assert content["ranking"][0]["accuracy"] > 50.0  # the first has learnt: chance is 10 %, and one trial may be bad
    assert METHODS[content["ranking"][0]["method"]].label in content["recommendation"]
    for row in content["ranking"]:
        assert row["digits"]["error"] > 0.0
        assert row["digits"]["settings"].keys() == {"lr", *METHODS[row["method"]].ranges}
        assert row["cost"]["arrays"] == {"analog-sgd": 1, "tiki-taka": 2}[row["method"]]


@pytest.mark.parametrize("method", METHODS)
def test_every_search_has_the_same_budget_and_stays_in_its_ranges(method):
    tried = points(method, 6, seed=3)
    assert len(tried) == 6
    for name, (low, high) in {"lr": LR, **METHODS[method].ranges}.items():
        assert all(low <= p[name] <= high for p in tried)
        # One point in each half of the range, on a log scale: what a Sobol sequence promises of its first two.
        assert (tried[0][name] < math.sqrt(low * high)) != (tried[1][name] < math.sqrt(low * high))
    for p in tried:
        METHODS[method].tuned({k: v for k, v in p.items() if k != "lr"})  # the algorithm accepts them


def test_the_ranking_is_by_digits_and_knows_ties():
    # Mean 1.0 and 1.1 with standard errors of 0.1: tied. 2.0 is not. What diverged comes last.
    def result(*losses):
        return {"digits": Result(list(losses), [90.0] * len(losses), {}), "quadratic": Result([1.0, 1.0], None, {})}

    results = {"agad": result(2.0, 2.02), "rider": result(math.inf, math.inf), "tiki-taka": result(1.0, 1.2)}
    rows = ranking({**results, "analog-sgd": result(0.9, 1.1)})
    assert [row["method"] for row in rows] == ["analog-sgd", "tiki-taka", "agad", "rider"]
    assert [row["is_tied"] for row in rows] == [True, True, False, False]
    assert rows[0]["digits"]["error"] == pytest.approx(0.1)


def test_nothing_is_recommended_where_all_diverged():
    bad = {task: Result([math.inf, math.nan], None, {}) for task in ("digits", "quadratic")}
    rows = ranking({"agad": bad, "rider": bad})
    assert reason(rows, SoftBounds(), "x") == "For x, no algorithm came to a finite loss."


def test_a_search_goes_on_after_a_point_whose_loss_is_no_number(monkeypatch):
    losses = iter([math.nan, 0.5, math.nan, 0.7] * 2)

    def train(task, method, point, settings, data, seeds, *, is_search):
        return ([next(losses)] if is_search else [point["lr"]] * 2), None

    monkeypatch.setattr(recommend, "_train", train)
    settings = RecommendSettings(methods=("analog-sgd",), trials=4)
    found = recommend.run(settings, load("digits"))["analog-sgd"]["digits"]
    assert found.settings == points("analog-sgd", 4, 0)[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": CELLS["pcm_pair"]()}, "device needs a single device, got OneSidedCell"),
        ({"methods": ("sgd",)}, "methods needs some of analog-sgd, .* got sgd"),
        ({"trials": 0}, "trials needs a whole number >= 1, got 0"),
        ({"seeds": (1,)}, r"seeds needs at least two, .* got \(1,\)"),
    ],
)
def test_wrong_values(options, message):
    with pytest.raises(ValueError, match=message):
        RecommendSettings(**options)
