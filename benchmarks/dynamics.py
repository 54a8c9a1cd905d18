"""Do the paper's dynamics follow Analog SGD pulse by pulse? Fig. 3 of Wu et al. 2024 at its full size, in a minute.

    python benchmarks/dynamics.py --picture docs/dynamics.png --out benchmarks/results/dynamics.json

Baseline: the published figure, on whose axes (1e-4 to 1e-2) the lumped curve lies on the simulated one and digital SGD
ends below. Settings, where we depart from the authors' script, and the last figures: `ohmgrad.experiments.dynamics`.
"""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from ohmgrad import __version__
from ohmgrad.experiments.dynamics import METHODS, DynamicsSettings, ratio, run
from ohmgrad.report.files import write, write_json

SMOOTHING = 0.8  # of the figure's curves, as in the script
TAIL = 500  # steps that an asymptote is averaged over
WINDOWS = 5
RATIOS = (("pulsed", "matched"), ("pulsed", "expected"), ("samples", "expected"))
STYLES = {
    "digital": ("digital SGD", "#444444", "-", 1.6),
    "expected": ("dynamics (eq. 8)", "#1f77b4", "-", 1.6),
    "matched": ("dynamics + pulse noise", "#1f77b4", ":", 1.6),
    "pulsed": ("pulses", "#c8452d", "-", 1.6),
    "samples": ("pulses, sample by sample", "#e0a030", "-", 1.0),
}


def main(
    seeds: Annotated[int, typer.Option(help="Seeds, from 618 on.")] = 10,
    steps: Annotated[int, typer.Option(help="Steps of each run.")] = DynamicsSettings().steps,
    picture: Annotated[Path | None, typer.Option(help="Where to draw the curves.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the figures, JSON.")] = None,
) -> None:
    """Run all methods at all tau, and pulses of a tenth of the step, where the equation needs no pulse noise."""
    torch.set_num_threads(1)
    settings = DynamicsSettings(seeds=tuple(range(618, 618 + seeds)), steps=steps)
    fine = dataclasses.replace(settings, methods=("expected", "pulsed"), n_states=10.0 * settings.n_states)
    console = Console(width=max(Console().width, 100))
    with Progress(console=console) as progress:
        n_runs = 1 + (len(METHODS) - 1) * len(settings.taus) + 2 * len(settings.taus)
        task = progress.add_task("runs", total=n_runs)
        curves, fine_curves = (run(s, lambda *_: progress.advance(task)) for s in (settings, fine))
    results = summary(settings, curves)
    results["ratios_fine"] = {"n_states": fine.n_states, **_ratio("pulsed", "expected", fine_curves)}
    console.print(table(results))
    if out:
        versions = {"ohmgrad": __version__, "torch": torch.__version__, "python": platform.python_version()}
        write_json(out, {"settings": dataclasses.asdict(settings), "versions": versions, **results})
    if picture:
        draw(picture, settings, curves)


def summary(settings: DynamicsSettings, curves: dict[str, Tensor]) -> dict[str, Any]:
    """Asymptotes (mean over the last steps and seeds, standard error) and ratios along the curves."""
    asymptotes = {}
    for method, curve in curves.items():
        tail = curve[..., -TAIL:].double().mean(-1)
        error = tail.std(1) / tail.shape[1] ** 0.5
        asymptotes[method] = {"mean": tail.mean(1).tolist(), "standard_error": error.tolist()}
    ratios = [_ratio(above, below, curves) for above, below in RATIOS]
    return {"taus": settings.taus, "tail_steps": TAIL, "asymptotes": asymptotes, "ratios": ratios}


def _ratio(above: str, below: str, curves: dict[str, Tensor]) -> dict[str, Any]:
    """Ratio of two methods' losses in each fifth of the steps, (tau, window)."""
    value, error = ratio(curves[above], curves[below], WINDOWS)
    return {"of": [above, below], "windows": value.tolist(), "standard_error": error.tolist()}


def table(results: dict[str, Any]) -> Table:
    """Asymptotes, and below them the ratios in the last fifth of the steps."""
    view = Table(
        box=None, title="loss above the optimum in 1e-4, mean ± standard error; then ratios, last fifth of the steps"
    )
    view.add_column("tau", no_wrap=True)
    for tau in results["taus"]:
        view.add_column(f"{tau:g}", justify="right", no_wrap=True)
    for method, a in results["asymptotes"].items():
        pairs = zip(a["mean"], a["standard_error"], strict=True)
        view.add_row(STYLES[method][0], *(f"{1e4 * m:.2f} ± {1e4 * e:.2f}" for m, e in pairs))
    for r in [*results["ratios"], results["ratios_fine"]]:
        pairs = zip(r["windows"], r["standard_error"], strict=True)
        label = " / ".join(r["of"]) + (f", {r['n_states']:g} states" if "n_states" in r else "")
        view.add_row(label, *(f"{m[-1]:.3f} ± {e[-1]:.3f}" for m, e in pairs))
    return view


def draw(path: Path, settings: DynamicsSettings, curves: dict[str, Tensor]) -> None:
    """One panel for each tau: means over the seeds, smoothed as in the figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(settings.taus), figsize=(12.5, 3.6), sharey=True, layout="constrained")
    for i, (axis, tau) in enumerate(zip(axes, settings.taus, strict=True)):
        for method, curve in curves.items():
            label, color, line, width = STYLES[method]
            axis.plot(smooth(curve[i].mean(0)), label=label, color=color, linestyle=line, linewidth=width)
        axis.set(title=f"τ = {tau:g}", xlabel="step", yscale="log")
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("f(w) − f*, per weight")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(curves), frameon=False)
    write(path, lambda p: figure.savefig(p, dpi=130))
    plt.close(figure)


def smooth(curve: Tensor) -> list[float]:
    """Exponential moving average, started at the first value."""
    values = curve.tolist()
    smoothed = values[:1]
    for value in values[1:]:
        smoothed.append(SMOOTHING * smoothed[-1] + (1.0 - SMOOTHING) * value)
    return smoothed


if __name__ == "__main__":
    typer.run(main)
