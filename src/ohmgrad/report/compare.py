"""What `ohmgrad compare` prints and draws."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from ohmgrad.experiments.compare import Curves
from ohmgrad.experiments.methods import METHODS as ANALOG
from ohmgrad.report.files import write

LABELS = {"digital": "digital SGD", **{name: method.label for name, method in ANALOG.items()}}
SHADES = ("#444444", "#c8452d", "#1f77b4", "#2a9d8f", "#e9a23b", "#8e6bbf", "#7a8b3c", "#17becf", "#d16ba5", "#8c564b")
COLORS = dict(zip(LABELS, (*SHADES, "#9aa0a6", "#000000"), strict=True))
SERIES = ("train_loss", "test_accuracy", "floor_measured", "floor_predicted", "floor_bound", "saturation")


def table(summary: dict[str, dict[str, Any]], n_seeds: int) -> Table:
    """One column for each method, one row for each figure."""
    view = Table(title=f"mean ± standard deviation over {n_seeds} seeds" if n_seeds > 1 else "one seed")
    view.add_column("")
    for method in summary:
        view.add_column(LABELS[method], justify="right")

    def row(label: str, show: Callable[[dict[str, Any]], str]) -> None:
        view.add_row(label, *(show(s) for s in summary.values()))

    def spread(value: dict[str, float], digits: int) -> str:
        return f"{value['mean']:.{digits}f}" + f" ± {value['std']:.{digits}f}" * (n_seeds > 1)

    row("training loss", lambda s: spread(s["train_loss"], 4))
    row("test accuracy (%)", lambda s: spread(s["test_accuracy"], 2))
    if "digital" in summary:
        accuracy = summary["digital"]["test_accuracy"]["mean"]
        row("points from digital", lambda s: f"{s['test_accuracy']['mean'] - accuracy:+.2f}")
    row("saturation", lambda s: f"{s['saturation']:.2f}")
    row("floor predicted", lambda s: f"{s['floor_predicted']:.1e}")
    row("floor measured", lambda s: f"{s['floor_measured']:.1e}")
    row("updates applied", lambda s: f"{s['cycles']:,}")
    row("pulses applied", lambda s: f"{s['pulses']:.1e}")
    row("seconds", lambda s: f"{s['seconds']:.1f}")
    return view


def conclusion(summary: dict[str, dict[str, Any]], device: str) -> str:
    """What the table says, in one sentence; says so too where the expected did not happen."""
    if not {"digital", "analog-sgd", "tiki-taka"} <= set(summary):
        return "Run with the methods digital, analog-sgd and tiki-taka for a conclusion."
    digital, sgd, tiki = (summary[m] for m in ("digital", "analog-sgd", "tiki-taka"))
    sgd_gap, tiki_gap = (digital["test_accuracy"]["mean"] - s["test_accuracy"]["mean"] for s in (sgd, tiki))
    sgd_ratio, tiki_ratio = (_ratio(s["train_loss"]["mean"], digital["train_loss"]["mean"]) for s in (sgd, tiki))
    stalls = sgd_gap >= 3.0 or sgd_ratio >= 3.0
    keeps_up = tiki_gap <= 1.5 and tiki_ratio < 3.0
    first = (
        f"On {device}, Analog SGD {'stalls' if stalls else 'does not stall'}: its training loss ends at "
        f"{sgd_ratio:.1f} times that of digital SGD and its test accuracy {_gap(sgd_gap)}, "
        f"at a squared gradient norm of {sgd['floor_measured']:.1e} where theory predicts {sgd['floor_predicted']:.1e}"
    )
    good, bad = ("closes the gap", "does not close the gap") if stalls else ("keeps up", "falls behind")
    return (
        f"{first}; Tiki-Taka on the same device {good if keeps_up else bad}: "
        f"{tiki_ratio:.1f} times the loss, and an accuracy {_gap(tiki_gap)}."
    )


def _ratio(loss: float, reference: float) -> float:
    return loss / reference if reference else (1.0 if loss == 0.0 else math.inf)


def _gap(points: float) -> str:
    """Points from digital SGD, as far as the sentence shows them.

    >>> _gap(2.87), _gap(-0.28), _gap(0.04)
    ('2.9 points below', '0.3 points above', 'equal')
    """
    shown = f"{abs(points):.1f}"
    return "equal" if shown == "0.0" else f"{shown} points {'below' if points > 0 else 'above'}"


def write_curves(path: Path, curves: dict[str, Curves], seeds: tuple[int, ...]) -> None:
    """One line for each method, seed and epoch."""

    def save(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("method", "seed", "epoch", *SERIES))
            for method, c in curves.items():
                stacked = [torch.stack(getattr(c, name)).tolist() for name in SERIES]
                for i, seed in enumerate(seeds):
                    for epoch in range(len(stacked[0])):
                        rows.writerow((method, seed, epoch, *(f"{s[epoch][i]:.6g}" for s in stacked)))

    write(path, save)


def draw(path: Path, curves: dict[str, Curves], summary: dict[str, dict[str, Any]], title: str) -> None:
    """Training loss, test accuracy, and the squared gradient norm with its predicted floor, over epochs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12.5, 3.9), layout="constrained")
    panels = (("train_loss", "training loss"), ("test_accuracy", "test accuracy (%)"))
    for axis, (name, label) in zip(axes, (*panels, ("floor_measured", "squared gradient norm")), strict=True):
        for method, c in curves.items():
            values = torch.stack(getattr(c, name)).double()
            epochs = range(len(values))
            axis.plot(epochs, values.mean(1), color=COLORS[method], label=LABELS[method], linewidth=1.8)
            axis.fill_between(epochs, values.amin(1), values.amax(1), color=COLORS[method], alpha=0.15, linewidth=0)
        axis.set(xlabel="epoch", ylabel=label)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in (axes[0], axes[2]):
        if any((line.get_ydata() > 0.0).any() for line in axis.lines):
            axis.set_yscale("log")
    best = max(float(c.test_accuracy[-1].max()) for c in curves.values())
    worst = min(float(c.test_accuracy[-1].min()) for c in curves.values())
    axes[1].set_ylim(worst - 1.5 * max(best - worst, 2.0), best + 1.0)
    predicted = summary.get("analog-sgd", {}).get("floor_predicted", 0.0)
    if predicted > 0.0:  # a symmetric device has no floor, and a log axis no zero
        axes[2].axhline(predicted, color=COLORS["analog-sgd"], linestyle="--", linewidth=1.4)
        axes[2].annotate(
            "floor predicted for Analog SGD",
            (0.98, predicted),
            xycoords=("axes fraction", "data"),
            xytext=(0, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8.5,
            color=COLORS["analog-sgd"],
        )
    axes[0].legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    write(path, lambda p: figure.savefig(p, dpi=150))
    plt.close(figure)
