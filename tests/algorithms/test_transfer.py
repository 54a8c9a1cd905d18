"""The parts that algorithms share: cuts of a mini-batch, resets, random lines, choppers, running scales, rounding."""

import pytest
import torch

from chance import assert_counts, assert_mean
from exact import assert_bits
from ohmgrad import Crossbar, LowRank, Outer, Tile
from ohmgrad.algorithms import ChoppedTikiTakaV2, MixedPrecision, TikiTaka, chopper, transfer
from ohmgrad.crossbar.algorithm import State
from ohmgrad.devices import Ideal, SoftBounds


def test_mini_batches_are_cut_where_transfers_are_due():
    # Every 4 samples, in batches of 3, 3 and 7: 3 | 1, 2 | 2, 4, 1.
    step, seen = torch.zeros((), dtype=torch.int64), []
    for n in (3, 3, 7):
        x, d = torch.randn(n, 2), torch.randn(n, 5)
        parts = list(transfer.cut(Outer(d, x), 4, step, in_batches=False))
        assert_bits(torch.cat([p.x for p, _ in parts]), x)
        assert_bits(torch.cat([p.d for p, _ in parts]), d)
        seen.append([(len(p.x), is_due) for p, is_due in parts])
    assert seen == [[(3, False)], [(1, True), (2, False)], [(2, True), (4, True), (1, False)]]
    assert int(step) == 13


def test_batches_and_ranks_count_too():
    step = torch.zeros((), dtype=torch.int64)
    update = LowRank(torch.ones(5, 3), torch.ones(2, 3))
    assert [list(transfer.cut(update, 2, step, in_batches=True)) for _ in range(3)] == [
        [(update, False)], [(update, True)], [(update, False)],
    ]  # fmt: skip
    step.zero_()
    assert [len(p.x) for p, _ in transfer.cut(update, 2, step, in_batches=False)] == [2, 1]


def test_what_was_read_is_reset():
    # Resets to 0.25, exactly; two columns of five are read, and the slow crossbar gets what was there before.
    device = SoftBounds(reset=0.25, reset_std=0.0)
    algorithm = TikiTaka(n_reads=2, reset_prob=1.0, transfer_lr=1.0, scale_transfer_lr=False)
    tile = Tile(torch.zeros(1, 5), algorithm=algorithm, crossbar={"device": device})
    algorithm.update(tile.state, Outer(torch.ones(1, 1), torch.ones(1, 5)), 0.125)
    assert tile.state.fast.weight.tolist() == [[0.25, 0.25, -0.125, -0.125, -0.125]]
    assert tile.state.slow.weight.tolist() == [[-0.125, -0.125, 0.0, 0.0, 0.0]]


def test_whole_columns_are_reset_as_often_as_they_should(seed):
    # 600 transfers of 2 columns of 5 devices, in two replicas: sees odds of 0.4 for 0.3, devices that are reset one
    # by one, and replicas or columns that are reset alike.
    device = SoftBounds(reset=0.25, reset_std=0.0)
    bar = Crossbar((5, 3), device=device, seed=seed, replicas=(2,))
    were = []
    for step in range(600):
        bar.set_weight(torch.zeros(5, 3))
        transfer.reset(bar, torch.tensor([2, 0]), torch.tensor(step), 0.3)
        assert not bar.weight[..., 1].any() and torch.equal(bar.weight, bar.weight[..., :1, :].expand(2, 5, 3))
        were.append(bar.weight[..., 0, [0, 2]] > 0)
    by_column = torch.stack(were)
    assert_counts(by_column.sum(0).numpy(), 600, 0.3)
    assert_counts(int((by_column[:, 0] & by_column[:, 1]).sum()), 1200, 0.09)
    assert_counts(int((by_column[..., 0] & by_column[..., 1]).sum()), 1200, 0.09)


def test_columns_of_each_replica_are_reset():
    bar = Crossbar((2, 3), device=SoftBounds(reset=0.25, reset_std=0.0), replicas=(2,))
    transfer.reset(bar, torch.tensor([[1], [2]]), torch.tensor(0), 1.0)
    assert bar.weight.tolist() == [[[0.0, 0.25, 0.0]] * 2, [[0.0, 0.0, 0.25]] * 2]


def test_starts_come_as_often_as_they_should(seed):
    # 4,000 transfers: sees a column that is drawn by a fifth too often, and replicas that start alike.
    first, n = seed * 10_000 % 2**31, 4000
    seeds = torch.tensor([seed, seed + 1])
    starts = torch.stack([transfer.random_places(seeds, torch.tensor(first + k), 1, 5)[:, 0] for k in range(n)])
    for one in starts.unbind(1):
        assert_counts(torch.bincount(one, minlength=5).numpy(), n, 0.2)
    assert_counts(int((starts[:, 0] == starts[:, 1]).sum()), n, 0.2)


def test_choppers_flip_as_often_as_they_should_in_every_replica(seed):
    # 100 replicas, 50 lines, 40 steps: sees 0.5 % in odds of 10 %.
    bar = Crossbar((1, 50), device=Ideal(), seed=seed, replicas=(100,))
    flips = torch.stack([chopper.flips(bar, torch.tensor(k), 0, 0.1, 50) for k in range(40)])
    assert_counts(int(flips.sum()), flips.numel(), 0.1)
    assert_counts(flips.sum((0, 2)).numpy(), 2000, 0.1)


def test_running_scales_by_hand():
    # max|x| of 2, 0 and 4, max|d| of 1: the mean of x starts at 2, stays for a zero vector, and goes a rate of
    # (1 - 0.7) / 3 = 0.1 of the way to 4. A train of 10 pulses of 0.001 is 0.01.
    x = torch.tensor([[2.0, -1.0], [0.0, 0.0], [3.0, -4.0]], dtype=torch.float64)
    d = torch.ones(3, 1, dtype=torch.float64)
    algorithm = ChoppedTikiTakaV2(auto_scale=True, auto_momentum=0.7)
    zero = torch.zeros((), dtype=torch.float64)
    fast = Crossbar((1, 2), device=Ideal(dw_min=1e-3))
    fast.update = type(fast.update)(bit_length=10)
    state = State(fast=fast, m_x=zero.clone(), m_d=zero.clone())
    scaled = chopper.auto_scaled(algorithm, state, Outer(d, x))
    assert scaled.d.flatten().tolist() == pytest.approx([0.005, 0.005, 0.01 / 2.2], rel=1e-14)
    assert float(state.m_x) == pytest.approx(2.2, rel=1e-15)


def test_rounding_to_bins_has_no_bias_and_no_more_levels(seed):
    # 8 bins: nine levels between -2 and 2, and the mean is kept. n = 20,000 sees 0.004.
    x = torch.tensor([2.0, 0.3, -1.1]).expand(20_000, 3)
    algorithm = MixedPrecision(x_bins=8)
    tile = Tile(torch.zeros(1, 3), algorithm=algorithm, crossbar={"device": Ideal()}, seed=seed)
    rounded = algorithm.rounded(tile.state, Outer(torch.ones(20_000, 1), x)).as_outer().x
    assert set((rounded / 0.5).unique().tolist()) <= set(range(-4, 5))
    assert_mean(rounded[:, 1], 0.3)
    assert_mean(rounded[:, 2], -1.1)
