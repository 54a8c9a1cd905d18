"""The imperfect read: each effect against its formula, and the default set against plain numpy."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from chance import assert_mean, assert_variance
from ohmgrad import random
from ohmgrad.periphery import DEFAULT, IO, PERFECT, PRESET, STANDARD, Reader, weight_noise
from ohmgrad.periphery.product import Lines, noise_of, product, running_average, worst_case_scale

# Nothing but the array: no converters, no noise, no scaling.
BARE = IO(
    inp_bound=math.inf, out_bound=math.inf, inp_res=0.0, out_res=0.0, out_noise=0.0, noise_management="none",
    bound_management="none",
)  # fmt: skip


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def read(w: torch.Tensor, x: torch.Tensor, io: IO, lines: Lines = Lines(), scale: torch.Tensor | None = None):
    scale = torch.ones_like(x[..., :1]) if scale is None else scale
    return product(w, x, io, lines, noise_of(torch.tensor(3), 0, 0), scale)


def reader(io: IO, dtype: torch.dtype = torch.float64) -> Reader:
    return Reader(io, direction=0, replicas=(), dtype=dtype)


W, X = numbers(4, 9, scale=0.3), numbers(5, 9, seed=1)
SEED = torch.tensor(7)


class TestArray:
    def test_bare_and_perfect_are_a_product(self):
        for io in (BARE, PERFECT):
            torch.testing.assert_close(read(W, X, io), X @ W.mT, rtol=0, atol=1e-14)
        torch.testing.assert_close(read(W, X, replace(BARE, out_scale=2.0)), 2.0 * X @ W.mT)

    def test_ir_drop(self):
        io = replace(BARE, ir_drop=2.0, ir_drop_g_ratio=50.0)
        expected = torch.empty(5, 4, dtype=torch.float64)
        for b in range(5):
            for i in range(4):
                a = 9 / 50.0 * sum(abs(W[i, j]) * abs(X[b, j]) for j in range(9))
                c = a * (0.5 - 0.2 * a + 0.05 * a**2)
                loss = sum(W[i, j] * X[b, j] * (1 - (1 - j / 9) ** 2) for j in range(9))
                expected[b, i] = W[i] @ X[b] - 2.0 * c * loss
        torch.testing.assert_close(read(W, X, io), expected)

    @pytest.mark.parametrize("w_min", [0.0, -0.7])
    @pytest.mark.parametrize("r", [0.0, 0.2])
    def test_voltage_offset(self, w_min, r):
        io, o = replace(BARE, v_offset_std=0.1, v_offset_w_min=w_min, r_series=r), numbers(1, 4, seed=2).abs()
        v = X @ W.mT
        ref = -w_min * X.sum(-1, keepdim=True)
        if w_min == 0.0:
            expected = (1 - o) * v / (1 + r * v.abs())
        elif r == 0.0:
            expected = v * (1 - o) - 2 * o * ref
        else:
            total = v + ref
            expected = (1 - o) * total / (1 + r * total.abs()) - (1 + o) * ref / (1 + r * ref.abs())
        torch.testing.assert_close(read(W, X, io, Lines(offset=o)), expected)

    def test_nonlinearity_and_its_calibration(self):
        io = replace(BARE, out_bound=5.0, out_nonlinearity=0.5, slope_calibration=0.3, r_series=0.0)
        n = numbers(1, 4, seed=2).abs()
        v = X @ W.mT
        expected = (1 + n.mean() * 0.3 * 5.0) ** 2 * v / (1 + (n * v).abs())
        torch.testing.assert_close(read(W, X, io, Lines(slope=n)), expected.clamp(-5, 5))

    def test_asymmetries(self):
        u = torch.where(X < 0, X * 0.9, X)
        v = u @ W.mT
        expected = torch.where(v < 0, v * 0.7, v)
        torch.testing.assert_close(read(W, X, replace(BARE, inp_asymmetry=0.1, out_asymmetry=0.3)), expected)

    @pytest.mark.parametrize("mv_type", ["pos-neg-separate", "pos-neg-separate-digital-sum"])
    def test_separate_polarities(self, mv_type):
        xi = numbers(4, 9, seed=4, scale=0.1)
        expected = X.clamp(min=0) @ W.mT - (-X).clamp(min=0) @ (W * (1 + xi)).mT
        io = replace(BARE, mv_type=mv_type, w_read_asymmetry_dtod=0.1)
        torch.testing.assert_close(read(W, X, io, Lines(asymmetry=xi)), expected)

    @pytest.mark.parametrize("mv_type", ["pos-neg-separate", "pos-neg-separate-digital-sum"])
    def test_negative_inputs_are_negative_voltages(self, mv_type):
        # Where either polarity has an ADC's output of its own, the loss of negative outputs sees their true sign.
        above, below = X.clamp(min=0) @ W.mT, X.clamp(max=0) @ W.mT
        less = lambda v: torch.where(v < 0, 0.7 * v, v)  # noqa: E731
        expected = less(above + below) if mv_type == "pos-neg-separate" else less(above) + less(below)
        torch.testing.assert_close(read(W, X, replace(BARE, mv_type=mv_type, out_asymmetry=0.3)), expected)

    def test_a_digital_sum_converts_each_polarity(self):
        io = replace(BARE, out_bound=2.0, out_res=0.05, mv_type="pos-neg-separate")
        step = 0.2
        above, below = X.clamp(min=0) @ W.mT, (-X).clamp(min=0) @ W.mT
        torch.testing.assert_close(read(W, X, io), (torch.round((above - below) / step) * step).clamp(-2, 2))
        io = replace(io, mv_type="pos-neg-separate-digital-sum")
        parts = [(torch.round(v / step) * step).clamp(-2, 2) for v in (above, below)]
        torch.testing.assert_close(read(W, X, io), parts[0] - parts[1])


class TestWithoutABound:
    """Where the ADC has no bound, what is in units of it is in units of 1. aihwkit gives the same with out_bound=0."""

    W = torch.tensor([[0.5, -0.4, 0.3, 0.6]], dtype=torch.float64)
    X = torch.tensor([[1.0, -0.5, 0.25, 0.8]], dtype=torch.float64)

    @pytest.mark.parametrize(("more", "expected"), [
        ({"out_nonlinearity": 0.5}, 1.255 / (1 + 0.5 * 1.255)),
        ({"out_nonlinearity": 0.5, "slope_calibration": 0.5}, 1.25**2 * 1.255 / (1 + 0.5 * 1.255)),
        ({"r_series": 0.1, "slope_calibration": 0.5}, 1.05**2 * (2.805 / 1.2805 - 1.55 / 1.155)),
    ])  # fmt: skip
    def test_saturation_and_calibration(self, more, expected):
        assert float(reader(replace(BARE, **more))(self.W, self.X, SEED)) == pytest.approx(expected, rel=1e-12)

    def test_calibration_of_series_resistance_alone(self):
        io = replace(BARE, out_bound=2.0, r_series=0.1, slope_calibration=0.5)
        expected = 1.21 * (2.805 / 1.2805 - 1.55 / 1.155)
        assert float(reader(io)(self.W, self.X, SEED)) == pytest.approx(expected, rel=1e-12)
        assert expected == pytest.approx(1.0268, abs=5e-5)  # aihwkit's

    def test_the_worst_case_of_sums(self):
        # Sums 2.05 and 0.5, times 0.6.
        assert float(worst_case_scale(self.X, BARE)) == pytest.approx(1.23)

    @pytest.mark.parametrize(("limit", "expected"), [(0.0, 1.255), (0.5, 0.9515), (0.9, 1.205), (3.0, 1.255)])
    def test_a_threshold_limits_the_worst_case(self, limit, expected):
        # aihwkit's numbers. At 0.5 the sums ask for 2.05 * 0.6 / 2 = 0.615, and inputs are clipped there.
        io = replace(BARE, inp_bound=1.0, out_bound=2.0, noise_management="abs-max-np-sum", nm_thres=limit)
        assert float(reader(io)(self.W, self.X, SEED)) == pytest.approx(expected, abs=1e-12)


class TestConverters:
    def test_dac_rounds_half_to_even_then_clips(self):
        io = replace(BARE, inp_bound=1.0, inp_res=0.125)
        x = torch.tensor([[0.12, 0.125, 0.375, -0.4, 5.0]], dtype=torch.float64)
        got = read(torch.eye(5, dtype=torch.float64), x, io)
        torch.testing.assert_close(got, torch.tensor([[0.0, 0.0, 0.5, -0.5, 1.0]], dtype=torch.float64))

    def test_adc(self):
        io = replace(BARE, out_bound=1.0, out_res=5.0)  # so many steps: each 2 / 5
        x = torch.tensor([[0.19, 0.21, -0.9, 3.0]], dtype=torch.float64)
        got = read(torch.eye(4, dtype=torch.float64), x, io)
        torch.testing.assert_close(got, torch.tensor([[0.0, 0.4, -0.8, 1.0]], dtype=torch.float64))

    @pytest.mark.parametrize("side", ["inp", "out"])
    def test_stochastic_rounding_is_right_in_the_mean(self, side):
        # A quarter of a step above a grid point; a mean off by 1 % of a step is found.
        io = replace(BARE, **{f"{side}_bound": 1.0, f"{side}_res": 0.1, f"{side}_sto_round": True})
        x = torch.full((40_000, 1), 0.25, dtype=torch.float64)
        got = read(torch.ones(1, 1, dtype=torch.float64), x, io)
        assert set(np.round(got.unique().tolist(), 6)) == {0.2, 0.4}
        assert_mean(got, 0.25)


class TestNoise:
    """90,000 numbers each: deviations off by 2 % or means off by 0.03 deviations are found."""

    @staticmethod
    def assert_normal(z: torch.Tensor) -> None:
        assert_mean(z, 0.0, std=1.0)
        assert_variance(z, 1.0, kurtosis=3.0)

    def test_input_noise(self):
        io = replace(BARE, inp_noise=0.2)
        x = torch.zeros(9000, 10, dtype=torch.float64)
        self.assert_normal(read(torch.eye(10, dtype=torch.float64), x, io) / 0.2)

    def test_output_noise_differs_from_line_to_line(self):
        io, deviation = replace(BARE, out_noise=0.1), torch.linspace(0.1, 1.0, 10, dtype=torch.float64)[None]
        x = torch.zeros(9000, 10, dtype=torch.float64)
        got = read(torch.eye(10, dtype=torch.float64), x, io, Lines(out_noise=deviation))
        self.assert_normal(got / deviation)

    @pytest.mark.parametrize("kind", ["additive-constant", "pcm-read"])
    def test_weight_noise(self, kind):
        io = replace(BARE, w_noise=0.1, w_noise_type=kind)
        w, x = numbers(10, 6), numbers(1, 6, seed=3).expand(9000, 6)
        got = read(w, x, io) - x @ w.mT
        power = (x[0].square() * (w.abs() if kind == "pcm-read" else torch.ones_like(w))).sum(-1)
        self.assert_normal(got / (0.1 * power.sqrt()))

    def test_noise_is_a_function_of_seed_direction_and_vector(self):
        io = replace(DEFAULT, w_noise=0.1, inp_noise=0.1)
        whole, parts = reader(io), reader(io)
        y = whole(W, X, SEED)
        torch.testing.assert_close(torch.cat([parts(W, X[:2], SEED), parts(W, X[2:], SEED)]), y, rtol=0, atol=1e-12)
        assert not torch.equal(whole(W, X, SEED), y)
        assert not torch.equal(reader(io)(W, X, SEED + 1), y)
        assert not torch.equal(Reader(io, direction=1, replicas=(), dtype=torch.float64)(W, X, SEED), y)


class TestManagement:
    def test_noise_management(self):
        x = numbers(3, 9, seed=5)
        largest = x.abs().amax(-1, keepdim=True)
        cases = {
            "none": torch.ones_like(largest),
            "abs-max": largest,
            "max": x.amax(-1, keepdim=True),
            "constant": torch.full_like(largest, 2.5),
        }
        for kind, scale in cases.items():
            thres = 2.5 if kind == "constant" else 0.0
            io = replace(DEFAULT, noise_management=kind, nm_thres=thres, out_noise=0.0, bound_management="none")
            expected = read(W, x, replace(io, noise_management="none", nm_thres=0.0), scale=scale)
            torch.testing.assert_close(reader(io)(W, x, SEED), expected)

    def test_a_threshold_limits_the_scale(self):
        io = replace(DEFAULT, nm_thres=0.5, out_noise=0.0, bound_management="none", out_bound=math.inf, inp_res=0.0)
        torch.testing.assert_close(reader(io)(W, X, SEED), X.clamp(-0.5, 0.5) @ W.mT)

    def test_worst_case_scale(self):
        io = replace(DEFAULT, out_bound=1.0)
        x = torch.tensor([[1.0, 1.0, 1.0, -0.5], [0.1, 0.0, 0.0, 0.0]], dtype=torch.float64)
        # Sums 3 and 0.1, times 0.6 over the bound: 1.8 and 0.06; and no less than the largest size.
        torch.testing.assert_close(worst_case_scale(x, io), torch.tensor([[1.8], [0.1]], dtype=torch.float64))
        coarse = replace(io, inp_res=0.2)  # steps of 0.4: at most 0.25 / 0.4 of the largest size are asked for
        torch.testing.assert_close(worst_case_scale(x, coarse)[0], torch.tensor([1.0], dtype=torch.float64))

    def test_running_average(self):
        sizes = torch.tensor([[2.0], [4.0], [8.0]])
        got = running_average(sizes, torch.tensor(math.nan), 0.5)[:, 0]
        assert got.tolist() == [2.0, 3.0, 5.5]
        path = reader(replace(DEFAULT, noise_management="average-abs-max", nm_decay=0.5))
        path(W, X, SEED)
        assert path.average == running_average(X.abs().amax(-1, keepdim=True), torch.tensor(math.nan).double(), 0.5)[-1]
        assert set(path.state_dict()) == {"vectors", "evaluated", "average"}

    def test_bound_management_reads_again_with_smaller_inputs(self):
        io = replace(DEFAULT, out_bound=2.0, out_noise=0.0, out_res=0.0, inp_res=0.0)
        x = torch.full((1, 9), 1.0, dtype=torch.float64)
        w = torch.full((2, 9), 0.7, dtype=torch.float64)  # 6.3: fits at a quarter
        torch.testing.assert_close(reader(io)(w, x, SEED), x @ w.mT)
        once = reader(replace(io, bound_management="none"))(w, x, SEED)
        assert once.tolist() == [[2.0, 2.0]]

    def test_bound_management_has_its_limits(self):
        x, w = torch.ones(1, 9, dtype=torch.float64), torch.full((1, 9), 1000.0, dtype=torch.float64)
        io = replace(DEFAULT, out_bound=1.0, out_noise=0.0, out_res=0.0, inp_res=0.0, max_bm_factor=8.0)
        assert reader(io)(w, x, SEED) == 16.0  # 1, 2, 4, 8 and once more
        io = replace(io, max_bm_factor=1000.0, inp_res=1 / 16)  # steps of 1/8: up to 0.25 x 8 = 2, and once more
        assert reader(io)(w, x, SEED) == 4.0

    def test_worst_case_and_shift(self):
        io = replace(DEFAULT, out_noise=0.0, out_res=0.0, inp_res=0.0, out_bound=2.0)
        x, w = torch.ones(1, 9, dtype=torch.float64), torch.full((2, 9), 0.5, dtype=torch.float64)
        # Sum 9, weights up to 0.6: scale 2.7, outputs 4.5 / 2.7 within the bound.
        got = reader(replace(io, bound_management="iterative-worst-case"))(w, x, SEED)
        torch.testing.assert_close(got, torch.full((1, 2), 4.5, dtype=torch.float64))
        # Weights larger than assumed, with outputs of 18.225 / 2.7: halved until they fit.
        got = reader(replace(io, bound_management="iterative-worst-case"))(w * 4.05, x, SEED)
        torch.testing.assert_close(got, torch.full((1, 2), 18.225, dtype=torch.float64))
        w[1] = 0.4
        got = reader(replace(io, bound_management="shift"))(w, x, SEED)
        torch.testing.assert_close(got, torch.tensor([[2.0, 1.1]], dtype=torch.float64))

    def test_negative_outputs_may_be_left_at_their_bound(self):
        io = replace(DEFAULT, out_bound=2.0, out_noise=0.0, out_res=0.0, inp_res=0.0, bm_test_negative_bound=False)
        x, w = torch.ones(1, 9, dtype=torch.float64), torch.full((2, 9), -0.5, dtype=torch.float64)
        assert reader(io)(w, x, SEED).tolist() == [[-2.0, -2.0]]

    @pytest.mark.parametrize("kind", ["none", "abs-max", "max"])
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_what_is_no_number_stays_none(self, kind, bad):
        x = X.clone()
        x[2, 3] = bad
        got = reader(replace(DEFAULT, noise_management=kind))(W, x, SEED)
        assert got[2].isnan().all() and torch.isfinite(got[[0, 1, 3, 4]]).all()

    @pytest.mark.parametrize("noise", ["inp_noise", "w_noise", "out_noise"])
    def test_the_noise_of_a_vector_shrinks_with_it(self, noise):
        # aihwkit reads a vector of zeros at scale 1 where it has input noise: out of line with vectors of 1e-30.
        io = replace(DEFAULT, **({"out_noise": 0.0} | {noise: 0.5}))
        got = reader(io)(W, torch.stack([X[0], 1e-30 * X[0], 0.0 * X[0]]), SEED).abs().amax(-1)
        assert got[0] > 0.01 and 0.0 < got[1] < 1e-28 and got[2] == 0.0
        fixed = reader(replace(io, noise_management="none"))(W, 0.0 * X, SEED)  # its scale is not the vector's own
        assert bool(fixed.any()) == (noise != "w_noise")

    def test_nothing_in_nothing_out(self):
        x = X.clone()
        x[1] = 0.0
        assert (reader(DEFAULT)(W, x, SEED)[1] == 0).all()
        assert reader(DEFAULT)(W, X[:0], SEED).shape == (0, 4)


def restated(w, x, *, inp_bits, out_bits, out_bound, out_noise, key):
    """The default read once more, in plain numpy and vector by vector."""
    y = np.zeros((len(x), len(w)))
    inp_step, out_step = 2.0 / (2**inp_bits - 2), 2.0 * out_bound / (2**out_bits - 2)
    for b, vector in enumerate(x):
        largest = np.abs(vector).max()
        r, repeats = 1, 0
        while True:
            u = np.clip(np.rint(vector / (largest * r) / inp_step) * inp_step, -1, 1)
            v = w @ u + out_noise * key(b, repeats)
            v = np.rint(v / out_step) * out_step
            y[b] = np.clip(v, -out_bound, out_bound) * largest * r
            if np.abs(v).max() <= out_bound or r > 1000 or r > 0.25 / inp_step:
                break
            r, repeats = 2 * r, repeats + 1
    return y


@pytest.mark.parametrize(("io", "settings"), [
    (DEFAULT, {"inp_bits": 7, "out_bits": 9, "out_bound": 12.0, "out_noise": 0.06}),
    (PRESET, {"inp_bits": 7, "out_bits": 9, "out_bound": 20.0, "out_noise": 0.1}),
    (STANDARD, {"inp_bits": 8, "out_bits": 8, "out_bound": 10.0, "out_noise": 0.04}),
])  # fmt: skip
def test_the_default_sets_restated(io, settings):
    w, x = numbers(6, 400, scale=0.6), numbers(20, 400, seed=8)
    x[3] *= 1e-6
    w[2] = 0.5
    x[5] = 1.0  # 200: bound management, to its limit

    def key(vector: int, repeats: int) -> np.ndarray:
        k = random.root(int(SEED), random.Stream.READ, 0, 2 << 16 | repeats)
        k = random.fold(random.fold(k, vector), 0)
        return random.quick_normal(*k, torch.arange(6)).double().numpy()

    got = reader(io)(w, x, SEED).numpy()
    np.testing.assert_allclose(got, restated(w.numpy(), x.numpy(), key=key, **settings), rtol=1e-9)


class TestSettings:
    @pytest.mark.parametrize(("field", "value", "error"), [
        ("inp_bound", 0.0, ValueError), ("out_noise", -1.0, ValueError), ("out_noise", math.nan, ValueError),
        ("noise_management", "absmax", ValueError), ("mv_type", 3, ValueError), ("w_noise", "a", TypeError),
        ("is_perfect", 1, TypeError), ("inp_bound", 2.0, ValueError), ("ir_drop", True, TypeError),
    ])  # fmt: skip
    def test_the_door(self, field, value, error):
        with pytest.raises(error, match=field):
            IO(**{field: value})

    def test_steps(self):
        assert DEFAULT.inp_step == pytest.approx(2 / 126) and DEFAULT.out_step == pytest.approx(24 / 510)
        assert replace(DEFAULT, out_bound=math.inf).out_step == 0.0

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_last_step_is_within_the_bound(self, dtype):
        # An eighth of all bounds had a last step above themselves in float32, and were read again for it.
        bounds = np.linspace(0.3, 20.0, 500).round(3).tolist()
        for io in (replace(DEFAULT, out_bound=b, out_noise=0.0) for b in bounds):
            last = torch.tensor([255.0], dtype=dtype) * io.out_step
            assert not (last > io.out_bound).any()
            assert io.out_step == pytest.approx(io.out_bound / 255, rel=1e-6)
        assert DEFAULT.out_step == 24 / 510

    def test_weight_noise_alone(self):
        assert torch.allclose(reader(weight_noise(0.0))(W, X, SEED), X @ W.mT)


def test_a_running_means_rate_is_a_share():
    with pytest.raises(ValueError, match="IO needs nm_decay between 0 and 1, got 5"):
        replace(DEFAULT, nm_decay=5.0)
