"""What the compiler makes of the kernels: wide registers, and nothing wider than the weights."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from llvmlite import binding as llvm

from ohmgrad.devices import PiecewiseStep, PowStep
from ohmgrad.pulses import cpu, cpu_family, cpu_law, numba_target
from ohmgrad.pulses.numba_target import BARE, njit

FEATURES = llvm.get_host_cpu_features()
# `weight = after if hit else before` becomes one with AVX2: on Zen 3 it takes as long as a third of the loop.
MASKED_STORE = r"\bvp?maskmov\w+\s+%[xy]mm\d+, %[xy]mm\d+, \S*\("


@pytest.mark.skipif(not FEATURES.get("avx2"), reason="needs an x86 processor with AVX2")
@pytest.mark.parametrize("is_additive", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_inner_loop(dtype, is_additive):
    m, key = 64, np.uint32(1)
    weights, params, own = (np.zeros(shape, dtype) for shape in ((1, 1, m), (1, 4, m), (cpu_family.N_OWN, m)))
    law = (dtype(0.3), is_additive, True)
    loop = njit(**BARE)(cpu_law._trains.py_func)  # of this case alone
    on, place = np.zeros((1, 1, 2, m), np.uint32), np.zeros(m, np.uint32)
    loop(weights, params, 0, own, 0, False, on, 0, 0, place, m, law, key, key)
    (assembly,) = loop.inspect_asm().values()
    products = re.findall(r"\bv(?:fn?m(?:add|sub)\d+|mul)(ps|pd)\s.*%[yz]mm", assembly)
    assert products.count("ps" if dtype is np.float32 else "pd") >= 20
    assert not re.search(MASKED_STORE, assembly)
    if dtype is np.float32:  # a literal of Python's own would have widened it
        assert not re.search(r"\bvfn?m(?:add|sub)\d+(?:pd|sd)\s", assembly)


@pytest.mark.skipif(not FEATURES.get("avx2"), reason="needs an x86 processor with AVX2")
@pytest.mark.parametrize("family", [PowStep, PiecewiseStep])
def test_the_loops_of_a_family(family, monkeypatch, tmp_path):
    # Planted: `if` in place of the last `where` of `cpu_family._after`, which made the loops go one lane at a time.
    monkeypatch.setattr(numba_target, "cache_directory", lambda: str(tmp_path))  # what is found on disk has no text
    _, everywhere, one_by_one = cpu.functions_of.__wrapped__(family, torch.float32, 5 if family.tables else 0)
    loops = [function._library.get_asm_str() for function in (everywhere, one_by_one)]
    for assembly, least in zip(loops, (3, 1), strict=True):  # up, down, both; one for both
        assert len(re.findall(r"\bvdivps\s.*%[yz]mm", assembly)) >= least
        assert not re.search(r"\bvgather", assembly) and not re.search(MASKED_STORE, assembly)
        assert not re.search(r"\bvfn?m(?:add|sub)\d+(?:pd|sd)\s", assembly)


@pytest.mark.slow  # compiles everything anew
@pytest.mark.skipif(not FEATURES.get("avx512f"), reason="needs an x86 processor with AVX-512")
def test_without_avx512(tmp_path):
    # What one of these instruction sets fuses and the other does not makes the ways of the kernel differ in a bit.
    fewer = {k: is_on and not re.match("avx512|avx10|amx|evex512", k) for k, is_on in FEATURES.items()}
    as_set = {"NUMBA_CPU_NAME": "znver3", "NUMBA_CPU_FEATURES": llvm.FeatureMap(fewer).flatten()}
    folder = Path(__file__).parent
    tests = [f"{folder / 'test_cpu.py'}::TestWays", str(folder / "test_assembly.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests]
    environment = os.environ | as_set | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
