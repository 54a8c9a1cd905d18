"""Where noise leaves each algorithm on symmetric devices. Asymmetric ones, E1 to E18: `experiments/verify`."""

import pytest
from quadratic import rest

from chance import assert_mean
from ohmgrad import AnalogSGD
from ohmgrad.algorithms import (
    AGAD,
    ChoppedTikiTakaV2,
    MixedPrecision,
    MultiTile,
    ResidualLearning,
    Rider,
    Stale,
    TikiTaka,
    TikiTakaV2,
)
from ohmgrad.devices import ConstantStep

SIGMA = 0.3
# Whole matrices at each transfer.
SYMMETRIC = [
    AnalogSGD(),
    TikiTaka(n_reads=None),
    TikiTakaV2(n_reads=None, units_in_mbatch=True, fast_lr=0.1, transfer_lr=0.1),
    ChoppedTikiTakaV2(n_reads=None, units_in_mbatch=True, fast_lr=0.1, transfer_lr=0.1),
    AGAD(n_reads=None, units_in_mbatch=True, fast_lr=0.1, in_chop_prob=0.4),
    MixedPrecision(),
    ResidualLearning(n_reads=None),
    MultiTile(n_tiles=3, n_reads=None, transfer_every=1, transfer_every_growth=3),
    Rider(chop_prob=0.1),
    Stale(delay=2),
]


@pytest.mark.parametrize("algorithm", SYMMETRIC, ids=lambda a: type(a).__name__)
def test_on_symmetric_devices_noise_has_no_side(algorithm, seed):
    # From the optimum, 10,000 runs with Gaussian noise: sees a pull of 0.05 of the spread that noise makes. A buffer
    # that rounded down, not toward 0, would pull.
    run = rest(
        algorithm, ConstantStep(), w_star=0.25, std=SIGMA, lr=0.05, start=0.25, settle=20, steps=40,
        seed=seed,
    )  # fmt: skip
    assert run.weight.std() > 1e-4
    assert_mean(run.weight, 0.25)
