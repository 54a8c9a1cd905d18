"""The tile: offset reads, waiting updates, and a seed of its own for every crossbar."""

import pytest
import torch

from exact import assert_bits, assert_within_ulps
from ohmgrad import AnalogSGD, Dense, ExpectedUpdate, LowRank, Outer, TikiTaka, Tile
from ohmgrad.crossbar.algorithm import State
from ohmgrad.crossbar.gradient import Gradient
from ohmgrad.devices import Ideal
from ohmgrad.devices.presets import aihwkit_soft_bounds


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tile(*shape: int, algorithm=None, device=None, **options) -> Tile:
    crossbar = {"device": device or Ideal(), **options.pop("crossbar", {})}
    return Tile(gaussian(*shape), algorithm=algorithm or AnalogSGD(), crossbar=crossbar, **{"seed": 0, **options})


@pytest.mark.parametrize("replicas", [(), (2,)])
class TestOffset:
    """Inside, W + U V' is read, which was never written."""

    def parts(self, replicas):
        U, V = gaussian(*replicas, 4, 2, seed=1), gaussian(*replicas, 3, 2, seed=2)
        return tile(*replicas, 4, 3), U, V, gaussian(*replicas, 5, 3, seed=3), gaussian(*replicas, 5, 4, seed=4)

    def test_both_reads(self, replicas):
        t, U, V, x, d = self.parts(replicas)
        moved = t.weight + U @ V.mT
        with t.offset(U, V):
            assert_within_ulps(t.read(x), x @ moved.mT, ulps=8)
            assert_within_ulps(t.read_transposed(d), d @ moved, ulps=8)
        assert_bits(t.read(x), x @ t.weight.mT)
        assert_bits(t.read_transposed(d), d @ t.weight)

    def test_nested_the_inner_one_counts(self, replicas):
        t, U, V, x, _ = self.parts(replicas)
        with t.offset(U, V):
            outer = t.read(x)
            with t.offset(2.0 * U, V):
                assert_within_ulps(t.read(x), x @ (t.weight + 2.0 * U @ V.mT).mT, ulps=8)
            assert_bits(t.read(x), outer)

    def test_an_exception_ends_it(self, replicas):
        t, U, V, x, _ = self.parts(replicas)
        with pytest.raises(KeyError), t.offset(U, V):
            raise KeyError
        assert_bits(t.read(x), x @ t.weight.mT)

    def test_nothing_is_written(self, replicas):
        t, U, V, x, _ = self.parts(replicas)
        before = t.weight
        with t.offset(U, V):
            t.read(x)
            assert_bits(t.weight, before)
        assert t.crossbars[0].counters.cycles == 0


def test_every_crossbar_has_devices_of_its_own():
    t = tile(6, 5, algorithm=TikiTaka(), device=aihwkit_soft_bounds(), seed=4)
    slow, fast = t.crossbars
    assert not (slow.params["w_max"] == fast.params["w_max"]).any()
    # Nor do two tiles of neighbouring seeds share one.
    other = tile(6, 5, algorithm=TikiTaka(), device=aihwkit_soft_bounds(), seed=5)
    seeds = {int(bar.seed) for bar in (*t.crossbars, *other.crossbars)}
    assert len(seeds) == 4


def test_replicas_have_the_seeds_of_tiles_alone():
    together = tile(3, 6, 5, algorithm=TikiTaka(), device=aihwkit_soft_bounds(), seed=[7, 1, 9])
    for r, seed in enumerate((7, 1, 9)):
        alone = tile(6, 5, algorithm=TikiTaka(), device=aihwkit_soft_bounds(), seed=seed)
        for one, many in zip(alone.crossbars, together.crossbars, strict=True):
            assert int(one.seed) == int(many.seed[r])


def test_what_waits_is_one_mini_batch():
    # Two passes of two samples are four samples: the modulus of their sum, not the sum of two moduli.
    x, d = gaussian(4, 3, seed=1), gaussian(4, 2, seed=2)
    device = aihwkit_soft_bounds()
    one, two = tile(2, 3, device=device), tile(2, 3, device=device)
    one.record(Outer(d, x))
    for part in (slice(2), slice(2, None)):
        two.record(Outer(d[part], x[part]))
    for t in (one, two):
        t.step(0.1)
    assert_within_ulps(two.weight, one.weight, ulps=4)
    assert two.crossbars[0].counters.cycles == 4
    assert two.crossbars[0].counters.pulses == pytest.approx(one.crossbars[0].counters.pulses)


def test_all_forms_may_wait_together():
    t = tile(2, 3)
    before = t.weight
    updates = [Outer(gaussian(4, 2), gaussian(4, 3)), Dense(gaussian(2, 3)), LowRank(gaussian(2, 1), gaussian(3, 1))]
    for update in updates:
        t.record(update)
    t.step(0.1)
    assert_within_ulps(t.weight, before - 0.1 * sum(u.as_dense() for u in updates), ulps=8)


@pytest.mark.parametrize("zero", [None, 0.0], ids=["set to none", "set to zero"])
def test_zero_grad_lets_go(zero):
    t = tile(2, 3)
    t.record(Dense(gaussian(2, 3)))
    assert isinstance(t.handle.grad, Gradient)
    t.handle.grad = None if zero is None else torch.zeros_like(t.handle)
    before = t.weight
    t.step(0.1)
    assert_bits(t.weight, before)
    # What is recorded next stands alone.
    t.record(Dense(gaussian(2, 3)))
    t.record(Dense(gaussian(2, 3, seed=1)))
    assert len(t.waiting) == 2


def test_state_holds_modules_and_tensors():
    t = tile(2, 3, algorithm=TikiTaka(), crossbar={"update": ExpectedUpdate()})
    assert {"state.step", "state.slow.weight", "state.fast.weight", "handle"} <= set(t.state_dict())
    assert State(a=torch.zeros(2)).state_dict()["a"].tolist() == [0.0, 0.0]
