"""Every algorithm on unit cells: two halves are one whole, and a pair of devices trains too."""

from dataclasses import replace

import pytest
import torch

from contracts.algorithm import batches, send
from exact import assert_bits
from ohmgrad import Periphery, Tile
from ohmgrad.algorithms import (
    AGAD,
    AnalogSGD,
    ChoppedTikiTakaV2,
    MixedPrecision,
    MultiTile,
    ResidualLearning,
    Rider,
    Stale,
    TikiTaka,
    TikiTakaV2,
)
from ohmgrad.devices import Ideal, OneSidedCell, VectorCell

ONE = Ideal(reset_std=0.0)
HALVES = VectorCell(devices=(ONE, ONE), gains=(0.5, 0.5))
# With columns or rows, and what is drawn at random.
EVERY = [
    AnalogSGD(),
    TikiTaka(gamma=0.5, n_reads=2, reset_prob=0.5, random_selection=True),
    TikiTaka(transfer_columns=False),
    TikiTakaV2(),
    ChoppedTikiTakaV2(out_chop_prob=0.3, in_chop_prob=0.3, auto_scale=True, transfer_columns=False),
    AGAD(in_chop_prob=0.4, in_chop_random=True),
    MixedPrecision(x_bins=8, weight_decay=0.1, n_rows=2),
    ResidualLearning(transfer_columns=False),
    MultiTile(n_tiles=3),
    Rider(chop_prob=0.3),
    Stale(algorithm=Rider(transfer_columns=False, fast_device=HALVES), delay=1),
]


def trained(algorithm, device, **options) -> Tile:
    tile = Tile(torch.full((4, 5), 0.25), algorithm=algorithm, crossbar={"device": device, **options}, seed=3)
    updates = batches(9)
    send(tile, [replace(u, d=u.d.float(), x=u.x.float()) for u in updates])
    return tile


@pytest.mark.parametrize("algorithm", EVERY, ids=lambda a: type(a).__name__)
def test_two_halves_are_one_whole(algorithm):
    # Both members get every pulse and count for a half: exact in binary. Sees a read, a write or a reset that leaves
    # out a member, and an algorithm that asks cells for what only a crossbar has.
    whole, halves = trained(algorithm, ONE), trained(algorithm, HALVES)
    assert (whole.weight != 0.25).any()
    assert_bits(halves.weight, whole.weight)


@pytest.mark.parametrize("algorithm", EVERY, ids=lambda a: type(a).__name__)
def test_pairs_train_through_converters(algorithm):
    tile = trained(algorithm, OneSidedCell(device=Ideal(), refresh_every=2), periphery=Periphery())
    assert torch.isfinite(tile.weight).all() and (tile.weight != 0.25).any()
