"""Settings of reads that kernels know, and how a kernel's read is held against the plain one."""

import math
from dataclasses import replace

import pytest
import torch

from ohmgrad.periphery import DEFAULT, IO, PRESET, STANDARD, Reader, fused, weight_noise

BOUNDED = replace(DEFAULT, out_bound=1.0)  # most vectors are read several times
SETTINGS = [
    DEFAULT, PRESET, STANDARD, weight_noise(0.2), BOUNDED,
    replace(BOUNDED, bound_management="none"),
    replace(BOUNDED, bm_test_negative_bound=False),
    replace(BOUNDED, inp_noise=0.1, w_noise=0.05, out_noise_std=0.3),
    replace(DEFAULT, inp_sto_round=True, out_sto_round=True, out_scale=0.5),
    replace(DEFAULT, out_noise=0.0, out_res=0.0, inp_res=0.0, out_bound=math.inf),
    replace(DEFAULT, noise_management="average-abs-max", nm_decay=0.2),
    replace(DEFAULT, noise_management="constant", nm_thres=3.0),
    replace(DEFAULT, nm_thres=1.5),
]  # fmt: skip


def assert_the_same_reads(
    io: IO, dtype: torch.dtype, kernels: Reader, plain: Reader, *, shape: tuple[int, int], n: int = 50
) -> None:
    """Two batches of n vectors, the second from where the first stopped; some are 0, small or not finite."""
    home, g, (n_out, n_in) = kernels.vectors.device, torch.Generator().manual_seed(0), shape
    w = torch.randn(n_out, n_in, generator=g, dtype=dtype) * 3.0 / math.sqrt(n_in)
    x = torch.randn(n, n_in, generator=g, dtype=dtype)
    x[0], x[1], x[2, 1], x[3, 0] = 0.0, x[1] * 1e-6, math.nan, math.inf
    w, x, seed, is_real = w.to(home), x.to(home), torch.tensor(11, device=home), torch.arange(n).sub(2.5).abs() > 1
    for _ in range(2):
        got, expected = (reader(w, x, seed).cpu() for reader in (kernels, plain))
        assert got[~is_real].isnan().all() and expected[~is_real].isnan().all()
        # Sums in another order may fall on the other side of a converter's step: one in a thousand at the most.
        scale = x[is_real].cpu().abs().amax(-1, keepdim=True)
        off, size = (got - expected)[is_real].abs(), expected[is_real].abs()
        assert (off > 1e-5 * (1 + size)).double().mean() < 2e-3
        assert (off <= io.out_step * scale * 64 + 1e-5).all()
        assert size.mean() > 0.05 * scale.mean()  # lest nothing be compared with nothing
        if io.out_bound == BOUNDED.out_bound and io.bound_management == "iterative":
            assert (size > io.out_bound * io.out_scale * scale).any()  # some vectors were read again
        if io.noise_management == "abs-max":
            assert not expected[0].any() and not got[0].any()
    assert torch.equal(kernels.vectors, plain.vectors) and kernels.vectors == 2 * n


def plain_reader(io: IO, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """A reader that no kernels serve."""
    reader = Reader(io, direction=2, replicas=(), dtype=dtype)
    bind = reader._bind

    def without_kernels(w: torch.Tensor, seed: torch.Tensor, vectors: torch.Tensor):
        with monkeypatch.context() as patch:
            patch.setattr(fused, "is_fused", lambda *_: False)
            return bind(w, seed, vectors)

    monkeypatch.setattr(reader, "_bind", without_kernels)
    return reader
