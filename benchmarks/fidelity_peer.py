"""The peer's side of `fidelity.py`: aihwkit runs the same small cases. It imports nothing of ours.

PYTHON fidelity_peer.py RESULT.json
"""

from __future__ import annotations

import json
import sys

import torch
from aihwkit import __version__
from aihwkit.simulator.configs import (
    DigitalRankUpdateRPUConfig,
    IOParameters,
    SingleRPUConfig,
    UnitCellRPUConfig,
    UpdateParameters,
    VectorUnitCellUpdatePolicy,
)
from aihwkit.simulator.configs.compounds import (
    ChoppedTransferCompound,
    MixedPrecisionCompound,
    TransferCompound,
    VectorUnitCell,
)
from aihwkit.simulator.configs.devices import ConstantStepDevice, LinearStepDevice, PulsedDevice
from aihwkit.simulator.tiles import AnalogTile

PERFECT = IOParameters(is_perfect=True)
ALIKE = {"dw_min_dtod": 0.0, "dw_min_std": 0.0, "up_down_dtod": 0.0, "w_max_dtod": 0.0, "w_min_dtod": 0.0}
ONE = torch.ones(1, 1)
ALL = VectorUnitCellUpdatePolicy.ALL


def step(dw_min: float = 0.01, **fields) -> ConstantStepDevice:
    """Constant steps, all devices alike, bounds of 1."""
    return ConstantStepDevice(dw_min=dw_min, w_max=1.0, w_min=-1.0, **ALIKE, **fields)


def tile(n_out: int, n_in: int, device) -> AnalogTile:
    """A tile with exact reads, weights at 0."""
    kind = SingleRPUConfig if isinstance(device, PulsedDevice) else UnitCellRPUConfig
    kind = DigitalRankUpdateRPUConfig if isinstance(device, MixedPrecisionCompound) else kind
    made = AnalogTile(n_out, n_in, kind(device=device, forward=PERFECT, backward=PERFECT, update=UpdateParameters()))
    made.tile.set_weights(torch.zeros(n_out, n_in))
    return made


def send(bar: AnalogTile, x: torch.Tensor, d: torch.Tensor, lr: float) -> None:
    """One sample."""
    bar.set_learning_rate(lr)
    bar.update(x, d)


def set_fast(bar: AnalogTile, weight: torch.Tensor) -> None:
    """The state of the fast crossbar of a compound."""
    hidden = bar.get_hidden_parameters()
    hidden["hidden_weights_0"] = weight
    bar.set_hidden_parameters(hidden)


def pair(**fields) -> dict:
    """Two devices, the first one fast, which resets to 0 exactly."""
    exact = {"reset": 0.0, "reset_dtod": 0.0, "reset_std": 0.0}
    return {"unit_cell_devices": [step(**exact), step()], "transfer_forward": PERFECT, **fields}


def vector_cell(n: int) -> list[float]:
    """Weights of n cells of three steps of 0.02, gains 1, after an update that asks for 0.63 pulses."""
    bar = tile(1, 1, VectorUnitCell(unit_cell_devices=[step(0.02)] * 3, gamma_vec=[1.0] * 3, update_policy=ALL))
    found = []
    for _ in range(n):
        bar.tile.set_weights(torch.zeros(1, 1))
        send(bar, ONE, -ONE, 0.02 * 0.63)
        found.append(float(bar.tile.get_weights()))
    return found


def unequal_cell() -> list[float]:
    """States of two members, steps 0.01 and 0.03, after an update that asks for 0.02."""
    bar = tile(1, 1, VectorUnitCell(unit_cell_devices=[step(0.01), step(0.03)], gamma_vec=[1.0] * 2, update_policy=ALL))
    send(bar, ONE, -ONE, 0.02)
    return [float(bar.get_hidden_parameters()[f"hidden_weights_{k}"]) for k in (0, 1)]


def in_turn() -> list[float]:
    """States of two members, steps 0.01 and 0.03, that took an update of 0.06 each, in turn."""
    policy = VectorUnitCellUpdatePolicy.SINGLE_SEQUENTIAL
    cell = VectorUnitCell(unit_cell_devices=[step(0.01), step(0.03)], gamma_vec=[1.0] * 2, update_policy=policy)
    bar = tile(1, 1, cell)
    for _ in range(2):
        send(bar, ONE, -ONE, 0.06)
    return [float(bar.get_hidden_parameters()[f"hidden_weights_{k}"]) for k in (0, 1)]


def relaxed(side: int, cell: bool) -> list[float]:
    """Weights after one mini-batch of diffusion and decay."""
    device = step(lifetime=4.0, lifetime_dtod=0.0, diffusion=0.05, diffusion_dtod=0.0)
    bar = tile(side, side, VectorUnitCell(unit_cell_devices=[device] * 2, gamma_vec=[1.0] * 2) if cell else device)
    bar.post_update_step()
    return bar.tile.get_weights().flatten().tolist()


def off_whole_numbers() -> list[int]:
    """Numbers n up to 31 for which an update of n steps of 0.01 at 10 x 10 devices is not n pulses at each."""
    found = []
    for n in range(1, 32):
        bar = tile(10, 10, step())
        send(bar, torch.ones(1, 10), -torch.ones(1, 10), float(f"0.{n:02d}"))
        if (bar.tile.get_weights() - n * 0.01).abs().max() > 1e-4:
            found.append(n)
    return found


def resets(n: int, n_reads: int) -> dict[str, int]:
    """Of n transfers of columns of 8 devices, reset with odds 0.3: columns that were, and that were in part."""
    fields = {"with_reset_prob": 0.3, "n_reads_per_transfer": n_reads, "transfer_every": 1, "fast_lr": 0.01}
    bar, whole, part = tile(8, 4, TransferCompound(**pair(**fields))), 0, 0
    for _ in range(n):
        set_fast(bar, torch.full((8, 4), 0.25))
        send(bar, torch.ones(1, 4), torch.zeros(1, 8), 0.01)
        gone = (bar.get_hidden_parameters()["hidden_weights_0"] == 0.0).sum(0)
        whole, part = whole + int((gone == 8).sum()), part + int(((gone > 0) & (gone < 8)).sum())
    return {"columns read": n * n_reads, "whole": whole, "part": part}


def lines(n: int, seed: int) -> list[int]:
    """Which of 8 columns n transfers took, as the one that was reset shows."""
    fields = {"with_reset_prob": 1.0, "n_reads_per_transfer": 1, "transfer_every": 1, "random_selection": True}
    bar = tile(2, 8, TransferCompound(**pair(fast_lr=0.01, construction_seed=seed, **fields)))
    found = []
    for _ in range(n):
        set_fast(bar, torch.full((2, 8), 0.25))
        send(bar, torch.ones(1, 8), torch.zeros(1, 2), 0.01)
        found += (bar.get_hidden_parameters()["hidden_weights_0"][0] == 0.0).nonzero().flatten().tolist()
    return found


def chopped(**fields) -> AnalogTile:
    """A chopped Tiki-Taka of 2 x 3, all at 0, after one sample that sends nothing, if its fast crossbar is at 0.002."""
    options = {"fast_lr": 0.01, "transfer_lr": 1.0, "scale_transfer_lr": False, "transfer_every": 1}
    bar = tile(2, 3, ChoppedTransferCompound(**pair(**options, **fields)))
    set_fast(bar, torch.full((2, 3), 0.002))
    send(bar, torch.ones(1, 3), torch.zeros(1, 2), 0.01)
    return bar


def buffers() -> dict[str, float]:
    """What the buffer of Tiki-Taka v2 holds after one read of 0.002, by gamma."""
    made = {g: chopped(in_chop_prob=0.0, gamma=g) for g in (0.0, 0.25, 0.5)}
    return {str(g): float(b.get_hidden_parameters()["buffered_FP_weight_0"].max()) for g, b in made.items()}


def flipped() -> list[list[float]]:
    """Visible weight over gamma and fast weight, after column 0 was read and its chopper flipped for sure."""
    bar = chopped(in_chop_prob=1.0, gamma=0.5)
    return (bar.tile.get_weights() / (0.5 * 0.002)).round(decimals=3).tolist()


def mixed_precision() -> list[float]:
    """Weight after each of three samples that each ask for one pulse of 0.01, transferred after every sample."""
    bar = tile(1, 1, MixedPrecisionCompound(device=step(), transfer_every=1, n_rows_per_transfer=1))
    found = []
    for _ in range(3):
        send(bar, ONE, -ONE, 0.0101)
        found.append(float(bar.tile.get_weights()))
    return found


def programmed(side: int) -> list[float]:
    """Weights after programming 0, with write noise of 2 steps of 0.01."""
    fields = {k: v for k, v in ALIKE.items() if k != "dw_min_std"}
    bar = tile(side, side, LinearStepDevice(dw_min=0.01, write_noise_std=2.0, dw_min_std=0.0, **fields))
    return bar.tile.get_weights().flatten().tolist()


def main(path: str) -> None:
    """Run every case and write what it gave."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    found = {
        "aihwkit": __version__,
        "vector cell": vector_cell(4000),
        "unequal cell": unequal_cell(),
        "in turn": in_turn(),
        "relaxed": relaxed(100, cell=False),
        "relaxed cell": relaxed(100, cell=True),
        "off whole numbers": off_whole_numbers(),
        "resets": resets(2000, 1),
        "resets of two": resets(2000, 2),
        "lines": [lines(2000, seed) for seed in (1, 2)],
        "buffers": buffers(),
        "flipped": flipped(),
        "mixed precision": mixed_precision(),
        "programmed": programmed(100),
    }
    with open(path, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    sys.path.pop(0)  # this file's directory, whose names are not meant for the peer
    main(*sys.argv[1:])
