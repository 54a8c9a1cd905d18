"""The pulsed update: trains by hand, the statistics of reference pulses, and its laws. False-alarm rate 1e-6 each."""

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats

from chance import assert_correlation, assert_counts, assert_mean, assert_same_law, assert_variance
from ohmgrad import Crossbar, PulsedUpdate
from ohmgrad.devices import ConstantStep, SoftBounds
from ohmgrad.pulses.train import counts, line_bits, trains
from ohmgrad.random import Stream

FINE = ConstantStep(w_min=-50.0, w_max=50.0, dw_min=1e-3)


def one_train(x: float, d: float, lr: float, **settings) -> tuple[int, float, float]:
    t = trains(torch.tensor([[x]]), torch.tensor([[d]]), lr, 1e-3, PulsedUpdate(**settings), seed=0, cycle=0)
    return int(t.bit_length[0]), float(t.p_x), float(t.p_d)


def pulsed(device, out=300, in_=300, *, x=0.7, d=0.9, lr=0.01, start=0.0, batch=1, seed=3, **settings) -> torch.Tensor:
    """Change of every weight after `batch` equal samples."""
    weight = torch.full((out, in_), start)
    bar = Crossbar((out, in_), device=device, update=PulsedUpdate(**settings), seed=seed, weight=weight)
    bar.pulse(torch.full((batch, in_), x), torch.full((batch, out), d), lr)
    return bar.weight - weight


class TestTrain:
    @pytest.mark.parametrize(
        ("x", "d", "lr", "length", "p"),
        [
            (0.7, 0.9, 0.01, 7, math.sqrt(6.3 / 7)),  # k = 6.3: seven slots, both sides alike
            (0.5, 0.5, 1e-3, 1, math.sqrt(0.25)),  # k < 1: one slot
            (0.0, 0.5, 0.1, 0, 0.0),
            (0.5, 0.0, 0.1, 0, 0.0),
            (0.5, 0.5, 0.0, 0, 0.0),
        ],
    )
    def test_managed_lengths_and_probabilities(self, x, d, lr, length, p):
        assert one_train(x, d, lr) == pytest.approx((length, p, p), rel=1e-6)

    def test_a_train_that_is_too_short_saturates_in_d(self):
        # k = 90 pulses wanted, 31 slots: p_x is 1 and p_d is cut from 90/31 to 1.
        assert one_train(1.0, 0.9, 0.1) == (31, 1.0, 1.0)
        change = pulsed(FINE, 20, 20, x=1.0, d=0.9, lr=0.1)
        torch.testing.assert_close(change, torch.full((20, 20), -0.031))

    def test_without_management_the_train_keeps_its_length(self):
        amplitude = math.sqrt(0.01 / (1e-3 * 31))
        expected = (31, 0.7 * amplitude, 0.9 * amplitude)
        given = one_train(0.7, 0.9, 0.01, update_management=False, bit_length_management=False)
        assert given == pytest.approx(expected, rel=1e-6)

    def test_resolution_gives_whole_steps(self):
        _, p_x, _ = one_train(0.7, 0.9, 0.01, resolution=0.1)
        assert p_x == pytest.approx(0.9)  # of 0.949
        x = torch.full((1, 40_000), 0.7)
        rounded = PulsedUpdate(resolution=0.1, stochastic_rounding=True)
        t = trains(x, torch.full((1, 1), 0.9), 0.01, 1e-3, rounded, seed=1, cycle=0)
        assert_mean(t.p_x, math.sqrt(0.9), std=0.05)  # sees a bias of 0.0013 in a probability

    def test_a_line_that_is_certain_always_fires_and_a_dead_one_never(self):
        bits = line_bits(torch.tensor([1.0, 0.0]), 1000, 0, Stream.X_BITS, 0)
        assert bits[:, 0].all() and not bits[:, 1].any()

    def test_deterministic_and_mean_count_trains(self):
        x, d = torch.tensor([[0.7, 0.04]]), torch.full((2000, 1), 0.9).mT
        fixed = PulsedUpdate(train="deterministic")
        t = trains(x, d, 0.01, 1e-3, fixed, 0, 0)
        assert counts(0, t, fixed, 0, 0)[0].tolist() == [6, 0]  # of 6.3 and 0.36: the small product is lost
        mean = PulsedUpdate(train="mean-count")
        n = counts(0, t, mean, 0, 0)
        assert set(n.unique().tolist()) == {0, 1, 6, 7}
        assert_mean(n[:, 1], 0.36, std=0.48)  # sees a bias of 0.05 pulses


class TestStatistics:
    def test_mean_and_variance(self):
        # 7 slots of p = 0.9 each; a doubled noise or a granularity left out would be dozens of standard errors away.
        # Bits are shared along lines, so that crosspoints are taken along the diagonal, where they are independent.
        change = torch.cat([pulsed(FINE, 400, 400, seed=s).diagonal() for s in range(25)])
        assert_mean(change, -6.3e-3)
        assert_variance(change, 1e-6 * 7 * 0.9 * 0.1)

    @pytest.mark.parametrize("ctoc", ["multiplicative", "additive"])
    @pytest.mark.parametrize("merge", [True, False])
    def test_cycle_noise(self, ctoc, merge):
        # Certain lines: one pulse at each crosspoint, all noise is the pulse's own. q_down(0.3) = 1.5.
        device = SoftBounds(w_min=-0.6, w_max=0.6, dw_min=1e-3, dw_min_ctoc=0.3, ctoc=ctoc)
        change = pulsed(device, x=1.0, d=1.0, lr=1e-3, start=0.3, merge=merge)
        assert_mean(change, -1.5e-3)
        assert_variance(change, (0.3e-3 * (1.5 if ctoc == "multiplicative" else 1.0)) ** 2, kurtosis=3.0)

    def test_covariance_along_rows_and_columns(self, seed):
        # Two crosspoints of a row share d's bits: Cov(n, n') = BL p_x^2 p_d (1 - p_d), here with p_x = p_d = p, so that
        # their correlation is p / (1 + p); likewise of a column. Independent binomials at each crosspoint would give 0,
        # 30 errors away; one bit for both lines of a side 1; the same bits for x and d 1 across the diagonal.
        bar, p, n = Crossbar((2, 2), device=FINE, update=PulsedUpdate(), seed=seed, count_pulses=True), 0.9**0.5, []
        for _ in range(3000):
            before = bar.pulse_counts.clone()
            bar.pulse(torch.full((1, 2), 0.7), torch.full((1, 2), 0.9), 0.01)
            n.append(bar.pulse_counts - before)
        n = torch.stack(n)
        for line in (n, n.mT):
            assert_correlation(line[:, 0, 0], line[:, 0, 1], rho=p / (1 + p))
            assert_correlation(line[:, 1, 0], line[:, 1, 1], rho=p / (1 + p))
        assert_correlation(n[:, 0, 0], n[:, 1, 1])
        assert_correlation(n[:, 0, 1], n[:, 1, 0])
        assert_correlation(n[1:, 0, 0], n[:-1, 0, 0])  # fresh bits at each cycle

    def test_what_a_short_train_clips_is_d(self, seed):
        # k = 93 pulses wanted of 31 slots: p_x = x / max|x|, p_d = min(1, 3 |d|). Binomials of 62,000 slots see 1 %
        # in a probability: x clipped instead (1 and 0.5 / 0.6), both by the root of it (0.87), or p_d = |d|.
        x, d = torch.tensor([[1.0, -0.5]]), torch.tensor([[1.0, 0.2, 0.5]])
        n = self.counts(x, d, 0.093, seed)
        assert_counts(n, 31 * 2000, torch.tensor([[1.0, 0.5], [0.6, 0.3], [1.0, 0.5]]))

    def test_the_train_is_as_long_as_the_largest_product_needs(self, seed):
        # Samples of 6.3, 1.8 and 0.45 pulses: 7, 2 and 1 slots. Sees a length
        # that is rounded down or shared by the batch: the largest count would be another, or the odds of reaching it.
        for d, slots in ((0.9, 7), (0.9 / 3.5, 2), (0.9 / 14, 1)):
            n = self.replicas(torch.tensor([[0.7]]), torch.tensor([[d]]), 0.01, seed)
            p = 0.01 * 0.7 * d / 1e-3 / slots
            assert n.max() == slots
            assert_counts((n == slots).sum(), n.numel(), p**slots)
            assert_counts(n.sum(), n.numel() * slots, p)
        together = torch.tensor([[0.9], [0.9 / 3.5], [0.9 / 14]])
        assert self.replicas(torch.full((3, 1), 0.7), together, 0.01, seed).max() == 7 + 2 + 1

    def test_without_management_trains_have_all_their_slots(self, seed):
        # 31 slots of p = 6.3 / 31: n = 12 and more in 0.7 % of trains, never with 7 slots; the same mean.
        given = torch.tensor([[0.7]]), torch.tensor([[0.9]]), 0.01, seed
        for settings in (
            {"bit_length_management": False},
            {"bit_length_management": False, "update_management": False},
        ):
            n = self.replicas(*given, **settings)
            assert_counts(n.sum(), 31 * n.numel(), 6.3 / 31)
            assert_counts((n >= 12).sum(), n.numel(), float(stats.binom.sf(11, 31, 6.3 / 31)))

    def test_mean_counts_are_rounded_at_random_at_each_crosspoint(self, seed):
        # 6.3 pulses: 7 in 30 % of all crosspoints. Sees 1 %; rounding to nearest is 0 %, one draw for a line a
        # correlation of 1 along it.
        bar = Crossbar((300, 300), device=FINE, update=PulsedUpdate(train="mean-count"), seed=seed, count_pulses=True)
        bar.pulse(torch.full((1, 300), 0.7), torch.full((1, 300), 0.9), 0.01)
        n = bar.pulse_counts
        assert n.min() == 6 and n.max() == 7
        assert_counts((n == 7).sum(), n.numel(), 0.3)
        assert_correlation(n[1:], n[:-1])
        assert_correlation(n[:, 1:], n[:, :-1])

    @staticmethod
    def counts(x: torch.Tensor, d: torch.Tensor, lr: float, seed: int, batch: int = 2000) -> torch.Tensor:
        """Pulses at each crosspoint from a batch of equal samples."""
        bar = Crossbar((d.shape[1], x.shape[1]), device=FINE, update=PulsedUpdate(), seed=seed, count_pulses=True)
        bar.pulse(x.expand(batch, -1), d.expand(batch, -1), lr)
        return bar.pulse_counts

    @staticmethod
    def replicas(x: torch.Tensor, d: torch.Tensor, lr: float, seed: int, **settings) -> torch.Tensor:
        """Pulses at each crosspoint of 2,000 crossbars."""
        options = {"seed": 10_000 * seed, "replicas": (2000,), "count_pulses": True}
        bar = Crossbar((d.shape[1], x.shape[1]), device=FINE, update=PulsedUpdate(**settings), **options)
        bar.pulse(x, d, lr)
        return bar.pulse_counts

    @pytest.mark.parametrize("dw_min", [1e-3, 1e-2, 6e-2])
    @pytest.mark.parametrize("ctoc", ["multiplicative", "additive"])
    def test_merged_pulses_have_the_law_of_single_ones(self, dw_min, ctoc):
        # The same bits, other noise: a merged variance that is off by 5 % would be seen. Half of tau away from 0.
        device = SoftBounds(w_min=-0.6, w_max=0.6, dw_min=dw_min, dw_min_ctoc=0.3, ctoc=ctoc)
        sizes = {"x": 1.0, "d": 1.0, "lr": 8 * dw_min, "start": 0.3, "bit_length": 8}
        merged, single = (pulsed(device, merge=merge, seed=5 + merge, **sizes) for merge in (True, False))
        assert_same_law(merged.flatten(), single.flatten())


class TestLimits:
    def test_small_steps_tend_to_the_expected_update(self):
        # dw_min / |increment| fixed at 1e-2: the rest falls like the square of the increment (reference 1.2).
        rest = []
        for lr in (0.02, 0.04, 0.08):
            device = SoftBounds(dw_min=lr / 100)
            sizes = {"x": 1.0, "d": 1.0, "lr": lr, "start": 0.5, "bit_length": 1000, "train": "deterministic"}
            change = pulsed(device, 1, 1, **sizes)
            rest.append(abs(float(change) + lr * 1.5))
        slopes = [math.log2(b / a) for a, b in pairwise(rest)]
        assert slopes == pytest.approx([2.0, 2.0], abs=0.1)

    @pytest.mark.parametrize("bit_length", [0, 31])
    def test_nothing_is_sent_for_nothing(self, bit_length):
        x = torch.zeros(2, 5) if bit_length else torch.ones(2, 5)
        bar = Crossbar((4, 5), device=SoftBounds(), update=PulsedUpdate(bit_length=bit_length))
        bar.pulse(x, torch.ones(2, 4), 0.1)
        bar.pulse(torch.zeros(0, 5), torch.zeros(0, 4), 0.1)
        assert not bar.weight.any() and bar.counters.pulses == 0 and bar.counters.cycles == 2


def test_write_noise_shows_on_devices_that_moved():
    device = ConstantStep(w_min=-5.0, w_max=5.0, dw_min=1e-3, write_noise=20.0)
    bar = Crossbar((200, 200), device=device, update=PulsedUpdate(), seed=2)
    before = bar.weight.clone()
    x = torch.zeros(1, 200)
    x[0, :100] = 1.0
    bar.pulse(x, torch.ones(1, 200), 1e-3)
    assert torch.equal(bar.weight[:, 100:], before[:, 100:])
    torch.testing.assert_close(bar.persistent[:, :100], torch.full((200, 100), -1e-3))
    assert_mean(bar.weight[:, :100], -1e-3, std=0.02)
    assert_variance(bar.weight[:, :100], 0.02**2, kurtosis=3.0)
    # Drawn anew by the next pulse, and kept where none arrives, also from a train that is sent for nothing.
    first = bar.weight[:, :100].clone()
    bar.pulse(torch.zeros(1, 200), torch.ones(1, 200), 1e-3)
    assert torch.equal(bar.weight[:, :100], first)
    bar.pulse(x, torch.ones(1, 200), 1e-3)
    assert_correlation(bar.weight[:, :100], first)
    assert torch.equal(bar.weight[:, 100:], before[:, 100:])


def test_settings_name_the_field_and_the_value():
    for field, value in {"bit_length": -1, "train": "morse", "resolution": 2.0}.items():
        with pytest.raises(ValueError, match=f"{field}|{value}"):
            PulsedUpdate(**{field: value})
