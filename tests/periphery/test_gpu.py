"""The GPU's kernels of a read against the plain one; without a GPU in Triton's interpreter, in a process of its own."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from reads import BOUNDED, assert_the_same_reads, plain_reader
from torch.utils._python_dispatch import TorchDispatchMode

from ohmgrad import Crossbar, Periphery
from ohmgrad.devices import Ideal
from ohmgrad.periphery import DEFAULT, Reader, reader

pytest.importorskip("triton")
HOME = "cuda" if torch.cuda.is_available() else "cpu"
CAN_RUN = HOME == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
if CAN_RUN:
    from ohmgrad.periphery import gpu

inside = pytest.mark.skipif(not CAN_RUN, reason="runs in the process that test_in_a_process_of_its_own starts")
ALL = replace(BOUNDED, inp_noise=0.1, w_noise=0.05, out_noise_std=0.3, inp_sto_round=True, out_sto_round=True)


@pytest.mark.skipif(CAN_RUN, reason="this is that process, or there is a GPU")
def test_in_a_process_of_its_own():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture
def kernels(monkeypatch):
    """Crossbars here use the GPU's kernels, on the CPU too, some lines at a time."""
    monkeypatch.setattr(reader, "is_for_gpu", lambda w: True)
    for name, size in {"LINES": 4, "IN": 4, "OUT": 2}.items():
        monkeypatch.setattr(gpu, name, size)


@inside
@pytest.mark.parametrize(("io", "dtype"), [
    (DEFAULT, torch.float32),
    (BOUNDED, torch.float64),
    (ALL, torch.float32),
    (replace(ALL, bm_test_negative_bound=False, out_scale=0.5, inp_sto_round=False), torch.float64),
    (replace(DEFAULT, inp_res=0.0, out_res=0.0, bound_management="none", noise_management="none"), torch.float32),
    (replace(BOUNDED, noise_management="average-abs-max", nm_decay=0.2), torch.float32),
    (replace(DEFAULT, nm_thres=1.5), torch.float64),
])  # fmt: skip
def test_the_same_numbers(io, dtype, kernels, monkeypatch):
    ours, plain = Reader(io, direction=2, replicas=(), dtype=dtype).to(HOME), plain_reader(io, dtype, monkeypatch)
    assert_the_same_reads(io, dtype, ours, plain.to(HOME), shape=(3, 6), n=6)
    assert ours._ways[True].read.__name__ == "by_kernels" and plain._ways[True].read.__name__ == "plainly"


@inside
def test_evaluation_counts_for_itself(kernels, monkeypatch):
    ours = Reader(DEFAULT, direction=2, replicas=(), dtype=torch.float32).to(HOME)
    plain = plain_reader(DEFAULT, torch.float32, monkeypatch).to(HOME)
    w, x, seed = torch.eye(3, 6, device=HOME), torch.ones(4, 6, device=HOME), torch.tensor(11, device=HOME)
    reads = [[r.train(is_trained)(w, x, seed) for is_trained in (True, False, True)] for r in (ours, plain)]
    for a, b in zip(*reads, strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.equal(reads[0][0], reads[0][1])
    assert (int(ours.vectors), int(ours.evaluated)) == (int(plain.vectors), int(plain.evaluated)) == (8, 4)


class NoWord(TorchDispatchMode):
    """Refuses every reading of a tensor by the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "the host reads a tensor"
        return func(*args, **(kwargs or {}))


@inside
def test_a_read_never_waits_for_the_gpu(kernels, monkeypatch):
    bar = Crossbar((3, 5), device=Ideal(), periphery=Periphery(forward=BOUNDED)).to(HOME)
    x, d = torch.ones(2, 5, device=HOME), torch.ones(2, 3, device=HOME)
    bar.read(x), bar.read_transposed(d)  # the first calls draw the lines, of the seed
    for name in ("convert_in", "convert_out", "again"):  # the interpreter itself looks at tensors
        if HOME == "cpu":
            monkeypatch.setattr(gpu, name, dict.fromkeys([(2,)], lambda *_, **__: None))
    with NoWord():
        bar.read(x), bar.read_transposed(d)
    assert int(bar.readers["read"].vectors) == int(bar.readers["read_transposed"].vectors) == 4


@pytest.mark.skipif(HOME != "cuda", reason="needs a GPU")
def test_a_cuda_graph_replays_with_noise_of_its_own(monkeypatch):
    io, w = BOUNDED, torch.randn(64, 100, device=HOME) * 0.2
    ours, plain = (Reader(io, direction=2, replicas=(), dtype=w.dtype), plain_reader(io, w.dtype, monkeypatch))
    x, seed = torch.randn(32, 100, device=HOME), torch.tensor(11, device=HOME)
    ours, plain = ours.to(HOME), plain.to(HOME)
    ours(w, x, seed), plain(w, x, seed)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = ours(w, x, seed)
    for _ in range(2):
        x.normal_()
        graph.replay()
        assert ((y - plain(w, x, seed)).abs() > 1e-5).double().mean() < 2e-3
