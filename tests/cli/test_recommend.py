"""`ohmgrad recommend`: every algorithm gets the same budget, and the ranking says what was measured."""

import json
import math

import pytest
import torch
from typer.testing import CliRunner

from ohmgrad import AnalogSGD, ExpectedUpdate
from ohmgrad.cli import app
from ohmgrad.cli.recommend import reason
from ohmgrad.devices import Ideal, SoftBounds
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
        found = row["digits"]["settings"]
        assert len(found) == len(row["digits"]["losses"]) == 2
        assert found[0] != found[1]  # each seed's search is its own
        assert all(settings.keys() == {"lr", *METHODS[row["method"]].ranges} for settings in found)
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
    # Seed by seed agad has e^0.02 to e^0.03 times the first's loss: told apart, though the spread over seeds is far
    # more. Tiki-Taka has more on some seeds and less on others: tied. What diverged comes last, and ties with nobody.
    def result(*losses):
        return {"digits": Result(list(losses), [90.0] * len(losses), []), "quadratic": Result([1.0, 1.0], None, [])}

    first = [0.1, 0.2, 0.4, 0.8]
    agad = [v * math.exp(e) for v, e in zip(first, (0.02, 0.03, 0.02, 0.03), strict=True)]
    results = {"agad": result(*agad), "rider": result(1.0, math.inf, 1.0, 1.0)}
    rows = ranking({**results, "tiki-taka": result(0.15, 0.12, 0.6, 0.7), "analog-sgd": result(*first)})
    assert [row["method"] for row in rows] == ["analog-sgd", "agad", "tiki-taka", "rider"]
    assert [row["is_tied"] for row in rows] == [True, False, True, False]
    # t = 0.025 / (0.00577 / 2) with 3 degrees of freedom: two-sided odds, by the closed form for 3.
    t = 0.025 / (math.sqrt(4 * 0.005**2 / 3) / 2)
    odds = 1.0 - 2.0 / math.pi * (math.atan(t / 3**0.5) + (t / 3**0.5) / (1.0 + t * t / 3.0))
    assert rows[1]["p"] == pytest.approx(odds, rel=1e-6)
    assert rows[0]["digits"]["loss"] == pytest.approx((0.1 * 0.2 * 0.4 * 0.8) ** 0.25)
    assert rows[0]["digits"]["error"] / rows[0]["digits"]["loss"] == pytest.approx(math.log(2) * math.sqrt(5 / 3) / 2)


def test_what_is_recommended_is_the_whole_top_group():
    def result(*losses):
        return {"digits": Result(list(losses), [90.0] * len(losses), []), "quadratic": Result([1.0, 1.0], None, [])}

    rows = ranking({"agad": result(1.0, 2.0), "rider": result(1.5, 1.5), "tiki-taka": result(9.0, 18.1)})
    for row, time in zip(rows, (300.0, 200.0, 100.0), strict=True):
        row["cost"] = {"time_ns": time}
    said = reason(rows, SoftBounds(), "x")
    assert said.startswith("For x, one of AGAD, RIDER, which 2 seeds do not tell apart. First is AGAD: ")
    assert "Cheapest is RIDER, 200 ns a sample." in said


def test_nothing_is_recommended_where_all_diverged():
    bad = {task: Result([math.inf, math.nan], None, []) for task in ("digits", "quadratic")}
    rows = ranking({"agad": bad, "rider": bad})
    assert reason(rows, SoftBounds(), "x") == "For x, no algorithm came to a finite loss."


def test_a_search_goes_on_after_a_point_whose_loss_is_no_number(monkeypatch):
    def train(task, method, chosen, seeds, settings, data, share):
        return ([math.nan, 0.5, math.nan, 0.7] * 2 if share < 1.0 else [p["lr"] for p in chosen]), None

    monkeypatch.setattr(recommend, "_train", train)
    settings = RecommendSettings(methods=("analog-sgd",), trials=4, seeds=(3, 5))
    found = recommend.run(settings, load("digits"))["analog-sgd"]["digits"]
    assert found.settings == [points("analog-sgd", 4, seed)[1] for seed in (3, 5)]


def test_halving_keeps_the_best_and_gives_them_more(monkeypatch):
    # 16 settings of each of two seeds, then 4, then the best; the loss is the learning rate, which each stage sorts by.
    calls = []

    def train(task, method, chosen, seeds, settings, data, share):
        calls.append((len(chosen), share, len(set(seeds))))
        return [p["lr"] for p in chosen], None

    monkeypatch.setattr(recommend, "_train", train)
    settings = RecommendSettings(methods=("analog-sgd",), seeds=(0, 1))
    found = recommend.run(settings, load("digits"))["analog-sgd"]["digits"]
    assert calls[:3] == [(32, 1 / 9, 2), (8, 1 / 3, 2), (2, 1.0, 2)]
    assert found.losses == [min(p["lr"] for p in points("analog-sgd", 16, seed)) for seed in (0, 1)]


def test_replicas_that_diverge_leave_the_others_alone():
    # An ideal device has no bounds: a step of 10 blows up, one of 0.1 does what it does alone.
    settings, sgd = RecommendSettings(device=Ideal(), update=ExpectedUpdate()), AnalogSGD()
    steps = torch.tensor([10.0, 0.1])[:, None, None]
    wild, calm = recommend.quadratic(sgd, settings, steps, (7, 8), 100)
    (alone,) = recommend.quadratic(sgd, settings, steps[1:], (8,), 100)
    assert wild == math.inf
    assert calm == pytest.approx(alone, rel=1e-5)
    assert calm < 0.1


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
