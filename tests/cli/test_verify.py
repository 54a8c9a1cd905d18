"""`ohmgrad verify`: exit codes, files, and the page that shows a full run."""

import csv
import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ohmgrad.cli import app
from ohmgrad.experiments.verify import Experiment, e04_no_noise, planted
from ohmgrad.report import verify as report

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def threads():
    n = torch.get_num_threads()
    yield
    torch.set_num_threads(n)


def verify(*words: str, catch: bool = False):
    return CliRunner().invoke(app, ["verify", *words], catch_exceptions=catch, env={"COLUMNS": "160"})


def test_what_holds(tmp_path):
    done = verify("E4", "e6", "--quick", "--planted", "--out", str(tmp_path))
    assert done.exit_code == 0
    assert "2 of 2 hold; 3 of 3 planted errors caught." in done.output
    content = json.loads((tmp_path / "results.json").read_text())
    assert [e["name"] for e in content["experiments"]] == ["E4", "E6"]
    assert all(e["holds"] and e["settings"]["seed"] == 0 for e in content["experiments"])
    assert [(e["name"], e["plant"], e["holds"]) for e in content["planted"]] == [
        ("E4", "doubled_asymmetry", False),
        ("E6", "doubled_asymmetry", False),
        ("E6", "transfer_sign_flipped", False),
    ]
    with (tmp_path / "claims.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    claims = [c for e in content["experiments"] for c in e["claims"]]
    assert [(row["what"], float(row["measured"])) for row in rows] == [(c["what"], c["measured"]) for c in claims]
    assert {"E4", "E6"} == {row.split(",")[0] for row in (tmp_path / "sweeps.csv").read_text().splitlines()[1:]}
    assert (tmp_path / "verify.png").read_bytes().startswith(b"\x89PNG")


def test_what_fails_is_shown_with_its_numbers(tmp_path):
    with planted.doubled_asymmetry():
        done = verify("E4", "E6", "--quick", "--out", str(tmp_path))
    assert done.exit_code == 1
    assert "0 of 2 hold; E4, E6 fail." in done.output
    assert "FAILS" in done.output
    (row, *_) = json.loads((tmp_path / "results.json").read_text())["experiments"][1]["claims"]
    assert not row["holds"] and row["measured"] == pytest.approx(2.0, abs=0.03)


def test_what_raises_is_shown(tmp_path, monkeypatch):
    def broken(settings):
        raise ValueError("no [resting] point")

    monkeypatch.setattr(e04_no_noise, "run", broken)
    done = verify("E4", "E18", "--quick", "--out", str(tmp_path))
    assert done.exit_code == 1
    assert "1 of 2 hold; E4 fails." in done.output
    assert "ValueError: no [resting] point" in done.output
    assert json.loads((tmp_path / "results.json").read_text())["experiments"][0]["error"]


def test_a_planted_error_that_is_not_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(Experiment, "planted", property(lambda self: (nullcontext,)))
    done = verify("E4", "--quick", "--planted", "--out", str(tmp_path))
    assert done.exit_code == 1
    assert "0 of 1 planted errors caught, not by E4." in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "verify needs names of experiments, such as E1, or --all"),
        (("E1", "--all"), "verify needs names of experiments, such as E1, or --all"),
        (("E0",), "experiments are E1, E2, .* got 'E0'"),
        (("E1", "--seed", "-1"), "--seed needs 0 ... 2147483647, got -1"),
        (("E1", "--threads", "0"), "--threads needs 1 ... 1024, got 0"),
    ],
)
def test_bad_input(words, message, tmp_path):
    # `main` makes one line and exit code 2 of a ValueError (test_main.py).
    with pytest.raises(ValueError, match=message):
        verify(*words, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def results() -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / "verify.json").read_text(encoding="utf-8"))


def test_the_page_shows_the_committed_run():
    page = (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
    assert report.filled(page, results()) == page


def test_the_committed_run_is_whole():
    content = results()
    assert not content["quick"]
    assert [e["name"] for e in content["experiments"]] == [f"E{n}" for n in range(1, 19)]
    assert {e["name"] for e in content["planted"]} == {f"E{n}" for n in range(1, 19)}
    for entry in content["experiments"]:
        assert entry["holds"] == (bool(entry["claims"]) and all(c["holds"] for c in entry["claims"]))


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="<!-- verdicts -->"):
        report.filled("no tables", {"experiments": [], "planted": []})
