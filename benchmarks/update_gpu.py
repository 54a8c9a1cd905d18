"""How fast is the pulsed update on a GPU, and how far from what the chip could do?

Rows as in benchmarks/update.py (soft bounds, spreads of 30 %, bit length 31), timed by CUDA events inside a CUDA graph
that holds a whole number of calls; the median over its replays. Beside each time stand two fractions:

* arithmetic: instructions that a crosspoint-sample must take, INSTRUCTIONS of the merged loop as compiled for sm_90
  (368 for the 4 weights of a thread, float32), over what the multiprocessors can issue, 128 lanes each at every clock;
* memory: bytes that must move once, weights twice and their 6 parameter planes, inputs and words of the lines, over
  the bandwidth that a copy of 1 GiB reaches.

The larger of the two is the limit that holds the row. Last figures: none yet; the kernels have not run on a GPU.

    python benchmarks/update_gpu.py --out results.json
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch

from ohmgrad import Crossbar, PulsedUpdate
from ohmgrad.devices import catalog
from ohmgrad.experiments.update_speed import LR, Row, SpeedSettings, inputs, machine
from ohmgrad.report.files import write_json

INSTRUCTIONS = 92  # for each crosspoint and sample
PLANES = 6  # of soft bounds, as the kernel reads them: bounds, steps up and down, bounds once more for the response
TURN = 0.01  # seconds that a replay lasts at least
NO_GPU = "not run: no GPU here"


def limits(row: Row, instructions_per_s: float, bytes_per_s: float) -> tuple[float, float]:
    """Shortest seconds of one call by arithmetic and by memory."""
    n_out, n_in = row.shape
    n_bytes = 4 * (n_out * n_in * (PLANES + 2) + row.batch * (n_out + n_in) * 3)
    return row.size * INSTRUCTIONS / instructions_per_s, n_bytes / bytes_per_s


def seconds_of(run: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call between two CUDA events."""
    found = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) * 1e-3)
    return statistics.median(found)


def chip() -> dict[str, float | str]:
    """The GPU's name, instructions and bytes per second."""
    about = torch.cuda.get_device_properties(0)
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    copied = 2 * source.numel() / seconds_of(lambda: target.copy_(source), 10)
    # The clock in kHz; that of the driver's top state, which a hot chip may not hold.
    issued = about.multi_processor_count * 128 * about.clock_rate * 1e3
    return {"name": about.name, "instructions_per_s": float(issued), "bytes_per_s": copied}


def measure(row: Row, gpu: dict[str, Any], repeats: int) -> dict[str, Any]:
    """One row: the time of a call by itself and inside a graph, and the fractions of the limits."""
    model = catalog.find(row.family, **row.fields())
    bar = Crossbar(row.shape, device=model, update=PulsedUpdate(), seed=0).cuda()
    x, d = (torch.from_numpy(values).cuda() for values in inputs(row))

    def call() -> None:
        bar.pulse(x, d, LR)

    call()  # compiles
    bar.set_weight(torch.zeros(row.shape, device="cuda"))
    alone = seconds_of(call, repeats)
    n_calls = max(1, min(200, int(TURN / alone)))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(n_calls):
            call()
    before, n = bar.pulses.clone(), 2 * repeats
    graphed = seconds_of(graph.replay, n) / n_calls
    arithmetic, memory = limits(row, gpu["instructions_per_s"], gpu["bytes_per_s"])
    return {
        **row.labels(),
        "ms": graphed * 1e3,
        "ms_without_graph": alone * 1e3,
        "pulses_per_s": float(bar.pulses - before) / (n * n_calls) / graphed,
        "arithmetic_fraction": arithmetic / graphed,
        "memory_fraction": memory / graphed,
    }


def rows(shapes: list[tuple[int, int]] | None = None) -> list[Row]:
    """The rows of benchmarks/update.py for soft bounds, threads aside."""
    known = SpeedSettings(families=("soft-bounds",), threads=(1,))
    cases = product(shapes or known.shapes, known.dw_mins, known.batches, known.sparsities)
    return [
        Row(family="soft-bounds", shape=shape, batch=batch, dw_min=dw_min, sparsity=sparsity, threads=1)
        for shape, dw_min, batch, sparsity in cases
    ]


def main() -> None:
    """Measure and print, or say that there is no GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    result: dict[str, Any] = {"status": "run", "machine": machine(), "rows": []}
    if not torch.cuda.is_available():
        result["status"] = NO_GPU
        print(NO_GPU)
    else:
        result["gpu"] = gpu = chip()
        print(f"{gpu['name']}: {gpu['instructions_per_s']:.3g} instructions/s, {gpu['bytes_per_s']:.3g} bytes/s")
        print("out x in      batch  dw_min  zeros     ms  without graph  pulses/s  arithmetic  memory")
        for row in rows():
            r = measure(row, gpu, given.repeats)
            result["rows"].append(r)
            print(
                f"{r['out']:>4} x {r['in']:<5} {r['batch']:>6} {r['dw_min']:>7g} {r['sparsity']:>6.0%} {r['ms']:>6.3g} "
                f"{r['ms_without_graph']:>14.3g} {r['pulses_per_s']:>9.1e} {r['arithmetic_fraction']:>11.1%} "
                f"{r['memory_fraction']:>7.1%}"
            )
    if given.out:
        write_json(given.out, result)


if __name__ == "__main__":
    main()
