"""Does `diagnose` find what was made bad on purpose, and does its mend help? Ten networks, minutes on one core.

    python benchmarks/diagnose.py --out benchmarks/results/diagnose.json

Baseline: the fault that was planted, which is known. A network (64-32-24-10, tanh) learns scikit-learn's digits pulse
by pulse on good devices and converters, but for one tile that is bad in one way. `diagnose` then sees the trained
network alone, and has to name the tile and the effect. Then both, the network as it is and with the recommended mend,
train on for as many epochs: accuracies are of the test set, the mean after each of the last epochs. Five faults on two
tiles each, and networks without a fault, in which no tile is to be named. All have the same settings; seeds below 200
were for choosing the faults' strengths, by what they do to the accuracy, and thresholds.
"""

from __future__ import annotations

import copy
import platform
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.nn.functional import cross_entropy

import ohmgrad as og
from ohmgrad.experiments.data import Dataset, load
from ohmgrad.experiments.diagnose import diagnose
from ohmgrad.experiments.diagnosis import Diagnosis
from ohmgrad.report.files import write_json

TILES = ("0", "2", "4")  # of the layers 64-32, 32-24, 24-10
LR, BATCH, EPOCHS, TESTED = 0.1, 10, 10, 5  # TESTED: of the epochs, the last, over which accuracies are averaged
# As of aihwkit's capacitor, nearly symmetric; what has tau or a symmetric point to be wrong is soft bounds.
DEVICE = og.devices.LinearStep(w_max=4.0, w_min=-4.0, dw_min=2e-3, dw_min_ctoc=0.1, gamma_up=0.05, gamma_down=0.05)
SOFT = og.devices.SoftBounds(w_max=4.0, w_min=-4.0, dw_min=2e-3, dw_min_ctoc=0.1)
PULSED = og.PulsedUpdate()
CONVERTERS = og.IO(out_noise=0.02)  # a third of the default's noise


@dataclass(frozen=True)
class Fault:
    """What is wrong with the bad tile, and the effect by which `diagnose` is to find it."""

    device: og.devices.Device = DEVICE
    converters: og.IO = CONVERTERS
    effect: str | None = None


FAULTS = {
    "none": Fault(),
    "small tau": Fault(device=replace(SOFT, w_max=0.2, w_min=-0.2), effect="narrow range"),
    "coarse states": Fault(device=replace(DEVICE, dw_min=4.0), effect="coarse steps"),
    "read noise": Fault(converters=replace(CONVERTERS, out_noise=1.5), effect="read noise"),
    "shifted symmetric point": Fault(
        device=replace(SOFT, w_max=1.0, w_min=-1.0, up_down=0.9), effect="shifted symmetric point"
    ),
    "clipped converter": Fault(
        converters=replace(CONVERTERS, out_bound=0.2, bound_management="none"), effect="clipped converter"
    ),
}
PLANTED = (
    ("small tau", "0"), ("small tau", "4"), ("coarse states", "0"), ("coarse states", "4"), ("read noise", "2"),
    ("read noise", "4"), ("shifted symmetric point", "0"), ("shifted symmetric point", "2"), ("clipped converter", "0"),
    ("clipped converter", "2"), ("none", "0"), ("none", "0"), ("none", "0"),
)  # fmt: skip


def network(fault: str, tile: str, seed: int, update: Any = PULSED) -> nn.Module:
    """The untrained network with that tile bad."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, 10))
    bad = FAULTS[fault]
    rule = og.Rule(tile, device=bad.device, periphery=og.Periphery(forward=bad.converters, backward=bad.converters))
    good = og.Periphery(forward=CONVERTERS, backward=CONVERTERS)
    return og.convert(net, device=DEVICE, periphery=good, update=update, seed=seed, rules=rule)


def train(model: nn.Module, data: Dataset, seed: int, epochs: int = EPOCHS) -> float:
    """Train on; the mean test accuracy, percent, after each of the last epochs."""
    optimizer, order = og.AnalogOptimizer(model, lr=LR), torch.Generator().manual_seed(seed)
    accuracies = []
    for _ in range(epochs):
        for x, y in mini_batches(data, order):
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            accuracies.append(100.0 * float((model(data.x_test).argmax(-1) == data.y_test).double().mean()))
    last = accuracies[-TESTED:]
    return sum(last) / len(last)


def mini_batches(data: Dataset, order: torch.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The training set in a new order."""
    index = torch.randperm(len(data.x_train), generator=order)
    return [(data.x_train[part], data.y_train[part]) for part in index.split(BATCH) if len(part) == BATCH]


def trained_and_diagnosed(fault: str, tile: str, seed: int, data: Dataset) -> tuple[nn.Module, float, Diagnosis]:
    """The network, its accuracy, and what `diagnose` finds with nothing but its defaults."""
    model = network(fault, tile, seed)
    accuracy = train(model, data, seed)
    loader = mini_batches(data, torch.Generator().manual_seed(seed + 1000))
    return model, accuracy, diagnose(model, loader, lr=LR, seed=seed)


def case(fault: str, tile: str, seed: int, data: Dataset) -> dict[str, Any]:
    """One network: what was planted and found, and accuracies as it is and mended, trained on for as long."""
    start = time.perf_counter()
    model, accuracy, found = trained_and_diagnosed(fault, tile, seed, data)
    mended = found.mend(model) if found.recommendation else None
    as_it_is = copy.deepcopy(model)
    return {
        "fault": fault,
        "tile": tile if FAULTS[fault].effect else None,
        "seed": seed,
        "found_tile": found.culprit,
        "found_effect": found.effect if found.culprit else None,
        "mend": found.recommendation,
        "is_found": (found.culprit, found.effect) == (tile, FAULTS[fault].effect)
        if FAULTS[fault].effect
        else found.culprit is None,
        "accuracy": accuracy,
        "accuracy_trained_on": train(as_it_is, data, seed + 2000),
        "accuracy_mended": train(mended, data, seed + 2000) if mended is not None else None,
        "loss": found.loss,
        "costs": {name: asdict(gain) for name, gain in found.costs.items()},
        "effects": {name: asdict(gain) for name, gain in found.effects.items()},
        "mends": {name: asdict(gain) for name, gain in found.mends.items()},
        "words": str(found),
        "seconds": time.perf_counter() - start,
    }


def summary(cases: list[dict[str, Any]]) -> dict[str, int]:
    """How many were found, and how many mends raised the accuracy."""
    faulty, good = ([c for c in cases if (c["fault"] != "none") == is_bad] for is_bad in (True, False))
    return {
        "faulty": len(faulty),
        "found": sum(c["is_found"] for c in faulty),
        "mended": sum(c["accuracy_mended"] is not None and gained(c) > 0.0 for c in faulty),
        "good": len(good),
        "nothing_named": sum(c["is_found"] for c in good),
    }


def gained(c: dict[str, Any]) -> float:
    """Points of accuracy that the mend gained over training on as it was."""
    return c["accuracy_mended"] - c["accuracy_trained_on"]


def table(cases: list[dict[str, Any]]) -> Table:
    """A row for each network."""
    view = Table(title="planted and found; test accuracy (%) of training on, as it is and mended")
    for column in ("planted", "tile", "found", "tile", "as it is", "mended", "mend"):
        view.add_column(column, no_wrap=column != "mend")
    for c in cases:
        mended = "" if c["accuracy_mended"] is None else f"{c['accuracy_mended']:.1f}"
        found = c["found_effect"] or "nothing"
        view.add_row(
            *(c["fault"], c["tile"] or "", found, c["found_tile"] or ""),
            *(f"{c['accuracy_trained_on']:.1f}", mended, (c["mend"] or "").split(":")[0]),
        )
    return view


def main(
    seed: Annotated[int, typer.Option(help="Of the first network; each has the next one.")] = 201,
    out: Annotated[Path | None, typer.Option(help="Where to write the figures, JSON.")] = None,
) -> None:
    """Train, diagnose and mend all networks."""
    torch.set_num_threads(1)
    data, console = load("digits"), Console(width=max(Console().width, 140))
    planted = track(list(enumerate(PLANTED, seed)), "networks", console=console)
    cases = [case(fault, tile, s, data) for s, (fault, tile) in planted]
    console.print(table(cases))
    counts = summary(cases)
    console.print(counts)
    versions = {"ohmgrad": og.__version__, "torch": torch.__version__, "python": platform.python_version()}
    if out:
        write_json(out, {"summary": counts, "cases": cases, "versions": versions})


if __name__ == "__main__":
    typer.run(main)
