"""Every family of DEVICES against its closed form."""

import importlib.util
import sys

import pytest
import torch

from contracts.device import DeviceContract
from contracts.device_cases import CASES, Case, cases_of, geometric
from ohmgrad import Crossbar, PulsedUpdate
from ohmgrad.devices import DEVICES, Device


@pytest.fixture(params=cases_of(DEVICES))
def case(request) -> Case:
    """One case; none fails, so that no family goes untested."""
    if request.param is None:
        pytest.fail("this family of DEVICES has no closed form in tests/contracts/device_cases.py")
    return request.param


class TestContract(DeviceContract):
    """The contract over all families."""


SOURCE = """
from dataclasses import dataclass

from ohmgrad.devices import Device
from ohmgrad.vocabulary import where


@dataclass(frozen=True, kw_only=True)
class Halved(Device):
    share: float = 0.5

    @staticmethod
    def response(w, up, w_max, w_min, dw_min, share):
        return share * dw_min * where(up, 1.0 - w / w_max, w / w_min - 1.0)
"""


@pytest.fixture(scope="session")
def stranger(tmp_path_factory) -> type[Device]:
    """A family from a user's file, which nothing of ours knows."""
    path = tmp_path_factory.mktemp("user") / "halved.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("halved", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["halved"] = module
    spec.loader.exec_module(module)
    return module.Halved


class TestContractOfAUsersFamily(DeviceContract):
    """The same contract over a family that is added while the program runs."""

    @pytest.fixture
    def case(self, stranger) -> Case:
        return Case(
            stranger(w_max=0.6, w_min=-0.6, dw_min=0.012),
            geometric(0.006, 0.006, 0.6, -0.6, -0.6, 0.6),
            lambda w, up: 0.5 - 0.5 * w / 0.6 if up else 0.5 + 0.5 * w / 0.6,
            symmetric_point=0.0,
            n_states=100.0,
        )

    def test_it_runs_in_the_kernel(self, case):
        bars = [
            Crossbar((4, 5), device=case.device, update=PulsedUpdate(eager=eager), seed=0) for eager in (True, False)
        ]
        for bar in bars:
            bar.pulse(torch.ones(1, 5), -torch.ones(1, 4), 0.1)
        assert bars[0].weight.any()
        torch.testing.assert_close(bars[0].weight, bars[1].weight, rtol=0.0, atol=1e-6)


def test_a_family_without_a_case_fails():
    class Stranger(DEVICES[0]):
        pass

    assert [p.values for p in cases_of((Stranger,))] == [(None,)]
    assert set(CASES) == set(DEVICES)
