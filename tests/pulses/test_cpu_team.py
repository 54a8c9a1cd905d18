"""Threads that share work: each share once, whoever takes it."""

import os
import threading
import time

import pytest

from ohmgrad.pulses import cpu_team
from ohmgrad.pulses.cpu_team import SMALL, TINY, Team

LARGE = 2 * SMALL


def share(k: int, n: int, log: list) -> int:
    log.append(k)
    return 10**k


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("rest", [0.0, 0.002])
def test_every_share_is_taken_once(n, rest):
    # Helpers are awake in some rounds, and asleep in all where the caller rests for longer than they wait.
    team = Team(n)
    for _ in range(200 if not rest else 20):
        log: list[int] = []
        assert team.run(share, LARGE, log)[0] == sum(10**k for k in range(n))
        assert sorted(log) == list(range(n))
        time.sleep(rest)


@pytest.mark.parametrize(
    ("work", "rest", "shares"), [(TINY, 0.0, 1), (SMALL, 0.005, 1), (SMALL, 0.0, 2), (LARGE, 0.005, 2)]
)
def test_little_work_is_done_alone(work, rest, shares):
    # Work between the two limits is shared where it comes often.
    team, seen = Team(2), []
    for _ in range(5):
        seen.append(team.run(lambda k, n: 1000 * (k == 0) * n, work)[0])
        time.sleep(rest)
    assert 1000 * shares in seen[1:]
    if not (work == SMALL and not rest):  # there the system may come between two rounds
        assert set(seen) == {1000 * shares}


@pytest.mark.parametrize(("n", "work"), [(1, LARGE), (2, TINY), (2, LARGE)])
def test_the_seconds_of_one_thread(n, work):
    # Catches seconds that were not taken times the threads that shared.
    total, seconds = Team(n).run(lambda k, n: time.sleep(0.1 / n) or k, work)
    assert total == (1 if n == 2 and work == LARGE else 0) and seconds >= 0.1


def test_a_share_that_no_helper_begins_is_the_callers():
    # Both helpers are kept at work by another team's pool: here, by never being let off their first share.
    team, gate = Team(2), threading.Event()
    team._pool.submit(gate.wait)
    assert team.run(share, LARGE, [])[0] == 11
    gate.set()


def test_a_helpers_error_is_raised_and_the_team_goes_on():
    team = Team(2)
    caller = threading.get_ident()

    def fail(k: int, n: int) -> int:
        if k == 0:
            while not team._begun[1]:
                time.sleep(1e-4)  # until the helper has taken its share
            return 0
        raise MemoryError(f"share {k}, by the caller: {threading.get_ident() == caller}")

    with pytest.raises(MemoryError, match="share 1, by the caller: False"):
        team.run(fail, LARGE)
    assert team.run(share, LARGE, [])[0] == 11


def test_two_callers_at_once():
    team, sums = Team(2), []
    threads = [threading.Thread(target=lambda: sums.append(team.run(lambda k, n: n - k, LARGE)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(sums) <= {1, 3} and len(sums) == 4  # alone (1 - 0), or shared (2 - 0 and 2 - 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_has_a_team_of_its_own():
    assert cpu_team.team(2).run(share, LARGE, [])[0] == 11
    child = os.fork()
    if not child:
        os._exit(0 if cpu_team.team(2).run(share, LARGE, [])[0] == 11 else 1)
    assert os.waitpid(child, 0)[1] == 0
