"""What `ohmgrad bench update` prints."""

from __future__ import annotations

import statistics
from typing import Any

from rich.table import Table

from ohmgrad.experiments.update_speed import LARGE


def table(rows: list[dict[str, Any]]) -> Table:
    """One line for each row; thr: threads, raw: the peer below its Python layer."""
    has_peer, has_raw = (any(r[k] is not None for r in rows) for k in ("peer_ms", "peer_raw_ms"))
    view = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    view.add_column("device", no_wrap=True)
    names = ["out x in", "batch", "dw_min", "zeros", "thr", "ours ms", "pulses/s"]
    names += ["peer ms", "ratio"] * has_peer + ["raw ms"] * has_raw
    for name in names:
        view.add_column(name, justify="right", no_wrap=True)
    for r in rows:
        cells = [r["device"], f"{r['out']}x{r['in']}", f"{r['batch']}", f"{r['dw_min']:g}", f"{r['sparsity']:.0%}"]
        cells += [f"{r['threads']}", f"{r['ours_ms']:.4g}", f"{r['pulses_per_s']:.1e}"]
        is_theirs = r["ratio"] is not None  # families that the peer lacks are measured alone
        peer = [f"{r['peer_ms']:.4g}", f"{r['ratio']:.1f}"] if is_theirs else ["-", "-"]
        cells += peer * has_peer
        cells += ["-" if r["peer_raw_ms"] is None else f"{r['peer_raw_ms']:.4g}"] * has_raw
        view.add_row(*cells)
    return view


def median_ratios(rows: list[dict[str, Any]], *by: str) -> dict[tuple, tuple[float, int]]:
    """For each value of the columns `by`, the median ratio over the large rows and how many there are."""
    ratios: dict[tuple, list[float]] = {}
    for r in rows:
        if r["ratio"] is not None and r["out"] * r["in"] * r["batch"] >= LARGE:
            ratios.setdefault(tuple(r[name] for name in by), []).append(r["ratio"])
    return {key: (statistics.median(values), len(values)) for key, values in ratios.items()}


def slowest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row with the lowest ratio; without a peer, with the longest time for a crosspoint-sample."""
    if theirs := [r for r in rows if r["ratio"] is not None]:
        return min(theirs, key=lambda r: r["ratio"])
    return max(rows, key=lambda r: r["ours_ms"] / (r["out"] * r["in"] * r["batch"]))


def closing(rows: list[dict[str, Any]], left_out: list[tuple[int, int, int]], limit: float) -> list[str]:
    """Lines below the table: what was left out, the median ratios, the slowest row."""
    lines = []
    if left_out:
        cases = ", ".join(f"{out}x{n_in} at batch {batch}" for out, n_in, batch in left_out)
        lines.append(f"Left out, of more than {limit:g} crosspoint-samples: {cases}.")
    for (threads,), (ratio, n) in median_ratios(rows, "threads").items():
        lines.append(
            f"{threads} thread{'s' * (threads > 1)}: median ratio {ratio:.1f} over the {n} "
            f"row{'s' * (n > 1)} of at least {LARGE:,} crosspoint-samples."
        )
        mine = [r for r in rows if r["threads"] == threads]
        kinds = median_ratios(mine, "dw_min", "sparsity").items()
        lines.append(
            "  " + "; ".join(f"dw_min {dw:g}, {zeros:.0%} zeros: {kind:.1f}" for (dw, zeros), (kind, _) in kinds)
        )
        own = median_ratios(mine, "device").items()
        lines.append("  " + "; ".join(f"{device}: {ratio:.1f}" for (device,), (ratio, _) in own))
    r = slowest(rows)
    case = f"{r['device']}, {r['out']}x{r['in']}, batch {r['batch']}, dw_min {r['dw_min']:g}, "
    case += f"{r['sparsity']:.0%} zeros, {r['threads']} thread{'s' * (r['threads'] > 1)}"
    if r["ratio"] is None:
        ns = r["ours_ms"] * 1e6 / (r["out"] * r["in"] * r["batch"])
        return [*lines, f"Slowest row: {case}: {ns:.3g} ns for a crosspoint-sample. No --peer-python, so no ratios."]
    ratios = [r["ratio"] for r in rows if r["ratio"] is not None]
    n_slower = sum(ratio < 1.0 for ratio in ratios)
    slower = f"Rows slower than the peer: {n_slower} of {len(ratios)}."
    lines.append(f"Slowest row: {case}: ratio {r['ratio']:.2f}. {slower}")
    return lines
