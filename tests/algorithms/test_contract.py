"""Every algorithm of ALGORITHMS against its recursion."""

import pytest

from contracts.algorithm import CASES, AlgorithmContract, Case, cases_of
from ohmgrad.algorithms import ALGORITHMS


@pytest.fixture(params=cases_of(ALGORITHMS))
def case(request) -> Case:
    """One case; none fails, so that no algorithm goes untested."""
    if request.param is None:
        pytest.fail("this algorithm of ALGORITHMS has no recursion in tests/contracts/algorithm.py")
    return request.param


class TestContract(AlgorithmContract):
    """The contract over all algorithms."""


def test_an_algorithm_without_a_case_fails():
    class Stranger:
        pass

    assert [p.values for p in cases_of((Stranger,))] == [(None,)]
    assert set(CASES) == set(ALGORITHMS)
