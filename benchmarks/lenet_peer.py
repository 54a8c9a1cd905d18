"""The peer's side of `lenet.py`, for the interpreter that has aihwkit; it imports nothing of ours."""

import json
import sys
import time

import numpy as np
import torch
from aihwkit.nn import AnalogConv2d, AnalogLinear, AnalogSequential
from aihwkit.optim import AnalogSGD
from aihwkit.simulator.configs import SingleRPUConfig
from aihwkit.simulator.configs.devices import SoftBoundsReferenceDevice
from torch import nn


def main() -> None:
    request = json.loads(sys.argv[2])
    torch.set_num_threads(request["threads"])
    torch.manual_seed(request["seed"])
    with np.load(sys.argv[1]) as file:
        x, y, x_test, y_test = (torch.from_numpy(file[k]) for k in ("x", "y", "x_test", "y_test"))
    rpu = SingleRPUConfig(device=SoftBoundsReferenceDevice(**request["device"]))
    model = AnalogSequential(
        AnalogConv2d(1, 16, 5, rpu_config=rpu), nn.Tanh(), nn.MaxPool2d(2),
        AnalogConv2d(16, 32, 5, rpu_config=rpu), nn.Tanh(), nn.MaxPool2d(2),
        nn.Flatten(), AnalogLinear(512, 128, rpu_config=rpu), nn.Tanh(), AnalogLinear(128, 10, rpu_config=rpu),
    )  # fmt: skip
    optimizer = AnalogSGD(model.parameters(), lr=request["lr"])
    optimizer.regroup_param_groups(model)
    criterion, batch = nn.CrossEntropyLoss(), request["batch"]
    start = time.perf_counter()
    for first in range(0, len(x), batch):
        optimizer.zero_grad()
        criterion(model(x[first : first + batch]), y[first : first + batch]).backward()
        optimizer.step()
    seconds = time.perf_counter() - start
    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(a).argmax(-1) == b).sum()) for a, b in zip(x_test.split(500), y_test.split(500), strict=True)
        )
    steps = -(-len(x) // batch)
    print(json.dumps({"seconds": seconds, "ms_per_step": 1e3 * seconds / steps, "accuracy": right / len(x_test)}))


if __name__ == "__main__":
    main()
