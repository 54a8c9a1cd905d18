"""Does `ohmgrad recommend` end in ten minutes on two cores, and do two runs without a common seed agree on the top?

    python benchmarks/recommend.py --out benchmarks/results/recommend.json

Baseline: none; the goal is 600 s a device, and a top that both runs share. A run's top group is what its seeds do not
tell from its first, by a paired t test. Last figures: `results/recommend.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ohmgrad.experiments.update_speed import machine
from ohmgrad.report.files import write_json

DEVICES = ("reram-sb", "reram-array-om", "ecram", "ideal")
LIMIT = 600.0  # seconds


def main(
    devices: Annotated[str, typer.Option(help="Devices by name, with commas between.")] = ",".join(DEVICES),
    out: Annotated[Path | None, typer.Option(help="Where to write the figures, JSON.")] = None,
) -> None:
    """Two runs of the command for each device, on one thread."""
    console, results = Console(width=max(Console().width, 110)), {}
    for device in devices.split(","):
        runs = [one_run(device, seed) for seed in (0, 1)]
        results[device] = {"runs": runs, **agreement(runs)}
        console.print(table(device, runs))
        if out:  # after each device: an hour's work is not lost to its last minute
            write_json(out, {"devices": results, "limit_seconds": LIMIT, "machine": machine()})


def one_run(device: str, seed: int) -> dict[str, Any]:
    """What the command wrote: ranking, seconds, and the settings that a user would get."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ohmgrad", "recommend", "--device-model", device, "--seed", str(seed)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, "--out", folder], check=True, stdout=subprocess.DEVNULL, env=environment)
        content = json.loads((Path(folder) / "recommend.json").read_text(encoding="utf-8"))
    names = ("method", "is_tied", "p", "accuracy")
    ranking = [
        {**{n: row[n] for n in names}, "loss": row["digits"]["loss"], "error": row["digits"]["error"],
         "losses": row["digits"]["losses"]}
        for row in content["ranking"]
    ]  # fmt: skip
    kept = ("seconds", "cpu_seconds", "recommendation", "versions")
    return {"seed": seed, **{k: content[k] for k in kept}, "seeds": content["settings"]["seeds"], "ranking": ranking}


def agreement(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Firsts and top groups of the runs, and whether each run's first is in the other's group."""
    groups = [[row["method"] for row in run["ranking"] if row["is_tied"]] for run in runs]
    firsts = [run["ranking"][0]["method"] for run in runs]
    return {
        "firsts": firsts,
        "top_groups": groups,
        "same_first": firsts[0] == firsts[1],
        "top_is_shared": firsts[0] in groups[1] and firsts[1] in groups[0],
        "is_in_time": all(max(run["seconds"], run["cpu_seconds"]) < LIMIT for run in runs),
    }


def table(device: str, runs: list[dict[str, Any]]) -> Table:
    """Losses of both runs, in the order of the first."""
    seconds = " and ".join(f"{run['cpu_seconds']:.0f} s of CPU in {run['seconds']:.0f} s" for run in runs)
    view = Table(title=f"{device}: loss on digits, * top group; {seconds}", box=None)
    second = {row["method"]: row for row in runs[1]["ranking"]}
    for column in ("", *(f"run {run['seed']}" for run in runs)):
        view.add_column(column)
    for row in runs[0]["ranking"]:
        pair = (row, second[row["method"]])
        view.add_row(row["method"], *(f"{r['loss']:.4f} ± {r['error']:.4f}{' *' * r['is_tied']}" for r in pair))
    return view


if __name__ == "__main__":
    typer.run(main)
