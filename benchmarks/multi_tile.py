"""Do more tiles close the gap that 16 states leave to digital SGD? MNIST, 2 to 6 tiles, three seeds.

    python benchmarks/multi_tile.py --data-dir DATA --picture docs/multi_tile.png --out results/multi_tile.json

Baseline: arXiv 2510.02516, whose accuracies on MNIST grow with the tiles, 3, 4, 6, and come near digital training.
Settings, and what of them is essential: `ohmgrad.experiments.multi_tile`. --hasty transfers ten times as often, so that
the tiles' clocks are no longer slower than learning. Last figures: `results/multi_tile.json`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ohmgrad.experiments.data import load
from ohmgrad.experiments.multi_tile import DIGITAL, Curves, MultiTileSettings, run
from ohmgrad.experiments.tables import plain
from ohmgrad.experiments.update_speed import machine
from ohmgrad.report.files import write, write_json


def main(
    data_dir: Annotated[Path | None, typer.Option(help="Directory of MNIST's files; else OHMGRAD_DATA.")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training samples.")] = MultiTileSettings().epochs,
    samples: Annotated[int, typer.Option(help="Training samples.")] = MultiTileSettings().n_train,
    hasty: Annotated[bool, typer.Option(help="Transfer ten times as often.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Where to draw the figure.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the figures, JSON.")] = None,
) -> None:
    """Train all numbers of tiles, and digitally."""
    torch.set_num_threads(1)
    settings = MultiTileSettings(epochs=epochs, n_train=samples)
    if hasty:
        settings = dataclasses.replace(settings, transfer_every=settings.transfer_every // 10)
    console, start = Console(width=max(Console().width, 100)), time.process_time()
    with Progress(console=console) as progress:
        task = progress.add_task("epochs", total=epochs * len(settings.tiles))
        curves = run(settings, load("mnist", data_dir), lambda *_: progress.advance(task))
    results = {name(n): summary(c) for n, c in curves.items()}
    console.print(table(results))
    if out:
        chosen = {f.name: plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}
        seconds = {"cpu_seconds": time.process_time() - start}
        write_json(out, {"settings": chosen, "results": results, **seconds, "machine": machine()})
    if picture:
        draw(picture, curves)


def name(n_tiles: int) -> str:
    """Of a row."""
    return "digital SGD" if n_tiles == DIGITAL else f"{n_tiles} tiles" if n_tiles > 1 else "1 tile (Analog SGD)"


def summary(curves: Curves) -> dict[str, Any]:
    """Last values by seed, their mean and standard error, and the curves."""
    last = {"loss": curves.loss[-1], "accuracy": curves.accuracy[-1]}
    figures: dict[str, Any] = {}
    for key, values in last.items():
        error = float(values.std()) / math.sqrt(len(values))
        figures[key] = {"mean": float(values.mean()), "standard_error": error, "seeds": values.tolist()}
    return {**figures, "loss_curve": curves.loss.tolist(), "accuracy_curve": curves.accuracy.tolist()}


def table(results: dict[str, Any]) -> Table:
    """A row for each number of tiles."""
    view = Table(title="after the last epoch, mean ± standard error", box=None)
    for column in ("", "training loss", "test accuracy (%)"):
        view.add_column(column, justify="right" if column else "left")
    for label, r in results.items():
        loss, accuracy = r["loss"], r["accuracy"]
        view.add_row(
            label,
            f"{loss['mean']:.3f} ± {loss['standard_error']:.3f}",
            f"{accuracy['mean']:.2f} ± {accuracy['standard_error']:.2f}",
        )
    return view


def draw(path: Path, curves: dict[int, Curves]) -> None:
    """Left, accuracy against the number of tiles; right, the training loss over the epochs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tiles = [n for n in curves if n != DIGITAL]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
    last = {n: curves[n].accuracy[-1] for n in curves}
    means, errors = ([float(f(last[n])) for n in tiles] for f in (torch.mean, torch.std))
    left.errorbar(tiles, means, [e / math.sqrt(len(last[tiles[0]])) for e in errors], marker="o", capsize=3)
    if DIGITAL in curves:
        left.axhline(float(last[DIGITAL].mean()), color="#444444", linestyle="--", label=name(DIGITAL))
        left.legend(frameon=False, loc="lower right")
    left.set(xlabel="tiles of 16 states", ylabel="test accuracy (%)", xticks=tiles)
    for n, c in curves.items():
        epochs, style = range(1, len(c.loss) + 1), {"color": "#444444", "linestyle": "--"} if n == DIGITAL else {}
        right.plot(epochs, c.loss.mean(-1), label=name(n), **style)
    right.set(xlabel="epoch", ylabel="training loss", yscale="log")
    right.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for axis in (left, right):
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    write(path, lambda p: figure.savefig(p, dpi=130))
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
