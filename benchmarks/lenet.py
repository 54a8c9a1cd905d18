"""How long does one epoch of LeNet-5 on MNIST take, with every pulse and converter simulated, beside aihwkit?

Both sides: batch 8, lr 0.05, cross-entropy, aihwkit's default converters (7 and 9 bits, output noise 0.06, noise and
bound management), soft-bounds-reference devices with 30 % spread of steps and bounds and 30 % noise of each pulse, bit
length 31, Analog SGD. Baseline: aihwkit 1.2.0 in a process of its own, where --peer-python names an interpreter that
has it. Goal: five times its speed. Last figures: `results/lenet.json`.

    python benchmarks/lenet.py --data-dir DATA --peer-python PATH --out benchmarks/results/lenet.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

import ohmgrad
from ohmgrad.devices import catalog
from ohmgrad.experiments.data import load
from ohmgrad.experiments.models import lenet5
from ohmgrad.experiments.update_speed import PARAMETERS, PEER_NAMES, machine

BATCH, LR, SEED = 8, 0.05, 0


def ours(x: torch.Tensor, y: torch.Tensor, x_test: torch.Tensor, y_test: torch.Tensor) -> dict[str, float]:
    """Seconds of the epoch, milliseconds of a step, and accuracy after it."""
    torch.manual_seed(SEED)
    device = catalog.find("soft-bounds-reference", dw_min=1e-3, **PARAMETERS)
    model = ohmgrad.convert(
        lenet5(), device=device, update=ohmgrad.PulsedUpdate(), periphery=ohmgrad.Periphery(), seed=SEED
    )
    optimizer = ohmgrad.AnalogOptimizer(model, lr=LR)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer.zero_grad()
    criterion(model(x[:BATCH]), y[:BATCH]).backward()  # compiles
    start = time.perf_counter()
    for first in track(range(0, len(x), BATCH), "ours"):
        optimizer.zero_grad()
        criterion(model(x[first : first + BATCH]), y[first : first + BATCH]).backward()
        optimizer.step()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        right = sum(
            int((model(a).argmax(-1) == b).sum()) for a, b in zip(x_test.split(500), y_test.split(500), strict=True)
        )
    return {"seconds": seconds, "ms_per_step": 1e3 * seconds / -(-len(x) // BATCH), "accuracy": right / len(x_test)}


def theirs(python: str, arrays: dict[str, np.ndarray], threads: int) -> dict[str, float]:
    """The same of the peer."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "data.npz", **arrays)
        fields = {PEER_NAMES.get(k, k): v for k, v in PARAMETERS.items()} | {"dw_min": 1e-3}
        request = json.dumps({"batch": BATCH, "lr": LR, "seed": SEED, "threads": threads, "device": fields})
        script = Path(__file__).with_name("lenet_peer.py")
        done = subprocess.run(
            [python, script, f"{folder}/data.npz", request], capture_output=True, text=True, check=True
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--peer-python")
    parser.add_argument("--samples", type=int, default=60_000, help="of the training data")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = load("mnist", given.data_dir)
    order = torch.from_numpy(np.random.default_rng(SEED).permutation(len(data.x_train)))[: given.samples]
    x, x_test = (t.reshape(-1, 1, 28, 28) for t in (data.x_train[order], data.x_test))
    y, y_test = data.y_train[order], data.y_test
    results = {"machine": machine(), "samples": len(x), "batch": BATCH, "threads": given.threads}
    results["ours"] = ours(x, y, x_test, y_test)
    print(results["ours"])
    if given.peer_python:
        arrays = {"x": x.numpy(), "y": y.numpy(), "x_test": x_test.numpy(), "y_test": y_test.numpy()}
        results["peer"] = theirs(given.peer_python, arrays, given.threads)
        results["ratio"] = results["peer"]["seconds"] / results["ours"]["seconds"]
        print(results["peer"], f"ratio {results['ratio']:.2f}")
    if given.out:
        given.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
