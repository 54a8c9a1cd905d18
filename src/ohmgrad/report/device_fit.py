"""What `ohmgrad device fit` prints, draws and writes."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from ohmgrad.devices import Device, catalog
from ohmgrad.fitting import Characterised, Measurement
from ohmgrad.fitting.characterise import ramp, residuals
from ohmgrad.fitting.filter import predict
from ohmgrad.report.device import DOWN, GREY, UP
from ohmgrad.report.files import write

COLUMNS = ("device", "ramp", "pulse", "direction", "reading", "fitted", "residual", "one_step_residual_in_std")


def table(found: Characterised) -> Table:
    """One line for each family: the chosen one bold, those dim that the readings speak against."""
    view = Table(title="held-out readings", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    view.add_column("family", no_wrap=True)
    for name in ("free", "noise", "score", "below best", "error (% of range)"):
        view.add_column(name, justify="right", no_wrap=True)
    for r in found.rows:
        cells = [f"{r.fits[0].n_free}", r.fits[0].device.ctoc, f"{r.score:.4f}", f"{r.below:.4f} ± {r.below_se:.4f}"]
        style = "bold" if r is found.chosen else "" if r.is_as_good else "dim"
        view.add_row(catalog.name_of(r.family), *cells, f"{_percent(found, r.error):.3g}", style=style)
    return view


def _percent(found: Characterised, error: float) -> float:
    low, high = (f([f(r.y[~np.isnan(r.y)]) for r in found.readings]) for f in (np.min, np.max))
    return float(100.0 * error / (high - low))


def parameters(found: Characterised) -> Table:
    """The chosen device's numbers with their errors."""
    view = Table(title=catalog.name_of(type(found.device)), box=None, pad_edge=False, padding=(0, 2, 0, 0))
    view.add_column("")
    view.add_column("estimate", justify="right")
    view.add_column("standard error", justify="right")
    for name, error in found.errors.items():
        says = f"{error:.2g}" if math.isfinite(error) else "not determined by these readings"
        view.add_row(name, f"{number(found.device, name):.5g}", says)
    return view


def beyond(found: Characterised) -> list[str]:
    """Sentences on bounds that lie far beyond all readings, w in -1 ... 1, and that these do not determine."""
    device, says = found.device, []
    for name in ("w_min", "w_max"):
        bound, error = getattr(device, name), found.errors.get(name, 0.0)
        if abs(bound) > 2.0 and error > 0.5 * abs(bound):
            says.append(
                f"{name} = {bound:.3g} is not determined by these readings, which lie in -1 ... 1: training may use "
                "states that nobody has measured."
            )
    return says


def number(device: Device, name: str) -> float:
    """A field, or an entry of a table: name[i]."""
    field, _, index = name.rstrip("]").partition("[")
    value = getattr(device, field)
    return value[int(index)] if index else value


def results(found: Characterised) -> dict[str, Any]:
    """All figures."""
    rows = [
        {
            "family": catalog.name_of(r.family),
            "score": r.score,
            "score_below_best": r.below,
            "score_below_best_se": r.below_se,
            "is_as_good_as_the_best": r.is_as_good,
            "held_out_error": r.error,
            "held_out_error_percent_of_range": _percent(found, r.error),
            "n_free": r.fits[0].n_free,
            "log_likelihood": sum(f.log_likelihood for f in r.fits),
            "ctoc": r.fits[0].device.ctoc,
            "is_chosen": r is found.chosen,
        }
        for r in found.rows
    ]
    values = {k: {"estimate": number(found.device, k), "standard_error": e} for k, e in found.errors.items()}
    n = sum(f.n for f in found.chosen.fits)
    return {
        "chosen": catalog.name_of(type(found.device)),
        "parameters": values,
        "families": rows,
        "bounds_not_determined": beyond(found),
        "not_fitted": found.failed,
        "readings_scored": n,
        "devices": len(found.readings),
        "scale": vars(found.scale),
    }


def write_device(path: Path, found: Characterised, sources: list[str]) -> None:
    """The file that every command takes as a device."""
    s = found.scale
    lines = [
        f"# {catalog.name_of(type(found.device))}, fitted by `ohmgrad device fit` to {', '.join(sources)}",
        catalog.section(found.device),
        "",
        "[standard_errors]",
        *(f'"{k}" = {e!r}' for k, e in found.errors.items()),
        "",
        "[reading]  # = zero + per_unit w",
        f"zero = {s.zero!r}",
        f"per_unit = {s.per_unit!r}",
        f'unit = "{s.unit}"',
    ]
    write(path, lambda p: p.write_text("\n".join(lines) + "\n", encoding="utf-8"))


def write_residuals(path: Path, measurement: Measurement, found: Characterised) -> None:
    """One line for each reading."""

    def save(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            for row in residuals(measurement, found):
                rows.writerow(f"{v:.8g}" if isinstance(v, float) else v for v in row)

    write(path, save)


def draw(path: Path, measurement: Measurement, found: Characterised) -> None:
    """Ramps, steps, residuals, and how the families compare."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12.0, 8.0), layout="constrained")
    _ramps(axes[0, 0], found)
    _steps(axes[0, 1], found)
    _residuals(axes[1, 0], found)
    _families(axes[1, 1], found)
    for axis in axes.flat:
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    n = len(found.readings)
    ramps = f"{len(measurement.ramps)} ramps of {n} device{'s' * (n > 1)}"
    figure.suptitle(f"{catalog.name_of(type(found.device))} fitted to {ramps}", fontsize=11)
    write(path, lambda p: figure.savefig(p, dpi=120))
    plt.close(figure)


def _ramps(axis: Any, found: Characterised) -> None:
    drawn = 0
    for fit, readings in zip(found.chosen.fits, found.readings, strict=True):
        fitted = ramp(fit.device, readings)
        starts = np.flatnonzero(readings.first)
        for a, b in zip(starts, [*starts[1:], len(fitted)], strict=True):
            if drawn < 100:  # more would only hide one another
                color = UP if readings.up[b - 1] else DOWN
                axis.plot(np.arange(b - a), readings.y[a:b], color=color, alpha=0.35, linewidth=0.7)
                axis.plot(np.arange(b - a), fitted[a:b], color="black", linewidth=0.8, alpha=0.6)
                drawn += 1
    axis.set(xlabel="pulse", ylabel="state w", title="readings (up red, down blue), fitted ramps (black)")


def _steps(axis: Any, found: Characterised) -> None:
    """Mean steps against the state that the fit says the device was in: readings' own noise would bend them."""
    state, change, up = [], [], []
    for fit, readings in zip(found.chosen.fits, found.readings, strict=True):
        fitted, last = ramp(fit.device, readings), np.roll(readings.y, 1)
        fine = readings.is_scored & ~np.isnan(last)
        state.append(np.roll(fitted, 1)[fine])
        change.append((readings.y - last)[fine])
        up.append(readings.up[fine])
    x, y, direction = np.concatenate(state), np.concatenate(change), np.concatenate(up)
    w = np.linspace(x.min(), x.max(), 200)
    for is_up, color in ((True, UP), (False, DOWN)):
        own = direction == is_up
        edges = np.unique(np.quantile(x[own], np.linspace(0.0, 1.0, 21)))
        where = np.clip(np.searchsorted(edges, x[own], side="right") - 1, 0, max(len(edges) - 2, 0))
        for k in np.unique(where):
            values = y[own][where == k]
            error = values.std() / math.sqrt(len(values))
            axis.errorbar(x[own][where == k].mean(), values.mean(), error, fmt="o", color=color, markersize=3.5)
        for row in (r for r in found.rows if r is found.chosen or not r.below):
            step = row.fits[0].device.step(torch.as_tensor(w), is_up).numpy()
            axis.plot(w, step, color=color, linestyle="-" if row is found.chosen else ":", linewidth=1.2)
    axis.axhline(0.0, color=GREY, linewidth=0.6)
    axis.set(
        xlabel="state w",
        ylabel="change of w by one pulse",
        title="mean steps ± error, fitted response (dotted: best score)",
    )


def _residuals(axis: Any, found: Characterised) -> None:
    scores = []
    for fit, readings in zip(found.chosen.fits, found.readings, strict=True):
        p = predict(fit.device, readings)
        scores.append(((readings.y - p.mean) / np.sqrt(p.variance))[readings.is_scored])
    bins, x = np.linspace(-5.0, 5.0, 81), np.linspace(-5.0, 5.0, 200)
    axis.hist(np.clip(np.concatenate(scores), -5.0, 5.0), bins=bins.tolist(), density=True, color=GREY, alpha=0.6)
    axis.plot(x, np.exp(-0.5 * x**2) / math.sqrt(2.0 * math.pi), color="black", linewidth=1.2)
    axis.set(
        xlabel="reading less expectation (standard deviations)", ylabel="density", title="residuals and the normal law"
    )


def _families(axis: Any, found: Characterised) -> None:
    rows = found.rows[::-1]
    colors = [UP if r is found.chosen else GREY for r in rows]
    axis.barh(range(len(rows)), [r.below for r in rows], xerr=[r.below_se for r in rows], color=colors, alpha=0.8)
    axis.set(xlabel="held-out score below the best (log density of a reading)", title="families; chosen in red")
    axis.set_xscale("symlog", linthresh=1e-3)
    axis.set_xlim(left=0.0)
    errors = [f"{catalog.name_of(r.family)}, error {_percent(found, r.error):.2g} %" for r in rows]
    axis.set_yticks(range(len(rows)), errors, fontsize=8)
