"""`ohmgrad device`: what devices there are, what they do, and which of them a measurement shows."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Annotated

import numpy
import scipy
import torch
import typer
from rich.console import Console
from typer import Argument, Option

from ohmgrad import __version__
from ohmgrad.devices import Device, catalog
from ohmgrad.fitting import Characterised, Measurement, characterise, read
from ohmgrad.report import device as report
from ohmgrad.report import device_fit as fit_report
from ohmgrad.report.files import make_directory, write_json
from ohmgrad.theory.portrait import limits, numbers, portrait

app = typer.Typer(help="List devices, show what they do, and fit them to measurements.")


@app.command("list")
def list_() -> None:
    """Families, presets and unit cells with their defining numbers."""
    Console(width=max(Console().width, 120)).print(report.listing(), crop=False)


@app.command()
def show(
    names: Annotated[list[str], Argument(metavar="NAME|FILE...", help="Names of `list`, or files, device.toml.")],
    compare: Annotated[bool, Option("--compare", help="Lay several devices side by side.")] = False,
    seed: Annotated[int, Option(help="Seed of the devices that are drawn.")] = 0,
    out: Annotated[Path, Option(help="Directory of the results.")] = Path("device"),
) -> None:
    """One page of plots and numbers, and what will limit training, in words."""
    if len(names) > 1 and not compare:
        raise ValueError(f"several devices need --compare, got {', '.join(names)}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed needs a whole number in 0 ... 2**63 - 1, got {seed}")
    devices = [catalog.find(name) for name in names]
    make_directory(out)
    figures = [portrait(device, seed) for device in devices]
    single = [numbers(f, d) for f, d in zip(figures, devices, strict=True)]
    words = [limits(f, d) for f, d in zip(figures, devices, strict=True)]
    report.draw(out / "device.png", names, figures)
    rows = zip(names, devices, single, words, strict=True)
    content = [
        {"name": n, "family": type(d).__name__, "fields": dataclasses.asdict(d), "figures": s, "limits": w}
        for n, d, s, w in rows
    ]
    write_json(out / "results.json", {"devices": content, "seed": seed, "versions": _versions()})
    console = Console(width=max(Console().width, 30 + 14 * len(names)))
    console.print(report.table(names, single))
    for name, lines in zip(names, words, strict=True):
        console.print(f"{name}:", markup=False, highlight=False)
        for line in lines:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    _written(console, out, "device.png", "results.json")


@app.command()
def fit(
    measured: Annotated[list[Path], Argument(metavar="MEASURED.csv...", help="One or more files of the same devices.")],
    read_voltage: Annotated[float | None, Option(help="Volt; makes conductances of currents.")] = None,
    unit: Annotated[str | None, Option(help="Of the readings (S, uS, A, nA, ...), if no heading says it.")] = None,
    zero: Annotated[
        float | None, Option(help="Reading at w = 0, in S, A or as it stands; the middle if absent.")
    ] = None,
    pulses_per_ramp: Annotated[
        int | None, Option(help="Readings after which one long column changes direction.")
    ] = None,
    device_per_column: Annotated[
        bool, Option("--device-per-column", help="The k-th up and the k-th down ramp are those of device k.")
    ] = False,
    family: Annotated[str | None, Option(help="Fit these alone, names of `list` with commas between.")] = None,
    nodes: Annotated[int, Option(help="States at which tables of steps are fitted.")] = 8,
    out: Annotated[Path, Option(help="Directory of the results.")] = Path("device-fit"),
) -> None:
    """Fit every family to measured ramps, rank them by readings held out, and write device.toml for other commands."""
    families = _families(family, nodes)
    measurement = read(
        measured,
        read_voltage=read_voltage,
        unit=unit,
        pulses_per_ramp=pulses_per_ramp,
        column_is_device=device_per_column,
    )
    make_directory(out)
    console = Console(width=max(Console().width, 100))
    with console.status("fitting") as status:
        found = characterise(measurement, families, zero=zero, on_family=lambda name: status.update(f"fitting {name}"))
    settings = {"read_voltage": read_voltage, "unit": unit, "zero": zero, "pulses_per_ramp": pulses_per_ramp}
    settings |= {"device_per_column": device_per_column, "family": family, "nodes": nodes}
    _write(out, measurement, found, [path.name for path in measured], settings)
    console.print(fit_report.table(found))
    console.print(fit_report.parameters(found))
    for sentence in fit_report.beyond(found):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    for name, why in found.failed.items():
        console.print(f"{name} was not fitted: {why}", markup=False, highlight=False)
    _written(console, out, "device.toml", "fit.png", "residuals.csv", "results.json")


def _write(out: Path, measurement: Measurement, found: Characterised, sources: list[str], settings: dict) -> None:
    """All files of a fit."""
    fit_report.draw(out / "fit.png", measurement, found)
    fit_report.write_residuals(out / "residuals.csv", measurement, found)
    fit_report.write_device(out / "device.toml", found, sources)
    content = {"measured": sources, "settings": settings, "versions": _versions()}
    write_json(out / "results.json", {**fit_report.results(found), **content})


def _families(names: str | None, nodes: int) -> list[Device]:
    """Those with commas between, or every one; tables with so many nodes."""
    if not 2 <= nodes <= 64:
        raise ValueError(f"--nodes needs 2 ... 64, got {nodes}")
    every = names.split(",") if names else catalog.family_names()
    return [_with_nodes(catalog.find(name.strip()), nodes) for name in every if name.strip()]


def _with_nodes(device: Device, n: int) -> Device:
    """With tables of n entries, all as the first."""
    return dataclasses.replace(device, **{name: getattr(device, name)[:1] * n for name in type(device).tables})


def _versions() -> dict[str, str]:
    versions = {"ohmgrad": __version__, "torch": torch.__version__, "numpy": numpy.__version__}
    return versions | {"scipy": scipy.__version__, "python": platform.python_version()}


def _written(console: Console, out: Path, *names: str) -> None:
    files = ", ".join(str(out / name) for name in names)
    console.print(f"Written: {files}", markup=False, highlight=False, soft_wrap=True)
