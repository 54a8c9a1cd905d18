"""Question: in which laws of pulses, relaxation, resets and transfers do we and aihwkit agree, and which one is right?

Small cases, each with a right value that a person can check: a closed form, or a count. `peer_agreement.py` compares
the devices themselves, `algorithm_agreement.py` whole algorithms; `docs/fidelity.md` shows the figures of all three.
Baseline: aihwkit, in the interpreter that --peer-python names. Last figures: `results/fidelity.json`.

    python benchmarks/fidelity.py --peer-python PATH --out benchmarks/results/fidelity.json
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import torch

from ohmgrad import Crossbar, Outer, PulsedUpdate, Tile, __version__
from ohmgrad.algorithms import ChoppedTikiTakaV2, MixedPrecision, TikiTakaV2, transfer
from ohmgrad.crossbar import make_crossbar
from ohmgrad.crossbar.vector_cells import VectorCells
from ohmgrad.devices import ConstantStep, LinearStep, VectorCell
from ohmgrad.report.files import write_json

PULSED, N, SIDE = PulsedUpdate(), 4000, 100
STEP = ConstantStep(dw_min=0.01, reset_std=0.0)
FAST = {"fast_lr": 0.01, "scale_fast_lr": False, "scale_transfer_lr": False, "transfer_every": 1}


def cells(n: int, gains: tuple[float, ...], steps: tuple[float, ...]) -> VectorCells:
    """n cells of one crosspoint, one in each replica."""
    cell = VectorCell(devices=tuple(ConstantStep(dw_min=dw) for dw in steps), gains=gains)
    return VectorCells((1, 1), device=cell, update=PULSED, replicas=(n,), seed=0)


def vector_cell() -> list[float]:
    """As the peer's case of that name."""
    bar = cells(N, (1.0, 1.0, 1.0), (0.02, 0.02, 0.02))
    bar.pulse(torch.ones(1, 1), -torch.ones(1, 1), 0.02 * 0.63)
    return bar.weight.flatten().tolist()


def unequal_cell() -> list[float]:
    """As the peer's case of that name."""
    bar = cells(1, (1.0, 1.0), (0.01, 0.03))
    bar.pulse(torch.ones(1, 1), -torch.ones(1, 1), 0.02)
    return [member.weight.item() for member in bar.bars]


def in_turn() -> list[float]:
    """As the peer's case of that name."""
    cell = VectorCell(devices=(ConstantStep(dw_min=0.01), ConstantStep(dw_min=0.03)), policy="sequential")
    bar = VectorCells((1, 1), device=cell, update=PULSED, seed=0)
    for _ in range(2):
        bar.pulse(torch.ones(1, 1), -torch.ones(1, 1), 0.06)
    return [member.weight.item() for member in bar.bars]


def relaxed(cell: bool) -> list[float]:
    """As the peer's case of that name."""
    device = ConstantStep(lifetime=4.0, diffusion=0.05)
    kind = VectorCell(devices=(device,) * 2, gains=(1.0, 1.0)) if cell else device
    bar = make_crossbar((SIDE, SIDE), device=kind, seed=0)
    bar.relax()
    return bar.weight.flatten().tolist()


def off_whole_numbers() -> list[int]:
    """As the peer's case of that name."""
    found = []
    for n in range(1, 32):
        bar = Crossbar((10, 10), device=STEP, update=PULSED, seed=0)
        bar.pulse(torch.ones(1, 10), -torch.ones(1, 10), float(f"0.{n:02d}"))
        if (bar.weight - n * 0.01).abs().max() > 1e-4:
            found.append(n)
    return found


def resets(n: int, n_reads: int) -> dict[str, int]:
    """As the peer's case of that name."""
    bar, whole, part = Crossbar((8, 4), device=STEP, update=PULSED, seed=0), 0, 0
    for step in range(n):
        bar.set_weight(torch.full((8, 4), 0.25))
        columns = (step * n_reads + torch.arange(n_reads)) % 4
        transfer.reset(bar, columns, torch.tensor(step), 0.3)
        gone = (bar.weight == 0.0).sum(0)
        whole, part = whole + int((gone == 8).sum()), part + int(((gone > 0) & (gone < 8)).sum())
    return {"columns read": n * n_reads, "whole": whole, "part": part}


def lines(n: int, seed: int) -> list[int]:
    """As the peer's case of that name."""
    seeds = torch.tensor(seed)
    return [int(transfer.random_places(seeds, torch.tensor(step), 1, 8)[0]) % 8 for step in range(n)]


def after_a_read(algorithm) -> Tile:
    """Tiles of 2 x 3 as `chopped` of the peer's side has them."""
    tile = Tile(torch.zeros(2, 3), algorithm=algorithm, crossbar={"device": STEP, "update": PULSED}, seed=0)
    tile.state.fast.set_weight(torch.full((2, 3), 0.002))
    algorithm.update(tile.state, Outer(torch.zeros(1, 2), torch.ones(1, 3)), 0.01)
    return tile


def buffers() -> dict[str, float]:
    """As the peer's case of that name."""
    made = {g: after_a_read(TikiTakaV2(gamma=g, transfer_lr=1.0, **FAST)) for g in (0.0, 0.25, 0.5)}
    return {str(g): float(tile.state.buffer.max()) for g, tile in made.items()}


def flipped() -> list[list[float]]:
    """As the peer's case of that name."""
    tile = after_a_read(ChoppedTikiTakaV2(in_chop_prob=1.0, gamma=0.5, transfer_lr=1.0, **FAST))
    return (tile.weight / (0.5 * 0.002)).tolist()


def mixed_precision() -> list[float]:
    """As the peer's case of that name."""
    algorithm, found = MixedPrecision(), []
    tile = Tile(torch.zeros(1, 1), algorithm=algorithm, crossbar={"device": STEP, "update": PULSED}, seed=0)
    for _ in range(3):
        algorithm.update(tile.state, Outer(-torch.ones(1, 1), torch.ones(1, 1)), 0.0101)
        found.append(tile.weight.item())
    return found


def programmed() -> list[float]:
    """As the peer's case of that name; and at construction."""
    return Crossbar((SIDE, SIDE), device=LinearStep(dw_min=0.01, write_noise=2.0), seed=0).weight.flatten().tolist()


def spread(samples: list[float]) -> dict[str, float]:
    """Standard deviation and its standard error, from the fourth moment."""
    v = torch.tensor(samples, dtype=torch.float64)
    variance, fourth = v.var(), (v - v.mean()).pow(4).mean()
    error = math.sqrt(max(float(fourth - variance**2), 0.0) / len(samples)) / (2.0 * float(variance) ** 0.5)
    return {"std": float(variance**0.5), "error": error}


def counted(drawn: list[list[int]]) -> dict[str, object]:
    """How often each of 8 lines came, and whether two seeds gave two sequences."""
    counts = [[Counter(one)[line] for line in range(8)] for one in drawn]
    return {"counts": counts, "a sequence for each seed": drawn[0] != drawn[1]}


def ours() -> dict[str, object]:
    """Every case, by the names of the peer's side."""
    return {
        "vector cell": vector_cell(),
        "unequal cell": unequal_cell(),
        "in turn": in_turn(),
        "relaxed": relaxed(cell=False),
        "relaxed cell": relaxed(cell=True),
        "off whole numbers": off_whole_numbers(),
        "resets": resets(2000, 1),
        "resets of two": resets(2000, 2),
        "lines": [lines(2000, seed) for seed in (1, 2)],
        "buffers": buffers(),
        "flipped": flipped(),
        "mixed precision": mixed_precision(),
        "programmed": programmed(),
    }


# What a person works out: a deviation, or the very numbers.
RIGHT: dict[str, object] = {
    "vector cell": 0.06 * math.sqrt(0.63 * 0.37),  # three steps of 0.02 at once, with odds of 0.63
    "unequal cell": [0.01, 0.03],  # one pulse, counted in the mean step of 0.02
    "in turn": [0.06, 0.06],  # the one that takes the update is asked for 0.06
    "relaxed": 0.75 * 0.05,
    "relaxed cell": math.sqrt(2.0) * 0.75 * 0.05,
    "off whole numbers": [],
    "resets": "0.3 of the columns read, none in part",
    "resets of two": "0.3 of the columns read, none in part",
    "lines": "each line equally often, a sequence for each seed",
    "buffers": {"0.0": 0.2, "0.25": 0.05, "0.5": 0.1},  # of 0.002 in steps of 0.01, times gamma where that is not 0
    "flipped": [[-1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]],  # column 0
    "mixed precision": [0.01, 0.02, 0.03],
    "programmed": 0.02,
}


def summary(name: str, found: object) -> object:
    """Samples as deviations, drawn lines as counts; all else as it is."""
    if name == "lines":
        return counted(found)  # type: ignore[arg-type]  # as `lines` gave them
    return spread(found) if isinstance(RIGHT[name], float) else found  # type: ignore[arg-type]  # samples


def main() -> None:
    """Run both sides, print a line for each case, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="interpreter that has aihwkit")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peer.json"
        subprocess.run([args.peer_python, str(Path(__file__).with_name("fidelity_peer.py")), str(path)], check=True)
        theirs = json.loads(path.read_text())
    cases = {}
    for name, found in ours().items():
        cases[name] = {"right": RIGHT[name], "ours": summary(name, found), "peer": summary(name, theirs[name])}
        print(name, json.dumps(cases[name]), flush=True)
    if args.out:
        write_json(args.out, {"ohmgrad": __version__, "aihwkit": theirs["aihwkit"], "cases": cases})


if __name__ == "__main__":
    main()
