"""`ohmgrad bench update`: what it writes and how it refuses; how long anything takes is not tested."""

import json
import sys

import pytest
import torch

from ohmgrad.cli import main
from ohmgrad.experiments import update_speed
from ohmgrad.report import update_speed as report

TINY = ("--shapes", "3x5,2x4", "--batches", "1,3", "--families", "constant-step,linear-step,soft-bounds")
TINY += ("--dw-mins", "1e-3", "--sparsities", "0,0.8", "--repeats", "2")

# Stands for the peer: speaks its lines, knows its name.
FAKE = """#!{python}
import json, sys
print(json.dumps({{"aihwkit": "fake"}}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    with open({log!r}, "a") as log:
        log.write(line)
    print(json.dumps({{"seconds": 1e9}} if request["do"] == "time" else {{}}), flush=True)
"""


@pytest.fixture
def bench(monkeypatch, capsys, tmp_path):
    """The command, run in this process and in an empty directory: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(update_speed, "TURN", 0.0)
    monkeypatch.setattr(update_speed, "REST", 0.0)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["ohmgrad", "bench", "update", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    return call


def fake_peer(tmp_path, text=FAKE):
    path = tmp_path / "peer"
    path.write_text(text.format(python=sys.executable, log=str(tmp_path / "log")))
    path.chmod(0o755)
    return str(path)


def test_ours_alone(bench, tmp_path):
    threads = torch.get_num_threads()
    code, printed, _ = bench(*TINY, "--threads", "1,2", "--max-crosspoint-samples", "44", "--out", "results")
    assert code == 0 and torch.get_num_threads() == threads
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    rows = results["rows"]
    # 3x5 at batch 3 is one too many.
    assert len(rows) == 3 * 3 * 2 * 2
    assert "Left out, of more than 44 crosspoint-samples: 3x5 at batch 3." in printed
    assert results["settings"]["left_out"] == [[3, 5, 3]]
    assert results["machine"]["cpu"] and results["machine"]["versions"]["torch"] == torch.__version__
    wanted = {"device", "out", "in", "batch", "dw_min", "sparsity", "threads"}
    assert all(wanted | {"ours_ms", "peer_ms", "ratio", "pulses_per_s"} <= set(r) for r in rows)
    assert all(r["peer_ms"] is None and r["ratio"] is None and r["ours_ms"] > 0 for r in rows)
    assert "no ratios" in printed


def test_peer_gets_our_case_and_takes_turns(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(update_speed, "LARGE", 15)
    monkeypatch.setattr(report, "LARGE", 15)
    words = ("--shapes", "3x5", "--batches", "1", "--families", "soft-bounds", "--threads", "1", "--repeats", "2")
    words += ("--dw-mins", "1e-3,1e-4", "--sparsities", "0", "--peer-raw", "--out", "results")
    code, printed, _ = bench(*words, "--peer-python", fake_peer(tmp_path))
    assert code == 0
    asked = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [a["do"] for a in asked] == ["load", "make", *["time"] * 5] * 2
    assert [a["raw"] for a in asked if a["do"] == "time"] == [False, False, True, False, True] * 2
    makes = [a for a in asked if a["do"] == "make"]
    assert [m["fields"]["dw_min"] for m in makes] == [1e-3, 1e-4]
    assert makes[0]["fields"]["dw_min_std"] == 0.3 and "dw_min_ctoc" not in makes[0]["fields"]
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert results["machine"]["versions"]["peer"] == {"aihwkit": "fake"}
    for row in results["rows"]:
        assert row["peer_ms"] == row["peer_raw_ms"] == 1e12
        assert row["ratio"] == pytest.approx(1e12 / row["ours_ms"])
    assert "1 thread: median ratio" in printed and "Rows slower than the peer: 0 of 2." in printed


def test_inputs_have_the_share_of_zeros():
    row = update_speed.Row(family="soft-bounds", shape=(20, 500), batch=200, dw_min=1e-3, sparsity=0.8, threads=1)
    x, d = update_speed.inputs(row)
    # 100_000 entries: five standard deviations are 0.0063.
    assert x.shape == (200, 500) and abs((x == 0).mean() - 0.8) < 0.0063
    assert d.shape == (200, 20) and x.dtype == d.dtype == "float32"
    assert 0.0 <= x.min() and x.max() < 1.0 and d.std() == pytest.approx(0.01, rel=0.06)


BAD = {
    "no shape": (["--shapes", "3"], "--shapes needs OUTxIN"),
    "empty shape": (["--shapes", "0x3"], "shapes needs positive sizes"),
    "no batch": (["--batches", "x"], "--batches needs numbers with commas between, got 'x'"),
    "batch 0": (["--batches", "0"], "batches needs whole numbers >= 1, got 0"),
    "nothing": (["--threads", ","], "threads needs at least one value"),
    "twice": (["--threads", "1,1"], "each once"),
    "threads 0": (["--threads", "0"], "threads needs 1 ... 1024, got 0"),
    "family": (["--families", "foo"], "log-domain, got 'foo'"),
    "dw_min": (["--dw-mins", "nan"], "dw_mins needs finite numbers > 0"),
    "sparsity": (["--sparsities", "1"], "sparsities needs shares in [0, 1), got 1.0"),
    "repeats": (["--repeats", "0"], "repeats needs a whole number >= 1"),
    "limit": (["--max-crosspoint-samples", "3"], "of the smallest row, got 3"),
    "NaN limit": (["--max-crosspoint-samples", "nan"], "of the smallest row, got nan"),
    "no peer": (["--peer-python", "nowhere"], "--peer-python nowhere: No such file"),
    "out is a file": (["--out", "taken"], "taken: File exists"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line_and_writes_nothing(case, bench, tmp_path):
    (tmp_path / "taken").write_text("mine")
    words, says = BAD[case]
    code, _, err = bench(*words)
    assert code == 2 and err.startswith("ohmgrad: ") and err.count("\n") == 1 and says in err
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('#!{python}\nprint(\'{{"error": "No module named aihwkit"}}\')', "needs aihwkit: No module named aihwkit"),
        ("#!{python}\nraise SystemExit('out of luck {log}')", "ended with code 1, saying: out of luck"),
        ("#!{python}\nprint('hello {log}')", "hello"),
    ],
)
def test_useless_peer_is_refused_in_one_line(script, says, bench, tmp_path):
    code, _, err = bench(*TINY, "--peer-python", fake_peer(tmp_path, script))
    assert code == 2 and err.startswith("ohmgrad: ") and err.count("\n") == 1 and says in err
    assert not (tmp_path / "bench-update").exists()
