"""What `ohmgrad device show` and `list` print and draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ohmgrad.devices import Device, catalog
from ohmgrad.report.files import write
from ohmgrad.theory.portrait import DRAWN, SHARES, Portrait

UP, DOWN, GREY = "#c8452d", "#1f77b4", "#444444"


def listing() -> Table:
    """One line for each family, preset and unit cell."""
    view = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    view.add_column("device", no_wrap=True)
    for name in ("w_min", "w_max", "dw_min", "states", "up_down", "step noise", "write noise", "spread of dw_min"):
        view.add_column(name, justify="right", no_wrap=True)
    for kind, names in (("families", catalog.family_names()), ("presets", catalog.preset_names())):
        view.add_row(f"[bold]{kind}[/bold]", style="")
        for name in names:
            view.add_row(f"  {name}", *_cells(catalog.find(name)))
    view.add_row("[bold]unit cells, by their first device[/bold]")
    for name in catalog.cell_names():
        view.add_row(f"  {name}", *_cells(catalog.find_cell(name).devices[0]))
    return view


def _cells(d: Device) -> list[str]:
    values = [d.w_min, d.w_max, d.dw_min, d.n_states, d.up_down, d.dw_min_ctoc, d.write_noise, d.dw_min_dtod]
    return [f"{v:.4g}" for v in values]


def table(names: Sequence[str], figures: Sequence[dict[str, float]]) -> Table:
    """One column for each device, one row for each number."""
    view = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    view.add_column("")
    for name in names:
        view.add_column(name, justify="right", no_wrap=True)
    for key in figures[0]:
        view.add_row(key.replace("_", " "), *(f"{f[key]:.4g}" for f in figures))
    return view


def draw(path: Path, names: Sequence[str], figures: Sequence[Portrait]) -> None:
    """One page: a column of plots for each device."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    n = len(names)
    rows = (_ramps, _response, _parts, _points, _errors)
    if n == 1:
        figure, grid = plt.subplots(2, 3, figsize=(13.0, 7.2), layout="constrained")
        columns = [list(grid.flat[: len(rows)])]
        _words(grid.flat[-1], figures[0])
    else:
        size = (4.3 * n, 3.0 * len(rows))
        figure, grid = plt.subplots(len(rows), n, figsize=size, layout="constrained", squeeze=False)
        for row in (0, 3, 4):  # responses have shapes to be seen, whose sizes may lie 100 apart
            for axis in grid[row, 1:]:
                axis.sharey(grid[row, 0])
        columns = [list(column) for column in grid.T]
    for name, axes, f in zip(names, columns, figures, strict=True):
        for axis, panel in zip(axes, rows, strict=True):
            panel(axis, f)
            axis.grid(alpha=0.25, linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
        if n > 1:
            axes[0].set_title(name, fontsize=11)
    if n == 1:
        figure.suptitle(names[0], fontsize=12)
    write(path, lambda p: figure.savefig(p, dpi=120))
    plt.close(figure)


def _ramps(axis: Any, f: Portrait) -> None:
    axis.plot(f.pulses, f.up, color=UP, linewidth=0.8, alpha=0.7)
    axis.plot(f.pulses, f.down, color=DOWN, linewidth=0.8, alpha=0.7)
    axis.set(xlabel="pulses, all up (red) or all down (blue)", ylabel=f"state w of {f.up.shape[1]} devices")
    axis.locator_params(axis="x", nbins=5)


def _response(axis: Any, f: Portrait) -> None:
    axis.plot(f.w, f.q_up, color=UP, label="q up")
    axis.plot(f.w, f.q_down, color=DOWN, label="q down")
    axis.set(xlabel="state w", ylabel="step over granularity")
    axis.legend(frameon=False)


def _parts(axis: Any, f: Portrait) -> None:
    axis.plot(f.w, f.F, color=GREY, label="F, symmetric part")
    axis.plot(f.w, f.G, color=GREY, linestyle="--", label="G, asymmetric part")
    if math.isfinite(f.point):
        axis.axvline(f.point, color=UP, linewidth=0.8, label=f"symmetric point {f.point:.3g}")
    axis.set(xlabel="state w", ylabel="F and G")
    axis.legend(frameon=False)


def _points(axis: Any, f: Portrait) -> None:
    axis.set(xlabel=f"symmetric point of {DRAWN} devices, {f.n_without} have none", ylabel="devices")
    axis.set_xlim(float(f.w[0]), float(f.w[-1]))
    axis.locator_params(axis="x", nbins=5)  # numbers beside one another, not over
    if len(f.symmetric_points):
        axis.hist(f.symmetric_points, bins=np.linspace(float(f.w[0]), float(f.w[-1]), 60).tolist(), color=GREY)


def _errors(axis: Any, f: Portrait) -> None:
    noise = np.geomspace(1e-3, 1.0, 50)
    for share, s, style in zip(SHARES, f.asymmetries, (":", "--", "-"), strict=True):
        if 0.0 < s < math.inf:
            axis.loglog(
                noise, noise**2 * s, color=GREY, linestyle=style, label=f"weights {share:.0%} of the way to a bound"
            )
    axis.set(xlabel="standard deviation of the gradient's noise", ylabel="squared gradient norm, Analog SGD")
    if axis.lines:
        axis.legend(frameon=False, fontsize=8)
    else:
        says = "infinite: no symmetric point" if math.isinf(f.asymmetries[0]) else "0: up and down steps are equal"
        axis.text(0.5, 0.5, says, ha="center", transform=axis.transAxes)


def _words(axis: Any, f: Portrait) -> None:
    axis.axis("off")
    rows = {
        "states": f"{f.n_states:.4g}",
        "step noise (steps)": f"{f.step_noise:.3g}",
        "write noise (half ranges)": f"{f.write_noise:.3g}",
        "symmetric point": f"{f.point:.3g}",
        "scatter of symmetric points\n(half ranges)": f"{f.scatter:.3g}",
        **{f"asymmetry S at {s:.0%}": f"{a:.3g}" for s, a in zip(SHARES, f.asymmetries, strict=True)},
    }
    view = axis.table([[k, v] for k, v in rows.items()], loc="center", cellLoc="left", colWidths=[0.65, 0.3])
    view.auto_set_font_size(False)
    view.set_fontsize(9.5)
    view.scale(1.0, 1.7)
    for cell in view.get_celld().values():
        cell.set_linewidth(0.0)
