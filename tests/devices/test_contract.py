"""Every family of DEVICES against its closed form."""

import pytest

from contracts.device import CASES, Case, DeviceContract, cases_of
from ohmgrad.devices import DEVICES


@pytest.fixture(params=cases_of(DEVICES))
def case(request) -> Case:
    """One case; none fails, so that no family goes untested."""
    if request.param is None:
        pytest.fail("this family of DEVICES has no closed form in tests/contracts/device.py")
    return request.param


class TestContract(DeviceContract):
    """The contract over all families."""


def test_a_family_without_a_case_fails():
    class Stranger(DEVICES[0]):
        pass

    assert [p.values for p in cases_of((Stranger,))] == [(None,)]
    assert set(CASES) == set(DEVICES)
