"""The CPU's kernels against the plain read: the same numbers, but for rounding and the converters' steps it decides."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from llvmlite import binding as llvm
from reads import BOUNDED, SETTINGS, assert_the_same_reads, plain_reader

from ohmgrad import Crossbar, Periphery
from ohmgrad.devices import Ideal
from ohmgrad.periphery import DEFAULT, Reader, cpu, cpu_kernel, fused
from ohmgrad.pulses.numba_target import BARE, Apart, njit

F32, SEED = torch.float32, torch.tensor(11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("io", SETTINGS)
def test_the_same_numbers(io, dtype, monkeypatch):
    kernels, plain = Reader(io, direction=2, replicas=(), dtype=dtype), plain_reader(io, dtype, monkeypatch)
    assert_the_same_reads(io, dtype, kernels, plain, shape=(37, 90))
    assert kernels._ways[True].read.__name__ == "by_kernels" and plain._ways[True].read.__name__ == "plainly"


@pytest.mark.parametrize("shape", [(1, 2), (16, 25), (25, 16), (3, 1100)])
@pytest.mark.parametrize("io", [DEFAULT, replace(BOUNDED, inp_noise=0.1, w_noise=0.05, out_noise_std=0.3)])
def test_short_and_long_rows(io, shape, monkeypatch):
    # Catches loops that run over a row's end into one that is made already: with 25 numbers, not with 37 or 90 alone.
    kernels, plain = Reader(io, direction=2, replicas=(), dtype=F32), plain_reader(io, F32, monkeypatch)
    assert_the_same_reads(io, F32, kernels, plain, shape=shape)


def test_any_number_of_threads_gives_the_same_numbers(monkeypatch):
    # Catches rows that two threads take, or none, and rows to be read again that get lost between two threads.
    io = replace(BOUNDED, inp_noise=0.1, w_noise=0.05, out_noise_std=0.3, inp_sto_round=True)
    w, x = 3.0 * torch.eye(16, 25), torch.randn(301, 25, generator=torch.Generator().manual_seed(0))
    before, reads = torch.get_num_threads(), []
    try:
        for n_threads, least in ((1, 0), (2, 0), (4, 0), (4, cpu.SHARED)):
            torch.set_num_threads(n_threads)
            monkeypatch.setattr(cpu, "SHARED", least)
            reader = Reader(io, direction=2, replicas=(), dtype=F32)
            reads.append([reader(w, x[:n], SEED) for n in (301, 1, 3)])
    finally:
        torch.set_num_threads(before)
    for read in reads[1:]:
        assert all(torch.equal(a, b) for a, b in zip(read, reads[0], strict=True))
    assert (reads[0][0].abs() > x.abs().amax(-1, keepdim=True)).any()  # some were read again


def test_evaluation_counts_for_itself(monkeypatch):
    ours, plain = Reader(DEFAULT, direction=2, replicas=(), dtype=F32), plain_reader(DEFAULT, F32, monkeypatch)
    w, x = torch.eye(3, 6), torch.ones(4, 6)
    reads = [[r.train(is_trained)(w, x, SEED) for is_trained in (True, False, True)] for r in (ours, plain)]
    for a, b in zip(*reads, strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.equal(reads[0][0], reads[0][1])
    assert (int(ours.vectors), int(ours.evaluated)) == (int(plain.vectors), int(plain.evaluated)) == (8, 4)


def test_what_is_not_fused():
    w = torch.zeros(2, 2)
    for other in ({"ir_drop": 1.0}, {"mv_type": "pos-neg-separate"}, {"bound_management": "shift"}, {"r_series": 0.1}):
        assert not fused.is_fused(replace(DEFAULT, **other), w)


def crossbar(seed: int = 0) -> Crossbar:
    weight = torch.linspace(-1.0, 1.0, 15).reshape(3, 5)
    return Crossbar((3, 5), device=Ideal(), periphery=Periphery(), weight=weight, seed=seed)


class TestWhatIsKept:
    """From read to read a reader keeps its way, which must be of the seed, counter and weight that it has now."""

    X = torch.linspace(-1.0, 1.0, 10).reshape(2, 5)

    def test_another_seed_and_counter_come_with_a_state_dict(self):
        one, other = crossbar(0), crossbar(1)
        one.read(self.X)
        first = other.read(self.X)
        second = other.read(self.X)
        assert not torch.equal(first, second)
        state = other.state_dict()
        state["readers.read.vectors"] = torch.tensor(0)
        one.load_state_dict(state)
        assert torch.equal(one.read(self.X), first) and torch.equal(one.read(self.X), second)

    def test_copies_and_moves_go_on_alone(self):
        bar = crossbar()
        bar.read(self.X)
        twin = copy.deepcopy(bar)
        wide = copy.deepcopy(bar).double()
        ours = [bar.read(self.X) for _ in range(2)]
        assert torch.equal(twin.read(self.X), ours[0]) and int(twin.reads) == 4 and int(bar.reads) == 6
        close = wide.read(self.X.double()).float()
        torch.testing.assert_close(close, ours[0])
        assert torch.equal(twin.read(self.X), ours[1])
        shared = crossbar()
        shared.read(self.X)
        torch.testing.assert_close(shared.share_memory().read(self.X), ours[0])
        assert int(shared.readers["read"].vectors) == 4
        bar.readers["read"].vectors = torch.tensor(2)
        assert torch.equal(bar.read(self.X), ours[0])

    def test_vectors_of_other_shapes_are_refused_and_views_are_not(self):
        bar = crossbar()
        with pytest.raises(ValueError, match=r"x needs the shape \(batch, 5\), got \(2, 4\)"):
            bar.read(self.X[:, :4])
        with pytest.raises(TypeError, match=r"x needs the weight's torch.float32 on cpu, got torch.float64 on cpu"):
            bar.read(self.X.double())
        columns = self.X.mT.contiguous().mT
        imaginary = torch.complex(self.X, -self.X).conj().imag
        got = [crossbar().read(x) for x in (self.X, columns, imaginary)]
        assert imaginary.is_neg() and torch.equal(got[0], got[1]) and torch.equal(got[0], got[2])
        assert bar.read(self.X[:0]).shape == (0, 3) and bar.read(self.X[0]).shape == (3,)


# Four rows of 16 numbers, and what loops over whole registers may run over after the last.
ROW, WORDS, KEYS, ONE = np.zeros(128, np.float32), np.zeros((2, 128), np.uint32), cpu._keys(0, 0, 0), np.float32(1)
PLACES, SCALES = np.arange(4.0), np.zeros(4)


@pytest.mark.skipif(not llvm.get_host_cpu_features().get("avx2"), reason="needs an x86 processor with AVX2")
@pytest.mark.parametrize(("loop", "given", "operation"), [
    (cpu_kernel.find_scales, (WORDS[0], WORDS[1, :16], 16, 1, ONE, PLACES, SCALES, ROW), "pmaxu"),
    (cpu_kernel.to_volts, (ROW, ROW, ROW, ONE, ONE, 0, ROW), "divps"),
    (cpu_kernel.normals, (ROW, 16, KEYS, 0, PLACES, 0, WORDS), "pmulld"),
    (cpu_kernel.to_steps, (ROW, ROW, ONE, 0, ONE, 1), "divps"),
    (cpu_kernel.to_numbers, (ROW, ROW, ONE, ONE), "mulps"),
])  # fmt: skip
def test_loops_go_through_wide_registers(loop, given, operation):
    # What stops a compiler is easily written, such as the largest of some floats.
    alone = njit(pipeline_class=Apart, **BARE)(loop.py_func)
    alone(*given)
    (assembly,) = alone.inspect_asm().values()
    assert re.search(rf"\bv{operation}\w*\s.*%[yz]mm", assembly)
