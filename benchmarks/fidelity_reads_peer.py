"""The peer's side of `fidelity_reads.py`: aihwkit reads the same arrays. It imports nothing of ours.

PYTHON fidelity_reads_peer.py CASES.json RESULT.npz
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from aihwkit import __version__
from aihwkit.simulator.configs import IOParameters, SingleRPUConfig
from aihwkit.simulator.configs.devices import ConstantStepDevice
from aihwkit.simulator.parameters import enums
from aihwkit.simulator.tiles import AnalogTile

KINDS = {
    "noise_management": enums.NoiseManagementType,
    "bound_management": enums.BoundManagementType,
    "w_noise_type": enums.WeightNoiseType,
    "mv_type": enums.AnalogMVType,
}


def parameters(fields: dict) -> IOParameters:
    """Its settings of reads; enumerations come by the values that they have there."""
    return IOParameters(**{k: KINDS[k](v) if k in KINDS else v for k, v in fields.items()})


def main(cases_path: str, result_path: str) -> None:
    """Outputs of every read of every case, NAME/k."""
    torch.set_num_threads(1)
    with open(cases_path) as file:
        cases = json.load(file)
    found = {"versions": json.dumps({"aihwkit": __version__, "torch": torch.__version__})}
    for case in cases:
        device = ConstantStepDevice(w_max=100.0, w_min=-100.0, w_max_dtod=0.0, w_min_dtod=0.0)
        config = SingleRPUConfig(device=device)
        config.forward, config.backward = parameters(case["forward"]), parameters(case["backward"])
        w = torch.tensor(case["w"])
        tile = AnalogTile(*w.shape, config)
        tile.set_weights(w)
        for k, (direction, vectors) in enumerate(case["reads"]):
            x = torch.tensor(vectors).repeat(case["repeats"], 1)
            y = tile.forward(x) if direction == "forward" else tile.backward(x)
            found[f"{case['name']}/{k}"] = y.detach().numpy()
    np.savez(result_path, **found)


if __name__ == "__main__":
    sys.path.pop(0)  # this file's directory, whose names are not meant for the peer
    main(*sys.argv[1:])
