"""One device, a few gradients, numbers that a person can check.

tau = 1 and dw_min = 0.01: an increment D moves w by D - |D| w, one pulse up by 0.01 (1 - w), one down by 0.01 (1 + w).
"""

import pytest
import torch

from ohmgrad import Dense, Tile
from ohmgrad.algorithms import (
    AGAD,
    ChoppedTikiTakaV2,
    MixedPrecision,
    MultiTile,
    ResidualLearning,
    Rider,
    Stale,
    TikiTakaV2,
)
from ohmgrad.devices import Ideal
from ohmgrad.devices.presets import asymmetric_linear

# Reads of 0.1 fill the buffer: ten of them for each unit read.
BUFFERED = {"fast_lr": 0.6, "scale_transfer_lr": False, "buffer_granularity": 10.0, "forget_buffer": False}
TRACKED = {
    "fast_lr": 0.5, "transfer_lr": 0.1, "tracking_rate": 0.5, "gamma": 0.5, "scale_fast_lr": False,
    "scale_transfer_lr": False,
}  # fmt: skip
CASES = {
    # g     fast: -0.6 g from A                H: + 10 A             W: one pulse where |H| >= 1
    # 0.2   -0.12                              -1.2, leaves -0.2     0.4 - 0.014 = 0.386
    # -0.3  -0.12 + 0.18 (1 + 0.12) = 0.0816   -0.2 + 0.816 = 0.616
    # -0.1  0.0816 + 0.06 (1 - 0.0816)         0.616 + 1.36704, leaves 0.98304   0.386 + 0.00614
    "TikiTakaV2": (
        TikiTakaV2(**BUFFERED),
        [
            (0.2, {"fast": -0.12, "buffer": -0.2, "slow": 0.386}),
            (-0.3, {"fast": 0.0816, "buffer": 0.616, "slow": 0.386}),
            (-0.1, {"fast": 0.136704, "buffer": 0.98304, "slow": 0.39214}),
        ],
    ),
    # The same until the chopper flips, after two reads: then gradients and reads count negative.
    # -0.1  0.0816 - 0.06 (1 + 0.0816)         0.616 - 0.16704
    # 0.4   0.016704 + 0.24 (1 - 0.016704)     0.44896 - 2.5269504 = -2.0779904, one pulse leaves -1.0779904
    "ChoppedTikiTakaV2": (
        ChoppedTikiTakaV2(in_chop_prob=1.0, in_chop_random=False, **BUFFERED),
        [
            (0.2, {"fast": -0.12, "buffer": -0.2, "slow": 0.386, "chop_lines": 1.0}),
            (-0.3, {"fast": 0.0816, "buffer": 0.616, "slow": 0.386, "chop_lines": -1.0}),
            (-0.1, {"fast": 0.016704, "buffer": 0.44896, "slow": 0.386, "chop_lines": -1.0}),
            (0.4, {"fast": 0.25269504, "buffer": -1.0779904, "slow": 0.37214, "chop_lines": 1.0}),
        ],
    ),
    # The same reads; means go half of the way to each (m = 1/2), and are the reference from the third read, after the
    # flip, on; pulses are sent from the fourth read (a phase of two and one more) on.
    # 0.016704:      0.616 - 10 (0.016704 - 0.0108)          mean 0.0054 + 0.008352
    # 0.25269504:    0.55696 - 10 (0.25269504 - 0.0108)      one pulse leaves -0.8619904
    # 0.1775333376:  -0.8619904 + 10 (0.1775333376 - 0.13322352)
    "AGAD": (
        AGAD(in_chop_prob=1.0, tail_weightening=1.0, **BUFFERED),
        [
            (0.2, {"fast": -0.12, "buffer": -0.2, "mean": -0.06, "slow": 0.4}),
            (-0.3, {"fast": 0.0816, "buffer": 0.616, "mean": 0.0108, "reference": 0.0, "slow": 0.4}),
            (-0.1, {"fast": 0.016704, "buffer": 0.55696, "mean": 0.013752, "reference": 0.0108, "slow": 0.4}),
            (0.4, {"fast": 0.25269504, "buffer": -0.8619904, "mean": 0.13322352, "slow": 0.386}),
            (0.1, {"fast": 0.1775333376, "buffer": -0.418892224, "reference": 0.13322352, "slow": 0.386}),
        ],
    ),
    # The running mean itself: 0.616 becomes -0.2 + 10 (0.0816 + 0.06), and so on.
    "AGAD, running reference": (
        AGAD(in_chop_prob=1.0, tail_weightening=1.0, frozen_reference=False, **BUFFERED),
        [
            (0.2, {"buffer": -0.2, "mean": -0.06}),
            (-0.3, {"buffer": 0.216, "mean": 0.0108}),
            (-0.1, {"buffer": 0.216 - 0.05904, "mean": 0.013752}),
        ],
    ),
    # lr = 0.1. 0.025 owed: two steps leave 0.005, W = 0.4 - 0.02 (1 + 0.4). -0.015 owed: one leaves -0.005.
    "MixedPrecision": (
        MixedPrecision(),
        [(0.25, {"chi": 0.005, "bar": 0.372}), (-0.2, {"chi": -0.005, "bar": 0.37828})],
    ),
    # The first again; then momentum 0.5 makes -0.075 of the second: 0.005 - 0.0075.
    "MixedPrecision, momentum": (
        MixedPrecision(momentum=0.5),
        [(0.25, {"chi": 0.005, "bar": 0.372}), (-0.2, {"velocity": -0.075, "chi": -0.0025, "bar": 0.372})],
    ),
    # Decay of 0.5 adds 0.1 (0.5 0.4) = 0.02 to 0.025: four steps leave 0.005, W = 0.4 - 0.04 (1 + 0.4).
    "MixedPrecision, decay": (MixedPrecision(weight_decay=0.5), [(0.25, {"chi": 0.005, "bar": 0.344})]),
    # P = -0.1, half of it owed: -0.05, one pulse leaves -0.04. P = -0.1 + 0.2 (1 + 0.1), owed -0.02 + 0.06.
    "ResidualLearning": (
        ResidualLearning(fast_lr=0.5, scale_fast_lr=False, buffer_rate=0.5, gamma=0.5),
        [
            (0.2, {"fast": -0.1, "buffer": -0.04, "slow": 0.386, "read": 0.336}),
            (-0.4, {"fast": 0.12, "buffer": 0.03, "slow": 0.39214, "read": 0.45214}),
        ],
    ),
    # Every second step the coarse tile gets a tenth: 0.4 + 0.012 (1 - 0.4).
    "MultiTile": (
        MultiTile(n_tiles=2, gamma=0.5, fast_lr=0.5, scale_fast_lr=False),
        [(0.2, {"read": 0.35}), (-0.4, {"read": 0.4072 + 0.06})],
    ),
    # P = -0.1, Q half of it, W = 0.4 - 0.005 (1 + 0.4). P = 0.12, Q = -0.025 + 0.06, W = 0.393 + 0.0085 (1 - 0.393).
    "Rider": (
        Rider(**TRACKED),
        [
            (0.2, {"fast": -0.1, "Q": -0.05, "slow": 0.393, "read": 0.368}),
            (-0.4, {"fast": 0.12, "Q": 0.035, "slow": 0.3981595, "read": 0.4406595}),
        ],
    ),
    # c flips after each transfer, and the copy of Q is renewed: the passes see W - (P - copy)/2 after the first, and
    # plus after the second; the second gradient goes to P, and what is transferred comes back, with the other sign.
    # 0.2    P = -0.1   Q = -0.05    W: - 0.1 0.05 (1 + 0.4)       copy -0.05
    # -0.4   -0.1 - 0.2 (1 - 0.1)    Q = -0.165   W: + 0.0115 (1 - 0.393)
    "E-RIDER": (
        Rider(**TRACKED, chop_prob=1.0),
        [
            (0.2, {"fast": -0.1, "Q": -0.05, "c": -1.0, "copy": -0.05, "slow": 0.393, "read": 0.418}),
            (-0.4, {"fast": -0.28, "Q": -0.165, "c": 1.0, "copy": -0.165, "slow": 0.3999805, "read": 0.3424805}),
        ],
    ),
    # Where c does not flip the copy stays as it was: the passes see W + P/2.
    "E-RIDER, no flip": (
        Rider(**TRACKED, chop_prob=1e-9),
        [(0.2, {"fast": -0.1, "Q": -0.05, "c": 1.0, "copy": 0.0, "slow": 0.393, "read": 0.343})],
    ),
    # lr = 0.1. W = 0.4 - 0.02 (1 + 0.4), one step late.
    "Stale": (Stale(delay=1), [(0.2, {"read": 0.4}), (-0.3, {"read": 0.372}), (0.0, {"read": 0.372 + 0.03 * 0.628})]),
}


@pytest.mark.parametrize("name", CASES)
def test_one_device(name):
    algorithm, steps = CASES[name]
    weight = torch.tensor([[0.4]], dtype=torch.float64)
    tile = Tile(weight, algorithm=algorithm, crossbar={"device": asymmetric_linear(dw_min=0.01)})
    for g, expected in steps:
        algorithm.update(tile.state, Dense(torch.tensor([[g]], dtype=torch.float64)), 0.1)
        for what, value in expected.items():
            entry = tile if what == "read" else getattr(tile.state, what)
            got = entry if isinstance(entry, torch.Tensor) else entry.weight
            assert got.item() == pytest.approx(value, abs=1e-14), what


def test_weight_decay_is_for_all_mini_batches_since_a_row_was_read():
    # lr = 1/8, decay 1/2, two rows in turn: each is read every second time, and owes 2 lr / 2 of its 1/2: 8 steps.
    algorithm = MixedPrecision(weight_decay=0.5, n_rows=1)
    tile = Tile(torch.full((2, 1), 0.5), algorithm=algorithm, crossbar={"device": Ideal(dw_min=2.0**-7)})
    for expected in ([0.4375, 0.5], [0.4375, 0.4375]):
        algorithm.update(tile.state, Dense(torch.zeros(2, 1)), 0.125)
        assert tile.weight.flatten().tolist() == expected


def test_a_warm_start_goes_through_its_phases():
    # Three tiles: fine -> coarse, then fine -> middle, then along the chain, each after an epoch whose loss rose.
    algorithm = MultiTile(n_tiles=3, warm_start=True, transfer_every=3, transfer_every_growth=4, transfer_lr=0.5)
    state = Tile(torch.zeros(1, 1), algorithm=algorithm, crossbar={"device": asymmetric_linear()}).state
    assert algorithm.transfers(state) == [(0, 2, 3, 0.5)]
    for loss, phase in ((3.0, 0), (2.0, 0), (2.5, 1), (2.6, 1), (2.7, 2), (9.0, 2)):
        algorithm.end_epoch(state, loss)
        assert int(state.phase) == phase
        if phase == 1:
            assert algorithm.transfers(state) == [(0, 1, 3, 0.5)]
    assert algorithm.transfers(state) == [(0, 1, 3, 0.5), (1, 2, 12, 0.6)]


def test_late_phases_wait_for_two_rises_among_five_losses():
    algorithm = MultiTile(n_tiles=7, warm_start=True)
    state = Tile(torch.zeros(1, 1), algorithm=algorithm, crossbar={"device": asymmetric_linear()}).state
    state.phase.fill_(4)
    for loss, phase in ((5.0, 4), (6.0, 4), (5.0, 4), (4.0, 4), (3.0, 4), (2.0, 4), (3.0, 4), (2.0, 4), (2.5, 5)):
        algorithm.end_epoch(state, loss)
        assert int(state.phase) == phase
