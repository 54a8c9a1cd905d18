"""`ohmgrad diagnose`: which tile of a trained network costs it most, why, and what mends that."""

from __future__ import annotations

import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy
import torch
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from typer import Argument, Option

from ohmgrad import __version__
from ohmgrad.experiments.data import DATASETS
from ohmgrad.experiments.diagnose import diagnose as find
from ohmgrad.experiments.tables import plain
from ohmgrad.experiments.train import order
from ohmgrad.experiments.train_settings import optimizer_of
from ohmgrad.experiments.trained import trained
from ohmgrad.report import diagnose as report
from ohmgrad.report.files import make_directory, write_json


def diagnose(
    checkpoint: Annotated[Path, Argument(metavar="CHECKPOINT", help="A checkpoint of `ohmgrad train`.")],
    data: Annotated[
        str | None, Option(help=f"Data set, {', '.join(DATASETS)}; that of the training if absent.")
    ] = None,
    data_dir: Annotated[Path | None, Option(help="Directory of the data files; else OHMGRAD_DATA.")] = None,
    steps: Annotated[int, Option(help="Mini-batches of each run of training on.")] = 400,
    repeats: Annotated[int, Option(help="Runs for each change, with other orders and other noise.")] = 4,
    lr: Annotated[float | None, Option(help="Step of training on; where the training began if absent.")] = None,
    seed: Annotated[int, Option(help="Of the order of the samples.")] = 0,
    device: Annotated[str, Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, Option(help="Directory of the results.")] = Path("diagnosis"),
    threads: Annotated[int, Option(help="Threads of torch.")] = 1,
) -> None:
    """Find the tile that costs a trained network most, the effect by which it does, and a mend, by training on."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"--device needs cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda needs a GPU that torch can use: torch.cuda.is_available() is False here")
    if not 1 <= threads <= 1024:
        raise ValueError(f"--threads needs 1 ... 1024, got {threads}")
    if not 0 <= seed < 2**62:
        raise ValueError(f"--seed needs a whole number in 0 ... 2**62 - 1, got {seed}")
    torch.set_num_threads(threads)
    run, samples = trained(checkpoint, data, data_dir)
    settings = run.settings
    index = order(seed, 0, len(samples.x_train))[: steps * settings.train.batch_size]
    loader = [
        (samples.x_train[part].to(device), samples.y_train[part].to(device))
        for part in index.split(settings.train.batch_size)
    ]
    lr = settings.optimizer.lr if lr is None else lr
    make_directory(out)
    console, start = Console(), time.perf_counter()
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("training on", total=None)
        found = find(
            *(run.model.to(device), loader),
            lr=lr,
            steps=steps,
            repeats=repeats,
            seed=seed,
            make_optimizer=lambda model, lr: optimizer_of(model, replace(settings.optimizer, lr=lr)),
            on_run=lambda change: progress.update(task, description=f"training on: {change[:60]}"),
        )
    versions = {"ohmgrad": __version__, "torch": torch.__version__, "numpy": numpy.__version__}
    own = {"checkpoint": str(checkpoint), "steps": steps, "repeats": repeats, "lr": lr, "seed": seed}
    content = {
        **report.content(found),
        "settings": {**own, "processor": device, "training": plain(settings)},
        "seconds": time.perf_counter() - start,
        "versions": versions | {"python": platform.python_version()},
    }
    write_json(out / "results.json", content)
    report.draw(out / "diagnosis.png", found)
    console.print(report.table(found))
    console.print(str(found), markup=False, highlight=False)
    files = ", ".join(str(out / name) for name in ("results.json", "diagnosis.png"))
    console.print(f"Written: {files}", markup=False, highlight=False, soft_wrap=True)
