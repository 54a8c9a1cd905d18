"""Is a training step slower than in another checkout? Both sides alternate in one run.

    python benchmarks/step.py --before ../other/src --out benchmarks/results/step.json

The network is 784-256-128-10 with sigmoids, on soft bounds with 30 % spreads, trained by pulses with perfect reads at
batches of 1 and 10. Each side is a process of its own; a round is some tens of steps of one side and then of the other,
and who begins changes from round to round. The median over rounds of the ratio is taken, so that other work on the
machine meets both alike. `step` is `optimizer.step` alone, `whole` zero_grad, both passes and the step; `clipped` has
`clip_grad_norm_` in it too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROUNDS, STEPS = 60, 40


def worker() -> None:
    """Answer each line, a batch size, with the mean times of a step in us."""
    import torch
    from torch import nn

    from ohmgrad import AnalogOptimizer, PulsedUpdate, convert
    from ohmgrad.devices import SoftBounds

    torch.set_num_threads(1)
    device = SoftBounds(dw_min=1e-3, dw_min_dtod=0.3, w_max_dtod=0.3, w_min_dtod=0.3, dw_min_ctoc=0.3)
    torch.manual_seed(0)
    sizes = [nn.Linear(784, 256), nn.Sigmoid(), nn.Linear(256, 128), nn.Sigmoid(), nn.Linear(128, 10)]
    model = convert(nn.Sequential(*sizes), device=device, update=PulsedUpdate(), seed=0)
    optimizer = AnalogOptimizer(model, lr=0.01)

    def times(batch: int, *, is_clipped: bool) -> tuple[float, float]:
        x, y = torch.rand(batch, 784), torch.randint(10, (batch,))
        whole = alone = 0.0
        for _ in range(STEPS):
            start = time.perf_counter()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            if is_clipped:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            before_step = time.perf_counter()
            optimizer.step()
            end = time.perf_counter()
            whole, alone = whole + end - start, alone + end - before_step
        return 1e6 * whole / STEPS, 1e6 * alone / STEPS

    times(10, is_clipped=True)
    for line in sys.stdin:
        batch = int(line)
        (whole, alone), (clipped, _) = (times(batch, is_clipped=is_clipped) for is_clipped in (False, True))
        print(json.dumps({"whole": whole, "step": alone, "clipped": clipped}), flush=True)


def side(source: str) -> subprocess.Popen[str]:
    """A worker that imports the package from that directory."""
    env = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, __file__, "--worker"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def ask(worker: subprocess.Popen[str], batch: int) -> dict[str, float]:
    """One round of one side."""
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(f"{batch}\n")
    worker.stdin.flush()
    return json.loads(worker.stdout.readline())


def main() -> None:
    """Print and write medians of both sides and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="src directory of the other checkout")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker()
        return
    if not given.before or not (Path(given.before) / "ohmgrad").is_dir():
        parser.error(f"--before needs the src directory of another checkout, got {given.before}")
    sides = {"before": side(given.before), "after": side(str(Path(__file__).parents[1] / "src"))}
    report: dict[str, Any] = {"processor": processor(), "rounds": ROUNDS, "steps": STEPS, "rows": []}
    for batch in (1, 10):
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for k in range(ROUNDS):
            for name in sorted(sides, reverse=k % 2 == 0):
                rounds[name].append(ask(sides[name], batch))
        for what in ("step", "whole", "clipped"):
            us = {name: statistics.median(r[what] for r in rs) for name, rs in rounds.items()}
            ratios = [a[what] / b[what] for a, b in zip(rounds["after"], rounds["before"], strict=True)]
            row = {"batch": batch, "what": what, **us, "ratio": statistics.median(ratios)}
            report["rows"].append(row)
            print(f"batch {batch:2d} {what:8s} {us['before']:8.1f} us, {us['after']:8.1f} us: {row['ratio']:.3f}")
    for one in sides.values():
        one.terminate()
    if given.out:
        given.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def processor() -> str:
    """Its model, as Linux names it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
