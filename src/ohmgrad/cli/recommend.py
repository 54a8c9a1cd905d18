"""`ohmgrad recommend`: which training algorithm suits a device."""

from __future__ import annotations

import math
import platform
import time
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import numpy
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from typer import Option

from ohmgrad import __version__
from ohmgrad.cli.compare import UPDATES, device_of
from ohmgrad.devices import Device, catalog
from ohmgrad.experiments.data import load
from ohmgrad.experiments.methods import METHODS
from ohmgrad.experiments.recommend import DIGITS_BATCH, SHARES, TASKS, RecommendSettings, ranking, run
from ohmgrad.experiments.tables import plain
from ohmgrad.pulses.settings import ExpectedUpdate
from ohmgrad.report.files import make_directory, write_json

LAYER = (32, 64)  # the larger matrix of the network, for costs


def recommend(
    device_model: Annotated[str, Option(help=f"Device: {', '.join(catalog.names())}.")] = "aihwkit-soft-bounds",
    parameter: Annotated[list[str] | None, Option(help="A device parameter, NAME=VALUE; may be repeated.")] = None,
    methods: Annotated[str, Option(help=f"Some of {', '.join(METHODS)}, with commas between.")] = ",".join(METHODS),
    trials: Annotated[int, Option(help="Settings tried for each algorithm, task and seed.")] = 16,
    epochs: Annotated[int, Option(help="Passes over the digits in the final training.")] = 9,
    seeds: Annotated[int, Option(help="Number of seeds, each a search and a training of its own.")] = 8,
    seed: Annotated[int, Option(help="Number of the run: runs of different numbers share no seed.")] = 0,
    update: Annotated[
        str, Option(help="How devices are updated: expected, with matched noise, or pulsed.")
    ] = "expected",
    out: Annotated[Path, Option(help="Directory of the results.")] = Path("recommend"),
    threads: Annotated[int, Option(help="Threads of torch.")] = 1,
) -> None:
    """Train a small benchmark with every algorithm on that device, and rank them."""
    if update not in UPDATES:
        raise ValueError(f"--update needs one of {', '.join(UPDATES)}, got {update!r}")
    if seeds < 2 or seed < 0:
        raise ValueError(f"--seeds needs at least 2 and --seed at least 0, got {seeds} and {seed}")
    if not 1 <= threads <= 1024:
        raise ValueError(f"--threads needs 1 ... 1024, got {threads}")
    settings = RecommendSettings(
        device=device_of(device_model, None, {}, parameter or []),
        update=ExpectedUpdate(noise=True) if update == "expected" else UPDATES[update](),
        methods=tuple(m.strip() for m in methods.split(",") if m.strip()),
        trials=trials,
        epochs=epochs,
        seeds=tuple(range(seed * seeds, (seed + 1) * seeds)),
    )
    torch.set_num_threads(threads)
    data = load("digits", None)
    make_directory(out)
    console, start, cpu_start = Console(), time.perf_counter(), time.process_time()
    with Progress(console=console) as progress:
        task = progress.add_task("stages", total=len(TASKS) * (len(SHARES) + 1) * len(settings.methods))
        results = run(settings, data, lambda *_: progress.advance(task))
    rows = ranking(results)
    for row in rows:
        row["cost"] = _cost(METHODS[row["method"]].algorithm)
    sentence = reason(rows, settings.device, device_model)
    chosen = {f.name: plain(getattr(settings, f.name)) for f in fields(settings)}
    content = {
        "ranking": rows,
        "recommendation": sentence,
        "settings": {"device_model": device_model, **chosen},
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "versions": {
            "ohmgrad": __version__,
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
    }
    write_json(out / "recommend.json", content)
    console.print(_table(rows))
    console.print(sentence, markup=False)
    console.print(f"Written: {out / 'recommend.json'}", markup=False, highlight=False, soft_wrap=True)


def reason(rows: list[dict[str, Any]], device: Device, name: str) -> str:
    """The first of the ranking, or the group that the seeds do not tell from it, and why."""
    best, label = rows[0], METHODS[rows[0]["method"]].label
    if not math.isfinite(best["digits"]["loss"]):
        return f"For {name}, no algorithm came to a finite loss."
    top = [METHODS[row["method"]].label for row in rows if row["is_tied"]]
    try:
        point = float(device.symmetric_point().mean())
        symmetry = f"its symmetric point is at {point:.2g}"
    except ValueError:
        symmetry = "it has no symmetric point"
    states = f"{device.n_states:.3g}" if math.isfinite(device.n_states) else "any number of"
    cheapest = min((row for row in rows if row["is_tied"]), key=lambda row: row["cost"]["time_ns"])
    price = f"{METHODS[cheapest['method']].label}, {cheapest['cost']['time_ns']:.0f} ns a sample"
    first = f"{label}: {METHODS[best['method']].strength}"
    if len(top) == 1:
        found = f"{first}; {cheapest['cost']['time_ns']:.0f} ns a sample"
    else:
        found = f"one of {', '.join(top)}, which {best['digits']['n']} seeds do not tell apart. First is {first}"
        found += f". Cheapest is {price}"
    return f"For {name}, {found}. The device has {states} states, {symmetry}."


def _cost(algorithm: Any) -> dict[str, float]:
    cost = algorithm.cost(LAYER, batch_size=DIGITS_BATCH)
    names = ("arrays", "digital", "reads", "slots", "transfers", "time_ns", "energy_nj")
    return {name: getattr(cost, name) for name in names}


def _table(rows: list[dict[str, Any]]) -> Table:
    view = Table(title="ranked by loss on digits; geometric mean ± standard error over seeds, each with its own search")
    for column in ("", "digits: loss", "accuracy (%)", "quadratic: error", "arrays", "digital numbers", "ns a sample"):
        view.add_column(column, justify="right" if column else "left")
    for row in rows:
        digits, quadratic, cost = row["digits"], row["quadratic"], row["cost"]
        view.add_row(
            METHODS[row["method"]].label + (" *" if row["is_tied"] else ""),
            f"{digits['loss']:.4f} ± {digits['error']:.4f}",
            f"{row['accuracy']:.1f}",
            f"{quadratic['loss']:.2g} ± {quadratic['error']:.1g}",
            f"{cost['arrays']}",
            f"{cost['digital']:,}",
            f"{cost['time_ns']:.0f}",
        )
    view.caption = "* the top group: a paired t test over the seeds tells none of it from the first (5 % in all)"
    return view
