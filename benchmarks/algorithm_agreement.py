"""Do our training algorithms do what aihwkit's do at equal settings?

Weight programming: 20 x 20 devices learn a target W* (N(0, 0.3^2)) from x ~ N(0, 1) with d = (W - W*) x, every pulse
simulated, samples one after the other, transfers within mini-batches of 5. 400 seeds each, with the same inputs on both
sides; devices and pulses are drawn independently. Compared are the means over seeds of three figures of the final
weight, and their spreads: root mean square error, projection onto W*, and modulus; and every weight's mean. A
difference counts if it is beyond 3 standard errors. With 400 seeds none of the 48 is beyond 2.
Baseline: aihwkit, in the interpreter that --peer-python names.
Last figures: `results/algorithm_agreement.json`.

    python benchmarks/algorithm_agreement.py --peer-python PATH --out benchmarks/results/algorithm_agreement.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

import ohmgrad
from ohmgrad.algorithms import AGAD, AnalogSGD, ChoppedTikiTakaV2, MixedPrecision, TikiTaka, TikiTakaV2
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.pulses.forms import Outer
from ohmgrad.report.files import write_json

SIZE, BATCH, STEPS, LR, BIT_LENGTH = 20, 5, 200, 0.02, 31
BOUNDS = {"w_max": 1.0, "w_min": -1.0, "dw_min": 0.01}
SPREAD = {"w_max_dtod": 0.3, "w_min_dtod": 0.3, "dw_min_dtod": 0.3, "up_down_dtod": 0.01}
OPTIONS = {
    "tiki-taka": {
        "fast_lr": 0.02, "transfer_lr": 0.5, "gamma": 0.1, "transfer_every": 2, "n_reads_per_transfer": 3,
        "units_in_mbatch": False, "scale_transfer_lr": False, "scale_fast_lr": False, "transfer_columns": False,
    },
    "tiki-taka-v2": {
        "fast_lr": 0.02, "transfer_lr": 5.0, "in_chop_prob": 0.0, "transfer_every": 2, "momentum": 0.1,
        "forget_buffer": False,
    },
    "chopped-tiki-taka-v2": {
        "fast_lr": 0.2, "transfer_lr": 5.0, "in_chop_prob": 0.1, "out_chop_prob": 0.1, "auto_scale": True,
        "transfer_columns": False,
    },
    "tiki-taka, resets": {
        "fast_lr": 0.02, "transfer_lr": 0.5, "transfer_every": 2, "with_reset_prob": 0.3, "units_in_mbatch": False,
        "scale_transfer_lr": False, "scale_fast_lr": False,
    },
    "tiki-taka-v2, gamma": {
        "fast_lr": 0.02, "transfer_lr": 5.0, "in_chop_prob": 0.0, "transfer_every": 2, "momentum": 0.1,
        "forget_buffer": False, "gamma": 0.4,
    },
    "agad": {"fast_lr": 0.2, "transfer_lr": 5.0, "in_chop_prob": 0.2, "auto_scale": True, "auto_granularity": 20.0},
}  # fmt: skip

OUR_NAMES = {"n_reads_per_transfer": "n_reads", "with_reset_prob": "reset_prob"}


def algorithms() -> dict[str, Algorithm]:
    """Ours, from the same options."""
    kinds = {"tiki-taka": TikiTaka, "tiki-taka-v2": TikiTakaV2, "chopped-tiki-taka-v2": ChoppedTikiTakaV2, "agad": AGAD}
    made: dict[str, Algorithm] = {"analog-sgd": AnalogSGD(), "mixed-precision": MixedPrecision()}
    for name, options in OPTIONS.items():
        own = {OUR_NAMES.get(k, k): v for k, v in options.items()}
        kind, *_ = name.split(",")
        if kind == "tiki-taka-v2":
            own.pop("in_chop_prob")
        made[name] = kinds[kind](**own)
    return made


def ours(algorithm: Algorithm, target: torch.Tensor, inputs: torch.Tensor) -> np.ndarray:
    """Final weights, (seed, out, in); all seeds side by side."""
    n_seeds = len(inputs)
    device = ohmgrad.devices.SoftBounds(**BOUNDS, **SPREAD, dw_min_ctoc=0.3)
    options = {"device": device, "update": ohmgrad.PulsedUpdate(bit_length=BIT_LENGTH)}
    start = torch.zeros(n_seeds, SIZE, SIZE)
    tile = ohmgrad.Tile(start, algorithm=algorithm, crossbar=options, seed=list(range(n_seeds)))
    for k in range(STEPS):
        x = inputs[:, k]
        algorithm.update(tile.state, Outer(x @ (tile.weight - target).mT, x), LR)
    return tile.weight.numpy()


def theirs(python: str, name: str, folder: Path) -> np.ndarray:
    """The same of the peer."""
    script = Path(__file__).with_name("algorithm_agreement_peer.py")
    files = [folder / "task.npz", folder / "settings.json", folder / "result.npz"]
    subprocess.run([python, str(script), name, *map(str, files)], check=True)
    with np.load(files[2]) as result:
        return result["weights"]


def figures(weights: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """Three figures of each seed's final weight, (seed,)."""
    return {
        "error": np.sqrt(((weights - target) ** 2).mean((1, 2))),
        "projection": (weights * target).sum((1, 2)) / (target**2).sum(),
        "modulus": np.abs(weights).mean((1, 2)),
    }


def compare(a: np.ndarray, b: np.ndarray, target: np.ndarray) -> dict[str, object]:
    """Means, spreads and their differences in standard errors; a is ours."""
    n, report, of_theirs = len(a), {}, figures(b, target)
    for name, ours_ in figures(a, target).items():
        theirs_ = of_theirs[name]
        s, t = ours_.std(ddof=1), theirs_.std(ddof=1)
        report[name] = {
            "mean": [float(ours_.mean()), float(theirs_.mean())],
            "spread": [float(s), float(t)],
            "mean_difference_in_standard_errors": float((ours_.mean() - theirs_.mean()) / np.sqrt((s**2 + t**2) / n)),
            # Of a Gaussian's log spread: 1 / sqrt(2 (n - 1)) on each side.
            "spread_difference_in_standard_errors": float(np.log(s / t) * np.sqrt(n - 1)),
        }
    z = (a.mean(0) - b.mean(0)) / np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / n)
    # About 1 where they agree; the weights of a line share inputs and pulses, so its spread is not that of 400 numbers.
    report["weights"] = {"mean_square_of_differences_in_standard_errors": float((z**2).mean())}
    return report


def agrees(report: dict) -> bool:
    """Whether means and spreads of all figures are within 3 standard errors."""
    keys = ("mean_difference_in_standard_errors", "spread_difference_in_standard_errors")
    return all(abs(report[f][k]) < 3.0 for f in ("error", "projection", "modulus") for k in keys)


def main() -> None:
    """Run, print a line for each algorithm, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="interpreter that has aihwkit")
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--only", help="one algorithm")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    target = rng.normal(0.0, 0.3, (SIZE, SIZE)).astype(np.float32)
    inputs = rng.normal(0.0, 1.0, (args.seeds, STEPS, BATCH, SIZE)).astype(np.float32)
    settings = {
        "lr": LR, "bit_length": BIT_LENGTH, "device": BOUNDS | SPREAD | {"dw_min_std": 0.3}, "algorithms": OPTIONS,
    }  # fmt: skip
    report: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "task.npz", target=target, inputs=inputs)
        (folder / "settings.json").write_text(json.dumps(settings))
        for method, algorithm in track(list(algorithms().items()), "algorithms"):
            if args.only and method != args.only:
                continue
            a = ours(algorithm, torch.from_numpy(target), torch.from_numpy(inputs))
            b = theirs(args.peer_python, method, folder)
            one = compare(a, b, target)
            one["agrees"] = agrees(one)
            report[method] = one
            print(method, json.dumps(one), flush=True)
    version = "import aihwkit; print(aihwkit.__version__)"
    peer = subprocess.run([args.peer_python, "-c", version], capture_output=True, text=True, check=True).stdout.strip()
    content = {"aihwkit": peer, "seeds": args.seeds, "samples": BATCH * STEPS, "settings": settings, "results": report}
    if args.out:
        write_json(args.out, content)


if __name__ == "__main__":
    main()
