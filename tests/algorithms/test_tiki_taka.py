"""Tiki-Taka: a trajectory by hand, the cyclic transfer. Its bias, E7 and E8, is in `experiments/verify`."""

import math

import pytest
import torch

from ohmgrad import Dense, TikiTaka, Tile
from ohmgrad.devices import Ideal
from ohmgrad.devices.presets import asymmetric_linear


def tiki_taka(fast_lr: float, transfer_lr: float, gamma: float = 0.0) -> TikiTaka:
    """The paper's form: all columns after every update, steps of their own."""
    own = {"scale_fast_lr": False, "scale_transfer_lr": False}
    return TikiTaka(fast_lr=fast_lr, transfer_lr=transfer_lr, gamma=gamma, n_reads=None, **own)


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_one_device_by_hand(gamma):
    # tau = 1, beta = 0.5, alpha = 0.1, W = 0.4, P = 0, gradients 0.2, -0.4 and 0.3:
    #   P = 0.5 * 0.2 = 0.1                              W = 0.4 - 0.01 - 0.01 * 0.4 = 0.386
    #   P = 0.1 - 0.2 - 0.2 * 0.1 = -0.12                W = 0.386 + 0.012 - 0.012 * 0.386 = 0.393368
    #   P = -0.12 + 0.15 + 0.15 * 0.12 = 0.048           W = 0.393368 - 0.0048 - 0.0048 * 0.393368 = 0.3866798336
    weight = torch.tensor([[0.4]], dtype=torch.float64)
    tile = Tile(weight, algorithm=tiki_taka(0.5, 0.1, gamma), crossbar={"device": asymmetric_linear()})
    for g, P, W in ((0.2, 0.1, 0.386), (-0.4, -0.12, 0.393368), (0.3, 0.048, 0.3866798336)):
        tile.algorithm.update(tile.state, Dense(torch.tensor([[g]], dtype=torch.float64)), lr=7.0)
        assert tile.state.fast.weight.item() == pytest.approx(-P, abs=1e-16)
        assert tile.state.slow.weight.item() == pytest.approx(W, abs=1e-16)
        assert tile.weight.item() == pytest.approx(W - gamma * P, abs=1e-16)


@pytest.mark.parametrize(
    ("n_reads", "every", "columns"),
    [
        (1, 1, [[0], [1], [2], [3], [4], [0]]),
        (2, 1, [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4], [0, 1]]),
        (1, 2, [[], [0], [], [1], [], [2]]),
        (2, 3, [[], [], [0, 1], [], [], [2, 3]]),
        # Two columns remain of the sweep when the second transfer begins.
        (3, 2, [[], [0, 1, 2], [], [3, 4, 0], [], [1, 2, 3]]),
        (None, 2, [[], [0, 1, 2, 3, 4]] * 3),
    ],
)
def test_columns_are_transferred_in_turn(n_reads, every, columns):
    algorithm = TikiTaka(n_reads=n_reads, transfer_every=every)
    tile = Tile(torch.zeros(3, 5), algorithm=algorithm, crossbar={"device": Ideal()})
    for expected in columns:
        before = tile.state.slow.weight.clone()
        tile.algorithm.update(tile.state, Dense(torch.ones(3, 5)), lr=0.1)
        moved = (tile.state.slow.weight != before).all(0).nonzero().flatten().tolist()
        assert moved == sorted(expected)
        assert (tile.state.slow.weight != before).any(0).nonzero().flatten().tolist() == moved
    n_transfers = sum(len(c) for c in columns)
    assert tile.state.fast.counters.reads == tile.state.slow.counters.cycles == n_transfers


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_both_passes_read_slow_plus_gamma_fast(gamma):
    tile = Tile(torch.zeros(2, 3, dtype=torch.float64), algorithm=TikiTaka(gamma=gamma), crossbar={"device": Ideal()})
    # Small whole numbers: no roundings.
    slow = torch.tensor([[1.0, -2.0, 3.0], [4.0, 0.0, -1.0]], dtype=torch.float64)
    fast = torch.tensor([[2.0, 4.0, -6.0], [0.0, 8.0, 2.0]], dtype=torch.float64)
    tile.state.slow.set_weight(slow)
    tile.state.fast.set_weight(fast)
    W = slow + gamma * fast
    assert torch.equal(tile.weight, W)
    assert torch.equal(tile.read(torch.eye(3, dtype=torch.float64)), W.mT)
    assert torch.equal(tile.read_transposed(torch.eye(2, dtype=torch.float64)), W)
    # What no pass needs is not read.
    assert tile.state.fast.counters.reads == (5 if gamma else 0)


def test_the_fast_crossbar_holds_what_the_slow_one_lacks():
    # E9. With gamma and a slow crossbar that hardly moves, W + gamma P comes to rest at the optimum: P is what W lacks
    # over gamma.
    weight = torch.tensor([[0.1, -0.2]], dtype=torch.float64)
    tile = Tile(weight, algorithm=tiki_taka(0.5, 1e-18, gamma=0.4), crossbar={"device": Ideal()})
    for _ in range(200):
        tile.algorithm.update(tile.state, Dense(tile.weight - 0.3), lr=1.0)
    expected = (0.3 - weight) / 0.4
    torch.testing.assert_close(tile.state.fast.weight, expected, rtol=1e-14, atol=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fast_lr": 0.0}, "fast_lr > 0, got 0.0"),
        ({"transfer_lr": -1.0}, "transfer_lr > 0, got -1.0"),
        ({"fast_lr": math.nan}, "fast_lr > 0, got nan"),
        ({"gamma": -0.1}, "gamma >= 0, got -0.1"),
        ({"gamma": math.nan}, "gamma >= 0, got nan"),
        ({"transfer_every": 0}, "a whole transfer_every >= 1, got 0"),
        ({"n_reads": 0}, "a whole n_reads >= 1, got 0"),
        ({"reset_prob": 1.5}, r"reset_prob in \[0, 1\], got 1.5"),
        ({"reset_prob": 0.5, "transfer_columns": False}, "transfer_columns where reset_prob > 0, got reset_prob=0.5"),
    ],
)
def test_wrong_values(options, message):
    with pytest.raises(ValueError, match=f"TikiTaka needs .*{message}"):
        TikiTaka(**options)
