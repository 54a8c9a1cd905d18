"""What every device family promises, held against a closed form written without its response.

A new family gives its cases here: a device, its factors and where n pulses take it. One that does not fails.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from exact import assert_within_ulps
from ohmgrad import Crossbar, Dense
from ohmgrad.devices import ConstantStep, Device, Ideal, LinearStep, SoftBounds, SoftBoundsReference
from ohmgrad.devices.base import draw

DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Case:
    """One device; what a hand calculation says of it."""

    device: Device
    after: Callable[[Tensor, int, bool], Tensor]  # (w, n, up) -> state after n pulses, hard bounds included
    q: Callable[[Tensor, bool], Tensor]  # (w, up) -> response factor
    symmetric_point: float
    n_states: float
    planes: tuple[str, ...] = ("dw_up", "dw_down")  # what differs between devices where their steps do


def straight(dw_up: float, dw_down: float, low: float, high: float) -> Callable[[Tensor, int, bool], Tensor]:
    """w +- n dw, up to the bounds."""
    return lambda w, n, up: (w + n * (dw_up if up else -dw_down)).clamp(low, high)


def geometric(dw_up: float, dw_down: float, up_to: float, down_to: float, low: float, high: float) -> Callable:
    """Each pulse takes the share dw / |t| of the way to the point t where the response vanishes, up to the bounds."""

    def after(w: Tensor, n: int, up: bool) -> Tensor:
        t, dw = (up_to, dw_up) if up else (down_to, dw_down)
        return (t - (t - w) * (1.0 - dw / abs(t)) ** n).clamp(low, high)

    return after


def shifted(by: float, after: Callable[[Tensor, int, bool], Tensor]) -> Callable[[Tensor, int, bool], Tensor]:
    """The states of a device that is read against a reference in state `by`."""
    return lambda w, n, up: after(w + by, n, up) - by


CASES: dict[type[Device], list[Case]] = {
    Ideal: [
        Case(
            Ideal(dw_min=0.002),
            straight(0.002, 0.002, -math.inf, math.inf),
            lambda w, up: torch.ones_like(w),
            symmetric_point=0.0,
            n_states=math.inf,
        )
    ],
    ConstantStep: [
        Case(
            ConstantStep(w_max=0.5, w_min=-1.0, dw_min=0.003),
            straight(0.003, 0.003, -1.0, 0.5),
            lambda w, up: torch.ones_like(w),
            symmetric_point=0.0,
            n_states=500.0,
        )
    ],
    LinearStep: [
        # q_up = 1 - w / 2 and q_down = 1 + w / 4 would vanish at 2 and -4, beyond the bounds.
        Case(
            LinearStep(w_max=1.0, w_min=-1.0, dw_min=0.01, gamma_up=0.5, gamma_down=0.25),
            geometric(0.01, 0.01, 2.0, -4.0, -1.0, 1.0),
            lambda w, up: 1.0 - w / 2.0 if up else 1.0 + w / 4.0,
            symmetric_point=0.0,
            n_states=200.0,
        ),
        Case(LinearStep(), straight(1e-3, 1e-3, -1.0, 1.0), lambda w, up: torch.ones_like(w), 0.0, 2000.0),
    ],
    SoftBounds: [
        Case(
            SoftBounds(w_max=0.6, w_min=-0.6, dw_min=0.006),
            geometric(0.006, 0.006, 0.6, -0.6, -0.6, 0.6),
            lambda w, up: 1.0 - w / 0.6 if up else 1.0 + w / 0.6,
            symmetric_point=0.0,
            n_states=200.0,
        ),
        # up_down = c shrinks the down step to (1 - c) dw; symmetric point c tau / (2 - c) (reference 8.4).
        Case(
            SoftBounds(w_max=0.8, w_min=-0.8, dw_min=0.01, up_down=0.2),
            geometric(0.01, 0.008, 0.8, -0.8, -0.8, 0.8),
            lambda w, up: 1.0 - w / 0.8 if up else 0.8 * (1.0 + w / 0.8),
            symmetric_point=0.2 * 0.8 / 1.8,
            n_states=160.0,
        ),
        # a+ (1 - w / w_max) = a- (1 - w / w_min) at (a+ - a-) / (a+ / w_max - a- / w_min) (reference 1.3).
        Case(
            SoftBounds(w_max=1.0, w_min=-0.5, dw_min=0.01, up_down=-0.1),
            geometric(0.009, 0.01, 1.0, -0.5, -0.5, 1.0),
            lambda w, up: 0.9 * (1.0 - w) if up else 1.0 + 2.0 * w,
            symmetric_point=-0.1 / (0.9 + 2.0),
            n_states=150.0,
        ),
    ],
    SoftBoundsReference: [
        # Against a reference at 0.25: the element's states -0.5 ... 1 are the weights -0.75 ... 0.75.
        Case(
            SoftBoundsReference(w_max=1.0, w_min=-0.5, dw_min=0.01, reference_mean=0.25),
            shifted(0.25, geometric(0.01, 0.01, 1.0, -0.5, -0.5, 1.0)),
            lambda w, up: 0.75 - w if up else 1.5 + 2.0 * w,
            symmetric_point=-0.25,
            n_states=150.0,
        ),
        # Steps 1 and 0.8 on bounds +-0.9 balance at 0.1 (c tau / (2 - c)): the weight's 0, and its bounds 0.8, -1.
        Case(
            SoftBoundsReference(w_max=0.9, w_min=-0.9, dw_min=0.01, up_down=0.2, subtract_symmetry_point=True),
            shifted(0.1, geometric(0.01, 0.008, 0.9, -0.9, -0.9, 0.9)),
            lambda w, up: (0.8 - w) / 0.9 if up else 0.8 * (1.0 + w) / 0.9,
            symmetric_point=0.0,
            n_states=180.0,
            planes=("dw_up", "dw_down", "w_max", "w_min", "reference"),
        ),
        Case(
            SoftBoundsReference(w_max=0.6, w_min=-0.6, dw_min=0.006),
            geometric(0.006, 0.006, 0.6, -0.6, -0.6, 0.6),
            lambda w, up: 1.0 - w / 0.6 if up else 1.0 + w / 0.6,
            symmetric_point=0.0,
            n_states=200.0,
        ),
    ],
}


def cases_of(families: tuple[type[Device], ...]) -> list:
    """Every case of every family; a family without one gets a case that fails."""
    pairs = [(family, case) for family in families for case in CASES.get(family, [None])]
    return [pytest.param(case, id=f"{family.__name__}-{i}") for i, (family, case) in enumerate(pairs)]


class DeviceContract:
    """Tests of one case; the test file supplies the fixture `case`."""

    @staticmethod
    def states(case: Case, dtype: torch.dtype = torch.float64) -> Tensor:
        """41 states from bound to bound."""
        bounds = case.device.nominal()
        return torch.linspace(max(bounds["w_min"], -2.0), min(bounds["w_max"], 2.0), 41, dtype=dtype)

    def test_closed_form_after_n_pulses(self, case):
        device, start, bounds = case.device, self.states(case), case.device.nominal()
        for up in (True, False):
            w = start
            for n in range(1, 301):
                w = (w + device.step(w, up)).clamp(bounds["w_min"], bounds["w_max"])
                if n in (1, 2, 17, 300):
                    assert_within_ulps(w, case.after(start, n, up), ulps=4 * n)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("as_tensor", [False, True], ids=["direction", "plane of directions"])
    def test_factors_and_their_parts(self, case, dtype, as_tensor):
        w = self.states(case, dtype)
        expected_up, expected_down = case.q(w, True), case.q(w, False)
        if as_tensor:
            up = torch.ones_like(w, dtype=torch.bool)
            q_up = case.device.step(w, up) / case.device.dw_min
            q_down = -case.device.step(w, ~up) / case.device.dw_min
        else:
            q_up, q_down = case.device.q_up(w), case.device.q_down(w)
        assert_within_ulps(q_up, expected_up, ulps=4)
        assert_within_ulps(q_down, expected_down, ulps=4)
        F, G = case.device.F(w), case.device.G(w)
        assert_within_ulps(F, (expected_down + expected_up) / 2.0, ulps=4)
        assert_within_ulps(F + G, q_down, ulps=2)
        assert_within_ulps(F - G, q_up, ulps=2)

    def test_numbers_and_planes_broadcast(self, case):
        w = self.states(case)
        planes = {k: torch.full((3, 1), float(v), dtype=w.dtype) for k, v in case.device.nominal().items()}
        for up in (True, False):
            one, many = case.device.step(w, up), case.device.step(w, up, planes)
            assert_within_ulps(many, one.expand(3, 41), ulps=1)
            scalar = case.device.step(w[7], up)
            assert scalar.shape == () and scalar == one[7]
        # One state on an array of devices.
        assert case.device.step(torch.zeros((), dtype=w.dtype), True, planes).shape == (3, 1)

    def test_bounds_hold_whatever_is_asked(self, case, rng):
        spread = {"w_max_dtod": 0.2, "w_min_dtod": 0.2, "dw_min_dtod": 0.3}
        device = replace(case.device, **({} if math.isinf(case.device.w_max) else spread))
        bar = Crossbar((5, 7), device=device, seed=3, dtype=torch.float64)
        low, high = (torch.as_tensor(bar.params[k]) for k in ("w_min", "w_max"))
        for _ in range(20):
            bar.write(Dense(torch.as_tensor(rng.normal(0.0, 3.0, (5, 7)))), lr=1.0)
            assert ((low <= bar.weight) & (bar.weight <= high)).all()

    def test_symmetric_point(self, case):
        point = case.device.symmetric_point()
        assert point.dtype == torch.float64
        torch.testing.assert_close(point, torch.tensor(case.symmetric_point, dtype=torch.float64), rtol=0, atol=1e-15)

    def test_symmetric_point_is_kept_by_alternating_pulses(self, case):
        start = torch.tensor([case.symmetric_point], dtype=torch.float64)
        device = replace(case.device, dw_min=1e-5)
        w = start
        for _ in range(500):
            w = w + device.step(w, True)
            w = w + device.step(w, False)
        # A pair leaves a remainder of second order in dw at most, half a step in all.
        assert abs(w - start) < 1e-5

    def test_number_of_states(self, case):
        assert case.device.n_states == pytest.approx(case.n_states, rel=1e-15)

    def test_a_plane_only_where_devices_differ(self, case):
        seed = torch.tensor(5)
        assert not any(isinstance(v, Tensor) for v in draw(case.device, seed, (2, 3), torch.float32).values())
        params = draw(replace(case.device, dw_min_dtod=0.1), seed, (2, 3), torch.float32)
        assert {k for k, v in params.items() if isinstance(v, Tensor)} == set(case.planes)
        assert params["dw_up"].shape == (2, 3) and params["dw_up"].dtype == torch.float32

    def test_sampling_is_a_function_of_seed_row_and_column(self, case):
        device = replace(case.device, dw_min_dtod=0.1, up_down_dtod=0.05)
        large = draw(device, torch.tensor(5), (4, 6), torch.float64)["dw_up"]
        assert torch.equal(draw(device, torch.tensor(5), (2, 3), torch.float64)["dw_up"], large[:2, :3])
        both = draw(device, torch.tensor([6, 5]), (4, 6), torch.float64)["dw_up"]
        assert torch.equal(both[1], large)
        assert not (both[0] == large).any()

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("dw_min", math.nan, "dw_min, got nan"),
            ("dw_min", 0.0, "dw_min > 0, got 0.0"),
            ("dw_min", -1e-3, "dw_min > 0, got -0.001"),
            ("dw_min", "0.1", "dw_min, got '0.1'"),
            ("w_max", math.nan, "w_max, got nan"),
            ("w_max", -1.0, "w_max.*, got .*w_max=-1.0"),
            ("w_min", 0.5, "w_min.*, got w_min=0.5"),
            ("w_min", True, "w_min, got True"),
            ("w_max_dtod", -0.1, "w_max_dtod >= 0, got -0.1"),
            ("dw_min_dtod", math.inf, "dw_min_dtod, got inf"),
            ("dw_min_ctoc", -0.3, "dw_min_ctoc >= 0, got -0.3"),
            ("write_noise", -1.0, "write_noise >= 0, got -1.0"),
            ("lifetime", -5.0, "lifetime >= 0, got -5.0"),
            ("lifetime", math.nan, "lifetime, got nan"),
            ("lifetime", math.inf, "lifetime, got inf"),
            ("lifetime_dtod", -0.1, "lifetime_dtod >= 0, got -0.1"),
            ("diffusion", -0.1, "diffusion >= 0, got -0.1"),
            ("diffusion_dtod", math.nan, "diffusion_dtod, got nan"),
            ("reset", math.nan, "reset, got nan"),
            ("reset_dtod", -0.1, "reset_dtod >= 0, got -0.1"),
            ("reset_std", -0.1, "reset_std >= 0, got -0.1"),
            ("up_down", 1.5, "-1 <= up_down <= 1, got 1.5"),
            ("ctoc", "both", "ctoc 'multiplicative' or 'additive', got 'both'"),
            ("dw_min_log_normal", 2, "bool for dw_min_log_normal, got 2"),
        ],
    )
    def test_a_wrong_value_is_named(self, case, field, value, message):
        with pytest.raises(ValueError, match=f"^{type(case.device).__name__} needs .*{message}"):
            replace(case.device, **{field: value})

    def test_an_unknown_field_is_refused(self, case):
        with pytest.raises(TypeError, match="w_mx"):
            type(case.device)(w_mx=1.0)
