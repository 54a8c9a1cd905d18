"""What every device family promises, held against closed forms written without its response (`device_cases`)."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from contracts.device_cases import Case
from exact import assert_within_ulps
from ohmgrad import Crossbar, Dense
from ohmgrad.devices.base import draw

DTYPES = (torch.float32, torch.float64)


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
            q_up = case.device.step(w, up) / case.device.granularity
            q_down = -case.device.step(w, ~up) / case.device.granularity
        else:
            q_up, q_down = case.device.q_up(w), case.device.q_down(w)
        assert_within_ulps(q_up, expected_up, case.ulps)
        assert_within_ulps(q_down, expected_down, case.ulps)
        F, G = case.device.F(w), case.device.G(w)
        assert_within_ulps(F, (expected_down + expected_up) / 2.0, case.ulps)
        ulps = case.ulps if as_tensor else 2.0  # a direction alone leaves products of numbers to float64
        assert_within_ulps(F + G, q_down, ulps)
        assert_within_ulps(F - G, q_up, ulps)

    def test_numbers_and_planes_broadcast(self, case):
        w = self.states(case)
        given = case.device.nominal().items()
        planes = {k: v if isinstance(v, tuple) else torch.full((3, 1), float(v), dtype=w.dtype) for k, v in given}
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
        if case.symmetric_point is None:
            with pytest.raises(ValueError, match=f"{type(case.device).__name__} has no symmetric point"):
                case.device.symmetric_point()
            return
        point = case.device.symmetric_point()
        assert point.dtype == torch.float64
        torch.testing.assert_close(point, torch.tensor(case.symmetric_point, dtype=torch.float64), rtol=0, atol=1e-15)

    def test_symmetric_point_is_kept_by_alternating_pulses(self, case):
        # Where there is none, a pair of opposite pulses still cancels, at any state.
        start = torch.tensor([0.3 if case.symmetric_point is None else case.symmetric_point], dtype=torch.float64)
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
            ("ctoc", "both", "ctoc 'multiplicative' or 'additive'.*, got 'both'"),
            ("dw_min_log_normal", 2, "bool for dw_min_log_normal, got 2"),
        ],
    )
    def test_a_wrong_value_is_named(self, case, field, value, message):
        with pytest.raises(ValueError, match=f"^{type(case.device).__name__} needs .*{message}"):
            replace(case.device, **{field: value})

    def test_an_unknown_field_is_refused(self, case):
        with pytest.raises(TypeError, match="w_mx"):
            type(case.device)(w_mx=1.0)
