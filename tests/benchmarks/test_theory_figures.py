"""The scripts of the theory's figures, and that pages and docstrings print what is committed."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from chance import assert_mean

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lower_bound", ROOT / "benchmarks" / "lower_bound.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


def test_the_intercept_and_its_error(script, rng):
    # 4,000 fits of 1 + 8 lr with known errors: sees a tenth of a standard error in the intercept.
    lrs, errors = script.LRS, [0.004, 0.003, 0.002, 0.001]
    fits = [
        script.intercept(lrs, list(1.0 + 8.0 * np.array(lrs) + rng.normal(0.0, errors)), errors) for _ in range(4000)
    ]
    z = np.array([(f["intercept"] - 1.0) / f["standard_error"] for f in fits])
    assert_mean(z, 0.0, std=1.0)
    assert_mean(z**2, 1.0)
    assert_mean([f["chi_squared"] for f in fits], 2.0)


def test_a_constant_of_four_or_one_that_is_not_known_would_be_refused(script):
    def row(intercept: float, error: float) -> dict:
        return {"fit": {"intercept": intercept, "standard_error": error}}

    assert script.is_derived(row(1.003, 0.002))
    assert not any(script.is_derived(row(*r)) for r in ((4.0, 0.002), (1.1, 0.002), (1.0, 0.5), (1.0, float("nan"))))


def test_the_constant_on_the_page_is_the_committed_one():
    page = (ROOT / "docs/lower-bound.md").read_text()
    for case in json.loads((RESULTS / "lower_bound.json").read_text())["cases"]:
        fit = case["fit"]
        ratios = [f"{r:.4f} ± {e:.4f}" for r, e in zip(case["ratio"], case["standard_error"], strict=True)]
        assert " | ".join([case["case"], *ratios]) in page
        assert f"**{fit['intercept']:.4f} ± {fit['standard_error']:.4f}**" in page


def test_the_committed_floors_are_within_what_is_said():
    found = json.loads((RESULTS / "floors.json").read_text())
    points, summary = found["points"], found["summary"]
    assert len({(p["family"], p["tau"], p["noise"]) for p in points}) == 5 * 3 * 3
    held = [p for p in points if not p["failed"]]
    distances = [abs(p["measured"] / p["predicted"] - 1.0) for p in held]
    assert max(distances) == pytest.approx(summary["worst_where_they_hold"]) and max(distances) < 0.03
    assert max(p["limit"] / p["bound"] for p in held) < 0.25
    said = (ROOT / "benchmarks/floors.py").read_text()
    assert re.search(f"in {len(held)} of {len(points)} points the assumptions hold", said)
    assert f"{max(distances):.1%} at worst".replace("%", " %") in said
