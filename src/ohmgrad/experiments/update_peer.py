"""The peer's side of `update_speed`: aihwkit's pulsed update, timed on request.

A script for the interpreter that has aihwkit; it imports nothing of ours. One request a line on stdin, one answer a
line on stdout, both JSON: {"do": "make", ...} builds a tile, "load" reads inputs, "time" times calls.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

FAMILIES = {
    "constant-step": "ConstantStepDevice",
    "linear-step": "LinearStepDevice",
    "soft-bounds": "SoftBoundsDevice",
    "soft-bounds-reference": "SoftBoundsReferenceDevice",
    "exp-step": "ExpStepDevice",
    "pow-step": "PowStepDevice",
    "pow-step-reference": "PowStepReferenceDevice",
    "piecewise-step": "PiecewiseStepDevice",
}


def serve(threads: int, answer: Callable[[dict[str, Any]], None]) -> None:
    """Answer requests until stdin ends."""
    try:
        torch, numpy, aihwkit = (import_module(name) for name in ("torch", "numpy", "aihwkit"))
        configs = import_module("aihwkit.simulator.configs")
        devices = import_module("aihwkit.simulator.configs.devices")
        tiles = import_module("aihwkit.simulator.tiles")
    except ImportError as error:
        answer({"error": str(error)})
        return
    torch.set_num_threads(threads)
    answer({"aihwkit": aihwkit.__version__, "torch": torch.__version__, "python": sys.version.split()[0]})
    tile = x = d = zero = None  # `make` and `load` come before `time`
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "make":
            tile = None  # frees the one before
            device = getattr(devices, FAMILIES[request["family"]])(**request["fields"])
            tile = tiles.AnalogTile(request["out"], request["in"], configs.SingleRPUConfig(device=device))
            tile.set_learning_rate(request["lr"])
            zero = torch.zeros(request["out"], request["in"])
            answer({})
        elif request["do"] == "load":
            with numpy.load(request["path"]) as file:
                x, d = torch.from_numpy(file["x"]), torch.from_numpy(file["d"])
            answer({})
        else:
            assert tile is not None
            tile.tile.set_weights(zero)
            rest(request["rest"])
            update, more = (tile.tile.update, (False,)) if request["raw"] else (tile.update, ())
            start = time.perf_counter()
            for _ in range(request["calls"]):
                update(x, d, *more)
            answer({"seconds": (time.perf_counter() - start) / request["calls"]})


def rest(seconds: float) -> None:
    """Wait, and go on from the first of the processors allowed: what slows one of them then slows both sides."""
    time.sleep(seconds)
    if hasattr(os, "sched_setaffinity"):
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})
        os.sched_setaffinity(0, allowed)


def main() -> None:
    """Keep stdout for answers: whatever libraries print goes to stderr."""
    sys.path.pop(0)  # this file's directory, whose names are not meant for the peer
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        channel.write(json.dumps(content) + "\n")
        channel.flush()

    serve(int(sys.argv[1]), answer)


if __name__ == "__main__":
    main()
