"""Question: do our reads compute what aihwkit's do?

Exact cases: settings drawn at random (converters, management of noise and bounds, losses along the lines, polarities),
without noise. Array and vectors are drawn too; some vectors are 0 or small. Every output of forward and backward reads
is compared: it agrees within 1e-4 of its vector's scale, or, for at most one output in 50 of a read, within one step of
the ADC, on whose edge two roundings of one sum may fall apart.

Laws: settings with noise or with a spread of lines. The same read many times over, or many lines; two laws agree as in
`peer_agreement`, by its test and its rule (an alarm in 1e6).

Probes: what the two answer differently, each with both answers. They are not counted.

    python benchmarks/fidelity_reads.py --peer-python PYTHON_WITH_AIHWKIT
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer_agreement import compare

from ohmgrad import Crossbar, Periphery, __version__
from ohmgrad.devices import Ideal
from ohmgrad.periphery import IO
from ohmgrad.report.files import write_json

N_EXACT, N_READS = 400, 20_000
TOLERANCE, ON_AN_EDGE = 1e-4, 0.02
RESULTS = Path(__file__).parent / "results" / "fidelity_reads.json"
THEIRS = {
    "none": "None", "abs-max": "AbsMax", "max": "Max", "constant": "Constant", "abs-max-np-sum": "AbsMaxNPSum",
    "average-abs-max": "AverageAbsMax", "iterative": "Iterative", "iterative-worst-case": "IterativeWorstCase",
    "shift": "Shift", "additive-constant": "AdditiveConstant", "pcm-read": "PCMRead", "one-pass": "OnePass",
    "pos-neg-separate": "PosNegSeparate", "pos-neg-separate-digital-sum": "PosNegSeparateDigitalSum",
}  # fmt: skip
BARE: dict[str, Any] = {
    "inp_res": 0.0, "out_res": 0.0, "out_noise": 0.0, "noise_management": "none", "bound_management": "none",
}  # fmt: skip


def theirs(fields: dict[str, Any]) -> dict[str, Any]:
    """The same settings by their names of choices; they have 0 for a converter without a bound."""
    named = {k: THEIRS.get(v, v) if isinstance(v, str) else v for k, v in fields.items()}
    named |= {} if "w_noise" not in fields else {"w_noise_type": named.get("w_noise_type", "AdditiveConstant")}
    return {k: 0.0 if k == "out_bound" and v == math.inf else v for k, v in named.items()}


def drawn(rng: np.random.Generator) -> dict[str, Any]:
    """Settings without noise, each effect with a chance of its own."""

    def sometimes(p: float, **fields: Any) -> dict[str, Any]:
        return fields if rng.random() < p else {}

    number = lambda low, high: float(np.round(rng.uniform(low, high), 3))  # noqa: E731
    fields = {
        "out_noise": 0.0,
        "out_bound": math.inf if rng.random() < 0.15 else number(0.3, 12.0),
        "noise_management": str(rng.choice(list(THEIRS)[:6])),
        "bound_management": str(rng.choice(["none", "iterative", "iterative-worst-case"])),
        "mv_type": str(rng.choice(list(THEIRS)[-3:], p=[0.6, 0.2, 0.2])),
        "inp_res": float(rng.choice([0.0, 1 / 126, 0.05, 30.0])),
        "out_res": float(rng.choice([0.0, 1 / 510, 0.02, 100.0])),
    }
    if fields["noise_management"] == "none" and fields["bound_management"] == "iterative-worst-case":
        fields["bound_management"] = "iterative"  # the peer forgets its scale there: a probe
    fields |= sometimes(0.3, nm_thres=number(0.2, 2.0))
    fields |= sometimes(0.2, inp_asymmetry=number(0.0, 0.3)) | sometimes(0.2, out_asymmetry=number(0.0, 0.3))
    fields |= sometimes(0.25, ir_drop=number(0.1, 2.0), ir_drop_g_ratio=number(20.0, 500.0))
    fields |= sometimes(0.25, r_series=number(0.01, 0.3)) | sometimes(0.25, v_offset_w_min=number(-1.0, 0.0))
    fields |= sometimes(0.3, out_nonlinearity=number(0.05, 1.0)) | sometimes(0.3, slope_calibration=number(0.1, 1.0))
    fields |= sometimes(0.2, out_scale=number(0.5, 2.0)) | sometimes(0.2, max_bm_factor=4)
    fields |= sometimes(0.2, bm_test_negative_bound=False)
    return fields


def exact_cases(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Arrays of 5 x 8, each read forward twice or backward twice: the peer's directions share a running average."""
    made = []
    for k in range(N_EXACT):
        w, x, d = (rng.normal(0.0, 1.0, shape).astype(np.float32) for shape in ((5, 8), (20, 8), (20, 5)))
        x[3], x[4], d[5] = 0.0, x[4] * 1e-3, 0.0
        kind, vectors, io = ("forward", x, drawn(rng)) if k % 2 else ("backward", d, drawn(rng))
        made.append({
            "name": f"exact {k}", "w": (0.4 * w).tolist(), "repeats": 1, "forward": io, "backward": io,
            "reads": [(kind, vectors.tolist()), (kind, vectors[::-1].tolist())],
        })  # fmt: skip
    return made


def law_cases(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Noise of one vector's read, and lines that differ: (many lines, 1) arrays, read once."""
    w, x = rng.normal(0.0, 0.4, (1, 8)).astype(np.float32).tolist(), rng.normal(0.0, 1.0, (1, 8)).astype(np.float32)
    noisy = {
        "output noise": {"out_noise": 0.1}, "input noise": {"inp_noise": 0.1}, "weight noise": {"w_noise": 0.1},
        "weight noise, pcm": {"w_noise": 0.1, "w_noise_type": "pcm-read"},
        "all, scaled": {"out_noise": 0.1, "inp_noise": 0.05, "w_noise": 0.05, "noise_management": "abs-max"},
        "read again": {"out_noise": 0.1, "out_bound": 0.5, "noise_management": "abs-max",
                       "bound_management": "iterative"},
        "random steps in": {"inp_res": 0.1, "inp_sto_round": True},
        "random steps out": {"out_res": 0.1, "out_bound": 4.0, "out_sto_round": True},
        "polarities": {"out_noise": 0.1, "w_noise": 0.1, "mv_type": "pos-neg-separate-digital-sum"},
        "through a saturation": {"inp_noise": 0.2, "out_bound": 2.0, "out_nonlinearity": 0.8},
    }  # fmt: skip
    lines = {
        "lines: noise": {"out_noise": 0.1, "out_noise_std": 0.3},
        "lines: saturation": {"out_bound": 2.0, "out_nonlinearity": 0.8, "out_nonlinearity_std": 0.4},
        "lines: polarity": {"w_read_asymmetry_dtod": 0.2, "mv_type": "pos-neg-separate"},
    }
    made = [
        {"name": name, "w": w, "forward": BARE | fields, "reads": [("forward", x.tolist())], "repeats": N_READS}
        for name, fields in noisy.items()
    ]
    many = [[0.7]] * N_READS
    made += [
        {"name": name, "w": many, "forward": BARE | fields, "reads": [("forward", [[-0.9]])], "repeats": 1}
        for name, fields in lines.items()
    ]
    return [case | {"backward": BARE} for case in made]


def probes() -> list[dict[str, Any]]:
    """Reads that the two are known to answer differently."""
    again = BARE | {"noise_management": "abs-max", "bound_management": "iterative", "out_bound": 0.5}
    average = BARE | {"noise_management": "average-abs-max"}
    offset = BARE | {"v_offset_std": 0.1, "v_offset_w_min": 0.0}
    one, either = [("forward", [[1.0, 0.5]])], again | {"bm_test_negative_bound": False}
    cases = [
        ("input noise of zeros", [[0.4, 0.3]], BARE | {"noise_management": "abs-max", "inp_noise": 0.1},
         [("forward", [[0.0, 0.0]])]),
        ("signs at the bound, negative last", [[1.0, 0.0], [-1.0, 0.0]], either, one),
        ("signs at the bound, negative first", [[-1.0, 0.0], [1.0, 0.0]], either, one),
        ("running average, after another direction", [[1.0, 0.0], [0.0, 1.0]], average,
         [("forward", [[1.0, 0.5]]), ("backward", [[9.0, 1.0]]), ("forward", [[4.0, 0.5]])]),
        ("voltage offsets", [[1.0]] * N_READS, offset, [("forward", [[1.0]])]),
        ("worst case without noise management", [[0.6, 0.6]], BARE | {
            "bound_management": "iterative-worst-case", "out_bound": 0.8, "out_res": 0.125},
         [("forward", [[1.0, 0.8]])]),
    ]  # fmt: skip
    return [
        {"name": n, "w": w, "forward": io, "backward": io, "reads": r, "repeats": 1} for n, w, io, r in cases
    ]  # fmt: skip


def ours(case: dict[str, Any], seed: int) -> list[np.ndarray]:
    """Outputs of each read."""
    io = Periphery(forward=IO(**case["forward"]), backward=IO(**case["backward"]))
    w = torch.tensor(case["w"])
    bar = Crossbar((w.shape[0], w.shape[1]), device=Ideal(), periphery=io, weight=w, seed=seed)
    reads = {"forward": bar.read, "backward": bar.read_transposed}
    return [reads[kind](torch.tensor(x).repeat(case["repeats"], 1)).numpy() for kind, x in case["reads"]]


def exact_row(case: dict[str, Any], mine: list[np.ndarray], peer: list[np.ndarray]) -> dict[str, Any]:
    """Whether all reads agree, and the largest difference in units of a vector's scale."""
    agrees, worst = True, 0.0
    for (kind, x), a, b in zip(case["reads"], mine, peer, strict=True):
        io = IO(**case[kind])
        scale = np.abs(np.array(x)).max(-1, keepdims=True).clip(1.0 if io.noise_management == "none" else 0.05)
        off = np.abs(a - b) / (scale * max(1.0, io.out_scale)) / (1.0 + np.abs(a))
        edge = 64.0 * io.out_step + io.inp_step
        is_off = ~(off <= TOLERANCE)
        agrees &= bool(is_off.mean() <= ON_AN_EDGE and not (~(off <= TOLERANCE + edge)).any())
        worst = max(worst, float(np.nan_to_num(off, nan=np.inf).max()))
    return {"case": case["name"], "agrees": agrees, "worst": worst}


def peers(cases: list[dict[str, Any]], python: str) -> dict[str, Any]:
    """The peer's outputs by case, and its versions."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = [c | {k: theirs(c[k]) for k in ("forward", "backward")} for c in cases]
        (folder / "cases.json").write_text(json.dumps(asked))
        command = [python, str(Path(__file__).with_name("fidelity_reads_peer.py")), "cases.json", "result.npz"]
        subprocess.run([*command[:1], str(Path(command[1]).resolve()), *command[2:]], check=True, cwd=folder,
                       env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
        with np.load(folder / "result.npz") as saved:
            found = {c["name"]: [saved[f"{c['name']}/{k}"] for k in range(len(c["reads"]))] for c in cases}
            return {"versions": json.loads(str(saved["versions"])), "outputs": found}


def probe_row(case: dict[str, Any], mine: list[np.ndarray], peer: list[np.ndarray]) -> dict[str, Any]:
    """Both answers to the last read; of many lines the shares of offsets above and below 0."""
    a, b = mine[-1].ravel(), peer[-1].ravel()
    if a.size > 10:
        a, b = (np.array([np.mean(1.0 - v > 1e-6), np.mean(1.0 - v < -1e-6), np.std(1.0 - v)]) for v in (a, b))
    return {"probe": case["name"], "ours": a.round(4).tolist(), "aihwkit": b.round(4).tolist()}


def main() -> int:
    """Print what differs and write the report; 1 where something does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="interpreter that has aihwkit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    exact, laws, probed = exact_cases(rng), law_cases(rng), probes()
    peer = peers([*exact, *laws, *probed], args.peer_python)
    outputs = peer["outputs"]
    rows = [exact_row(c, ours(c, args.seed), outputs[c["name"]]) for c in exact]
    law_rows = [
        # Rounded, lest a test of laws tell two roundings of one number apart.
        {"case": c["name"]} | compare(ours(c, args.seed)[0].round(5), outputs[c["name"]][0].round(5))
        for c in laws
    ]
    probe_rows = [probe_row(c, ours(c, args.seed), outputs[c["name"]]) for c in probed]
    by_name = {c["name"]: c for c in exact}
    for row in [r for r in rows if not r["agrees"]]:
        print(
            f"{row['case']}: off by {row['worst']:.3g}",
            by_name[row["case"]]["forward"],
            by_name[row["case"]]["backward"],
        )
    for row in law_rows + probe_rows:
        print(row)
    n_off, n_laws_off = sum(not r["agrees"] for r in rows), sum(not r["agrees"] for r in law_rows)
    print(f"exact: {len(rows) - n_off} of {len(rows)} agree; laws: {len(law_rows) - n_laws_off} of {len(law_rows)}")
    write_json(args.out, {
        "seed": args.seed, "versions": {"ohmgrad": __version__, "peer": peer["versions"]},
        "exact": {"cases": len(rows), "differ": [r for r in rows if not r["agrees"]]},
        "laws": law_rows, "probes": probe_rows,
    })  # fmt: skip
    return int(n_off + n_laws_off > 0)


if __name__ == "__main__":
    raise SystemExit(main())
