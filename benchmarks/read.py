"""What does a read through the default converters cost, beside the matrix product alone?

Baseline: `torch.nn.functional.linear` of the same size. Goal: at most 2.5 times that, for batches of 64 and more.

Last figures: see `results/read.json`, which this script writes with --out.

    python benchmarks/read.py --out benchmarks/results/read.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from ohmgrad import Crossbar, Periphery
from ohmgrad.devices import Ideal
from ohmgrad.experiments.update_speed import machine

SHAPES, BATCHES, REPEATS = ((512, 512), (256, 784), (128, 256), (1024, 1024)), (64, 256, 1024), 15


def measure(shape: tuple[int, int], batch: int, threads: int) -> dict[str, float | int]:
    """Median seconds of both, in turns."""
    torch.set_num_threads(threads)
    bar = Crossbar(shape, device=Ideal(), periphery=Periphery(), weight=0.2 * torch.randn(shape))
    x = torch.randn(batch, shape[1])
    sides = {"read": lambda: bar.read(x), "product": lambda: x @ bar.weight.mT}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(REPEATS + 2):
        for name, side in sides.items():
            start = time.perf_counter()
            for _ in range(10):
                side()
            if turn >= 2:
                times[name].append((time.perf_counter() - start) / 10)
    medians = {f"{name}_ms": 1e3 * statistics.median(t) for name, t in times.items()}
    ratio = medians["read_ms"] / medians["product_ms"]
    return {"out": shape[0], "in": shape[1], "batch": batch, "threads": threads, **medians, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    rows = [measure(shape, batch, threads) for threads in (1, 2) for shape in SHAPES for batch in BATCHES]
    for row in rows:
        line = "{out:5}x{in:<5} batch {batch:5}  {threads} threads  {read_ms:.3f} / {product_ms:.3f} ms = {ratio:.2f}"
        print(line.format(**row))
    if out:
        out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
