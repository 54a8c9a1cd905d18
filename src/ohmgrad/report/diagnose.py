"""What `ohmgrad diagnose` prints and draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from ohmgrad.experiments.diagnosis import Diagnosis, Gain
from ohmgrad.report.files import write
from ohmgrad.theory.diagnosis import ReadError, TileDiagnosis

SHOWN = 4  # tiles of the table
WIDTH = 52  # of a mend's words in the figure


def table(found: Diagnosis) -> Table:
    """A column for each of the costliest tiles, a row for each figure."""
    tiles = {tile.name: tile for tile in found.tiles}
    shown = [(tiles[name], gain) for name, gain in list(found.costs.items())[:SHOWN]]
    view = Table(title=f"tiles, the costliest first; loss of training on: {found.loss:.4g}")
    view.add_column("")
    for tile, _ in shown:
        view.add_column(f"{tile.name} ({tile.shape[1]}-{tile.shape[0]})", justify="right")
    view.add_row("made ideal, the loss falls by", *(str(gain) for _, gain in shown))
    for label, show in ROWS.items():
        view.add_row(label, *(show(tile) for tile, _ in shown))
    return view


def percent(share: float) -> str:
    """A share in per cent, or a dash.

    >>> percent(0.123), percent(float("nan"))
    ('12 %', '-')
    """
    return "-" if math.isnan(share) else f"{100.0 * share:.2g} %" if share < 0.995 else f"{100.0 * share:.0f} %"


def ratio(part: float, whole: float) -> str:
    """One number over another, or a dash.

    >>> ratio(1.0, 4.0), ratio(1.0, 0.0)
    ('0.25', '-')
    """
    return f"{part / whole:.2g}" if whole and math.isfinite(part) else "-"


def _read(error: ReadError) -> str:
    return f"{percent(error.relative)}: {percent(error.noise)}, {percent(error.steps)}, {percent(error.clipping)}"


ROWS: dict[str, Callable[[TileDiagnosis], str]] = {
    "gradient of a device, its noise": lambda t: f"{t.gradient:.1e}, {t.noise:.1e}",
    "devices saturated": lambda t: percent(t.saturated),
    "distance from symmetric point": lambda t: percent(t.distance),
    "drift toward it over pull": lambda t: ratio(t.drift, t.pull),
    "asked below half a step": lambda t: percent(t.lost.below_half_step),
    "lost in trains, at bounds": lambda t: f"{percent(t.lost.in_trains)}, {percent(t.lost.at_bounds)}",
    "read error: noise, steps, clipping": lambda t: _read(t.forward),
    "backward": lambda t: _read(t.backward),
    "squared gradient, floor predicted": lambda t: f"{max(t.floor_measured, 0.0):.1e}, {t.floor_predicted:.1e}",
}


def content(found: Diagnosis) -> dict[str, Any]:
    """Every figure, for results.json."""
    return {
        "words": str(found),
        "loss": found.loss,
        "culprit": found.culprit,
        "where": found.where,
        "effect": found.effect,
        "recommendation": found.recommendation,
        "together": asdict(found.together),
        **{name: {k: asdict(gain) for k, gain in gains(found, name).items()} for name in ("costs", "effects", "mends")},
        "tiles": [asdict(tile) for tile in found.tiles],
    }


def gains(found: Diagnosis, name: str) -> Mapping[str, Gain]:
    """costs, effects or mends."""
    return getattr(found, name)


def draw(path: Path, found: Diagnosis) -> None:
    """What each tile, each effect and each mend is worth: bars with their standard errors."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    where = found.culprit or "all tiles"
    titles = {"costs": "tile made ideal", "effects": f"effect off on {where}", "mends": f"mend of {where}"}
    shown = {name: title for name, title in titles.items() if gains(found, name)}
    n_bars = [len(gains(found, name)) for name in shown]
    figure, axes = plt.subplots(
        len(shown), 1, figsize=(8.5, 1.2 + 0.34 * sum(n_bars) + 0.6 * len(shown)), layout="constrained",
        height_ratios=[n + 1 for n in n_bars], squeeze=False, sharex=True,
    )  # fmt: skip
    for axis, (name, title) in zip(axes[:, 0], shown.items(), strict=True):
        bars = {k: gain for k, gain in gains(found, name).items() if math.isfinite(gain.mean)}
        labels = [_short(k) for k in bars]
        means, errors = [g.mean for g in bars.values()], [g.error for g in bars.values()]
        colors = ["#c8452d" if g.is_sure else "#9aa0a6" for g in bars.values()]
        axis.barh(range(len(bars)), means, xerr=errors, color=colors, capsize=3)
        axis.set_yticks(range(len(bars)), labels)
        axis.invert_yaxis()
        axis.axvline(0.0, color="#444444", linewidth=0.8)
        axis.set_title(title, fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    means = [g.mean for name in shown for g in gains(found, name).values() if math.isfinite(g.mean)]
    if max(means) > 0.0:  # what makes it worse need not be seen to its end
        axes[-1, 0].set_xlim(left=max(1.1 * min(*means, 0.0), -max(means)))
    axes[-1, 0].set_xlabel(f"fall of the loss of training on ({found.loss:.3g}); red: above 0 by three standard errors")
    write(path, lambda p: figure.savefig(p, dpi=150))
    plt.close(figure)


def _short(words: str) -> str:
    """A mend's first words: what to set, without what it does."""
    first = words.split(" (")[0].split(":")[0].replace(" in place of the present algorithm", "")
    return first if len(first) <= WIDTH else first[:WIDTH].rsplit(" ", 1)[0] + " ..."
