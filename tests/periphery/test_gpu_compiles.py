"""The kernels of a read compile for sm_90 on a machine without a GPU: no spills, nothing wider than the weights."""

import re
from dataclasses import replace

import pytest
import torch
from sm_90 import compile_only, is_elsewhere, usage

from ohmgrad.periphery import DEFAULT
from ohmgrad.periphery.product import Lines

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(is_elsewhere(), reason="the kernels run here: test_gpu.py")
FULL = replace(DEFAULT, inp_sto_round=True, out_sto_round=True, inp_noise=0.1, w_noise=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("io", [DEFAULT, FULL])
def test_a_read_compiles(io, dtype, monkeypatch, tmp_path):
    from ohmgrad.periphery import gpu

    kernels = compile_only(monkeypatch, gpu, "convert_in", "convert_out", "again")
    w, x, vectors = torch.zeros(512, 784, dtype=dtype), torch.zeros(64, 784, dtype=dtype), torch.tensor(0)
    gpu.launcher(io, Lines(out_noise=io.out_noise), 0, 0, w, vectors)(w, x, None)
    for kernel in kernels.values():
        used = usage(kernel, tmp_path)
        assert used["STACK"] == used["LOCAL"] == 0
        ptx = kernel.asm["ptx"]
        # Quotients and products are rounded one by one; a float32 read has no float64 arithmetic but a dither's.
        assert not re.search(r"\bdiv\.(full|approx)|\bfma\.rn\.f(32|64)|\bmad\.rn\.f", ptx)
        if dtype == torch.float32 and not io.inp_sto_round:
            assert "div.rn.f32" in ptx and ".f64" not in ptx
    assert list(kernels) == ["convert_in", "convert_out", "again"]
