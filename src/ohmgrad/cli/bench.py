"""`ohmgrad bench`: how fast."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typer import Option

from ohmgrad.experiments.update_speed import D_SCALE, FAMILIES, LARGE, LR, SpeedSettings, machine, measure
from ohmgrad.report import update_speed as report
from ohmgrad.report.files import make_directory, write_json

app = typer.Typer(help="Measure speed, ours and the peer's.")
T = TypeVar("T")
DEFAULT = SpeedSettings()


@app.callback()
def _bench() -> None:
    """A command of its own even while there is only one."""


def _joined(values: tuple[Any, ...]) -> str:
    return ",".join("x".join(map(str, v)) if isinstance(v, tuple) else f"{v}" for v in values)


@app.command()
def update(
    shapes: Annotated[str, Option(help="Crossbars, OUTxIN, with commas between.")] = _joined(DEFAULT.shapes),
    batches: Annotated[str, Option(help="Samples of a mini-batch.")] = _joined(DEFAULT.batches),
    families: Annotated[str, Option(help=f"Devices: {', '.join(FAMILIES)}.")] = _joined(DEFAULT.families),
    dw_mins: Annotated[str, Option(help="Mean changes of the weight by one pulse.")] = _joined(DEFAULT.dw_mins),
    sparsities: Annotated[str, Option(help="Shares of inputs that are zero.")] = _joined(DEFAULT.sparsities),
    threads: Annotated[str, Option(help="Numbers of threads, of both sides.")] = _joined(DEFAULT.threads),
    repeats: Annotated[int, Option(help="Turns of each side, of which the median counts.")] = DEFAULT.repeats,
    max_crosspoint_samples: Annotated[
        float, Option(help="Rows with more (out x in x batch) are left out.")
    ] = DEFAULT.max_crosspoint_samples,
    peer_python: Annotated[str | None, Option(help="Python that has aihwkit; else ours is measured alone.")] = None,
    peer_raw: Annotated[bool, Option("--peer-raw", help="Also time the peer below its Python layer.")] = False,
    out: Annotated[Path, Option(help="Directory of the results.")] = Path("bench-update"),
) -> None:
    """Time the pulsed update, and aihwkit's in turn with it where --peer-python names an interpreter that has it."""
    settings = SpeedSettings(
        families=_split("families", families, str),
        shapes=_split("shapes", shapes, _shape),
        batches=_split("batches", batches, int),
        dw_mins=_split("dw-mins", dw_mins, float),
        sparsities=_split("sparsities", sparsities, float),
        threads=_split("threads", threads, int),
        repeats=repeats,
        max_crosspoint_samples=max_crosspoint_samples,
        peer_python=peer_python,
        peer_raw=peer_raw,
    )
    results: dict[str, Any] = {"machine": machine(), "settings": dataclasses.asdict(settings), "rows": []}
    results["settings"] |= {"lr": LR, "d_scale": D_SCALE, "left_out": settings.left_out()}
    # Where the interpreter lies is this machine's affair.
    results["settings"]["peer_python"] = peer_python is not None
    console, rows = Console(), results["rows"]

    def on_peer(versions: dict[str, Any]) -> None:
        results["machine"]["versions"]["peer"] = versions
        make_directory(out)

    if peer_python is None:  # else once the peer has answered
        make_directory(out)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("rows", total=len(settings.rows()))
        for row in measure(settings, on_peer):
            rows.append(row)
            # After every row, so that an interrupted run keeps what it has measured.
            write_json(out / "results.json", results)
            progress.update(task, advance=1, description=f"{row['device']} {row['out']}x{row['in']}")
    lines = report.closing(rows, settings.left_out(), max_crosspoint_samples)
    medians = {str(n): ratio for (n,), (ratio, _) in report.median_ratios(rows, "threads").items()}
    own = report.median_ratios(rows, "device", "threads").items()
    by_device = {f"{device}, {n}": ratio for (device, n), (ratio, _) in own}
    ratios = {"at_least_crosspoint_samples": LARGE, "threads": medians, "device_and_threads": by_device}
    results |= {"median_ratio": ratios, "conclusion": lines}
    write_json(out / "results.json", results)
    load = results["machine"]["load_average"]
    console.print(report.table(rows), width=max(console.width, 100), crop=False)
    console.print(
        results["machine"]["cpu"] + (f", load average {load[0]:.1f} at start" if load else ""),
        markup=False,
        soft_wrap=True,
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Written: {out / 'results.json'}", markup=False, highlight=False, soft_wrap=True)


def _split(name: str, text: str, read: Callable[[str], T]) -> tuple[T, ...]:
    items = [item.strip() for item in text.split(",") if item.strip()]
    try:
        return tuple(read(item) for item in items)
    except ValueError:
        form = {"shapes": "OUTxIN"}.get(name, "numbers")
        raise ValueError(f"--{name} needs {form} with commas between, got {text!r}") from None


def _shape(text: str) -> tuple[int, int]:
    out, n_in = text.lower().split("x")
    return int(out), int(n_in)
