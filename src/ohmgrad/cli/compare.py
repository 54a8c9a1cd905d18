"""`ohmgrad compare`: the main job."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Annotated, Any

import numpy
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer import Option

from ohmgrad import __version__
from ohmgrad.algorithms import TikiTaka
from ohmgrad.devices import Device, catalog
from ohmgrad.experiments.compare import ALL_METHODS, METHODS, CompareSettings, run, summarize
from ohmgrad.experiments.data import DATASETS, load
from ohmgrad.experiments.tables import plain
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate
from ohmgrad.report import compare as report
from ohmgrad.report.files import make_directory, write_json

# What suits each data set; the network for MNIST is the paper's (Wu et al. 2024, sec. 5).
DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"hidden": (32,), "activation": "tanh", "batch_size": 10, "epochs": 30, "lr": 0.1},
    "mnist": {"hidden": (256, 128), "activation": "sigmoid", "batch_size": 50, "epochs": 10, "lr": 0.2},
}
DEFAULTS["fashion-mnist"] = DEFAULTS["mnist"]

# The paper's dynamics, or every pulse.
UPDATES = {"expected": ExpectedUpdate, "pulsed": PulsedUpdate}


def _help(text: str, name: str) -> str:
    """That text with the defaults, which depend on the data."""
    shown = (",".join(map(str, v)) if isinstance(v := DEFAULTS[d][name], tuple) else v for d in ("digits", "mnist"))
    return "{} (default: {}; MNIST and Fashion: {})".format(text, *shown)


def compare(
    data: Annotated[str, Option(help=f"Data set: {', '.join(DATASETS)}.")] = "digits",
    data_dir: Annotated[Path | None, Option(help="Directory of the data files; else OHMGRAD_DATA.")] = None,
    device_model: Annotated[
        str, Option(help="Device: a name that `ohmgrad device list` shows, or a file, device.toml.")
    ] = "aihwkit-soft-bounds",
    tau: Annotated[float | None, Option(help="Bounds of the device at -tau and tau.")] = None,
    w_min: Annotated[float | None, Option(help="Lower bound of the device.")] = None,
    w_max: Annotated[float | None, Option(help="Upper bound of the device.")] = None,
    dw_min: Annotated[float | None, Option(help="Mean change of the weight by one pulse.")] = None,
    parameter: Annotated[
        list[str] | None, Option(help="Any other device parameter, NAME=VALUE; may be repeated.")
    ] = None,
    methods: Annotated[str, Option(help=f"Methods, with commas between, or all: {', '.join(ALL_METHODS)}.")] = ",".join(
        METHODS
    ),
    epochs: Annotated[int | None, Option(help=_help("Passes over the training data.", "epochs"))] = None,
    seeds: Annotated[int, Option(help="Number of seeds, trained side by side.")] = 3,
    seed: Annotated[int, Option(help="First seed.")] = 0,
    lr: Annotated[float | None, Option(help=_help("Learning rate of all methods.", "lr"))] = None,
    batch_size: Annotated[int | None, Option(help=_help("Samples of a mini-batch.", "batch_size"))] = None,
    hidden: Annotated[
        str | None, Option(help=_help("Sizes of the hidden layers, with commas between.", "hidden"))
    ] = None,
    activation: Annotated[str | None, Option(help=_help("tanh, sigmoid or relu.", "activation"))] = None,
    update: Annotated[str, Option(help=f"How devices are updated: {', '.join(UPDATES)}.")] = "expected",
    fast_lr: Annotated[float, Option(help="Tiki-Taka: step of the fast crossbar, absolute.")] = 0.1,
    transfer_lr: Annotated[float, Option(help="Tiki-Taka: step of a transfer, times the learning rate.")] = 1.0,
    gamma: Annotated[float, Option(help="Tiki-Taka: share of the fast crossbar in the weight.")] = 0.0,
    out: Annotated[Path, Option(help="Directory of the results.")] = Path("compare"),
    device: Annotated[str, Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, Option(help="Threads of torch; matrices this small gain little from more.")] = 1,
) -> None:
    """Train one network digitally, by Analog SGD and by Tiki-Taka on the same device, and say what happened."""
    if data not in DATASETS:
        raise ValueError(f"--data needs one of {', '.join(DATASETS)}, got {data!r}")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"--device needs cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda needs a GPU that torch can use: torch.cuda.is_available() is False here")
    if seeds < 1 or seed < 0:
        raise ValueError(f"--seeds needs at least 1 and --seed at least 0, got {seeds} and {seed}")
    if update not in UPDATES:
        raise ValueError(f"--update needs one of {', '.join(UPDATES)}, got {update!r}")
    given = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "activation": activation}
    options = DEFAULTS[data] | {k: v for k, v in given.items() if v is not None}
    if hidden is not None:
        options["hidden"] = tuple(_whole(size) for size in hidden.split(",") if size.strip())
    settings = CompareSettings(
        methods=ALL_METHODS if methods == "all" else tuple(m.strip() for m in methods.split(",") if m.strip()),
        device=device_of(device_model, tau, {"w_min": w_min, "w_max": w_max, "dw_min": dw_min}, parameter or []),
        tiki_taka=TikiTaka(fast_lr=fast_lr, scale_fast_lr=False, transfer_lr=transfer_lr, gamma=gamma, n_reads=None),
        update=UPDATES[update](),
        seeds=tuple(range(seed, seed + seeds)),
        **options,
    )
    if not 1 <= threads <= 1024:
        raise ValueError(f"--threads needs 1 ... 1024, got {threads}")
    torch.set_num_threads(threads)
    dataset = load(data, data_dir)
    settings.need_a_batch(dataset)
    make_directory(out)
    console = Console()
    with _progress(console) as progress:
        tasks: dict[str, Any] = {}

        def on_step(method: str, step: int, n_steps: int) -> None:
            if method not in tasks:
                tasks[method] = progress.add_task(report.LABELS[method], total=n_steps)
            progress.update(tasks[method], completed=step)

        curves = run(settings, dataset, device, on_step)
    summary = summarize(settings, curves)
    sentence = report.conclusion(summary, device_model)
    fields = {f.name: plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}
    results = {
        "methods": summary,
        "conclusion": sentence,
        "settings": {"data": data, "device_model": device_model, "device": device, **fields},
        "seeds": list(settings.seeds),
        "versions": {
            "ohmgrad": __version__,
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
    }
    report.write_curves(out / "curves.csv", curves, settings.seeds)
    title = f"{data}, {device_model}: mean and range of {seeds} seed{'s' * (seeds > 1)}"
    report.draw(out / "compare.png", curves, summary, title)
    write_json(out / "results.json", results)
    console.print(report.table(summary, seeds))
    console.print(sentence, markup=False)
    files = ", ".join(str(out / name) for name in ("results.json", "curves.csv", "compare.png"))
    console.print(f"Written: {files}", markup=False, highlight=False, soft_wrap=True)


def device_of(name: str, tau: float | None, bounds: dict[str, float | None], parameters: list[str]) -> Device:
    """The device that the options describe. Raises ValueError, naming the option."""
    fields: dict[str, Any] = {} if tau is None else {"w_min": -tau, "w_max": tau}
    fields |= {k: v for k, v in bounds.items() if v is not None}
    for item in parameters:
        key, separator, text = item.partition("=")
        if not separator:
            raise ValueError(f"--parameter needs NAME=VALUE, got {item!r}")
        try:
            fields[key] = (
                {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else float(text)
            )
        except ValueError:
            fields[key] = text
    return catalog.find(name, **fields)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--hidden needs whole numbers with commas between, got {text!r}") from None


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )
