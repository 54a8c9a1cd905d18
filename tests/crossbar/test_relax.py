"""Decay, diffusion and reset (reference 2.4), held against the linear recursion that they are.

With a = 1 - 1/lifetime, n mini-batches take w to r + (w - r) a^n, give or take a variance of
a^2 diffusion^2 (1 - a^2n) / (1 - a^2); without decay of n diffusion^2. The comments `Planted:` name bugs that were put
in once, and that the test caught.
"""

import copy
import dataclasses
import re

import pytest
import torch
from scipy import stats
from torch import nn

from chance import assert_correlation, assert_counts, assert_mean, assert_same_law, assert_variance
from exact import assert_bits, assert_within_ulps
from ohmgrad import AnalogOptimizer, Crossbar, ExpectedUpdate, PulsedUpdate, TikiTaka, convert
from ohmgrad.devices import ConstantStep, Device, Ideal, LinearStep, SoftBounds
from ohmgrad.devices.presets import aihwkit_soft_bounds

# n = 160,000 sees a mean that is off by 1.3 % of a standard deviation, and a variance that is off by 2 %.
SIDE = 400
RELAXING = {"lifetime": 20.0, "lifetime_dtod": 0.3, "diffusion": 0.01, "diffusion_dtod": 0.3, "reset_dtod": 0.1}
BOTH = pytest.mark.parametrize("update", [ExpectedUpdate(noise=True), PulsedUpdate()], ids=["expected", "pulsed"])


def crossbar(device: Device, n_out: int = SIDE, n_in: int = SIDE, *, start: float = 0.0, **options) -> Crossbar:
    weight = torch.full((n_out, n_in), start, dtype=torch.float64)
    return Crossbar((n_out, n_in), device=device, weight=weight, dtype=torch.float64, **{"seed": 0, **options})


def relax(bar: Crossbar, n: int) -> Crossbar:
    for _ in range(n):
        bar.relax()
    return bar


class TestDecay:
    def test_by_hand(self):
        # Half-way to 0.2 in each of two mini-batches: 1.0, 0.6, 0.4.
        bar = relax(crossbar(Ideal(lifetime=2.0, reset=0.2), 1, 2, start=1.0), 2)
        assert_within_ulps(bar.weight, torch.full((1, 2), 0.4, dtype=torch.float64), ulps=1)

    @pytest.mark.parametrize("reset_dtod", [0.0, 0.1])
    def test_after_n_mini_batches(self, seed, reset_dtod):
        # Planted: lifetime read as a rate; decay towards 0 instead of r.
        device = ConstantStep(lifetime=50.0, lifetime_dtod=0.2, reset=-0.1, reset_dtod=reset_dtod)
        bar = crossbar(device, 20, 30, start=0.7, seed=seed)
        r, a = torch.as_tensor(bar.params["reset"], dtype=torch.float64), 1.0 - 1.0 / bar.params["lifetime"]
        assert_within_ulps(relax(bar, 40).weight, r + (0.7 - r) * a**40, ulps=80)

    def test_lifetimes_of_devices(self, seed):
        bar = crossbar(Ideal(lifetime=50.0, lifetime_dtod=0.2, reset=0.5, reset_dtod=0.1), seed=seed)
        assert_same_law(bar.params["lifetime"], stats.norm(50.0, 10.0))
        assert_same_law(bar.params["reset"], stats.norm(0.5, 0.1))
        assert_correlation(bar.params["lifetime"], bar.params["reset"])

    def test_a_short_life_forgets_at_once(self, seed):
        # 2 (1 + xi) is at most 1 with probability Phi(-1/2). Planted: the factor 1 - 1/t of a negative lifetime.
        bar = relax(crossbar(Ideal(lifetime=2.0, lifetime_dtod=1.0), start=0.7, seed=seed), 1)
        assert_counts(int((bar.weight == 0.0).sum()), SIDE**2, stats.norm.cdf(-0.5))
        assert (bar.weight >= 0.0).all() and (bar.weight <= 0.7).all()

    def test_float32_follows_a_life_of_a_million(self):
        # A weight of 0.7 resolves 6e-8; a step of decay is 7e-7, rounded to 6 or 7 of those: at most 10 % off.
        bar = Crossbar((1, 1), device=Ideal(lifetime=1e6), weight=torch.full((1, 1), 0.7))
        assert float(relax(bar, 1000).weight) == pytest.approx(0.7 * (1 - 1e-6) ** 1000, abs=7e-5)

    def test_the_hard_bounds_hold(self):
        bar = relax(crossbar(ConstantStep(lifetime=2.0, reset=5.0), 2, 2), 10)
        assert (bar.weight == 1.0).all()


class TestDiffusion:
    def test_variance_grows_with_time(self, seed):
        # Planted: the same numbers at every mini-batch (variance 16 times as large).
        bar = relax(crossbar(Ideal(diffusion=0.01), start=0.3, seed=seed), 4)
        assert_same_law(bar.weight, stats.norm(0.3, 0.02))
        first = bar.weight - 0.3
        second = relax(copy.deepcopy(bar), 1).weight - bar.weight
        assert_correlation(first, second)
        for moved in (first, second):
            assert_correlation(moved[1:], moved[:-1])
            assert_correlation(moved[:, 1:], moved[:, :-1])

    def test_diffusion_of_devices(self, seed):
        # |rho (1 + xi)|: folded where negative.
        bar = crossbar(Ideal(diffusion=0.01, diffusion_dtod=1.0), seed=seed)
        rho = bar.params["diffusion"]
        assert_same_law(rho / 0.01, stats.foldnorm(1.0))
        assert_same_law(relax(bar, 1).weight / rho, stats.norm(0.0, 1.0))

    def test_diffusion_comes_before_decay(self, seed):
        # a = 3/4, five mini-batches: the other order would make the variance 1 / a^2 = 1.8 times this.
        bar = relax(crossbar(Ideal(lifetime=4.0, diffusion=0.1, reset=-0.5), start=1.0, seed=seed), 5)
        variance = 0.01 * 0.75**2 * (1.0 - 0.75**10) / (1.0 - 0.75**2)
        assert_mean(bar.weight, -0.5 + 1.5 * 0.75**5, std=variance**0.5)
        assert_variance(bar.weight, variance, kurtosis=3.0)

    def test_the_hard_bounds_hold(self, seed):
        bar = relax(crossbar(SoftBounds(diffusion=0.5, w_max_dtod=0.2, w_min_dtod=0.2), 20, 30, seed=seed), 5)
        assert (bar.weight <= bar.params["w_max"]).all() and (bar.weight >= bar.params["w_min"]).all()
        assert (bar.weight == bar.params["w_max"]).any() and (bar.weight == bar.params["w_min"]).any()


class TestReset:
    def test_spread_between_devices_and_between_resets(self, seed):
        # Planted: reset_dtod relative to reset (0.002); the same numbers at the second reset.
        bar = crossbar(Ideal(reset=0.2, reset_dtod=0.01, reset_std=0.03), start=0.7, seed=seed)
        bar.reset()
        first = bar.weight.clone()
        assert_mean(first, 0.2, std=(0.01**2 + 0.03**2) ** 0.5)
        assert_variance(first, 0.01**2 + 0.03**2, kurtosis=3.0)
        bar.reset()
        assert_correlation(first, bar.weight, 0.01**2 / (0.01**2 + 0.03**2))
        assert_same_law(bar.weight - bar.params["reset"], stats.norm(0.0, 0.03))

    @pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
    def test_columns(self, dtype):
        # A device's numbers are its own, whatever else is reset: column by column or all at once.
        one, all_ = (crossbar(SoftBounds(reset=0.1, reset_dtod=0.1), 4, 6, start=0.7) for _ in range(2))
        one.reset(torch.tensor([4, 1], dtype=dtype))
        all_.reset()
        assert_bits(one.weight[:, [1, 4]], all_.weight[:, [1, 4]])
        assert (one.weight[:, [0, 2, 3, 5]] == 0.7).all()
        assert int(one.counters.pulses) == one.counters.cycles == 0

    def test_no_columns(self):
        bar = crossbar(SoftBounds(), 4, 6, start=0.7)
        bar.reset(torch.zeros(0, dtype=torch.int64))
        assert (bar.weight == 0.7).all()

    def test_the_default_spread(self, seed):
        bar = crossbar(SoftBounds(), seed=seed)
        bar.reset()
        assert_same_law(bar.weight, stats.norm(0.0, 0.01))

    def test_the_hard_bounds_hold(self):
        bar = crossbar(ConstantStep(reset_std=10.0), 20, 30)
        bar.reset()
        assert bar.weight.abs().max() == 1.0

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            (torch.tensor([0, 6]), "columns needs numbers from 0 to 5, got 0 to 6"),
            (torch.tensor([-1]), "columns needs numbers from 0 to 5, got -1 to -1"),
            (torch.tensor([1.0]), "columns needs whole numbers, (n,) of int64 or int32, got (1,) of torch.float32"),
            (
                torch.ones(6, dtype=torch.bool),
                "columns needs whole numbers, (n,) of int64 or int32, got (6,) of torch.b",
            ),
            (torch.tensor(3), "columns needs whole numbers, (n,) of int64 or int32, got () of torch.int64"),
        ],
    )
    def test_wrong_columns(self, columns, message):
        bar = crossbar(SoftBounds(), 4, 6, start=0.7)
        before = copy.deepcopy(bar.state_dict())
        with pytest.raises(ValueError, match=re.escape(message)):
            bar.reset(columns)
        assert all(torch.equal(v, before[k]) for k, v in bar.state_dict().items())


class TestWriteNoise:
    """The hidden state relaxes; the visible weight is drawn anew where it did."""

    @BOTH
    def test_the_hidden_state_relaxes_as_without_noise(self, update):
        noisy, plain = (crossbar(SoftBounds(write_noise=w, **RELAXING), 5, 7, start=0.7, update=update) for w in (9, 0))
        for bar in (noisy, plain):
            relax(bar, 3)
            bar.reset(torch.tensor([2]))
        assert_bits(noisy.persistent, plain.weight)
        assert (noisy.weight != plain.weight).all()

    def test_the_visible_weight_is_drawn_anew_each_time(self, seed):
        # set_weight, two relaxations and a pulse. Planted: the noise of the latest write, again.
        bar = crossbar(Ideal(write_noise=20.0, lifetime=1e3), start=0.7, seed=seed)
        noise = [bar.weight - bar.persistent]
        for _ in range(2):
            bar.relax()
            noise.append(bar.weight - bar.persistent)
        x = torch.ones(1, SIDE, dtype=torch.float64)
        bar.pulse(x, x, 0.01)
        noise.append(bar.weight - bar.persistent)
        for k, one in enumerate(noise):
            assert_same_law(one, stats.norm(0.0, 0.02))
            for other in noise[:k]:
                assert_correlation(one, other)

    def test_what_is_left_alone_shows_the_same(self):
        bar = crossbar(SoftBounds(write_noise=20.0, reset=0.1), 5, 7, start=0.7)
        before = bar.weight.clone()
        bar.reset(torch.tensor([3]))
        assert ((bar.weight != before).nonzero()[:, 1] == 3).all() and (bar.weight[:, 3] != before[:, 3]).all()


class TestState:
    """Relaxations are functions of seed and number: resumed, copied and side by side they are the same."""

    DEVICE = dataclasses.replace(aihwkit_soft_bounds(), **RELAXING, write_noise=2.0)

    @classmethod
    def live(cls, bar: Crossbar, steps: range) -> None:
        for k in steps:
            generator = torch.Generator().manual_seed(k)
            x, d = (torch.randn(3, n, generator=generator, dtype=torch.float64) for n in (5, 4))
            bar.pulse(x, d, lr=0.05)
            bar.relax()
            bar.reset(torch.tensor([k % 5]))

    @BOTH
    def test_a_resumed_run_goes_on_bit_by_bit(self, update, tmp_path):
        whole, first, second = (crossbar(self.DEVICE, 4, 5, update=update, seed=s) for s in (3, 3, 99))
        self.live(whole, range(6))
        self.live(first, range(3))
        torch.save(first.state_dict(), tmp_path / "bar.pt")
        second.load_state_dict(torch.load(tmp_path / "bar.pt"))
        self.live(second, range(3, 6))
        for name, value in whole.state_dict().items():
            assert torch.equal(value, second.state_dict()[name]), name

    @BOTH
    def test_replicas_are_the_runs_alone(self, update):
        together = crossbar(self.DEVICE, 4, 5, update=update, seed=[7, 2**40], replicas=(2,))
        relax(together, 2).reset(torch.tensor([1]))
        for r, seed in enumerate((7, 2**40)):
            alone = crossbar(self.DEVICE, 4, 5, update=update, seed=seed)
            relax(alone, 2).reset(torch.tensor([1]))
            assert_bits(together.weight[r], alone.weight)

    def test_one_device_for_each_replica(self, tmp_path):
        # The first neither decays nor diffuses.
        devices = [SoftBounds(reset=0.1), SoftBounds(lifetime=2.0, diffusion=0.1)]
        together = relax(crossbar(devices, 4, 5, start=0.7, seed=[7, 9], replicas=(2,)), 2)
        assert (together.weight[0] == 0.7).all()
        assert_bits(together.weight[1], relax(crossbar(devices[1], 4, 5, start=0.7, seed=9), 2).weight)
        crossbar(devices, 4, 5, replicas=(2,)).load_state_dict(together.state_dict())
        with pytest.raises(ValueError, match=r"need equal granularity, .*reset_std; they may differ in all else"):
            crossbar([SoftBounds(), SoftBounds(reset_std=0.1)], 4, 5, replicas=(2,))

    def test_devices_keep_their_numbers(self):
        # What relaxation needs is drawn last, and only where it is on. Planted: drawn before the family's own.
        spread = {"w_max_dtod": 0.1, "dw_min_dtod": 0.1, "gamma_up_dtod": 0.1, "gamma_down_dtod": 0.1}
        before, after = (crossbar(LinearStep(**spread, **more), 4, 5).params for more in ({}, RELAXING))
        assert set(after) - set(before) == {"lifetime", "diffusion", "reset"}
        for name, value in before.items():
            assert torch.equal(torch.as_tensor(after[name]), torch.as_tensor(value)), name

    def test_without_decay_and_diffusion_nothing_happens(self):
        bar = crossbar(SoftBounds(reset=0.1, write_noise=2.0), 4, 5, start=0.7)
        before = copy.deepcopy(bar.state_dict())
        bar.relax()
        assert all(torch.equal(v, before[k]) for k, v in bar.state_dict().items())


class TestOptimizer:
    """A step of the optimizer is one mini-batch of time."""

    @staticmethod
    def model(**options) -> nn.Module:
        torch.manual_seed(0)
        return convert(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double(), **options)

    @BOTH
    def test_every_crossbar_relaxes_once_after_its_updates(self, update):
        # lifetime 1: all is forgotten after the update, in the fast crossbar as in the slow one.
        model = self.model(device=Ideal(lifetime=1.0), algorithm=TikiTaka(), update=update)
        optimizer = AnalogOptimizer(model, lr=0.1)
        x = torch.ones(5, 3, dtype=torch.float64)
        for rows in (slice(2), slice(2, None)):  # accumulated: still one mini-batch
            model(x[rows]).square().sum().backward()
        bars = [bar for layer in model for bar in layer.tile.crossbars]
        before = [int(bar.relaxations) for bar in bars]
        optimizer.step()
        assert [int(bar.relaxations) for bar in bars] == [n + 1 for n in before] and len(bars) == 4
        assert all((bar.weight == 0.0).all() for bar in bars)
        assert bars[1].counters.pulses > 0

    def test_time_passes_where_nothing_waits(self):
        model = self.model(device=Ideal(lifetime=2.0))
        model(
            torch.zeros(1, model[0].in_features, dtype=model[0].weight.dtype)
        )  # an optimizer warns of what no one reads
        before = [layer.weight.clone() for layer in model]
        optimizer = AnalogOptimizer(model, lr=0.1)
        optimizer.step()
        for layer, weight in zip(model, before, strict=True):
            assert_within_ulps(layer.weight, weight / 2.0, ulps=1)
