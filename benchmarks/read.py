"""What does a read through the default converters cost, beside the matrix product alone?

Baseline: torch's product of the same matrices. Goal: at most 2.5 times that, for batches of 64 and more. Also the
layers of LeNet-5 at batch 8, which are smaller: there a read costs its two passes over short vectors, and 10 us.

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

SHAPES, BATCHES, TURNS = ((512, 512), (256, 784), (128, 256), (1024, 1024)), (64, 256, 1024), 101
# Crossbars of LeNet-5, and the vectors that 8 images make of them.
LENET = (((16, 25), 4608), ((32, 400), 512), ((128, 512), 8), ((10, 128), 8))


def measure(shape: tuple[int, int], batch: int, threads: int) -> dict[str, float | int]:
    """Milliseconds of both, in turns: medians, and the fastest turns, which other work disturbed least."""
    torch.set_num_threads(threads)
    bar = Crossbar(shape, device=Ideal(), periphery=Periphery(), seed=0, weight=0.2 * torch.randn(shape))
    x = torch.randn(batch, shape[1])
    sides = {"read": lambda: bar.read(x), "product": lambda: x @ bar.weight.mT}
    times: dict[str, list[float]] = {name: [] for name in sides}
    calls = 10 if bar.weight.numel() * batch < 50_000_000 else 1
    for turn in range(TURNS + 2):
        for name, side in sides.items():
            start = time.perf_counter()
            for _ in range(calls):
                side()
            if turn >= 2:
                times[name].append(1e3 * (time.perf_counter() - start) / calls)
    row: dict[str, float | int] = {"out": shape[0], "in": shape[1], "batch": batch, "threads": threads}
    for kind, of in (("median", statistics.median), ("fastest", min)):
        read, product = (of(times[name]) for name in ("read", "product"))
        row |= {f"{kind}_read_ms": read, f"{kind}_product_ms": product, f"{kind}_ratio": read / product}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    cases = [*((shape, batch) for shape in SHAPES for batch in BATCHES), *LENET]
    rows = [measure(shape, batch, threads) for threads in (1, 2) for shape, batch in cases]
    for row in rows:
        line = "{out:5}x{in:<5} batch {batch:5}  {threads} threads"
        for kind in ("median", "fastest"):
            line += f"  {kind} {{{kind}_read_ms:.3f}} / {{{kind}_product_ms:.3f}} ms = {{{kind}_ratio:.2f}}"
        print(line.format(**row))
    if out:
        out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
