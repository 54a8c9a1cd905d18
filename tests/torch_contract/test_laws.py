"""Laws of updates, resets, relaxation and transfers, each against its closed form."""

import pytest
import torch

from chance import assert_correlation, assert_counts, assert_mean, assert_variance
from exact import assert_bits
from ohmgrad import Crossbar, ExpectedUpdate, Outer, Periphery, PulsedUpdate, Tile
from ohmgrad.algorithms import AGAD, ChoppedTikiTakaV2, TikiTaka, TikiTakaV2
from ohmgrad.algorithms.buffer import filling_rate
from ohmgrad.crossbar import make_crossbar
from ohmgrad.devices import ConstantStep, Ideal, OneSidedCell, SoftBounds, VectorCell
from ohmgrad.pulses.train import trains

SIDE = 100
THREE = VectorCell(devices=(ConstantStep(dw_min=0.02),) * 3, gains=(1.0, 1.0, 1.0))


def ones(n: int) -> torch.Tensor:
    return torch.ones(1, n)


def crosspoints(cell, update, seed, *, k: float, n: int = 1000):
    """Cells of n replicas of one crosspoint after an update that asks for k pulses of 0.02."""
    bar = make_crossbar((1, 1), device=cell, update=update, seed=seed, replicas=(n,))
    bar.pulse(ones(1), -ones(1), 0.02 * k)
    return bar


class TestSharedTrains:
    # n = 1,000 sees a variance that is off by 9 %, of normal laws by 22 %; trains of their own would make it a third.
    @pytest.mark.parametrize("settings", [{}, {"merge": False}, {"train": "mean-count"}])
    def test_three_steps_at_once(self, seed, settings):
        bar = crosspoints(THREE, PulsedUpdate(**settings), seed, k=0.63)
        assert_mean(bar.weight, 0.06 * 0.63, std=0.06 * (0.63 * 0.37) ** 0.5)
        assert_variance(bar.weight, 0.06**2 * 0.63 * 0.37)
        assert_bits(bar.bars[0].weight, bar.bars[1].weight)

    def test_the_reference_sends_the_same_pulses(self, seed):
        # Of 50 replicas; the noise of each member too.
        cell = VectorCell(devices=(ConstantStep(dw_min=0.02, dw_min_ctoc=0.3),) * 3, gains=(1.0, 1.0, 1.0))
        eager, kernel = (crosspoints(cell, PulsedUpdate(eager=e), seed, k=5.3, n=50) for e in (True, False))
        torch.testing.assert_close(eager.weight, kernel.weight)
        assert_bits(eager.counters.pulses, kernel.counters.pulses)

    def test_expected_update_with_matched_noise(self, seed):
        bar = crosspoints(THREE, ExpectedUpdate(noise=True), seed, k=0.63)
        assert_variance(bar.weight, 0.06**2 * 0.63 * 0.37, kurtosis=3.0)
        assert_bits(bar.bars[0].weight, bar.bars[1].weight)

    @pytest.mark.parametrize("update", [ExpectedUpdate(noise=True), PulsedUpdate()])
    def test_noise_of_pulses_is_each_members_own(self, seed, update):
        # One sure pulse of 0.02, 0.3 of itself from pulse to pulse at each member.
        cell = VectorCell(devices=(ConstantStep(dw_min=0.02, dw_min_ctoc=0.3),) * 3, gains=(1.0, 1.0, 1.0))
        bar = crosspoints(cell, update, seed, k=1.0)
        assert_variance(bar.weight, 3 * (0.3 * 0.02) ** 2, kurtosis=3.0)
        assert_correlation(bar.bars[0].weight, bar.bars[1].weight)

    @pytest.mark.parametrize("update", [ExpectedUpdate(noise=True), PulsedUpdate(), PulsedUpdate(eager=True)])
    def test_pulses_are_counted_in_the_mean_step(self, seed, update):
        # Steps of 0.01 and 0.03, 0.02 in the mean: one pulse moves each by its own, the second by `by_gain` down.
        devices = (ConstantStep(dw_min=0.01), ConstantStep(dw_min=0.03))
        bar = crosspoints(VectorCell(devices=devices, gains=(1.0, -1.0), by_gain=True), update, seed, k=1.0, n=1)
        assert [b.weight.item() for b in bar.bars] == pytest.approx([0.01, -0.03])
        n = 50 if getattr(update, "eager", False) else 1000
        few = crosspoints(VectorCell(devices=devices, gains=(1.0, -1.0), by_gain=True), update, seed, k=0.4, n=n)
        torch.testing.assert_close(few.bars[1].weight, -3.0 * few.bars[0].weight)
        # By hand: 0.01 + 0.03 at odds of 0.4, or, matched by a normal law, with that variance.
        assert_mean(few.weight, 0.04 * 0.4, std=0.04 * (0.4 * 0.6) ** 0.5)

    def test_one_member_at_a_time_counts_in_its_own_step(self):
        cell = VectorCell(devices=(ConstantStep(dw_min=0.01), ConstantStep(dw_min=0.03)), policy="sequential")
        bar = make_crossbar((1, 1), device=cell, update=PulsedUpdate())
        for _ in range(2):
            bar.pulse(ones(1), -ones(1), 0.06)
        assert [b.weight.item() for b in bar.bars] == pytest.approx([0.06, 0.06])
        assert bar.bars[0].line_seed is None

    def test_columns_and_compiled_graphs_share_too(self, seed):
        bar = make_crossbar((SIDE, SIDE), device=THREE, update=PulsedUpdate(), seed=seed)
        bar.write_columns(torch.arange(SIDE), torch.full((SIDE, SIDE), 0.02 * 0.63), 1.0)
        assert_bits(bar.bars[0].weight, bar.bars[2].weight)
        # Of 0.06 and 0: crosspoints of a column share its line, which fires for all of them or for none.
        assert set(bar.weight.mul(1 / 0.06).round(decimals=4).unique().tolist()) == {0.0, 1.0}
        twin = make_crossbar((SIDE, SIDE), device=THREE, update=PulsedUpdate(), seed=seed)
        x, d = torch.rand(4, SIDE), torch.rand(4, SIDE)
        again = make_crossbar((SIDE, SIDE), device=THREE, update=PulsedUpdate(), seed=seed)
        torch.compile(twin.pulse, backend="aot_eager")(x, d, 0.05)
        again.pulse(x, d, 0.05)
        assert_bits(twin.weight, again.weight)
        assert_bits(twin.bars[0].weight, twin.bars[1].weight)

    def test_a_replica_is_what_cells_of_its_own_are(self):
        cell = VectorCell(devices=(SoftBounds(dw_min=0.02, dw_min_ctoc=0.3, w_max_dtod=0.2),) * 2)
        x, d = torch.rand(3, 5), torch.rand(3, 4)
        many = make_crossbar((4, 5), device=cell, update=PulsedUpdate(), seed=[3, 8], replicas=(2,))
        many.pulse(x, d, 0.1)
        for r, seed in enumerate((3, 8)):
            alone = make_crossbar((4, 5), device=cell, update=PulsedUpdate(), seed=seed)
            alone.pulse(x, d, 0.1)
            assert_bits(many.weight[r], alone.weight)


class TestBitLength:
    # A user's n pulses in decimal numbers are n slots, however their floats round.
    N = torch.arange(1, 2001, dtype=torch.float64)

    @pytest.mark.parametrize("dw_min", [0.01, 0.002, 0.003, 1e-3, 0.0016, 0.07, 1e-5])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("x", [1.0, 0.1, 0.7, 0.3])
    def test_n_pulses_are_n_slots(self, dw_min, dtype, x):
        d = torch.tensor([float(f"{n * dw_min / x:.12g}") for n in self.N.tolist()], dtype=dtype)[:, None]
        t = trains(torch.full_like(d, x), d, 1.0, dw_min, PulsedUpdate(bit_length=65535), 0, 0)
        assert t.bit_length.tolist() == self.N.long().tolist()
        assert float(t.p_x.min()) > 1.0 - 1e-6

    @pytest.mark.parametrize("settings", [{"eager": True}, {}])
    def test_steps_are_decimal_too(self, settings):
        # 0.07 / 0.01 is 7.000000000000001: 7 sure pulses.
        for n in range(1, 31):
            bar = Crossbar((4, 4), device=Ideal(dw_min=0.01), update=PulsedUpdate(**settings), count_pulses=True)
            bar.pulse(ones(4), -ones(4), float(f"0.{n:02d}"))
            assert (bar.pulse_counts == n).all()

    @pytest.mark.parametrize("above", [1e-5, 1e-3])
    def test_more_than_n_pulses_are_more_slots(self, above):
        t = trains(ones(1).double(), ones(1).double(), 7.0 * (1.0 + above), 1.0, PulsedUpdate(), 0, 0)
        assert t.bit_length.tolist() == [8]

    @pytest.mark.parametrize("lr", [0.07, 0.29, 0.1, 0.0300001, 0.11, 0.28])
    def test_the_cpu_kernel_has_the_same_lengths(self, lr):
        settings = PulsedUpdate()
        x, d = torch.rand(50, 3), torch.rand(50, 2)
        x[:25, 0], d[:25, 1] = 1.0, 1.0
        eager, kernel = (
            Crossbar((2, 3), device=Ideal(dw_min=0.01), update=u, count_pulses=True, seed=0)
            for u in (PulsedUpdate(eager=True), settings)
        )
        for bar in (eager, kernel):
            bar.pulse(x, d, lr)
        assert_bits(eager.pulse_counts, kernel.pulse_counts)

    def test_expected_updates_match_the_noise_of_such_trains(self):
        # 7 pulses of 7 slots are sure, and have no noise; of 8 they would have.
        bar = Crossbar((1, 1), device=Ideal(dw_min=0.01), update=ExpectedUpdate(noise=True), dtype=torch.float64)
        bar.pulse(ones(1).double(), -ones(1).double(), 0.07)
        assert bar.weight.item() == pytest.approx(0.07, abs=1e-7)


class TestRelaxation:
    # n = 10,000 sees a deviation that is off by 3.5 %.
    def test_one_mini_batch(self, seed):
        bar = Crossbar((SIDE, SIDE), device=Ideal(lifetime=4.0, diffusion=0.05), seed=seed)
        bar.relax()
        assert_variance(bar.weight, (0.75 * 0.05) ** 2, kurtosis=3.0)

    def test_cells(self, seed):
        device = Ideal(lifetime=4.0, diffusion=0.05)
        bar = make_crossbar((SIDE, SIDE), device=VectorCell(devices=(device, device), gains=(1.0, 1.0)), seed=seed)
        pair = make_crossbar((SIDE, SIDE), device=OneSidedCell(device=device), seed=seed)
        for cells in (bar, pair):
            cells.relax()
            assert_variance(cells.weight, 2 * (0.75 * 0.05) ** 2, kurtosis=3.0)

    def test_hard_bounds_hold_before_decay(self):
        # Half of the devices stray far beyond the upper bound: they decay from the bound.
        bar = Crossbar((SIDE, SIDE), device=ConstantStep(lifetime=4.0, diffusion=100.0))
        bar.relax()
        assert_counts(int((bar.weight == 0.75).sum()), SIDE**2, 0.497)


class TestTransfers:
    def test_lines_are_drawn_for_each_seed(self):
        # Ten transfers of one of 1,000 columns: that two sequences are the same has odds of 1e-30.
        algorithm = TikiTaka(random_selection=True)
        tiles = [Tile(torch.zeros(1, 1000), algorithm=algorithm, crossbar={"device": Ideal()}, seed=s) for s in (0, 1)]
        lines = [[int(algorithm.next_lines(State(tile, k))) for k in range(10)] for tile in tiles]
        assert lines[0] != lines[1]

    @pytest.mark.parametrize("update", [ExpectedUpdate(), ExpectedUpdate(noise=True), PulsedUpdate()])
    @pytest.mark.parametrize("fields", [{"reset_prob": 0.5}, {"transfer_columns": False}])
    @pytest.mark.parametrize("periphery", [None, Periphery()])
    def test_a_replica_draws_what_a_model_of_its_own_draws(self, update, fields, periphery):
        algorithm = TikiTaka(random_selection=True, n_reads=2, gamma=0.3, **fields)
        device = SoftBounds(dw_min=0.01, dw_min_ctoc=0.3, w_max_dtod=0.2)
        options = {"algorithm": algorithm, "crossbar": {"device": device, "update": update, "periphery": periphery}}
        seeds, x = [4, 9, 2], torch.rand(8, 3, 5)
        many = Tile(torch.zeros(3, 4, 5), seed=seeds, **options)
        alone = [Tile(torch.zeros(4, 5), seed=seed, **options) for seed in seeds]
        for batch in x:
            d = batch[:, :4] - 0.5
            for tile in (many, *alone):
                shape = (3, *d.shape) if tile is many else d.shape
                algorithm.update(tile.state, Outer(d.expand(shape), batch.expand(*shape[:-1], 5)), 0.1)
        for r, tile in enumerate(alone):
            torch.testing.assert_close(many.weight[r], tile.weight, rtol=0.0, atol=1e-6)
            assert_bits(many.state.slow.cycles, tile.state.slow.cycles)

    @pytest.mark.parametrize("kind", [TikiTakaV2, ChoppedTikiTakaV2])
    def test_gamma_multiplies_what_enters_the_buffer(self, kind):
        fast = Crossbar((2, 4), device=Ideal(dw_min=0.01))
        plain, mixed = (filling_rate(kind(gamma=gamma, transfer_lr=2.0), fast, 0.5) for gamma in (0.0, 0.25))
        assert (plain, mixed) == (100.0, 25.0)
        assert filling_rate(AGAD(transfer_lr=2.0), fast, 0.5) == 100.0


class State:
    """What `TikiTaka.next_lines` asks of a state, at step k."""

    def __init__(self, tile: Tile, k: int) -> None:
        self.fast, self.step = tile.state.fast, torch.tensor(k + 1)
