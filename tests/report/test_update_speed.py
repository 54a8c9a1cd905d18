"""What the documentation says of speed is what the committed report says."""

import json
import re
from pathlib import Path

from ohmgrad.report.update_speed import median_ratios

ROOT = Path(__file__).parents[2]


def text_of(name: str) -> str:
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def test_the_figures_of_the_last_report():
    rows = json.loads((ROOT / "benchmarks/results/update.json").read_text(encoding="utf-8"))["rows"]
    (one, n), (two, _) = (median_ratios(rows, "threads")[key] for key in ((1,), (2,)))
    says = text_of("benchmarks/update.py")
    assert f"Median ratio {one:.1f} on 1 thread and {two:.1f} on 2, of {n} rows each" in says
    kinds = median_ratios([r for r in rows if r["threads"] == 1], "dw_min", "sparsity")
    fine, fine_sparse, coarse, coarse_sparse = (kinds[dw, zeros][0] for dw in (1e-4, 1e-3) for zeros in (0.0, 0.8))
    assert f"{fine:.0f} for dw_min 1e-4, {fine_sparse:.0f} with 80 % zeros" in says
    assert f"{coarse:.1f} for 1e-3, {coarse_sparse:.1f} with 80 % zeros" in says
    slower = [r for r in rows if r["ratio"] < 1.0]
    by_threads = [sum(r["threads"] == threads for r in slower) for threads in (1, 2)]
    assert f"{by_threads[0]} of {len(rows) // 2} rows on 1 thread and {by_threads[1]} on 2" in says
    assert f"the lowest ratio {min(r['ratio'] for r in rows):.2f}" in says
    assert all(r["dw_min"] == 1e-3 and (r["sparsity"] == 0.8 or r["out"] == 10) for r in slower)
    large = [r["ratio"] for r in rows if r["threads"] == 1 and r["out"] * r["in"] * r["batch"] >= 100_000]
    found = re.search(
        r"([\d.]+) times aihwkit's speed on one core in the median of (\d+) cases, from ([\d.]+) to (\d+)",
        text_of("README.md"),
    )
    assert found and found.groups() == (f"{one:.1f}", f"{n}", f"{min(large):.1f}", f"{max(large):.0f}")
