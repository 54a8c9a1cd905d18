"""A device in a user's own file works everywhere, with no change to ohmgrad: the promise of CONTRIBUTING.md."""

import importlib.util
import math
import sys
import textwrap

import numba
import numpy as np
import pytest
import torch
from torch import nn

from chance import assert_mean, assert_variance
from exact import assert_within_ulps
from ohmgrad import AnalogOptimizer, Crossbar, Dense, ExpectedUpdate, TikiTaka, convert
from ohmgrad.devices import Device
from ohmgrad.devices.base import draw
from ohmgrad.theory import asymmetry, balanced_gradient
from ohmgrad.vocabulary import Target, retarget

SOURCE = """
    from dataclasses import dataclass

    from ohmgrad.devices import Device
    from ohmgrad.vocabulary import absolute, where


    @dataclass(frozen=True, kw_only=True)
    class DeadZone(Device):
        width: float = 0.1
        width_dtod: float = 0.0

        @staticmethod
        def response(w, up, w_max, w_min, dw_min, width):
            return where(absolute(w) < width, 0.0, dw_min * where(up, 1.0 - w / w_max, w / w_min - 1.0))
"""


@pytest.fixture
def family(tmp_path, monkeypatch) -> type[Device]:
    """Soft bounds that do not move while |w| < width, from a file of the user's."""
    path = tmp_path / "my_devices.py"
    path.write_text(textwrap.dedent(SOURCE))
    spec = importlib.util.spec_from_file_location("my_devices", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_devices", module)
    spec.loader.exec_module(module)
    return module.DeadZone


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_its_response(family, dtype):
    # F = 1 and G = w / tau outside of the zone, as soft bounds; both 0 inside.
    w = torch.tensor([-0.5, -0.09, 0.0, 0.09, 0.25], dtype=dtype)
    moving = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0], dtype=dtype)
    assert_within_ulps(family().F(w), moving, ulps=2)
    assert_within_ulps(family().G(w), moving * w, ulps=2)
    assert family().symmetric_point().item() == pytest.approx(0.0, abs=1e-15)
    assert family(dw_min=0.01).n_states == pytest.approx(200.0)


def test_in_a_crossbar(family):
    # U(w, dw) = w + dw - |dw| w outside of the zone.
    weight = torch.tensor([[0.05, 0.5, -0.5]], dtype=torch.float64)
    bar = Crossbar((1, 3), device=family(), weight=weight, dtype=torch.float64)
    bar.write(Dense(torch.ones(1, 3, dtype=torch.float64)), lr=0.1)
    assert_within_ulps(bar.weight, torch.tensor([[0.05, 0.35, -0.55]], dtype=torch.float64), ulps=2)


def test_its_own_parameter_differs_between_devices(family, seed):
    # NAME_dtod beside NAME is a relative spread. n = 40,000 sees 5 % of it in the mean, 7 % in the variance.
    params = draw(family(width=0.2, width_dtod=0.3), torch.tensor(seed), (200, 200), torch.float64)
    assert_mean(params["width"], 0.2, std=0.06)
    assert_variance(params["width"], 0.06**2, kurtosis=3.0)
    assert isinstance(params["w_max"], float)


@pytest.mark.parametrize("noise", [False, True])
def test_in_a_model_that_is_trained(family, noise):
    # By Tiki-Taka, whose fast crossbar starts inside the zone and never leaves it: it cannot train. By Analog SGD the
    # weights outside of the zone train.
    torch.manual_seed(0)
    digital = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    for algorithm, trains in ((TikiTaka(n_reads=None), False), (None, True)):
        model = convert(digital, device=family(), algorithm=algorithm, update=ExpectedUpdate(noise=noise))
        before = model[0].weight
        optimizer = AnalogOptimizer(model, lr=0.05)
        x = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
        for _ in range(5):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
        outside = before.abs() >= 0.1
        assert torch.equal(model[0].weight != before, outside if trains else torch.zeros_like(outside))


def test_in_the_theory(family):
    w = torch.tensor([[0.05, 0.6]], dtype=torch.float64)
    assert asymmetry(family(), w).item() == pytest.approx(0.5625, rel=1e-14)
    balanced = balanced_gradient(family(), w, torch.ones_like(w))
    # No gradient is owed where nothing moves.
    assert_within_ulps(balanced, torch.tensor([[0.0, -0.6]], dtype=torch.float64), ulps=4)


def test_on_another_compiler(family):
    @numba.njit
    def where(condition, a, b):
        return a if condition else b

    names = {"where": where, "absolute": numba.njit(lambda a: abs(a))}
    kernel = retarget(family.response, Target(names, number=np.float32, word=np.uint32, compile=numba.njit))
    one = [np.float32(v) for v in (1.0, -1.0, 0.01, 0.1)]
    w = torch.linspace(-1.0, 1.0, 41)
    for up in (True, False):
        planes = {"w_max": 1.0, "w_min": -1.0, "dw_up": torch.tensor(0.01), "dw_down": torch.tensor(0.01), "width": 0.1}
        expected = family(dw_min=0.01).step(w, torch.full(w.shape, up), planes)
        assert [kernel(np.float32(v), up, *one) for v in w.numpy()] == expected.tolist()


def test_its_own_values_are_checked(family):
    with pytest.raises(ValueError, match="DeadZone needs a finite number for width, got nan"):
        family(width=math.nan)
    with pytest.raises(ValueError, match=r"DeadZone needs width_dtod >= 0, got -0\.5"):
        family(width_dtod=-0.5)


def test_a_misspelt_parameter_is_named_at_once(tmp_path):
    source = textwrap.dedent(SOURCE).replace("dw_min, width)", "dw_min, widht)").replace("< width", "< widht")
    scope: dict = {"__name__": "misspelt"}
    sys.modules["misspelt"] = type(sys)("misspelt")
    try:
        exec(source, scope)
    finally:
        del sys.modules["misspelt"]
    with pytest.raises(ValueError, match=r"DeadZone\.response takes 'widht', which is no field of DeadZone"):
        scope["DeadZone"]()
