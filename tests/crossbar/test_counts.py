"""Pulses at each crosspoint: what endurance is reckoned by."""

import pytest
import torch

from exact import assert_bits, assert_within_ulps
from ohmgrad import Crossbar, Dense, ExpectedUpdate, PulsedUpdate
from ohmgrad.devices import Ideal, SoftBounds

UPDATES = {
    "expected": ExpectedUpdate(),
    "per sample": ExpectedUpdate(per_sample=True),
    "pulsed": PulsedUpdate(),
    "eager": PulsedUpdate(eager=True),
}
EVERY = pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES.keys())


def crossbar(update, *, replicas: tuple[int, ...] = (), write_noise: float = 0.0, **options) -> Crossbar:
    device = SoftBounds(dw_min=0.01, w_max_dtod=0.1, dw_min_ctoc=0.3, write_noise=write_noise)
    return Crossbar(
        (4, 5), device=device, update=update, replicas=replicas, **{"count_pulses": True, "seed": 3, **options}
    )


def train(bar: Crossbar, steps: range = range(3)) -> None:
    for k in steps:
        generator = torch.Generator().manual_seed(k)
        x, d = (torch.randn(*bar.replicas, 6, n, generator=generator, dtype=bar.weight.dtype) for n in (5, 4))
        bar.pulse(x, d, 0.05)
        bar.write_columns(torch.tensor([3, 0]), torch.ones(*bar.replicas, 2, 4, dtype=bar.weight.dtype), 0.05)


@EVERY
@pytest.mark.parametrize("replicas", [(), (2, 3)])
@pytest.mark.parametrize("write_noise", [0.0, 2.0])
def test_they_add_up_to_all_pulses(update, replicas, write_noise):
    # Planted: with write noise, the counts of the latest mini-batch instead of all.
    bar = crossbar(update, replicas=replicas, write_noise=write_noise)
    train(bar)
    counts = bar.counters.pulses_per_crosspoint
    assert counts.shape == (*replicas, 4, 5) and (counts > 0).all()
    is_pulsed = isinstance(update, PulsedUpdate)
    assert counts.dtype == (torch.int64 if is_pulsed else torch.float64)
    assert_within_ulps(counts.sum((-2, -1)).double(), bar.counters.pulses, ulps=0 if is_pulsed else 64)


@EVERY
def test_counting_changes_nothing(update):
    counted, plain = crossbar(update), crossbar(update, count_pulses=False)
    for bar in (counted, plain):
        train(bar)
    assert_bits(counted.weight, plain.weight)
    assert plain.counters.pulses_per_crosspoint is None and "pulse_counts" not in plain.state_dict()


def test_the_mean_number_is_the_increment_in_steps():
    # |dw| / dw_min at each crosspoint, up or down.
    bar = Crossbar((2, 3), device=Ideal(dw_min=0.01), dtype=torch.float64, count_pulses=True)
    asked = torch.tensor([[1.0, -0.5, 0.0], [0.2, 0.1, -2.0]], dtype=torch.float64)
    for _ in range(2):
        bar.write(Dense(asked), lr=0.1)
    assert_within_ulps(bar.counters.pulses_per_crosspoint, 2 * 0.1 * asked.abs() / 0.01, ulps=4)


def test_a_train_without_chance():
    # lr x d = 3 dw_min at the largest lines, whose bits are all 1: three pulses there, none at the lines of 0.
    bar = Crossbar((2, 2), device=Ideal(dw_min=0.01), update=PulsedUpdate(), count_pulses=True)
    bar.pulse(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 1.0]]), 0.03)
    assert bar.counters.pulses_per_crosspoint.tolist() == [[3, 0], [3, 0]]


@EVERY
def test_a_snapshot_and_a_resume(update):
    whole, first, second = (crossbar(update, seed=s) for s in (3, 3, 99))
    train(whole)
    train(first, range(2))
    snapshot = first.counters.pulses_per_crosspoint
    second.load_state_dict(first.state_dict())
    train(second, range(2, 3))
    assert torch.equal(second.counters.pulses_per_crosspoint, whole.counters.pulses_per_crosspoint)
    assert torch.equal(snapshot, first.counters.pulses_per_crosspoint)
    train(first, range(2, 3))
    assert not torch.equal(snapshot, first.counters.pulses_per_crosspoint)
