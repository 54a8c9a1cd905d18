"""What every algorithm promises: on ideal devices a linear recursion written here in plain NumPy.

A new algorithm gives its cases here; one that does not fails.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from exact import assert_bits, assert_within_ulps
from ohmgrad import AnalogSGD, Dense, ExpectedUpdate, LowRank, Outer, TikiTaka, Tile
from ohmgrad.crossbar.tile import Algorithm
from ohmgrad.devices import Ideal
from ohmgrad.devices.presets import aihwkit_soft_bounds

OUT, IN, BATCH, LR = 4, 5, 3, 0.1
UPDATES = [
    pytest.param(ExpectedUpdate(per_sample=per_sample, noise=noise), id=f"{per_sample=}, {noise=}")
    for per_sample in (False, True)
    for noise in (False, True)
]

# (initial weight, gradients, lr) -> the weight that is read after each gradient.
Recursion = Callable[[np.ndarray, Sequence[np.ndarray], float], list[np.ndarray]]


@dataclass(frozen=True)
class Case:
    """An algorithm, and its recursion where every device is ideal."""

    algorithm: Algorithm
    recursion: Recursion


def sgd(W: np.ndarray, gradients: Sequence[np.ndarray], lr: float) -> list[np.ndarray]:
    """W <- W - lr g."""
    read = []
    for g in gradients:
        W = W - lr * g
        read.append(W)
    return read


def tiki_taka(
    *,
    alpha: float,
    beta: float,
    gamma: float = 0.0,
    every: int = 1,
    n_reads: int = IN,
    scale_alpha: bool = True,
    scale_beta: bool = True,
) -> Recursion:
    """P <- P + beta g; at every `every`-th step W[:, j] <- W[:, j] - alpha P[:, j] for the next n_reads columns j.

    With F = 1 and G = 0 in Wu et al. 2024, eq. 9-10. Read is W - gamma P. alpha and beta are in units of lr if scaled.
    """

    def recursion(W: np.ndarray, gradients: Sequence[np.ndarray], lr: float) -> list[np.ndarray]:
        W, P, column, read = W.copy(), np.zeros_like(W), 0, []
        for k, g in enumerate(gradients, start=1):
            P = P + beta * (lr if scale_beta else 1.0) * g
            if k % every == 0:
                for _ in range(n_reads):
                    W[:, column] -= alpha * (lr if scale_alpha else 1.0) * P[:, column]
                    column = (column + 1) % IN
            read.append(W - gamma * P)
        return read

    return recursion


CASES: dict[type, list[Case]] = {
    AnalogSGD: [Case(AnalogSGD(), sgd)],
    TikiTaka: [
        Case(TikiTaka(n_reads=None, fast_lr=0.5, transfer_lr=2.0), tiki_taka(alpha=2.0, beta=0.5)),
        Case(TikiTaka(n_reads=None, gamma=0.4), tiki_taka(alpha=1.0, beta=1.0, gamma=0.4)),
        # Cyclic: two of five columns at every third step, so that a sweep ends within a transfer.
        Case(TikiTaka(n_reads=2, transfer_every=3, fast_lr=0.3), tiki_taka(alpha=1.0, beta=0.3, every=3, n_reads=2)),
        Case(
            TikiTaka(fast_lr=0.01, transfer_lr=0.5, scale_fast_lr=False, scale_transfer_lr=False),
            tiki_taka(alpha=0.5, beta=0.01, n_reads=1, scale_alpha=False, scale_beta=False),
        ),
    ],
}


def cases_of(algorithms: tuple[type, ...]) -> list:
    """Every case of every algorithm; an algorithm without one gets a case that fails."""
    pairs = [(kind, case) for kind in algorithms for case in CASES.get(kind, [None])]
    return [pytest.param(case, id=f"{kind.__name__}-{i}") for i, (kind, case) in enumerate(pairs)]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    """The same numbers at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batches(n: int, *lead: int) -> list[Outer]:
    """n mini-batches."""
    return [Outer(gaussian(*lead, BATCH, OUT, seed=k), gaussian(*lead, BATCH, IN, seed=k + 100)) for k in range(n)]


def send(tile: Tile, updates: Sequence, lr: float = LR) -> None:
    """Each update as one mini-batch."""
    for update in updates:
        tile.record(update)
        tile.step(lr)
        tile.handle.grad = None


def make(
    case: Case, *, device=None, update: ExpectedUpdate | None = None, seed=3, weight: Tensor | None = None
) -> Tile:
    """A tile of the case's algorithm, weights small enough for any device."""
    weight = 0.1 * gaussian(OUT, IN, seed=7) if weight is None else weight
    return Tile(weight, algorithm=case.algorithm, crossbar={"device": device or Ideal(), "update": update}, seed=seed)


class AlgorithmContract:
    """Tests of one case; the test file supplies the fixture `case`."""

    @pytest.mark.parametrize("per_sample", [False, True])
    def test_the_recursion_on_ideal_devices(self, case, per_sample):
        tile = make(case, update=ExpectedUpdate(per_sample=per_sample))
        updates = batches(12)
        expected = case.recursion(tile.weight.numpy(), [u.as_dense().numpy() for u in updates], LR)
        for k, (update, W) in enumerate(zip(updates, expected, strict=True), start=1):
            send(tile, [update])
            # Sums of up to k batches; those of P again summed into W.
            assert_within_ulps(tile.weight, torch.from_numpy(W), ulps=16 * k)

    @pytest.mark.parametrize("form", ["low rank", "dense"])
    def test_every_form(self, case, form):
        make_form = {"low rank": lambda u: LowRank(u.d.mT, u.x.mT), "dense": lambda u: Dense(u.as_dense())}[form]
        outer, other = (make(case, device=aihwkit_soft_bounds(), update=ExpectedUpdate(noise=True)) for _ in range(2))
        send(outer, batches(1), lr=0.01)
        send(other, [make_form(u) for u in batches(1)], lr=0.01)
        assert_within_ulps(other.weight, outer.weight, ulps=16)

    @pytest.mark.parametrize("update", UPDATES)
    def test_a_zero_gradient_changes_nothing(self, case, update):
        tile = make(case, device=aihwkit_soft_bounds(), update=update)
        before = tile.weight
        zero = Outer(torch.zeros(BATCH, OUT, dtype=torch.float64), gaussian(BATCH, IN))
        send(tile, [zero] * 10)
        assert_bits(tile.weight, before)

    @pytest.mark.parametrize("update", UPDATES)
    def test_every_update_moves_the_weight_and_stays_finite(self, case, update):
        tile = make(case, device=aihwkit_soft_bounds(), update=update)
        before = tile.weight
        send(tile, batches(15), lr=0.02)
        assert torch.isfinite(tile.weight).all() and (tile.weight != before).any()

    @pytest.mark.parametrize("update", UPDATES)
    def test_a_resumed_run_goes_on_bit_by_bit(self, case, update):
        updates = batches(8)
        whole, first = (make(case, device=aihwkit_soft_bounds(), update=update) for _ in range(2))
        send(whole, updates)
        send(first, updates[:4])
        # Its own seed and weight give it other devices; the state brings along all that matters.
        second = make(case, device=aihwkit_soft_bounds(), update=update, seed=55, weight=gaussian(OUT, IN, seed=1))
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        send(second, updates[4:])
        assert_bits(second.weight, whole.weight)
        for ours, theirs in zip(second.crossbars, whole.crossbars, strict=True):
            assert_bits(ours.weight, theirs.weight)
            assert (ours.counters.cycles, ours.counters.reads) == (theirs.counters.cycles, theirs.counters.reads)

    @pytest.mark.parametrize("update", UPDATES)
    def test_replicas_equal_runs_alone(self, case, update):
        seeds, weight = [3, 2**33, 8], 0.1 * gaussian(3, OUT, IN, seed=7)
        together = make(case, device=aihwkit_soft_bounds(), update=replace(update), seed=seeds, weight=weight)
        # One sample each: products of batches may be summed in another order when they are stacked.
        updates = [Outer(u.d[..., :1, :], u.x[..., :1, :]) for u in batches(12, 3)]
        send(together, updates)
        for r, seed in enumerate(seeds):
            alone = make(case, device=aihwkit_soft_bounds(), update=update, seed=seed, weight=weight[r])
            send(alone, [Outer(u.d[r], u.x[r]) for u in updates])
            assert_bits(together.weight[r], alone.weight)

    def test_the_initial_weight_is_what_is_read(self, case):
        tile = make(case, device=aihwkit_soft_bounds())
        assert_bits(tile.weight, 0.1 * gaussian(OUT, IN, seed=7))
        x, d = gaussian(2, IN), gaussian(2, OUT)
        assert_bits(tile.read(x), x @ tile.weight.mT)
        assert_bits(tile.read_transposed(d), d @ tile.weight)

    def test_where_training_would_rest(self, case):
        # The theory needs it: a crossbar of the tile, and a state of that crossbar's shape.
        tile = make(case)
        bar, state = tile.algorithm.at_rest(tile.state)
        assert any(bar is b for b in tile.crossbars) and state.shape == bar.weight.shape
