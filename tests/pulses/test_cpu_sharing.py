"""Which updates threads share, from the times that updates take: simulated ones, the same every time."""

import pytest
import torch

from ohmgrad.pulses import cpu_sharing
from ohmgrad.pulses.cpu_sharing import LARGE, RECENT, SMALL, TINY, Sharing


class Clock:
    """Updates one after another, each beginning as the one before ends."""

    def __init__(self):
        self.sharing, self.now = Sharing(pace=1e-9), 1e6

    def updates(self, n, alone, shared, rest=0.0):
        """The share of n updates that was shared, where these are the seconds that each takes."""
        times = 0
        for _ in range(n):
            self.now += rest
            is_shared, size = self.sharing.is_wanted(1000, self.now), 1000
            seconds = shared if is_shared else alone
            self.sharing.took(is_shared, size, seconds)
            self.now += seconds
            times += is_shared
        return times / n


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(cpu_sharing, "_last", [0.0])
    return Clock()


def test_the_shorter_way(clock):
    between = (TINY + SMALL) / 2
    assert clock.updates(1000, between, 0.6 * between) > 0.9
    assert clock.updates(1000, between, 5 * between) < 0.1  # other work came
    assert clock.updates(3000, between, 0.6 * between) > 0.5  # and went


def test_trials_in_vain_become_rare(clock):
    between = (TINY + SMALL) / 2
    clock.updates(5000, between, 5 * between)
    assert 0 < clock.updates(5000, between, 5 * between) < 0.005


@pytest.mark.parametrize(("alone", "rest", "least", "most"), [
    (0.9 * TINY, 0.0, 0.0, 0.0),
    (0.9 * SMALL, 2 * RECENT, 0.0, 0.0),  # threads have gone to sleep
    (1.1 * SMALL, 2 * RECENT, 0.9, 0.99),
    (1.1 * LARGE, 0.0, 1.0, 1.0),
])  # fmt: skip
def test_by_the_size_of_the_work(clock, alone, rest, least, most):
    clock.updates(1, alone, alone)  # which shows what an update takes
    assert least <= clock.updates(100, alone, 0.5 * alone, rest) <= most


def test_one_update_that_was_held_up(clock):
    between = (TINY + SMALL) / 2
    clock.updates(1, 100 * LARGE, 100 * LARGE)  # as if it were large work
    clock.updates(2000, between, 5 * between)
    assert clock.updates(1000, between, 5 * between) < 0.1


def test_a_smaller_update_within_a_trial(clock):
    between = (TINY + SMALL) / 2
    clock.updates(1, between, between)
    while not clock.sharing.is_trial:
        clock.updates(1, between, 0.6 * between)
    clock.sharing.pace[0] = TINY / 2000  # what follows is tiny, and is so no longer
    assert clock.updates(200, 2 * LARGE, LARGE) > 0.9


def test_one_thread(clock, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert clock.updates(100, 2 * LARGE, LARGE) == 0.0
