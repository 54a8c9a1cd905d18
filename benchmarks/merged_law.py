"""Are merged pulses equal in law to pulses one by one?

    python benchmarks/merged_law.py --out merged-law.json        a million devices on each side: ten minutes
    python benchmarks/merged_law.py --devices 100000             a minute, but sees three times less

Baseline: `PulsedUpdate(merge=False)`, every pulse by itself. Both sides send the same numbers of pulses to all devices
(|x| = 1, |d| whole steps: every line fires in every slot), under different seeds: the weights differ by cycle-to-cycle
noise alone, and are independent. For each case: the two-sample Kolmogorov-Smirnov distance; mean, variance and skewness
of both sides with standard errors; p-values of all four. At a million devices the distance sees laws 0.004 apart, the
moments what it is blind to: variances 1 %, skewnesses 0.02 apart. Fails (exit status 1) where the least of a
case's p-values, times four, lies under 1e-6 / number of cases.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import stats

from ohmgrad import Crossbar, PulsedUpdate, __version__
from ohmgrad.devices import ConstantStep, Device, LinearStep, SoftBounds
from ohmgrad.report.files import write_json

ALPHA = 1e-6
TAU = 0.6
FAMILIES: dict[str, Callable[..., Device]] = {
    "soft-bounds": SoftBounds,
    "linear-step": LinearStep,
    "constant-step": ConstantStep,
}
SLOPES = {"linear-step": {"gamma_up": 0.3, "gamma_down": 0.6}}
NOISES = tuple(product(("multiplicative", "additive"), (0.3, 1.0)))  # kind, dw_min_ctoc
N_STEPS = (600, 100, 30, 6)  # tau / dw_min
STARTS = (0.0, 0.5, 0.98)  # in units of tau
MAX_SKEWNESS = 4.0
MOMENTS = ("mean", "variance", "skewness")


def _mixed(batch: int) -> tuple[int, ...]:
    """That many samples of 1 to 4 pulses, up and down at random; always the same."""
    rng = np.random.default_rng(batch)
    return tuple(int(n) for n in rng.integers(1, 5, batch) * rng.choice((-1, 1), batch))


# Pulses of each sample of a mini-batch, up > 0. Single samples go up, toward the bound.
BATCHES = {"8": (8,), "31": (31,), "32 mixed": _mixed(32), "64 mixed": _mixed(64)}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row: the device, its noise, the step in units of tau, the mini-batch, the start in units of tau."""

    family: str
    ctoc: str
    sigma: float
    n_steps: int
    batch: str
    start: float

    @property
    def device(self) -> Device:
        """The step is rounded to 24 bits, so that a train of n pulses has n slots exactly."""
        dw_min = float(np.float32(TAU / self.n_steps))
        own = {"ctoc": self.ctoc, "dw_min_ctoc": self.sigma, **SLOPES.get(self.family, {})}
        return FAMILIES[self.family](w_max=TAU, w_min=-TAU, dw_min=dw_min, **own)


def cases() -> Iterator[Case]:
    """The full set."""
    for family, (ctoc, sigma), n_steps, batch, start in product(FAMILIES, NOISES, N_STEPS, BATCHES, STARTS):
        yield Case(family=family, ctoc=ctoc, sigma=sigma, n_steps=n_steps, batch=batch, start=start)


def weights(case: Case, n_devices: int, *, merge: bool, seed: int) -> np.ndarray:
    """The states of n devices after the mini-batch, float32.

    Raises:
        RuntimeError: not every device got the pulses it should, so that the two sides would not be comparable.
    """
    n_out = max(n for n in range(1, int(n_devices**0.5) + 1) if n_devices % n == 0)
    shape, pulses = (n_out, n_devices // n_out), torch.tensor(BATCHES[case.batch], dtype=torch.float32)
    weight = torch.full(shape, case.start * TAU)
    device = case.device
    bar = Crossbar(shape, device=device, update=PulsedUpdate(merge=merge), seed=seed, weight=weight)
    bar.pulse(torch.ones(len(pulses), shape[1]), -pulses[:, None].expand(-1, n_out).contiguous(), device.dw_min)
    wanted = float(pulses.abs().sum()) * n_devices
    if float(bar.pulses) != wanted:
        raise RuntimeError(f"{case}: {wanted:.0f} pulses were asked for, {float(bar.pulses):.0f} came")
    return bar.weight.numpy().ravel()


def moments(w: np.ndarray) -> dict[str, tuple[float, float]]:
    """Mean, variance and skewness, each with its standard error; of a constant, the skewness is not known (NaN)."""
    u, root = w.astype(np.float64), len(w) ** 0.5
    mean = u.mean()
    u -= mean
    variance = float(np.mean(u * u))
    # Spread far below the grid of float32 weights means that all of them are the same number.
    if variance <= (1e-7 * TAU) ** 2:
        return {"mean": (float(mean), 0.0), "variance": (variance, 0.0), "skewness": (np.nan, np.nan)}
    u /= variance**0.5
    square = u * u
    cube = square * u
    skewness = float(cube.mean())
    # What one sample adds to each (influence functions): its standard deviation over sqrt(n) is the error.
    slant = cube - 3.0 * u - 1.5 * skewness * square
    return {
        "mean": (float(mean), variance**0.5 / root),
        "variance": (variance, variance * float(square.std()) / root),
        "skewness": (skewness, float(slant.std()) / root),
    }


def compare(merged: np.ndarray, single: np.ndarray) -> dict[str, Any]:
    """Kolmogorov-Smirnov distance, moments of both, their differences in standard errors (z), and p-values.

    p: the least of the four p-values, times four. Moments do not count where laws are so skewed that the differences of
    their estimates are not yet normal.
    """
    test = stats.ks_2samp(merged, single, method="asymp")
    both = {"merged": moments(merged), "single": moments(single)}
    z = {name: _z(both["merged"][name], both["single"][name]) for name in MOMENTS}
    p = {"ks": float(test.pvalue), **{name: float(2.0 * stats.norm.sf(abs(value))) for name, value in z.items()}}
    is_normal = max(abs(side["skewness"][0]) for side in both.values()) < MAX_SKEWNESS
    least = min(p.values()) if is_normal else p["ks"]
    return {"p": min(1.0, len(p) * least), "ks": float(test.statistic), **both, "z": z, "p_values": p}


def _z(a: tuple[float, float], b: tuple[float, float]) -> float:
    error = float(np.hypot(a[1], b[1]))
    return (a[0] - b[0]) / error if error > 0.0 else 0.0


def measure(case: Case, n_devices: int, seed: int) -> dict[str, Any]:
    """One row of results: the case and what `compare` says."""
    merged, single = (weights(case, n_devices, merge=m, seed=2 * seed + m) for m in (True, False))
    return {**vars(case), **compare(merged, single)}


def failures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose two laws differ, at a false-alarm rate of 1e-6 for all together."""
    return [row for row in rows if not row["p"] >= ALPHA / len(rows)]


def table(rows: list[dict[str, Any]], n_shown: int) -> Table:
    """The rows of the lowest p-values; z: merged less single, in standard errors."""
    view = Table(box=None, title=f"the {min(n_shown, len(rows))} lowest p-values of {len(rows)}")
    for name in ("device", "noise", "dw_min", "pulses"):
        view.add_column(name, no_wrap=True)
    for name in ("start", "p", "KS", "p KS", "z mean", "z var", "z skew", "mean", "std", "skew"):
        view.add_column(name, justify="right", no_wrap=True)
    for row in sorted(rows, key=lambda row: row["p"])[:n_shown]:
        mean, variance, skewness = (row["single"][name][0] for name in MOMENTS)
        view.add_row(
            row["family"],
            f"{row['ctoc'][:4]}. {row['sigma']:g}",
            f"tau/{row['n_steps']}",
            row["batch"],
            f"{row['start']:g} tau",
            f"{row['p']:.1e}",
            f"{row['ks']:.5f}",
            f"{row['p_values']['ks']:.1e}",
            *(f"{row['z'][name]:+.1f}" for name in MOMENTS),
            *(f"{mean:.4f}", f"{variance**0.5:.2e}", f"{skewness:+.3f}"),
        )
    return view


def main(
    devices: Annotated[int, typer.Option(min=1000, help="Devices on each side.")] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first case.")] = 0,
    every: Annotated[int, typer.Option(min=1, help="Take only every n-th case.")] = 1,
    show: Annotated[int, typer.Option(min=0, help="Rows to print and to write, of the lowest p-values.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the kernel.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Where to write that, JSON.")] = None,
) -> None:
    """Compare the two laws in every case."""
    torch.set_num_threads(threads)
    console, started = Console(), time.perf_counter()
    console = Console(width=max(console.width, 140))
    chosen = list(cases())[::every]
    numbered = enumerate(track(chosen, description="cases", console=console))
    rows = [measure(case, devices, seed * len(chosen) + i) for i, case in numbered]
    seconds, failed = time.perf_counter() - started, failures(rows)
    console.print(table(rows, show))
    low = {limit: sum(row["p"] < limit for row in rows) for limit in (1e-2, 1e-3, 1e-4)}
    console.print(f"{devices:,} devices, {len(rows)} cases, {seconds:.0f} s. p-values below:", end=" ")
    console.print(", ".join(f"{limit:g}: {n} (expected {limit * len(rows):.2g})" for limit, n in low.items()))
    console.print(f"{len(failed)} of {len(rows)} cases differ, at {ALPHA:g} for all together.")
    if out:
        versions = {"ohmgrad": __version__, "torch": torch.__version__, "python": platform.python_version()}
        settings = {"devices": devices, "seed": seed, "every": every, "tau": TAU, "alpha": ALPHA, "batches": BATCHES}
        counts = {"cases": len(rows), "failed": len(failed), "p_below": {f"{p:g}": n for p, n in low.items()}}
        lowest = sorted(rows, key=lambda row: row["p"])[:show]
        write_json(out, {"settings": settings, "versions": versions, "seconds": seconds, **counts, "rows": lowest})
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
