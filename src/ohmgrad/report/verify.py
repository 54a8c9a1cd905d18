"""What `ohmgrad verify` shows: tables for the screen and for the page, CSV, and one page of plots."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from ohmgrad.experiments.verify.verdict import CONFIDENCE, Claim, Panel, Verdict
from ohmgrad.report.files import write

COLUMNS = 5
CLAIM_FIELDS = ("what", "predicted", "measured", "low", "high", "accepted_from", "accepted_to", "holds", "because")


def accepted(claim: Claim) -> str:
    """What a claim accepts, in words.

    >>> from ohmgrad.experiments.verify.verdict import Estimate, at_most, equal
    >>> accepted(equal("", 2.0, Estimate(2.1), within=0.2, because=""))
    '1.8 ... 2.2'
    >>> accepted(at_most("", 2.0, Estimate(1.0), because=""))
    '<= 2'
    """
    low, high = claim.accepted
    if math.isinf(low):
        return f"<= {high:.9g}"
    return f">= {low:.9g}" if math.isinf(high) else f"{low:.9g} ... {high:.9g}"


def interval(claim: Claim) -> str:
    """The measured value with its confidence interval, where it is random."""
    if claim.low == claim.high:
        return f"{claim.measured:.5g}"
    return f"{claim.measured:.5g} [{claim.low:.5g}, {claim.high:.5g}]"


def table(verdict: Verdict, seconds: float) -> Table:
    """One experiment on the screen."""
    end = "holds" if verdict.holds else "FAILS"
    view = Table(title=f"{verdict.name} {verdict.title}: {end} ({seconds:.1f} s)", title_justify="left")
    view.add_column("claim, and why that much is accepted")
    for column in ("predicted", f"measured [{CONFIDENCE:.1%} interval]", "accepted"):
        view.add_column(column, justify="right")
    view.add_column("")
    for claim in verdict.claims:
        what = f"{_escaped(claim.what)}\n[dim]{_escaped(claim.because)}[/dim]"
        end = "holds" if claim.holds else "FAILS"
        view.add_row(what, f"{claim.predicted:.5g}", _escaped(interval(claim)), accepted(claim), end)
    view.caption = f"{verdict.statement}. {verdict.source}." if verdict.statement else _escaped(verdict.error)
    return view


def _escaped(text: str) -> str:
    """Brackets that are none of rich's."""
    return text.replace("[", r"\[")


def plain(verdict: Verdict, **more: Any) -> dict[str, Any]:
    """A verdict for JSON."""
    claims = [dict(zip(CLAIM_FIELDS, _fields(claim), strict=True)) for claim in verdict.claims]
    words = {k: getattr(verdict, k) for k in ("name", "title", "statement", "source", "error", "holds")}
    return (
        words | {"claims": claims, "points": [dict(zip(POINT_FIELDS, p, strict=True)) for p in _points(verdict)]} | more
    )


def _fields(claim: Claim) -> tuple[Any, ...]:
    return (
        claim.what, claim.predicted, claim.measured, claim.low, claim.high, *claim.accepted, claim.holds, claim.because
    )  # fmt: skip


POINT_FIELDS = ("x_axis", "y_axis", "series", "x", "measured", "half_width", "predicted")


def _points(verdict: Verdict) -> list[tuple[Any, ...]]:
    return [
        (panel.x, panel.y, p.series, p.x, p.measured, p.half_width, p.predicted)
        for panel in verdict.panels
        for p in panel.points
    ]


def write_csv(folder: Path, verdicts: Sequence[Verdict]) -> None:
    """claims.csv, a line for each claim, and sweeps.csv, a line for each point of each sweep."""
    _write_rows(
        folder / "claims.csv",
        ("experiment", *CLAIM_FIELDS),
        ((v.name, *_fields(c)) for v in verdicts for c in v.claims),
    )
    _write_rows(
        folder / "sweeps.csv", ("experiment", *POINT_FIELDS), ((v.name, *p) for v in verdicts for p in _points(v))
    )


def _write_rows(path: Path, header: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    def save(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(header)
            rows.writerows(lines)

    write(path, save)


def draw(path: Path, verdicts: Sequence[Verdict]) -> None:
    """One page: each sweep as measured, with its confidence intervals, beside what is predicted."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [(verdict, panel) for verdict in verdicts for panel in verdict.panels]
    columns = min(COLUMNS, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure, axes = plt.subplots(rows, columns, figsize=(3.5 * columns, 3.1 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (verdict, panel) in zip(axes.flat, panels, strict=False):
        _draw_panel(axis, panel)
        axis.set_title(f"{verdict.name} {verdict.title}", fontsize=9, color="black" if verdict.holds else "firebrick")
    figure.suptitle(f"points: measured, with {CONFIDENCE:.1%} intervals; lines: predicted; slopes fitted", fontsize=10)
    write(path, lambda p: figure.savefig(p, dpi=110))
    plt.close(figure)


def _draw_panel(axis: Any, panel: Panel) -> None:
    for i, series in enumerate(dict.fromkeys(p.series for p in panel.points)):
        points = sorted((p for p in panel.points if p.series == series), key=lambda p: p.x)
        x, y, predicted = ([getattr(p, name) for p in points] for name in ("x", "measured", "predicted"))
        label = f"{series}{_slope(x, y)}" if panel.log_x and panel.log_y else series
        axis.errorbar(
            x, y, [p.half_width for p in points], fmt="o", markersize=4, capsize=2, color=f"C{i}", label=label
        )
        if not all(map(math.isnan, predicted)):
            axis.plot(x, predicted, color=f"C{i}", linewidth=1.2, marker="_" if len(x) == 1 else "")
    axis.set_xlabel(panel.x, fontsize=8)
    axis.set_ylabel(panel.y, fontsize=8)
    if panel.log_x:
        axis.set_xscale("log")
        axis.minorticks_off()
        ticks = sorted({p.x for p in panel.points})
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    if panel.log_y and any(p.measured > 0.0 for p in panel.points):
        axis.set_yscale("log")
    axis.tick_params(which="both", labelsize=7)
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.legend(frameon=False, fontsize=7)


def _slope(x: list[float], y: list[float]) -> str:
    if len(x) < 2 or min(y) <= 0.0:
        return ""
    u, v = ([math.log(value) for value in values] for values in (x, y))
    mean_u, mean_v = sum(u) / len(u), sum(v) / len(v)
    rise = sum((a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True))
    return f" (slope {rise / sum((a - mean_u) ** 2 for a in u):.2f})"


def verdict_rows(results: dict[str, Any]) -> str:
    """Markdown: all claims of a run."""
    lines = ["| | claim | predicted | measured | accepted | |", "|---|---|---|---|---|---|"]
    for experiment in results["experiments"]:
        if experiment["error"]:
            lines.append(f"| {experiment['name']} | {experiment['title']} | | {experiment['error']} | | **fails** |")
        for claim in map(_claim, experiment["claims"]):
            end = "holds" if claim.holds else "**fails**"
            what = claim.what.replace("|", "\\|")
            numbers = f"{claim.predicted:.5g} | {interval(claim)} | {accepted(claim)}"
            lines.append(f"| {experiment['name']} | {what} | {numbers} | {end} |")
    return "\n".join(lines)


def planted_rows(results: dict[str, Any]) -> str:
    """Markdown: of each planted error, the claim that missed its prediction by most of its tolerance."""
    lines = ["| | planted error | claim | predicted | measured | accepted | |", "|---|---|---|---|---|---|---|"]
    for entry in results["planted"]:
        broken = [claim for claim in map(_claim, entry["claims"]) if not claim.holds]
        head = f"| {entry['name']} | {entry['plant'].replace('_', ' ')} |"
        if not broken:
            lines.append(f"{head} {entry['error']} | | | | {'caught' if entry['error'] else '**not caught**'} |")
            continue
        claim = broken[0]
        what = claim.what.replace("|", "\\|")
        lines.append(f"{head} {what} | {claim.predicted:.5g} | {interval(claim)} | {accepted(claim)} | caught |")
    return "\n".join(lines)


def _claim(entry: dict[str, Any]) -> Claim:
    """Back from JSON, where an infinite or undefined number is null."""
    low, high = entry["accepted_from"], entry["accepted_to"]
    numbers = {k: math.nan if entry[k] is None else entry[k] for k in ("predicted", "measured", "low", "high")}
    ends = (-math.inf if low is None else low, math.inf if high is None else high)
    return Claim(what=entry["what"], because=entry["because"], accepted=ends, **numbers)


def filled(page: str, results: dict[str, Any]) -> str:
    """The page with its tables, between <!-- NAME --> and <!-- end -->, as the results have them.

    Raises:
        ValueError: the page lacks a mark.
    """
    for name, rows in (("verdicts", verdict_rows(results)), ("planted", planted_rows(results))):
        start = page.find(f"<!-- {name} -->\n")
        end = page.find("\n<!-- end -->", start)
        if min(start, end) < 0:
            raise ValueError(f"the page needs a part between <!-- {name} --> and <!-- end -->")
        page = page[:start] + f"<!-- {name} -->\n" + rows + page[end:]
    return page
