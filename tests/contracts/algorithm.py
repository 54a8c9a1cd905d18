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
from ohmgrad import Dense, ExpectedUpdate, LowRank, Outer, Tile
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
from ohmgrad.crossbar.algorithm import Algorithm
from ohmgrad.devices import Ideal
from ohmgrad.devices.presets import aihwkit_soft_bounds

OUT, IN, BATCH, LR = 4, 5, 3, 0.1
UPDATES = [
    pytest.param(ExpectedUpdate(per_sample=per_sample, noise=noise), id=f"{per_sample=}, {noise=}")
    for per_sample in (False, True)
    for noise in (False, True)
]

# (initial weight, gradients of the samples of each mini-batch, (batch, out, in), lr) -> the weight read after each.
Recursion = Callable[[np.ndarray, Sequence[np.ndarray], float], list[np.ndarray]]
DW = 1e-3  # dw_min of the ideal device


@dataclass(frozen=True)
class Case:
    """An algorithm, and its recursion where every device is ideal."""

    algorithm: Algorithm
    recursion: Recursion


def sgd(delay: int = 0) -> Recursion:
    """W <- W - lr g, g of `delay` mini-batches ago."""

    def recursion(W: np.ndarray, gradients: Sequence[np.ndarray], lr: float) -> list[np.ndarray]:
        late = [np.zeros((1, *W.shape))] * delay + list(gradients)
        return list(W - lr * np.cumsum([g.sum(0) for g in late[: len(gradients)]], 0))

    return recursion


def transferring(
    *,
    beta: float,
    to_slow: Callable[[np.ndarray, float, int, int, float], np.ndarray],
    gamma: float = 0.0,
    every: int = 1,
    n_reads: int = 1,
    by_sample: bool = False,
    rows: bool = False,
    scale_beta: bool = True,
    sign: Callable[[int], float] = lambda reads: 1.0,
) -> Recursion:
    """A <- A - beta g; after every `every` steps the next n_reads lines, element by element, C <- C + to_slow(...).

    to_slow takes the place, what is read there, how often it was read before, and lr. Read is C + gamma A. `sign` is
    a chopper's, of a line that was read so often.
    """

    def recursion(W: np.ndarray, gradients: Sequence[np.ndarray], lr: float) -> list[np.ndarray]:
        C, A, read, step, line, sweep = W.copy(), np.zeros_like(W), [], 0, 0, np.zeros(max(W.shape), int)
        n_lines = W.shape[0 if rows else 1]
        for batch in gradients:
            for g in batch if by_sample else [batch.sum(0)]:
                c = np.array([sign(k) for k in sweep[:n_lines]])
                A = A - beta * (lr if scale_beta else 1.0) * g * (c[:, None] if rows else c)
                step += 1
                if step % every == 0:
                    for _ in range(n_reads):
                        for other in range(W.shape[1 if rows else 0]):
                            at = (line, other) if rows else (other, line)
                            C[at] += to_slow(at, A[at], sweep[line], sign(sweep[line]), lr)
                        sweep[line] += 1
                        line = (line + 1) % n_lines
            c = np.array([sign(k) for k in sweep[:n_lines]])
            read.append(C + gamma * A * (c[:, None] if rows else c))
        return read

    return recursion


def plain(alpha: float, *, scale: bool = True) -> Callable:
    """Tiki-Taka: alpha times what is read."""
    return lambda at, a, k, c, lr: alpha * (lr if scale else 1.0) * a


class Buffered:
    """Tiki-Taka v2 and its kin: pulses of a buffer, written as a loop over elements."""

    def __init__(self, threshold: float, *, keep: float | None = None, reference: tuple[int, float] | None = None):
        self.H: dict[tuple[int, int], float] = {}
        self.mean: dict[tuple[int, int], float] = {}
        self.past: dict[tuple[int, int], float] = {}
        self.threshold, self.keep, self.reference = threshold, keep, reference

    def __call__(self, at: tuple[int, int], a: float, k: int, c: float, lr: float) -> float:
        if k == 0:
            self.H[at] = self.mean[at] = self.past[at] = 0.0
        period, m = self.reference or (0, 0.0)
        if period and k and k % period == 0:
            self.past[at] = self.mean[at]
        self.H[at] += lr * c * (a - self.past[at])
        self.mean[at] += m * (a - self.mean[at])
        n = float(np.sign(self.H[at])) if abs(self.H[at]) >= self.threshold else 0.0
        if n:
            self.H[at] = 0.0 if self.keep is None else self.H[at] - (1.0 - self.keep) * n * self.threshold
        return n * DW if k > period or not period else 0.0


class Leaky:
    """Residual learning v2: a buffer that follows what is read, and sends what reaches dw_min."""

    def __init__(self, beta: float):
        self.H: dict[tuple[int, int], float] = {}
        self.beta = beta

    def __call__(self, at: tuple[int, int], a: float, k: int, c: float, lr: float) -> float:
        h = (self.H[at] if k else 0.0) * (1.0 - self.beta) + self.beta * a
        n = float(np.sign(h)) if abs(h) >= DW else 0.0
        self.H[at] = h - n * DW
        return n * DW


class Tracking:
    """RIDER: what is read, less a running mean Q of it."""

    def __init__(self, alpha: float, eta: float):
        self.Q: dict[tuple[int, int], float] = {}
        self.alpha, self.eta = alpha, eta

    def __call__(self, at: tuple[int, int], a: float, k: int, c: float, lr: float) -> float:
        self.Q[at] = (1.0 - self.eta) * (self.Q[at] if k else 0.0) + self.eta * a
        return self.alpha * lr * (a - self.Q[at])


def whole_steps(*, every: int = 1, n_rows: int = OUT, momentum: float = 0.0) -> Recursion:
    """Mixed precision: X is what is owed, of which rows pay whole multiples of dw_min."""

    def recursion(W: np.ndarray, gradients: Sequence[np.ndarray], lr: float) -> list[np.ndarray]:
        W, X, V, row, read = W.copy(), np.zeros_like(W), np.zeros_like(W), 0, []
        for k, g in enumerate(gradients, start=1):
            V = momentum * V + g.sum(0)
            X = X + lr * V
            for _ in range(n_rows if k % every == 0 else 0):
                paid = np.fix(X[row] / DW) * DW
                W[row], X[row], row = W[row] - paid, X[row] - paid, (row + 1) % OUT
            read.append(W.copy())
        return read

    return recursion


def cascade(n_tiles: int, gamma: float, every: int, growth: int, lrs: Sequence[float], beta: float) -> Recursion:
    """Multi-tile residual learning, fine tile first; one column per transfer."""

    def recursion(W: np.ndarray, gradients: Sequence[np.ndarray], lr: float) -> list[np.ndarray]:
        tiles = [np.zeros_like(W) for _ in range(n_tiles - 1)] + [W.copy()]
        read, columns = [], [0] * n_tiles
        for k, g in enumerate(gradients, start=1):
            tiles[0] = tiles[0] - beta * lr * g.sum(0)
            for n in range(n_tiles - 1):
                if k % (every * growth**n) == 0:
                    tiles[n + 1][:, columns[n]] += lrs[n] * tiles[n][:, columns[n]]
                    columns[n] = (columns[n] + 1) % IN
            read.append(sum(gamma ** (n_tiles - 1 - n) * tile for n, tile in enumerate(tiles)))
        return read

    return recursion


ABSOLUTE = {"scale_fast_lr": False, "scale_transfer_lr": False}
CASES: dict[type, list[Case]] = {
    AnalogSGD: [Case(AnalogSGD(), sgd())],
    TikiTaka: [
        Case(
            TikiTaka(n_reads=None, fast_lr=0.5, transfer_lr=2.0), transferring(beta=0.5, to_slow=plain(2.0), n_reads=IN)
        ),
        Case(TikiTaka(n_reads=None, gamma=0.4), transferring(beta=1.0, to_slow=plain(1.0), n_reads=IN, gamma=0.4)),
        # Cyclic: two of five columns at every third step, so that a sweep ends within a transfer.
        Case(
            TikiTaka(n_reads=2, transfer_every=3, fast_lr=0.3),
            transferring(beta=0.3, to_slow=plain(1.0), every=3, n_reads=2),
        ),
        Case(
            TikiTaka(fast_lr=0.01, transfer_lr=0.5, **ABSOLUTE),
            transferring(beta=0.01, to_slow=plain(0.5, scale=False), scale_beta=False),
        ),
        # Every second sample, rows: mini-batches of three end between transfers.
        Case(
            TikiTaka(transfer_every=2, n_reads=3, units_in_mbatch=False, transfer_columns=False, gamma=0.1),
            transferring(beta=1.0, to_slow=plain(1.0), every=2, n_reads=3, by_sample=True, rows=True, gamma=0.1),
        ),
    ],
    TikiTakaV2: [
        Case(TikiTakaV2(), transferring(beta=1.0, to_slow=Buffered(DW), by_sample=True, scale_beta=False)),
        Case(
            TikiTakaV2(
                fast_lr=0.5,
                transfer_every=2,
                n_reads=2,
                buffer_granularity=6.0,
                momentum=0.25,
                forget_buffer=False,
                gamma=0.2,
                transfer_columns=False,
                units_in_mbatch=True,
            ),
            transferring(
                beta=0.5,
                to_slow=Buffered(6 * DW / 0.2, keep=0.25),  # gamma = 0.2 of what is read enters
                every=2,
                n_reads=2,
                rows=True,
                gamma=0.2,
                scale_beta=False,
            ),
        ),
    ],
    ChoppedTikiTakaV2: [
        # Flips of lines after two reads each.
        Case(
            ChoppedTikiTakaV2(in_chop_prob=0.5, in_chop_random=False, gamma=0.2, auto_granularity=20.0),
            transferring(
                beta=1.0,
                to_slow=Buffered(20 * DW / IN / 0.2),  # gamma = 0.2 of what is read enters
                by_sample=True,
                scale_beta=False,
                gamma=0.2,
                sign=lambda k: (-1.0) ** (k // 2),
            ),
        ),
        Case(
            ChoppedTikiTakaV2(in_chop_prob=0.3, in_chop_random=False, transfer_columns=False),
            transferring(
                beta=1.0,
                to_slow=Buffered(DW),
                by_sample=True,
                scale_beta=False,
                rows=True,
                sign=lambda k: (-1.0) ** (k // 4),
            ),
        ),
    ],
    AGAD: [
        Case(
            AGAD(in_chop_prob=0.5, tail_weightening=0.8),
            transferring(
                beta=1.0,
                to_slow=Buffered(DW, reference=(2, 0.4)),
                by_sample=True,
                scale_beta=False,
                sign=lambda k: (-1.0) ** (k // 2),
            ),
        ),
    ],
    MixedPrecision: [
        Case(MixedPrecision(), whole_steps()),
        Case(MixedPrecision(transfer_every=2, n_rows=3, momentum=0.5), whole_steps(every=2, n_rows=3, momentum=0.5)),
    ],
    ResidualLearning: [
        Case(
            ResidualLearning(buffer_rate=0.3, gamma=0.4),
            transferring(beta=1.0, to_slow=Leaky(0.3), gamma=0.4),
        ),
    ],
    MultiTile: [
        Case(
            MultiTile(n_tiles=3, gamma=0.3, transfer_every=1, transfer_every_growth=2, fast_lr=0.5),
            cascade(3, 0.3, 1, 2, (0.1, 0.12), beta=0.5),
        ),
    ],
    Rider: [
        Case(
            Rider(gamma=0.0, transfer_lr=2.0, tracking_rate=0.2),
            transferring(beta=1.0, to_slow=Tracking(2.0, 0.2), n_reads=IN),
        ),
    ],
    Stale: [Case(Stale(delay=2), sgd(delay=2))],
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
        samples = [(u.d[:, :, None] * u.x[:, None, :]).numpy() for u in updates]
        expected = case.recursion(tile.weight.numpy(), samples, LR)
        for k, (update, W) in enumerate(zip(updates, expected, strict=True), start=1):
            send(tile, [update])
            # Sums of up to k batches; those of P again summed into W.
            assert_within_ulps(tile.weight, torch.from_numpy(W), ulps=16 * k)

    @pytest.mark.parametrize("form", ["low rank", "dense"])
    def test_every_form(self, case, form):
        # A dense update is written row by row, which is what algorithms that count samples see of it.
        by_rows = getattr(case.algorithm, "units_in_mbatch", True) is False
        make_form = {"low rank": lambda u: LowRank(u.d.mT, u.x.mT), "dense": lambda u: Dense(u.as_dense())}[form]
        outer, other = (make(case, device=aihwkit_soft_bounds()) for _ in range(2))
        updates = [make_form(u) for u in batches(8)]
        send(outer, [u.as_outer() if by_rows else v for u, v in zip(updates, batches(8), strict=True)], lr=0.01)
        send(other, updates, lr=0.01)
        assert_within_ulps(other.weight, outer.weight, ulps=64)
        # The price, also of parts of a mini-batch; mixed precision adds it to its own matrix.
        kept = 0 if isinstance(case.algorithm, MixedPrecision) else updates[0].digital_memory
        assert max(bar.counters.digital_memory for bar in other.crossbars) == kept

    @pytest.mark.parametrize("update", UPDATES[::3])
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

    @pytest.mark.parametrize("update", UPDATES[1::2])
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

    @pytest.mark.parametrize("update", UPDATES[::3])
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
