"""benchmarks/update_gpu.py: what it says without a GPU, and its limits by hand."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "update_gpu.py"


def test_without_a_gpu_it_says_so_and_succeeds(tmp_path):
    command = [sys.executable, SCRIPT, "--out", tmp_path / "found.json"]
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, env=hidden, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "not run: no GPU here\n"), run.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["status"] == "not run: no GPU here" and found["rows"] == []


def test_limits_by_hand():
    spec = importlib.util.spec_from_file_location("update_gpu", SCRIPT)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    row = next(r for r in script.rows([(2, 3)]) if r.batch == 10)
    # 60 crosspoint-samples; 6 weights move 8 numbers of 4 bytes, 10 samples of 5 lines move 3.
    arithmetic, memory = script.limits(row, 1e9, 1e9)
    assert arithmetic == pytest.approx(60 * 92e-9) and memory == pytest.approx(4 * (48 + 150) * 1e-9)
