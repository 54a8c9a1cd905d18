"""How much memory does a large crossbar with every variation take, once it stands and at its peak while it is made?

Baseline: the planes that cannot be spared, of 4 bytes an element: the weight, and its five parameters (two bounds, two
steps, the reference's state) where every one of them differs between devices; with write noise the hidden state too.
Goal: 724 MB beyond the imported library for 4096 x 4096 elements, at the peak too.

    python benchmarks/memory.py --out benchmarks/results/memory.json

Each case runs in a process of its own, which reads /proc/self/status (Linux): resident memory after `import ohmgrad`,
after the construction and after a first pulse (which loads the compiled kernel and what it prepares), and the peaks.
All in MB of 10^6 bytes.

Last figures (`results/memory.json`; 4096 x 4096, Linux): peak of construction 417 without write noise and 484 with it,
in 3 to 5 s; peak of a first pulse 620 and 645.
Before parameters were drawn in blocks of rows, plain soft bounds (four parameters) peaked at 1,500 and took 15 s.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

CASES = {"no write noise": 0.0, "write noise": 1.0}
GOAL = 724.0
COLUMNS = ("planes", "resident", "peak", "seconds", "resident after a pulse", "peak of a pulse")


def status(name: str) -> float:
    """A figure of /proc/self/status, in MB: VmRSS, resident memory, or VmHWM, its peak."""
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6


def reset_peak() -> None:
    """Let VmHWM start again from the resident memory of now."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(side: int, write_noise: float) -> dict[str, float]:
    """Memory beyond the imported library, in MB, and seconds of construction, in this process."""
    import torch

    import ohmgrad as og

    device = og.devices.SoftBoundsReference(
        w_max=0.6,
        w_min=-0.6,
        **dict.fromkeys(("w_max_dtod", "w_min_dtod", "dw_min_dtod"), 0.3),
        **dict.fromkeys(("up_down_dtod", "reference_std", "slope_up_dtod", "slope_down_dtod"), 0.05),
        subtract_symmetry_point=True,
        dw_min_ctoc=0.3,
        write_noise=write_noise,
    )
    library = status("VmRSS")
    reset_peak()
    start = time.perf_counter()
    bar = og.Crossbar((side, side), device=device, update=og.PulsedUpdate(), seed=0)
    seconds = time.perf_counter() - start
    resident, peak = status("VmRSS") - library, status("VmHWM") - library
    reset_peak()
    bar.pulse(torch.ones(1, side), torch.ones(1, side), lr=1e-3)
    return {
        "planes": sum(b.numel() * b.element_size() for b in bar.buffers()) / 1e6,
        "resident": resident,
        "peak": peak,
        "seconds": seconds,
        "resident after a pulse": status("VmRSS") - library,
        "peak of a pulse": status("VmHWM") - library,
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """One line for each case."""
    lines = ["".join(f"{c:>24}" for c in ("case", *COLUMNS))]
    return "\n".join(
        lines + [f"{name:>24}" + "".join(f"{row[c]:24.1f}" for c in COLUMNS) for name, row in rows.items()]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096, help="rows and columns of the crossbar")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--case", choices=CASES, help="measure this one in this process, and print it as JSON")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(args.side, CASES[args.case])))
        return
    rows = {}
    for case in CASES:
        command = [sys.executable, __file__, "--side", str(args.side), "--case", case]
        rows[case] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(table(rows))
    print(f"MB (10^6 bytes) beyond the imported library; goal: a peak of {GOAL:.0f} at most for a side of 4096")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        report = {"side": args.side, "goal_mb": GOAL, "machine": platform.processor() or platform.machine(), "mb": rows}
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
