"""`ohmgrad train`: one run from a configuration file, which may be killed and resumed."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Annotated, Any

import numpy
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from typer import Argument, Option

from ohmgrad import __version__
from ohmgrad.experiments import train_settings
from ohmgrad.experiments.data import load
from ohmgrad.experiments.tables import plain
from ohmgrad.experiments.train import Epoch, Run
from ohmgrad.experiments.train import train as train_to_the_end
from ohmgrad.report.files import make_directory, write_json


def train(
    config: Annotated[
        Path, Argument(metavar="CONFIG.toml", help=f"Its sections: {', '.join(train_settings.SECTIONS)}.")
    ],
    out: Annotated[Path, Option(help="Directory of checkpoint, metrics and results.")] = Path("train"),
    device_model: Annotated[
        str | None, Option(help="Device in place of that in [device]: a name or a file, device.toml.")
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Go on from the checkpoint in --out, if there is one.")] = False,
    device: Annotated[str, Option(help="cpu or cuda.")] = "cpu",
    data_dir: Annotated[Path | None, Option(help="Directory of the data files; else data.dir or OHMGRAD_DATA.")] = None,
) -> None:
    """Train one network on one device by one algorithm, with checkpoints."""
    settings = train_settings.read(config, device_model)
    if device not in ("cpu", "cuda"):
        raise ValueError(f"--device needs cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda needs a GPU that torch can use: torch.cuda.is_available() is False here")
    torch.set_num_threads(settings.train.threads)
    data = load(settings.data.name, data_dir or settings.data.dir)
    console = Console()
    with _Show(console) as show:
        run = train_to_the_end(
            *(settings, data, out),
            device=device,
            resume=resume,
            on_start=show.start,
            on_step=show.step,
            on_epoch=show.epoch,
        )
    figures = run.figures()
    versions = {"ohmgrad": __version__, "torch": torch.__version__, "numpy": numpy.__version__}
    results = {
        "figures": figures,
        "seed": settings.train.seed,
        "settings": {**plain(settings), "processor": device},
        "versions": versions | {"python": platform.python_version()},
    }
    write_json(out / "results.json", results)
    console.print(
        f"{figures['epochs']} epoch{'s' * (figures['epochs'] > 1)}: "
        f"loss {figures['loss']:.4f}, test accuracy {figures['accuracy']:.2f} %, "
        f"{figures['cycles']} write cycles, {figures['pulses']:.3g} pulses."
    )
    files = ", ".join(str(out / name) for name in ("results.json", "metrics.csv", "checkpoint.safetensors"))
    console.print(f"Written: {files}", markup=False, highlight=False, soft_wrap=True)


class _Show:
    """Progress bar, and TensorBoard's log where the package is there."""

    def __init__(self, console: Console) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.console, self.progress = console, Progress(*columns, console=console)
        self.task: TaskID | None = None
        self.log: Any = None  # a SummaryWriter, whose package may be absent

    def __enter__(self) -> _Show:
        return self

    def __exit__(self, *_: object) -> None:
        if self.task is not None:
            self.progress.stop()
        if self.log:
            self.log.close()

    def start(self, run: Run) -> None:
        make_directory(run.out)
        self.log = _tensorboard(run.out, len(run.epochs) + 1)
        if self.log is None:
            self.console.print("No TensorBoard log: pip install 'ohmgrad[tensorboard]' adds it.", markup=False)
        if run.steps_done == run.n_steps:
            self.console.print("The checkpoint is of the finished run: nothing is left to train.")
        elif run.steps_done:
            self.console.print(f"Goes on in epoch {run.place.epoch}, after {run.place.step} of its mini-batches.")
        self.task = self.progress.add_task("training", total=run.n_steps, completed=run.steps_done)
        self.progress.start()

    def step(self, steps_done: int) -> None:
        if self.task is not None:
            self.progress.update(self.task, completed=steps_done)

    def epoch(self, epoch: Epoch) -> None:
        if self.task is not None:
            text = f"epoch {epoch.epoch}, loss {epoch.loss:.4f}, accuracy {epoch.accuracy:.2f} %"
            self.progress.update(self.task, description=text)
        if self.log:
            for name, value in dataclasses.asdict(epoch).items():
                if name != "epoch":
                    self.log.add_scalar(name, value, epoch.epoch)


def _tensorboard(out: Path, first_epoch: int) -> Any:
    """A log under OUT/tensorboard, or None; what an earlier process logged from that epoch on does not count."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(out / "tensorboard", purge_step=first_epoch)
