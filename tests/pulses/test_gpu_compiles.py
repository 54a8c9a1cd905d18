"""The GPU's kernels compile for sm_90 on a machine without a GPU, and keep their weights in registers."""

import math

import pytest
import torch
from sm_90 import compile_only, is_elsewhere, usage

from ohmgrad import PulsedUpdate
from ohmgrad.devices import DEVICES, Device, SoftBounds
from ohmgrad.devices.base import draw
from ohmgrad.pulses.settings import TRAINS

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(is_elsewhere(), reason="the kernels run here: test_gpu.py")

SPREAD = {"w_max_dtod": 0.3, "w_min_dtod": 0.3, "dw_min_dtod": 0.3, "up_down_dtod": 0.01, "dw_min_ctoc": 0.3}
BLOCKS = 16  # of a warp each, on a multiprocessor with its 65,536 registers, at the least


@pytest.fixture
def compiled(monkeypatch):
    """Compiled kernels by name, in the place of launches."""
    from ohmgrad.pulses import gpu

    return compile_only(monkeypatch, gpu, "prepare", "rows")


def compile_for(device: Device, dtype: torch.dtype, **settings) -> None:
    from ohmgrad.pulses import gpu

    w, x, d = torch.zeros(256, 784, dtype=dtype), torch.zeros(64, 784, dtype=dtype), torch.zeros(64, 256, dtype=dtype)
    launch = gpu.launcher(device, draw(device, torch.tensor(0), (256, 784), dtype), PulsedUpdate(**settings), 0, w)
    launch(x, d, 0.1, len(x), 0, None, None)


def spread(family: type[Device]) -> Device:
    """A device of the family whose parameters are planes, as far as they can be."""
    own = {name: 0.05 for name in ("gamma_up_dtod", "gamma_down_dtod", "gamma_dtod") if hasattr(family, name)}
    return family(**(SPREAD | own if math.isfinite(family.w_min) else {"dw_min_ctoc": 0.3}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", DEVICES)
def test_a_family_stays_in_registers(family, dtype, compiled, tmp_path):
    compile_for(spread(family), dtype)
    used = usage(compiled["rows"], tmp_path)
    assert used["STACK"] == used["LOCAL"] == 0
    assert used["REG"] * 32 * BLOCKS <= 65_536


@pytest.mark.parametrize("train", TRAINS)
@pytest.mark.parametrize("ctoc", ["multiplicative", "additive"])
def test_every_train_compiles(train, ctoc, compiled, tmp_path):
    settings = {"resolution": 0.01, "stochastic_rounding": True, "bit_length": 100}
    compile_for(SoftBounds(**SPREAD, ctoc=ctoc), torch.float32, train=train, **settings)
    for kernel in compiled.values():
        used = usage(kernel, tmp_path)
        assert used["STACK"] == used["LOCAL"] == 0


def test_a_normal_takes_one_instruction_for_its_population_count(compiled):
    compile_for(spread(SoftBounds), torch.float32)
    assert "popc.b32" in compiled["rows"].asm["ptx"]
