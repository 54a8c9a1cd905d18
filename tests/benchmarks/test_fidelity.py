"""docs/fidelity.md shows the figures of the last run, and in that run our side was right in every case."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = json.loads((ROOT / "benchmarks/results/fidelity.json").read_text())["cases"]
PAGE = (ROOT / "docs/fidelity.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_ours_is_right(name):
    right, ours = CASES[name]["right"], CASES[name]["ours"]
    if isinstance(right, float):
        assert abs(ours["std"] - right) < 4.9 * ours["error"]
    elif name.startswith("resets"):
        n = ours["columns read"]
        assert ours["part"] == 0 and abs(ours["whole"] - 0.3 * n) < 4.9 * (0.21 * n) ** 0.5
    elif name == "lines":
        assert all(abs(k - 250) < 4.9 * (250 * 7 / 8) ** 0.5 for one in ours["counts"] for k in one)
    else:
        assert ours == pytest.approx(right) if name != "flipped" else ours == right


@pytest.mark.parametrize("side", ["ours", "peer"])
def test_the_page_shows_them(side):
    found = [case[side] for case in CASES.values() if isinstance(case["right"], float)]
    assert all(f"{v['std']:.5f} ± {v['error']:.5f}" in PAGE for v in found)
    assert all(f"{CASES[name][side]['whole']:,}" in PAGE for name in ("resets", "resets of two"))
    first, *others, last = CASES["lines"][side]["counts"][0]
    assert f"{first}, {last}, {sum(others) / 6:.0f}" in PAGE
    assert ", ".join(map(str, CASES["off whole numbers"][side])) in PAGE
