"""How the pulsed update tends to the expected one: the orders of reference 1.2, each part of the error by itself.

    pulsed - expected = O(dw^2) + O(dw_min) + O(sqrt(dw_min |dw|) sigma)

dw is the increment asked for: the state moves under the train, which the lumped update leaves out; pulses are whole;
pulses are noisy. All in float64; steps are powers of two where lines must be certain (p = 1, no draw). False-alarm rate
1e-6 each.
"""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from chance import assert_mean, assert_variance
from ohmgrad import ExpectedUpdate, PulsedUpdate
from ohmgrad.devices import Device, LinearStep, SoftBounds
from ohmgrad.experiments.verify.e18_fidelity import ROUNDED, change, changes

TAU = 2.0
SOFT = SoftBounds(w_max=TAU, w_min=-TAU)
LINEAR = LinearStep(w_max=TAU, w_min=-TAU, gamma_up=0.3, gamma_down=0.6)
EXACT = {"soft-bounds": (SOFT, 1.0, 1.0), "linear-step": (LINEAR, 0.3, 0.6)}  # device, gamma up and down


def slopes(x: list[float], y: list[float]) -> list[float]:
    """Of y against x on doubly logarithmic axes, from point to point."""
    points = list(zip(map(math.log, x), map(math.log, y), strict=True))
    return [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(points)]


class TestLumping:
    """No noise, and whole numbers of pulses in the mean: what is left is that the state moves under the train."""

    @pytest.mark.parametrize("merge", [True, False])
    @pytest.mark.parametrize("up", [True, False])
    @pytest.mark.parametrize("family", EXACT)
    def test_the_rest_falls_like_the_square_of_the_increment(self, family, up, merge):
        # A thousand pulses each. A response of slope -gamma / tau falls short by gamma / tau q dw^2 / 2 (1 - 1/1000).
        # Sees a merged train of the wrong second order; one that takes the step at w alone has no rest at all.
        device, gamma = EXACT[family][0], EXACT[family][1 if up else 2]
        start, increments, rest = 0.5, [1e-4, 1e-3, 1e-2], []
        for size in increments:
            fine, increment = replace(device, dw_min=size / 1000), size if up else -size
            lumped = change(fine, ExpectedUpdate(), increment, start)
            rest.append((lumped - change(fine, replace(ROUNDED, merge=merge), increment, start)) / increment)
        q = 1.0 - gamma * start / TAU if up else 1.0 + gamma * start / TAU
        assert rest == pytest.approx([gamma / TAU * q * size * 0.999 / 2 for size in increments], rel=5e-3)
        assert slopes(increments, [r * i for r, i in zip(rest, increments, strict=True)]) == pytest.approx(
            [2.0, 2.0], abs=2e-3
        )

    @pytest.mark.parametrize("merge", [True, False])
    def test_at_a_fixed_increment_the_limit_is_the_flow(self, merge):
        # Finer steps alone do not lead to the lumped update, but to w' = q(w), the distance being linear in dw_min.
        start, increment, steps = 0.5, 0.25, [2.0**-k for k in (6, 8, 10)]
        flow = (TAU - start) * (1.0 - math.exp(-increment / TAU))
        settings = replace(ROUNDED, merge=merge)
        rest = [change(replace(SOFT, dw_min=step), settings, increment, start) - flow for step in steps]
        assert slopes(steps, rest) == pytest.approx([1.0, 1.0], abs=0.01)
        order = increment * (TAU - start) * math.exp(-increment / TAU) / (2.0 * TAU**2)
        assert rest[-1] == pytest.approx(order * steps[-1], rel=0.01)

    @pytest.mark.parametrize("merge", [True, False])
    @pytest.mark.parametrize("up", [True, False])
    def test_whole_pulses_err_by_less_than_one(self, up, merge):
        # n + 0.4 pulses are asked for and n sent, at an increment so tiny that its square is lost: -0.4 dw_min q.
        # Sees counts that are rounded up (+0.6, sign and size), as ceil(dw / dw_min) would be.
        start, increment = 0.5, 1e-6 if up else -1e-6
        steps = [abs(increment) / (n + 0.4) for n in (1, 10, 100)]
        settings, rest = replace(ROUNDED, merge=merge), []
        for step in steps:
            device = replace(SOFT, dw_min=step)
            lumped = change(device, ExpectedUpdate(), increment, start)
            rest.append((lumped - change(device, settings, increment, start)) / math.copysign(1.0, increment))
        q = 1.0 - start / TAU if up else 1.0 + start / TAU
        assert rest == pytest.approx([0.4 * step * q for step in steps], rel=1e-3)
        assert slopes(steps, rest) == pytest.approx([1.0, 1.0], abs=1e-3)

    @given(
        start=st.floats(-TAU, TAU),
        increment=st.floats(1e-3, 0.9),
        up=st.booleans(),
        pulses=st.floats(0.1, 300.0),
        merge=st.booleans(),
    )
    def test_the_error_keeps_its_bound(self, start, increment, up, pulses, merge):
        # Reference 1.2 prints dw_min / tau + dw^2 / (2 tau), which is this at w = 0 and tau = 1.
        device = replace(SOFT, dw_min=increment / pulses)
        signed = increment if up else -increment
        error = change(device, replace(ROUNDED, merge=merge), signed, start) - change(
            device, ExpectedUpdate(), signed, start
        )
        q = 1.0 - start / TAU if up else 1.0 + start / TAU
        half = device.dw_min / 2.0
        assert abs(error) <= q * (half + (increment + half) ** 2 / (2.0 * TAU)) * (1.0 + 1e-6) + 1e-12


class TestCycleNoise:
    @pytest.mark.parametrize("ctoc", ["multiplicative", "additive"])
    @pytest.mark.parametrize("merge", [True, False])
    def test_its_spread_goes_as_the_root_of_the_step(self, ctoc, merge):
        # 40,000 weights see 3.5 % in a variance: a merged train with the noise of one pulse or of n^2, noise that does
        # not follow the response, sigma for sigma^2. q_down(0.5) = 1.25.
        increment, sigma, spreads = 2.0**-13, 0.3, []
        steps = [increment / n for n in (4, 64, 1024)]
        for seed, step in enumerate(steps):
            device = replace(SOFT, dw_min=step, dw_min_ctoc=sigma, ctoc=ctoc)
            update = PulsedUpdate(bit_length=1024, merge=merge)
            moved = changes(device, update, increment, torch.ones(1, 200), 0.5, columns=200, seed=seed)
            scale = 1.25 if ctoc == "multiplicative" else 1.0
            assert_variance(moved, step * increment * (sigma * scale) ** 2, kurtosis=3.0)
            assert_mean(moved, -1.25 * increment)
            spreads.append(float(moved.std()))
        # Standard error sqrt(1 / n) / log 16 = .0018, so that .009 are 5 of them.
        assert slopes(steps, spreads) == pytest.approx([0.5, 0.5], abs=0.009)


class TestStochasticTrain:
    """Row 0 asks for `slots` whole pulses, which makes x certain; the others fire with probability p, independently."""

    ROWS = 100_000

    def moved(self, device: Device, lr: float, p: float, start: float, seed: int, merge: bool = True) -> Tensor:
        d = torch.full((1, self.ROWS + 1), p, dtype=torch.float64)
        d[0, 0] = 1.0
        return changes(device, PulsedUpdate(bit_length=128, merge=merge), lr, d, start, seed=seed)[1:]

    @pytest.mark.parametrize("merge", [True, False])
    @pytest.mark.parametrize("sigma", [0.0, 0.5])
    @pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
    def test_its_spread_goes_as_the_root_of_the_step(self, p, sigma, merge):
        # dw_min |dw| (1 - p + sigma^2), at w = 0. Sees 2 to 3 %: Poisson counts (no 1 - p), counts rounded at random
        # (of a variance that does not grow with the train), noise that is drawn once for a train.
        lr = 2.0**-9
        for seed, slots in enumerate((8, 32, 128)):
            device = replace(SOFT, dw_min=lr / slots, dw_min_ctoc=sigma)
            moved = self.moved(device, lr, p, 0.0, seed, merge)
            assert_variance(moved, device.dw_min * lr * p * (1.0 - p + sigma**2))

    @pytest.mark.parametrize("merge", [True, False])
    def test_its_mean_tends_to_the_expected_update(self, merge):
        # Exactly, each slot takes p dw_min / tau of the way to the bound: at a large increment an eighth of the rest
        # dw^2 / (2 tau) would be seen, at a small one a 0.5 % error in the mean.
        p, start, slots = 0.5, 0.5, 32
        for seed, lr in enumerate((2.0**-2, 2.0**-11)):
            device = replace(SOFT, dw_min=lr / slots, dw_min_ctoc=0.5)
            moved = self.moved(device, lr, p, start, seed, merge)
            assert_mean(moved, -(TAU + start) * (1.0 - (1.0 - p * device.dw_min / TAU) ** slots))
        assert_mean(moved, change(device, ExpectedUpdate(), -p * lr, start))
