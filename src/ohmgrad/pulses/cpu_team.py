"""Threads that share a kernel's work with the thread that calls it.

To wake a thread costs 0.1 ms, as much as a small update takes. So helpers stay awake for a moment after their work, as
those of OpenMP do, and find the next update at once. A share that no helper has begun when the caller is done with its
own, on a busy machine say, the caller takes too.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from ohmgrad.pulses.numba_target import pause, specialised

# Seconds of work below which help costs more than it brings: of helpers that sleep, and that are awake or would have
# been, had they been asked when the work before came, less than RECENT seconds ago.
SMALL, TINY, RECENT = 5e-4, 1e-4, 1e-3
AWAKE = 2000  # pauses that a thread waits, about 50 us


def await_(place: Any, number: Any, is_until: Any) -> Any:
    """Wait awake until place[0] is the number, or until it no longer is; whether that came to pass in time."""
    for _ in range(AWAKE):
        if (place[0] == number) == is_until:
            return True
        pause()
    return False


class Team:
    """`n` threads, the caller among them.

    run(kernel, work, *arguments) -> the sum of kernel(k, n, *arguments) over their numbers k, and the seconds that one
    thread would have taken, by the caller's share; work: those that are expected.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._await = specialised(await_, "await")
        self._pool = ThreadPoolExecutor(max(1, n - 1), thread_name_prefix="ohmgrad")
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._task: Callable[[int], int] = lambda k: 0
        self._posted, self._done = np.zeros(8, np.int64), np.zeros((n, 8), np.int64)  # a cache line each
        self._awake, self._begun, self._sums, self._last = [False] * n, [0] * n, [0] * n, 0.0

    def run(self, kernel: Callable[..., int], work: float, *arguments: Any) -> tuple[int, float]:
        """Alone where others would not help."""
        start = time.perf_counter()
        is_recent, self._last = start - self._last < RECENT, start
        is_too_little = self.n == 1 or work <= TINY or (work <= SMALL and not is_recent)
        if is_too_little or not self._turn.acquire(blocking=False):
            return kernel(0, 1, *arguments), time.perf_counter() - start
        try:
            return self._share(lambda k: kernel(k, self.n, *arguments))
        finally:
            self._turn.release()
            self._last = time.perf_counter()

    def _share(self, task: Callable[[int], int]) -> tuple[int, float]:
        with self._lock:
            self._task, number = task, int(self._posted[0]) + 1
            self._posted[0] = number
            sleepers = [k for k in range(1, self.n) if not self._awake[k]]
            for k in sleepers:
                self._awake[k] = True
        if sleepers:
            _keep_apart(self._pool)
            for k in sleepers:
                self._pool.submit(self._help, k)
        start = time.perf_counter()
        total = task(0)
        seconds = self.n * (time.perf_counter() - start)
        for k in range(1, self.n):
            if self._begin(k, number):
                total += task(k)
                continue
            while not self._await(self._done[k], number, True):
                time.sleep(2e-5)
            if isinstance(part := self._sums[k], BaseException):
                raise part
            total += part
        return total, seconds

    def _begin(self, k: int, number: int) -> bool:
        """Whether share k is still to be taken; then it is from now on."""
        with self._lock:
            is_new, self._begun[k] = self._begun[k] != number, number
        return is_new

    def _help(self, k: int) -> None:
        """Take share k of what is posted, and of what comes while this thread is awake."""
        while True:
            with self._lock:
                number, task = int(self._posted[0]), self._task
            if self._begin(k, number):
                try:
                    self._sums[k] = task(k)
                except BaseException as error:  # the caller raises it
                    self._sums[k] = error  # type: ignore[call-overload]
                self._done[k, 0] = number
            del task
            if not self._await(self._posted, number, False):
                with self._lock:
                    if self._posted[0] == number:
                        self._awake[k] = False
                        return


@cache
def team(n: int) -> Team:
    """The team of `n`."""
    return Team(n)


# A child process has none of its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=team.cache_clear)


def _keep_apart(pool: ThreadPoolExecutor) -> None:
    """Bar the pool from the processor that this thread runs on, where Linux often puts threads that it wakes."""
    if (get_cpu := _get_cpu()) and (others := os.sched_getaffinity(0) - {get_cpu()}):
        for thread in pool._threads:
            if thread.native_id:  # it has begun
                os.sched_setaffinity(thread.native_id, others)


@cache
def _get_cpu() -> Callable[[], int] | None:
    return getattr(ctypes.CDLL(None), "sched_getcpu", None) if sys.platform == "linux" else None
