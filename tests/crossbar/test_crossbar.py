"""The crossbar: small ones by hand, then bounds, forms, counters, replicas, resuming, and what is refused."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exact import assert_bits, assert_within_ulps
from ohmgrad import Crossbar, Dense, ExpectedUpdate, LowRank, Outer
from ohmgrad.devices import ConstantStep, Ideal, LinearStep, SoftBounds
from ohmgrad.devices.presets import aihwkit_soft_bounds, asymmetric_linear

SPREAD = aihwkit_soft_bounds(tau=0.6, dw_min=0.01)
NOISY = ExpectedUpdate(noise=True)


def f64(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def crossbar(*shape: int, device=SPREAD, **options) -> Crossbar:
    return Crossbar(shape, device=device, **{"dtype": torch.float64, "seed": 0, **options})


class TestByHand:
    """U(w, dw) = w + dw F - |dw| G, on paper."""

    def test_one_device_saturates_and_resets(self):
        # tau = 0.5 at w = 0.2: F = 1, G = 0.4. Up by 0.1: 0.2 + 0.1 - 0.04 = 0.26. Down by 0.1: 0.2 - 0.1 - 0.04.
        for lr, expected in ((-0.1, 0.26), (0.1, 0.06)):
            bar = crossbar(1, 1, device=asymmetric_linear(0.5), weight=f64([0.2]))
            bar.pulse(f64([1.0]), f64([1.0]), lr)
            assert_within_ulps(bar.weight, f64([expected]), ulps=4)

    def test_two_by_three(self):
        # tau = 1, x = (1, 2, -1), d = (0.5, -1), lr = 0.1: dw = -0.1 d x' = [[-.05, -.1, .05], [.1, .2, -.1]];
        # w + dw - |dw| w, entry by entry.
        bar = crossbar(2, 3, device=asymmetric_linear(1.0), weight=f64([0.2, -0.4, 0.6], [0.0, 0.5, -0.8]))
        bar.pulse(f64([1.0, 2.0, -1.0]), f64([0.5, -1.0]), lr=0.1)
        assert_within_ulps(bar.weight, f64([0.14, -0.46, 0.62], [0.1, 0.6, -0.82]), ulps=2)

    def test_imbalance_acts_on_one_side(self):
        # up_down = 0.2: down steps are 0.8 of up steps; F = 0.9, G = -0.1 at w = 0 between bounds +-1.
        bar = crossbar(1, 2, device=SoftBounds(up_down=0.2))
        bar.pulse(f64([1.0, -1.0]), f64([1.0]), lr=0.1)
        assert_within_ulps(bar.weight, f64([-0.08, 0.1]), ulps=2)

    def test_reads(self):
        bar = crossbar(2, 3, device=Ideal(), weight=f64([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]))
        assert bar.read(f64([1.0, 0.0, -1.0])).tolist() == [[-2.0, -2.0]]
        assert bar.read_transposed(f64([1.0, -1.0])).tolist() == [[-3.0, -3.0, -3.0]]
        assert bar.read_columns(torch.tensor([2, 0])).tolist() == [[3.0, 6.0], [1.0, 4.0]]

    def test_columns_are_added(self):
        bar = crossbar(2, 3, device=asymmetric_linear(1.0), weight=torch.full((2, 3), 0.5, dtype=torch.float64))
        bar.write_columns(torch.tensor([2, 0]), f64([1.0, -1.0], [2.0, 0.0]), lr=0.1)
        assert_within_ulps(bar.weight, f64([0.6, 0.5, 0.55], [0.5, 0.5, 0.35]), ulps=2)

    def test_the_sum_of_a_batch_and_its_samples_differ_in_the_asymmetric_term(self):
        # Samples +0.1 and -0.1 at w = 0.5, tau = 1. Their sum is 0: nothing moves. One by one, x d = +1 first:
        # down to 0.5 - 0.1 - 0.05 = 0.35, up to 0.35 + 0.1 - 0.035 = 0.415 = 0.5 (1 - 0.1)^2 + 0.01.
        weights = []
        for per_sample in (False, True):
            update = ExpectedUpdate(per_sample=per_sample)
            bar = crossbar(1, 1, device=asymmetric_linear(1.0), weight=f64([0.5]), update=update)
            bar.pulse(f64([1.0], [1.0]), f64([1.0], [-1.0]), lr=0.1)
            weights.append(bar.weight.item())
        assert weights == pytest.approx([0.5, 0.415], rel=1e-15)

    def test_ideal_devices_add_up(self):
        x, d = gaussian(5, 3), gaussian(5, 2, seed=1)
        for per_sample in (False, True):
            bar = crossbar(2, 3, device=Ideal(), update=ExpectedUpdate(per_sample=per_sample))
            bar.pulse(x, d, lr=0.3)
            assert_within_ulps(bar.weight, -0.3 * d.T @ x, ulps=8)


class TestBounds:
    """Weights never leave the bounds, and on soft bounds not even without clipping."""

    @given(
        tau=st.floats(0.1, 10.0),
        start=st.floats(-1.0, 1.0),
        increments=st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=20),
    )
    def test_the_bounded_weight_theorem(self, tau, start, increments):
        # Wu et al. 2024, Thm. 1: |w| <= tau and |dw| <= tau keep |w| <= tau. The hard bounds would hide a violation,
        # so devices are given wider ones than their response knows.
        bar = crossbar(1, 1, device=asymmetric_linear(tau), weight=f64([start * tau]))
        wide = LinearStep(w_max=4 * tau, w_min=-4 * tau, gamma_up=4.0, gamma_down=4.0)
        free = crossbar(1, 1, device=wide, weight=f64([start * tau]))
        for increment in increments:
            for each in (bar, free):
                each.write(Dense(f64([increment * tau])), lr=-1.0)
            assert abs(free.weight.item()) <= tau * (1 + 1e-15)
            assert free.weight.item() == pytest.approx(bar.weight.item(), abs=1e-13 * tau)

    @pytest.mark.parametrize("device", [ConstantStep(w_max=0.3, w_min=-0.2), LinearStep(gamma_up=0.5), SPREAD])
    @pytest.mark.parametrize("noise", [False, True])
    def test_hard_bounds(self, device, noise):
        bar = crossbar(4, 5, device=device, update=ExpectedUpdate(noise=noise), weight=10 * gaussian(4, 5))
        low, high = bar.params["w_min"], bar.params["w_max"]
        for k in range(10):
            assert ((low <= bar.weight) & (bar.weight <= high)).all()
            bar.write(Dense(gaussian(4, 5, seed=k)), lr=2.0)

    def test_a_device_stops_at_its_own_bound(self):
        bar = crossbar(3, 3, device=ConstantStep(w_max_dtod=0.2))
        bar.write(Dense(-torch.ones(3, 3, dtype=torch.float64)), lr=100.0)
        assert_bits(bar.weight, bar.params["w_max"])


class TestForms:
    """The same matrix in three forms: the same weights, at different prices."""

    U, V = gaussian(4, 2), gaussian(5, 2, seed=1)

    @classmethod
    def forms(cls) -> dict:
        return {"outer": Outer(cls.U.T, cls.V.T), "low rank": LowRank(cls.U, cls.V), "dense": Dense(cls.U @ cls.V.T)}

    @pytest.mark.parametrize("noise", [False, True])
    def test_the_same_weights(self, noise):
        weights = {}
        for name, form in self.forms().items():
            bar = crossbar(4, 5, update=ExpectedUpdate(noise=noise), seed=3)
            bar.write(form, lr=0.1)
            weights[name] = bar.weight
        for weight in weights.values():
            assert_within_ulps(weight, weights["dense"], ulps=8)

    @pytest.mark.parametrize("per_sample", [False, True])
    @pytest.mark.parametrize(
        ("form", "cycles", "memory"), [("outer", 2, 0), ("low rank", 2, 2 * (4 + 5)), ("dense", 4, 4 * 5)]
    )
    def test_the_price(self, per_sample, form, cycles, memory):
        bar = crossbar(4, 5, device=asymmetric_linear(dw_min=0.01), update=ExpectedUpdate(per_sample=per_sample))
        bar.write(self.forms()[form], lr=0.1)
        bar.write(self.forms()[form], lr=0.1)
        assert (bar.counters.cycles, bar.counters.digital_memory, bar.counters.reads) == (2 * cycles, memory, 0)
        # |dw| / dw_min each; sample by sample the sum of moduli, else the modulus of the sum.
        samples = torch.einsum("ir,jr->rij", self.U, self.V)
        moduli = samples.abs().sum(0) if per_sample and form != "dense" else samples.sum(0).abs()
        assert bar.counters.pulses.item() == pytest.approx(2 * 0.1 * moduli.sum().item() / 0.01, rel=1e-14)

    def test_dense_is_written_row_by_row(self):
        dense = Dense(gaussian(4, 5))
        bars = [crossbar(4, 5, update=ExpectedUpdate(per_sample=True)) for _ in range(2)]
        bars[0].write(dense, lr=0.1)
        for row in range(4):
            bars[1].pulse(dense.dW[row], torch.eye(4, dtype=torch.float64)[row], lr=0.1)
        assert_bits(bars[0].weight, bars[1].weight)

    def test_reads_are_counted_by_the_vector(self):
        bar = crossbar(4, 5)
        bar.read(gaussian(7, 5))
        bar.read(gaussian(5))
        bar.read_transposed(gaussian(3, 4))
        bar.read_columns(torch.tensor([0, 3]))
        assert bar.counters.reads == 7 + 1 + 3 + 2


class TestReplicas:
    """Replicas side by side are the runs alone."""

    SEEDS = (11, 5, 2**40)

    @pytest.mark.parametrize("per_sample", [False, True])
    @pytest.mark.parametrize("shared", [False, True], ids=["own samples", "shared samples"])
    def test_equal_runs_alone(self, per_sample, shared):
        update = ExpectedUpdate(noise=True, per_sample=per_sample)
        together = crossbar(4, 5, seed=self.SEEDS, replicas=(3,), update=update, weight=0.1 * gaussian(4, 5))
        alone = [crossbar(4, 5, seed=s, update=update, weight=0.1 * gaussian(4, 5)) for s in self.SEEDS]
        for k in range(5):
            # A batch of one: a product of batches may be summed in another order when it is stacked.
            x, d = gaussian(3, 1, 5, seed=k), gaussian(3, 1, 4, seed=k + 50)
            x, d = (x[0], d[0]) if shared else (x, d)
            together.pulse(x, d, lr=0.05)
            for r, bar in enumerate(alone):
                bar.pulse(x if shared else x[r], d if shared else d[r], lr=0.05)
        for r, bar in enumerate(alone):
            assert_bits(together.weight[r], bar.weight)
            assert_bits(together.counters.pulses[r], bar.counters.pulses)
            assert together.counters.cycles == bar.counters.cycles

    def test_one_device_for_each_replica(self):
        devices = [asymmetric_linear(0.5, 0.01), SoftBounds(w_max=1.0, dw_min=0.01, w_max_dtod=0.1)]
        together = crossbar(2, 3, device=devices, seed=[3, 8], replicas=(2,), weight=0.3 * gaussian(2, 3))
        together.write(Dense(gaussian(2, 3, seed=1)), lr=0.1)
        for r, (device, seed) in enumerate(zip(devices, (3, 8), strict=True)):
            bar = crossbar(2, 3, device=device, seed=seed, weight=0.3 * gaussian(2, 3))
            bar.write(Dense(gaussian(2, 3, seed=1)), lr=0.1)
            assert_within_ulps(together.weight[r], bar.weight, ulps=2)

    @pytest.mark.parametrize(
        ("devices", "message"),
        [
            ([Ideal()] * 3, "one for each|one of the same family for each of the 2 replicas"),
            ([Ideal(), SoftBounds()], "same family"),
            ([SoftBounds(), SoftBounds(dw_min=0.1)], "equal granularity"),
        ],
    )
    def test_devices_that_do_not_go_together(self, devices, message):
        with pytest.raises(ValueError, match=message):
            crossbar(2, 3, device=devices, replicas=(2,))


class TestState:
    """state_dict, deepcopy and dtype."""

    @staticmethod
    def train(bar: Crossbar, steps: range) -> None:
        for k in steps:
            bar.pulse(gaussian(3, 5, seed=k).to(bar.weight.dtype), gaussian(3, 4, seed=k).to(bar.weight.dtype), lr=0.05)

    @pytest.mark.parametrize("per_sample", [False, True])
    def test_a_resumed_run_goes_on_bit_by_bit(self, per_sample, tmp_path):
        update = ExpectedUpdate(noise=True, per_sample=per_sample)
        whole, first = (crossbar(4, 5, seed=3, update=update) for _ in range(2))
        self.train(whole, range(6))
        self.train(first, range(3))
        torch.save(first.state_dict(), tmp_path / "bar.pt")
        # Its own seed gives it other devices and other noise, all of which the state brings along.
        second = crossbar(4, 5, seed=99, update=update)
        second.load_state_dict(torch.load(tmp_path / "bar.pt"))
        self.train(second, range(3, 6))
        assert_bits(second.weight, whole.weight)
        assert_bits(second.counters.pulses, whole.counters.pulses)
        assert second.counters.cycles == whole.counters.cycles

    def test_a_resumed_run_remembers_its_digital_memory(self):
        first, second = crossbar(4, 5), crossbar(4, 5)
        first.write(Dense(gaussian(4, 5)), lr=0.1)
        second.load_state_dict(first.state_dict())
        assert second.counters.digital_memory == 20

    def test_deepcopy_goes_its_own_way(self):
        bar = crossbar(4, 5, update=NOISY)
        self.train(bar, range(2))
        twin = copy.deepcopy(bar)
        before = bar.weight.clone()
        self.train(twin, range(2, 4))
        assert_bits(bar.weight, before)
        self.train(bar, range(2, 4))
        assert_bits(bar.weight, twin.weight)

    def test_double_keeps_devices_and_seeds(self):
        bar = crossbar(4, 5, dtype=torch.float32, update=NOISY, seed=2**40 + 1)
        params = bar.params
        bar.double()
        assert bar.weight.dtype == torch.float64 and bar.seed.item() == 2**40 + 1
        for name, plane in params.items():
            assert torch.equal(bar.params[name], plane.double())
        self.train(bar, range(1))
        assert bar.weight.dtype == torch.float64

    def test_both_dtypes_are_the_same_crossbar(self):
        low, high = (crossbar(4, 5, dtype=dtype, update=NOISY) for dtype in (torch.float32, torch.float64))
        for bar in (low, high):
            self.train(bar, range(5))
        torch.testing.assert_close(low.weight.double(), high.weight, rtol=0.0, atol=1e-6)

    def test_different_seeds_are_different_devices(self):
        assert not (crossbar(4, 5, seed=0).params["w_max"] == crossbar(4, 5, seed=1).params["w_max"]).any()


class TestRefusals:
    """Errors name the tensor, and leave the crossbar as it was."""

    X, D = gaussian(2, 3), gaussian(2, 4, seed=1)

    @staticmethod
    def spoilt(tensor: torch.Tensor, value: float) -> torch.Tensor:
        tensor = tensor.clone()
        tensor[0, 1] = value
        return tensor

    def refuse(self, error, message, write) -> None:
        bar = crossbar(4, 3, update=NOISY, weight=0.1 * gaussian(4, 3))
        before = {k: v.clone() for k, v in bar.state_dict().items()}
        with pytest.raises(error, match=message):
            write(bar)
        assert all(torch.equal(v, before[k]) for k, v in bar.state_dict().items())

    def test_dtype(self):
        self.refuse(TypeError, "x needs .*float64, got torch.float32", lambda b: b.pulse(self.X.float(), self.D, 0.1))
        self.refuse(TypeError, "d needs .*float64, got torch.float32", lambda b: b.pulse(self.X, self.D.float(), 0.1))
        self.refuse(TypeError, "dW needs .*float64", lambda b: b.write(Dense(torch.zeros(4, 3)), 0.1))
        self.refuse(TypeError, "weight needs .*float64", lambda b: b.set_weight(torch.zeros(4, 3)))

    def test_shape(self):
        self.refuse(ValueError, r"x needs the shape \(2, 3\), got \(2, 4\)", lambda b: b.pulse(self.D, self.D, 0.1))
        self.refuse(ValueError, r"d needs the shape \(2, 4\), got \(1, 4\)", lambda b: b.pulse(self.X, self.D[:1], 0.1))
        self.refuse(ValueError, r"dW needs .*got \(3, 4\)", lambda b: b.write(Dense(gaussian(3, 4)), 0.1))
        self.refuse(ValueError, r"weight needs .*got \(3,\)", lambda b: b.set_weight(gaussian(3)))
        self.refuse(ValueError, r"x needs .*got \(7, 2, 3\)", lambda b: b.pulse(gaussian(7, 2, 3), self.D, 0.1))
        self.refuse(
            ValueError,
            r"values needs .*got \(1, 3\)",
            lambda b: b.write_columns(torch.tensor([0]), gaussian(1, 3), 0.1),
        )
        for use in (lambda b, n: b.write_columns(n, gaussian(2, 4), 0.1), lambda b, n: b.read_columns(n)):
            for n in (-1, 3):
                message = f"columns needs numbers from 0 to 2, got {min(n, 1)} to {max(n, 1)}"
                self.refuse(ValueError, message, lambda b, n=n, use=use: use(b, torch.tensor([1, n])))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_finiteness(self, value):
        places = "finite numbers, got NaN or infinity in 1 of"
        self.refuse(ValueError, f"x needs {places} 6", lambda b: b.pulse(self.spoilt(self.X, value), self.D, 0.1))
        self.refuse(ValueError, f"d needs {places} 8", lambda b: b.pulse(self.X, self.spoilt(self.D, value), 0.1))
        self.refuse(ValueError, f"dW needs {places}", lambda b: b.write(Dense(self.spoilt(gaussian(4, 3), value)), 0.1))
        self.refuse(ValueError, f"weight needs {places}", lambda b: b.set_weight(self.spoilt(gaussian(4, 3), value)))
        self.refuse(ValueError, "lr needs a finite number, got", lambda b: b.pulse(self.X, self.D, value))

    def test_construction(self):
        with pytest.raises(ValueError, match=r"shape \(out, in\) of positive sizes, got \(0, 3\)"):
            crossbar(0, 3)
        with pytest.raises(TypeError, match=r"float32 or float64, got torch.float16"):
            crossbar(2, 3, dtype=torch.float16)
        with pytest.raises(ValueError, match="bit_length >= 1, got 0"):
            ExpectedUpdate(bit_length=0)

    @pytest.mark.parametrize("per_sample", [False, True])
    def test_an_empty_batch_changes_nothing(self, per_sample):
        update = ExpectedUpdate(noise=True, per_sample=per_sample)
        bar = crossbar(4, 3, update=update, weight=0.1 * gaussian(4, 3))
        before = {k: v.clone() for k, v in bar.state_dict().items()}
        bar.pulse(self.X[:0], self.D[:0], lr=0.1)
        bar.write(LowRank(gaussian(4, 0), gaussian(3, 0)), lr=0.1)
        assert all(torch.equal(v, before[k]) for k, v in bar.state_dict().items())
