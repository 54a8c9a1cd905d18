"""Kernels on torch's threads: each share once, and their sum."""

import ctypes
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from numba import int64

from ohmgrad.pulses.cpu_openmp import keep_apart, openmp, share
from ohmgrad.pulses.numba_target import njit, specialised, vector_at

LIKE = np.empty(0, np.int64)


def count(k, n, counts_at):
    vector_at(counts_at, n, LIKE)[k] += 1
    return 10**k


@pytest.mark.skipif(
    not [*(Path(torch.__file__).parent / "lib").glob("libgomp*")], reason="needs a torch on GNU's OpenMP"
)
def test_every_share_is_taken_once():
    kernel, addresses = specialised(count, "count", int64(int64, int64, int64)), openmp()
    assert addresses.all()
    for n in (1, 2, 5, 2):
        counts = np.zeros(n, np.int64)
        assert share(addresses.ctypes.data, n, kernel.address, counts.ctypes.data) == sum(10**k for k in range(n))
        assert counts.tolist() == [1] * n


def test_without_it_the_caller_does_all():
    nothing, counts = np.zeros(8, np.int64), np.zeros(3, np.int64)
    kernel = specialised(count, "count", int64(int64, int64, int64))
    assert share(nothing.ctypes.data, 3, kernel.address, counts.ctypes.data) == 1 and counts.tolist() == [1, 0, 0]


@pytest.mark.skipif(not openmp().all(), reason="needs a torch on GNU's OpenMP")
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two processors")
def test_a_helper_leaves_the_callers_processor_and_may_return():
    before, here, leave = os.sched_getaffinity(0), ctypes.CDLL(None).sched_getcpu, njit(keep_apart)
    seen = set()
    for _ in range(100):  # the system too may move this thread, now and then
        cpu = here()
        leave(openmp(), cpu)
        seen.add(here() == cpu)
        assert os.sched_getaffinity(0) == before
    assert False in seen


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_does_all_itself():
    # Catches a child that waits for its parent's threads for ever.
    kernel, counts = specialised(count, "count", int64(int64, int64, int64)), np.zeros(2, np.int64)
    assert share(openmp().ctypes.data, 2, kernel.address, counts.ctypes.data) >= 1
    child = os.fork()
    if not child:
        signal.alarm(60)
        os._exit(0 if share(openmp().ctypes.data, 2, kernel.address, counts.ctypes.data) == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
