"""The peer's side of `algorithm_agreement.py`: aihwkit trains the same tiles. It imports nothing of ours.

PYTHON algorithm_agreement_peer.py ALGORITHM TASK.npz SETTINGS.json RESULT.npz
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from aihwkit.simulator.configs import (
    DigitalRankUpdateRPUConfig,
    IOParameters,
    SingleRPUConfig,
    UnitCellRPUConfig,
    UpdateParameters,
)
from aihwkit.simulator.configs.compounds import (
    ChoppedTransferCompound,
    DynamicTransferCompound,
    MixedPrecisionCompound,
    TransferCompound,
)
from aihwkit.simulator.configs.devices import SoftBoundsDevice
from aihwkit.simulator.tiles import AnalogTile

PERFECT = IOParameters(is_perfect=True)


def config(algorithm: str, settings: dict, seed: int):
    """The configuration of one tile."""
    io = {"forward": PERFECT, "backward": PERFECT, "update": UpdateParameters(desired_bl=settings["bit_length"])}
    kind, *_ = algorithm.split(",")
    device = SoftBoundsDevice(**settings["device"], construction_seed=seed)
    if kind == "analog-sgd":
        return SingleRPUConfig(device=device, **io)
    if kind == "mixed-precision":
        return DigitalRankUpdateRPUConfig(device=MixedPrecisionCompound(device=device), **io)
    pair = {"unit_cell_devices": [device, device], "construction_seed": seed, "transfer_forward": PERFECT}
    options = dict(settings["algorithms"][algorithm])
    if kind == "tiki-taka":
        return UnitCellRPUConfig(device=TransferCompound(**pair, **options), **io)
    pair["transfer_update"] = UpdateParameters(desired_bl=1, update_bl_management=False, update_management=False)
    compound = DynamicTransferCompound if kind == "agad" else ChoppedTransferCompound
    return UnitCellRPUConfig(device=compound(**pair, **options), **io)


def main(algorithm: str, task_path: str, settings_path: str, result_path: str) -> None:
    """Train a tile for each seed; save the final weights, (seed, out, in)."""
    torch.set_num_threads(1)
    with open(settings_path) as file:
        settings = json.load(file)
    with np.load(task_path) as task:
        target, inputs = torch.from_numpy(task["target"]), torch.from_numpy(task["inputs"])
    final = []
    for k, batches in enumerate(inputs):
        torch.manual_seed(k)
        tile = AnalogTile(*target.shape, config(algorithm, settings, k + 1))
        tile.set_weights(torch.zeros_like(target))
        tile.set_learning_rate(settings["lr"])
        for x in batches:
            tile.update(x, tile.forward(x) - x @ target.T)
        final.append(tile.get_weights()[0].numpy())
    np.savez(result_path, weights=np.stack(final))


if __name__ == "__main__":
    sys.path.pop(0)  # this file's directory, whose names are not meant for the peer
    main(*sys.argv[1:])
