"""`ohmgrad verify`: the theorems as experiments that can fail."""

from __future__ import annotations

import dataclasses
import platform
import time
from pathlib import Path
from typing import Annotated, Any

import numpy
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typer import Argument, Exit, Option

from ohmgrad import __version__
from ohmgrad.experiments.verify import Experiment, Plant, chosen
from ohmgrad.experiments.verify.verdict import CONFIDENCE, Verdict
from ohmgrad.report import verify as report
from ohmgrad.report.files import make_directory, write_json


def verify(
    names: Annotated[list[str] | None, Argument(help="Experiments, such as E1 E7.", show_default=False)] = None,
    all_: Annotated[bool, Option("--all", help="All experiments.")] = False,
    quick: Annotated[
        bool, Option("--quick", help="Smaller runs with wider tolerances, as the tests have them.")
    ] = False,
    planted: Annotated[
        bool, Option("--planted", help="Also run each, quick, with errors planted in the library: it has to fail.")
    ] = False,
    seed: Annotated[int, Option(help="Seed of all that is random.")] = 0,
    out: Annotated[Path, Option(help="Directory of results.json, claims.csv, sweeps.csv and verify.png.")] = Path(
        "verify"
    ),
    threads: Annotated[int, Option(help="Threads of torch.")] = 1,
) -> None:
    """Run the theory's predictions as experiments: each prediction beside its measurement, holds or fails.

    A claim holds where the whole 99.9 % confidence interval lies in what is accepted. Exit code 0 if all hold and all
    planted errors are caught, 1 if any does not, 2 for bad input.
    """
    if bool(names) == all_:
        raise ValueError("verify needs names of experiments, such as E1, or --all")
    if not 0 <= seed < 2**31:
        raise ValueError(f"--seed needs 0 ... {2**31 - 1}, got {seed}")
    if not 1 <= threads <= 1024:
        raise ValueError(f"--threads needs 1 ... 1024, got {threads}")
    experiments = chosen(names or [])
    torch.set_num_threads(threads)
    make_directory(out)
    runs: list[tuple[Experiment, Plant | None]] = [(e, None) for e in experiments]
    if planted:
        runs += [(e, plant) for e in experiments for plant in e.planted]
    console, start = Console(), time.perf_counter()
    verdicts: list[Verdict] = []
    content: dict[str, Any] = {"experiments": [], "planted": []}
    with _progress(console) as progress:
        task = progress.add_task("", total=len(runs))
        for experiment, plant in runs:
            progress.update(task, description=experiment.name)
            began, settings = time.perf_counter(), experiment.settings(is_quick=quick or plant is not None, seed=seed)
            verdict = experiment.run(settings, plant) if plant else experiment.run(settings)
            seconds = time.perf_counter() - began
            entry = report.plain(verdict, seconds=seconds, settings=dataclasses.asdict(settings))
            if plant:
                name = getattr(plant, "__name__", "planted")
                content["planted"].append(entry | {"plant": name})
                caught = "still holds: NOT CAUGHT" if verdict.holds else "caught"
                console.print(f"{verdict.name}, {name.replace('_', ' ')}: {caught}", highlight=False)
            else:
                content["experiments"].append(entry)
                verdicts.append(verdict)
                console.print(report.table(verdict, seconds))
            progress.advance(task)
    content |= {"confidence": CONFIDENCE, "quick": quick, "seed": seed, "seconds": time.perf_counter() - start}
    content["versions"] = {
        "ohmgrad": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }
    write_json(out / "results.json", content)
    report.write_csv(out, verdicts)
    report.draw(out / "verify.png", verdicts)
    failed = [v.name for v in verdicts if not v.holds]
    missed = [entry["name"] for entry in content["planted"] if entry["holds"]]
    console.print(_conclusion(len(verdicts), failed, len(content["planted"]), missed), markup=False, highlight=False)
    files = ", ".join(str(out / name) for name in ("results.json", "claims.csv", "sweeps.csv", "verify.png"))
    console.print(f"Written: {files}", markup=False, highlight=False, soft_wrap=True)
    if failed or missed:
        raise Exit(1)


def _conclusion(n: int, failed: list[str], n_planted: int, missed: list[str]) -> str:
    words = f"{n - len(failed)} of {n} hold" + (
        f"; {', '.join(failed)} fail{'s' * (len(failed) == 1)}" if failed else ""
    )
    if n_planted:
        words += f"; {n_planted - len(missed)} of {n_planted} planted errors caught"
        words += f", not by {', '.join(missed)}" if missed else ""
    return words + "."


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:4}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)
