"""The fused read against the plain one: the same numbers, but for rounding and the converters' steps it decides."""

import math
from dataclasses import replace

import pytest
import torch

from ohmgrad.periphery import DEFAULT, PRESET, STANDARD, Reader, cpu, weight_noise

BOUNDED = replace(DEFAULT, out_bound=1.0)  # most vectors are read several times
SEED = torch.tensor(11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("io", [
    DEFAULT, PRESET, STANDARD, weight_noise(0.2), BOUNDED,
    replace(BOUNDED, bound_management="none"),
    replace(BOUNDED, bm_test_negative_bound=False),
    replace(DEFAULT, inp_noise=0.1, w_noise=0.05, out_noise_std=0.3),
    replace(DEFAULT, inp_sto_round=True, out_sto_round=True),
    replace(DEFAULT, out_noise=0.0, out_res=0.0, inp_res=0.0, out_bound=math.inf),
    replace(DEFAULT, noise_management="average-abs-max", nm_decay=0.2),
])  # fmt: skip
def test_the_same_numbers(io, dtype, monkeypatch):
    g = torch.Generator().manual_seed(0)
    w, x = torch.randn(37, 90, generator=g, dtype=dtype) * 0.2, torch.randn(50, 90, generator=g, dtype=dtype)
    x[7], x[8] = 0.0, x[8] * 1e-6
    fused, plain = (Reader(io, direction=2, replicas=(), dtype=dtype) for _ in range(2))
    for _ in range(2):  # the second from where the first stopped
        got = fused(w, x, SEED)
        monkeypatch.setattr(cpu, "is_fused", lambda *_: False)
        expected = plain(w, x, SEED)
        monkeypatch.undo()
        assert cpu.is_fused(io, w)
        # Sums in another order may fall on the other side of a converter's step: one in a thousand at the most.
        scale = x.abs().amax(-1, keepdim=True)
        step = io.out_step * scale * 64 + 1e-5
        off = (got - expected).abs()
        assert (off > 1e-5 * (1 + expected.abs())).double().mean() < 2e-3
        assert (off <= step).all()
    assert torch.equal(fused.vectors, plain.vectors) and fused.vectors == 100


def test_what_is_not_fused():
    w = torch.zeros(2, 2)
    for other in ({"ir_drop": 1.0}, {"mv_type": "pos-neg-separate"}, {"bound_management": "shift"}, {"r_series": 0.1}):
        assert not cpu.is_fused(replace(DEFAULT, **other), w)
