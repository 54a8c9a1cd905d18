"""`ohmgrad compare`: what it writes and prints, and that the same seed gives the same figures."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import ohmgrad
from ohmgrad.cli import compare as command
from ohmgrad.cli import main
from ohmgrad.experiments.compare import METHODS
from ohmgrad.experiments.data import Dataset, load
from ohmgrad.report.compare import SERIES

TINY = ("--epochs", "1", "--hidden", "4", "--batch-size", "200", "--seeds", "2")


@pytest.fixture
def compare(monkeypatch, capsys, tmp_path):
    """`ohmgrad compare WORDS --out OUT` in this process: the results it wrote, and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    threads = torch.get_num_threads()

    def call(*words: str, out: str = "results") -> tuple[dict[str, Any], str]:
        monkeypatch.setattr(sys, "argv", ["ohmgrad", "compare", *words, "--out", out])
        with pytest.raises(SystemExit) as end:
            main()
        printed, err = capsys.readouterr()
        assert (end.value.code, err) == (0, "")
        return json.loads(Path(out, "results.json").read_text(), parse_constant=pytest.fail), printed

    yield call
    torch.set_num_threads(threads)


def figures(results: dict[str, Any]) -> dict[str, Any]:
    """All of results.json but the times."""
    methods = {m: {k: v for k, v in s.items() if k != "seconds"} for m, s in results["methods"].items()}
    return {**results, "methods": methods}


def test_same_seed_gives_the_same_files_but_for_seconds(compare, tmp_path):
    first, _ = compare(*TINY, out="a")
    second, _ = compare(*TINY, out="b")
    assert figures(first) == figures(second)
    assert (tmp_path / "a/curves.csv").read_bytes() == (tmp_path / "b/curves.csv").read_bytes()
    assert (tmp_path / "a/compare.png").read_bytes() == (tmp_path / "b/compare.png").read_bytes()
    other, _ = compare(*TINY, "--seed", "2", out="a")
    for method in METHODS:
        assert other["methods"][method]["train_loss"] != first["methods"][method]["train_loss"]


def test_results_hold_every_figure(compare, tmp_path):
    results, printed = compare(*TINY, "--parameter", "ctoc=additive", "--parameter", "dw_min_log_normal=true")
    assert list(results["methods"]) == list(METHODS)
    for summary in results["methods"].values():
        for name in ("test_accuracy", "train_loss"):
            assert set(summary[name]) == {"mean", "std"} and summary[name]["std"] > 0
        assert {"floor_predicted", "floor_measured", "saturation", "seconds"} <= set(summary)
        assert 0 <= summary["test_accuracy"]["mean"] <= 100 and summary["seconds"] > 0
    assert results["seeds"] == [0, 1]
    assert results["settings"]["device"]["name"] == "SoftBounds"
    assert (results["settings"]["device"]["ctoc"], results["settings"]["device"]["dw_min_log_normal"]) == (
        "additive",
        True,
    )
    assert results["settings"]["tiki_taka"]["name"] == "TikiTaka"
    assert results["settings"]["epochs"] == 1 and results["settings"]["hidden"] == [4]
    assert results["versions"]["torch"] == torch.__version__
    assert results["versions"]["ohmgrad"] == ohmgrad.__version__
    # The sentence and the table on the terminal say the same, within 80 columns.
    assert results["conclusion"] in " ".join(printed.split())
    assert f"{results['methods']['tiki-taka']['train_loss']['mean']:.4f} ± " in printed
    assert max(len(line) for line in printed.splitlines() if not line.startswith("Written")) <= 80

    rows = list(csv.DictReader((tmp_path / "results/curves.csv").read_text().splitlines()))
    assert tuple(rows[0]) == ("method", "seed", "epoch", *SERIES)
    assert [(r["method"], r["seed"], r["epoch"]) for r in rows] == [
        (m, s, e) for m in METHODS for s in "01" for e in "01"
    ]
    last = [float(r["train_loss"]) for r in rows if (r["method"], r["epoch"]) == ("analog-sgd", "1")]
    assert sum(last) / 2 == pytest.approx(results["methods"]["analog-sgd"]["train_loss"]["mean"], rel=1e-5)
    assert (tmp_path / "results/compare.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["compare.png", "curves.csv", "results.json"]


def test_one_seed_and_one_method(compare):
    results, printed = compare(*TINY, "--seeds", "1", "--methods", " digital ,")
    assert list(results["methods"]) == ["digital"]
    # The spread of one seed is not known, which is not the same as 0.
    assert results["methods"]["digital"]["train_loss"]["std"] is None
    assert "±" not in printed and "one seed" in printed
    assert "Run with the methods digital, analog-sgd and tiki-taka" in results["conclusion"]


@pytest.mark.parametrize("device", ["ideal", "constant-step"])
def test_symmetric_devices_have_no_floor_to_draw(device, compare):
    """Planted: drawing a floor of 0 on the log axis warns, which is an error here, and spoils the picture."""
    results, _ = compare(*TINY, "--device-model", device)
    assert results["methods"]["analog-sgd"]["floor_predicted"] == 0.0
    assert results["methods"]["analog-sgd"]["saturation"] == pytest.approx(0.0 if device == "ideal" else 0.06, abs=0.1)
    assert "does not stall" in results["conclusion"]


def test_ideal_devices_make_analog_sgd_digital(compare):
    methods = compare(*TINY, "--device-model", "ideal", "--methods", "digital,analog-sgd")[0]["methods"]
    for name in ("test_accuracy", "train_loss", "floor_measured"):
        assert methods["digital"][name] == methods["analog-sgd"][name]


def test_a_directory_with_markup_in_its_name_is_printed_as_it_is(compare):
    printed = compare(*TINY, "--methods", "digital", out="a [red]b[/red] and quite a long name, longer than a line")[1]
    assert "Written: a [red]b[/red] and quite a long name, longer than a line/results.json, a [red]" in printed


def test_real_mnist_files(compare, data_dir, monkeypatch):
    """The paper's network on the first 500 images."""

    def first_images(name: str, folder: Path) -> Dataset:
        d = load(name, folder)
        assert (len(d.x_train), len(d.x_test)) == (60_000, 10_000)
        parts = {k: getattr(d, k)[:500].clone() for k in ("x_train", "y_train", "x_test", "y_test")}
        return Dataset(name=name, n_classes=d.n_classes, **parts)

    monkeypatch.setattr(command, "load", first_images)
    results, _ = compare("--data", "mnist", "--data-dir", str(data_dir), "--epochs", "1", "--seeds", "1")
    assert results["settings"]["hidden"] == [256, 128]
    for summary in results["methods"].values():
        assert 0.5 < summary["train_loss"]["mean"] < 2.5


@pytest.mark.slow
def test_an_epoch_of_mnist(compare, data_dir):
    results, _ = compare("--data", "mnist", "--data-dir", str(data_dir), "--epochs", "1", "--seeds", "1")
    accuracy = {m: s["test_accuracy"]["mean"] for m, s in results["methods"].items()}
    assert accuracy["digital"] > 80 and accuracy["tiki-taka"] > 80
