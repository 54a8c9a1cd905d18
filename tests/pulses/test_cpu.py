"""The compiled kernel against the eager reference: the same numbers of pulses, and weights within rounding.

And against itself, to the bit: whichever lines it takes, in however many parts and threads.
"""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from ohmgrad import Crossbar, Dense, PulsedUpdate, random
from ohmgrad.devices import DEVICES, ConstantStep, Device, LinearStep, PiecewiseStep, SoftBounds, SoftBoundsReference
from ohmgrad.devices.base import CTOC
from ohmgrad.pulses import cpu, cpu_sharing, cpu_trains
from users import SPREAD, TELLING, Bent, Tilted

# Ulps at |w| = 1. Steps round otherwise where products fuse, and normals differ by 6e-6, also in float64.
ROUNDING = {torch.float32: 4 * 2.0**-23, torch.float64: 5e-8}


FAMILIES = (*DEVICES, Bent, Tilted)


def device(family: type[Device], **fields) -> Device:
    given = {"w_min": -0.6, "w_max": 0.6, "dw_min": 5e-3, "dw_min_ctoc": 0.3, **SPREAD, **TELLING.get(family, {})}
    return family(**(given | fields))


def lines(
    batch: int, n_in: int, n_out: int, *, sparse_x=0.0, sparse_d=0.0, dtype=torch.float32, seed=1
) -> tuple[Tensor, Tensor]:
    """x and d; sparse: the share of lines that are 0 in all samples, and in each sample half of the others."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for n, share in ((n_in, sparse_x), (n_out, sparse_d)):
        t = torch.randn(batch, n, generator=generator, dtype=torch.float64)
        if share:
            t[:, torch.rand(n, generator=generator) < share] = 0.0
            t[torch.rand(t.shape, generator=generator) < 0.5] = 0.0
        made.append(t.to(dtype))
    return made[0], made[1]


def pulsed(model: Device, x: Tensor, d: Tensor, lr: float = 0.02, *, eager=False, **settings) -> Crossbar:
    """A crossbar after two mini-batches, the second one larger and the other way."""
    shape, update = (d.shape[-1], x.shape[-1]), PulsedUpdate(eager=eager, **settings)
    options = {"seed": 4, "dtype": x.dtype, "replicas": x.shape[:-2], "count_pulses": True}
    bar = Crossbar(shape, device=model, update=update, **options)
    bar.pulse(x, d, lr)
    bar.pulse(x.flip(-1), d, -5.0 * lr)
    return bar


def assert_agrees(model: Device, x: Tensor, d: Tensor, lr: float = 0.02, least: int = 100, **settings) -> Crossbar:
    """The kernel does what eager torch does; what the kernel made."""
    kernel, eager = (pulsed(model, x, d, lr, eager=eager, **settings) for eager in (False, True))
    assert torch.equal(kernel.pulse_counts, eager.pulse_counts)
    assert torch.equal(kernel.pulses, eager.pulses) and kernel.pulses.min() >= least
    assert torch.equal(kernel.pulses, kernel.pulse_counts.sum((-2, -1)).double())
    for name in ("weight", "persistent"):
        if hasattr(kernel, name):
            error = (getattr(kernel, name) - getattr(eager, name)).abs().max()
            assert error <= ROUNDING[x.dtype], f"{name} is off by {error:.1e}"
    return kernel


def assert_same_bits(bars: list[Crossbar]) -> None:
    first = bars[0].state_dict()
    for bar in bars[1:]:
        state = bar.state_dict()
        different = [name for name, value in state.items() if not torch.equal(value, first[name])]
        assert not different and first["pulses"].min() > 0


WAYS = (cpu_trains.BY_ROWS, cpu_trains.BY_COLUMNS, cpu_trains.BY_HITS)


def way_of(x: torch.Tensor, d: torch.Tensor, lr: float = 0.02) -> int:
    """Which way a mini-batch of `pulsed` goes."""
    options, numbers = np.array([cpu_trains.STOCHASTIC, 31, 1, 1, 0]), np.array([5e-3, 0.0])
    keys = np.array([random.root(4, s) for s in (random.Stream.X_BITS, random.Stream.D_BITS)], np.uint32)
    (batch, n_in), n_out = x.shape, d.shape[1]
    room = np.empty(cpu_trains.room_for(batch, 1, n_in, n_out), np.uint32)
    length, x_on, d_on = made = cpu_trains.trains_in(room, batch, 1, n_in, n_out)
    assert cpu_trains.prepare(0, batch, x.numpy(), d.numpy(), lr, options, numbers, keys, 0, *made)
    return cpu_trains.cheapest_way(x_on, d_on, length, cpu_trains.STOCHASTIC, True)


def force(monkeypatch, way: int) -> None:
    """One way, whatever it costs."""
    monkeypatch.setattr(cpu, "ALONG", way)


class TestAgainstEager:
    @pytest.mark.parametrize(("family", "ctoc"), [(f, c) for f in FAMILIES for c in CTOC if c != "own" or f.noise])
    @pytest.mark.parametrize("sparsity", [0.0, 0.8])
    @pytest.mark.parametrize("merge", [True, False])
    def test_every_family(self, family, ctoc, sparsity, merge):
        assert_agrees(device(family, ctoc=ctoc), *lines(5, 37, 21, sparse_x=sparsity), merge=merge)

    @pytest.mark.parametrize("family", [SoftBounds, SoftBoundsReference, Bent])
    @pytest.mark.parametrize("ctoc", ["multiplicative", "additive"])
    @pytest.mark.parametrize("merge", [True, False])
    def test_double_precision(self, family, ctoc, merge):
        assert_agrees(device(family, ctoc=ctoc), *lines(5, 37, 21, dtype=torch.float64), merge=merge)

    @pytest.mark.parametrize("family", [SoftBounds, Bent])
    @pytest.mark.parametrize("settings", [
        {"bit_length": 1},
        {"bit_length": 31, "bit_length_management": False},
        {"bit_length": 31, "bit_length_management": False, "update_management": False},
        {"bit_length": 32},
        {"bit_length": 100},
        {"bit_length": 33, "resolution": 0.03},
        {"resolution": 0.03, "stochastic_rounding": True},
        {"train": "mean-count"},
        {"train": "mean-count", "resolution": 0.1, "stochastic_rounding": True},
        {"train": "deterministic"},
        {"train": "deterministic", "bit_length": 1000, "bit_length_management": False},
    ], ids=lambda s: "-".join(f"{k}={v}" for k, v in s.items()))  # fmt: skip
    def test_every_train(self, family, settings):
        assert_agrees(device(family), *lines(4, 19, 23), lr=0.04, **settings)

    def test_a_thousand_slots(self):
        x, d = lines(2, 9, 7)
        fine = device(SoftBounds, dw_min=2e-4, dw_min_ctoc=0.1)
        assert assert_agrees(fine, x, d, lr=0.02, bit_length=1000).pulse_counts.max() > 500

    def test_a_long_table(self):
        # Of more numbers than kernels look at one after another.
        nodes = tuple(1.5 + math.sin(k) for k in range(cpu.SHORT + 4))
        assert_agrees(device(PiecewiseStep, nodes_up=nodes, nodes_down=nodes[::-1]), *lines(5, 37, 21))

    def test_steps_that_reach_the_bound(self):
        # Where dw_min is more than a sixth of a bound no two pulses merge, and where it is all of it, as with w_max
        # here, the line of the response has no distance from its fixed point in units of what a pulse leaves of it.
        for merge in (True, False):
            x, d = lines(6, 20, 20)
            for coarse in (device(SoftBounds, dw_min=0.1), SoftBounds(w_max=0.125, dw_min=0.125, dw_min_ctoc=0.3)):
                assert_agrees(coarse, x, d, merge=merge, bit_length=3)

    def test_one_pulse_to_a_bound(self):
        for merge in (True, False):
            bar = Crossbar((2, 3), device=SoftBounds(dw_min=1.0), update=PulsedUpdate(merge=merge))
            bar.pulse(torch.ones(1, 3), torch.tensor([[-1.0, 1.0]]), 1.0)
            assert bar.weight.tolist() == [[1.0] * 3, [-1.0] * 3]

    @pytest.mark.parametrize("x_sign", [0, 1, -1])
    @pytest.mark.parametrize("d_sign", [0, 1, -1])
    @pytest.mark.parametrize("lr", [0.02, -0.02])
    def test_signs(self, x_sign, d_sign, lr):
        (x, d), model = lines(4, 24, 31), device(LinearStep, up_down=0.4, gamma_up=0.5)
        x, d = (s * t.abs() if s else t for s, t in ((x_sign, x), (d_sign, d)))
        assert_agrees(model, x, d, lr)

    @pytest.mark.parametrize("write_noise", [0.0, 2.0])
    def test_replicas(self, write_noise):
        x, d = (t.reshape(2, 3, -1) for t in lines(6, 12, 8, sparse_x=0.3, sparse_d=0.3))
        assert_agrees(device(ConstantStep, write_noise=write_noise), x, d)

    @pytest.mark.parametrize("way", WAYS)
    def test_write_noise_shows_in_the_same_places(self, way, monkeypatch):
        force(monkeypatch, way)
        x, d = lines(1, 30, 40, sparse_x=0.8)
        bar = assert_agrees(device(SoftBounds, write_noise=5.0), x, d, least=10)
        before = Crossbar(bar.shape, device=bar.device_model, seed=4).weight
        assert torch.equal(bar.weight != before, bar.pulse_counts > 0)

    def test_memory_layouts(self):
        (x, d), model = lines(6, 17, 40), device(SoftBounds)
        bars = [pulsed(model, x, d[:, ::2].contiguous()), pulsed(model, x.mT.contiguous().mT, d[:, ::2])]
        assert_same_bits(bars)
        assert_agrees(model, x[:1].expand(4, -1).abs(), d[:1].expand(4, -1))


class TestWays:
    """Row by row, column by column, in tiles and strips, or at the crosspoints of pulses alone: the same bits."""

    @pytest.mark.parametrize(("shape", "batch", "sparse_x", "lr", "way"), [
        ((30, 300), 3, 0.0, 0.02, cpu_trains.BY_ROWS),
        ((200, 100), 40, 0.9, 0.1, cpu_trains.BY_COLUMNS),
        ((100, 100), 3, 0.9, 2e-3, cpu_trains.BY_HITS),
    ])  # fmt: skip
    def test_the_cheapest_one(self, shape, batch, sparse_x, lr, way):
        x, d = lines(batch, shape[1], shape[0], sparse_x=sparse_x)
        assert_agrees(device(SoftBounds), x, d, lr)
        assert way_of(x, d, lr) == way

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("shape", [(21, 2100), (2100, 21), (70, 70)])
    @pytest.mark.parametrize("sparse", [0.0, 0.7])
    def test_the_same_bits(self, family, shape, sparse, monkeypatch):
        # More lines than a strip and more lanes than a tile; trains of one pulse beside longer ones.
        x, d = lines(3, shape[1], shape[0], sparse_x=sparse, sparse_d=sparse)
        x[1], d[2] = x[1].abs(), -d[2].abs()
        for ctoc, merge, lr in (("multiplicative", True, 2e-3), ("additive", True, 8e-3), ("additive", False, 2e-3)):
            bars = []
            for way in WAYS:
                force(monkeypatch, way)
                model = device(family, ctoc=ctoc, write_noise=1.0)
                bars.append(pulsed(model, x, d, lr, merge=merge))
            assert_same_bits(bars)

    @pytest.mark.parametrize("train", ["mean-count", "deterministic"])
    def test_the_same_bits_of_other_trains(self, train, monkeypatch):
        x, d = lines(3, 33, 1100, sparse_x=0.5)
        bars = []
        for way in WAYS[:2]:
            force(monkeypatch, way)
            bars.append(pulsed(device(SoftBounds), x, d, train=train, resolution=0.01, stochastic_rounding=True))
        assert_same_bits(bars)

    def test_columns_without_crossed_parameters(self, monkeypatch):
        x, d = lines(3, 40, 300, sparse_x=0.5)
        force(monkeypatch, cpu_trains.BY_COLUMNS)
        crossed = pulsed(device(SoftBounds), x, d)
        monkeypatch.setattr(cpu, "CROSSED", 0)
        assert_same_bits([crossed, pulsed(device(SoftBounds), x, d)])

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("write_noise", [0.0, 1.0])
    def test_any_number_of_threads(self, way, write_noise, monkeypatch):
        for seconds in ("TINY", "SMALL", "LARGE"):
            monkeypatch.setattr(cpu_sharing, seconds, 0.0)
        force(monkeypatch, way)
        x, d = lines(16, 210, 150, sparse_x=0.5)
        before, bars = torch.get_num_threads(), []
        try:
            for threads in (1, 2, 4):
                torch.set_num_threads(threads)
                bars.append(pulsed(device(SoftBounds, write_noise=write_noise), x, d))
        finally:
            torch.set_num_threads(before)
        assert_same_bits(bars)

    @pytest.mark.parametrize("parts_of", [1, 2, 5])
    @pytest.mark.parametrize("sparse", [0.0, 0.9])
    def test_any_number_of_parts(self, parts_of, sparse, monkeypatch):
        x, d = lines(7, 50, 60, sparse_x=sparse)
        whole = pulsed(device(SoftBounds, write_noise=1.0), x, d)
        monkeypatch.setattr(cpu, "SLAB", parts_of * 3 * (50 + 60))
        looks = []
        monkeypatch.setattr(cpu, "need_finite", lambda *given: looks.append(given))  # before a batch in parts
        parts = pulsed(device(SoftBounds, write_noise=1.0), x, d)
        assert len(looks) == 2
        assert_same_bits([whole, parts])


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes(shape):
    bar = Crossbar(shape, device=SoftBounds(), update=PulsedUpdate())
    bar.pulse(torch.ones(1, shape[1]), torch.ones(1, shape[0]), 0.01)
    torch.testing.assert_close(bar.weight, torch.full(shape, -0.01), rtol=0.01, atol=0.0)


def test_loading_a_state_takes_its_devices_along():
    first, second = (Crossbar((4, 5), device=device(SoftBounds), update=PulsedUpdate(), seed=s) for s in (1, 2))
    x, d = torch.randn(3, 5), torch.randn(3, 4)
    for bar in (first, second):
        bar.pulse(x, d, 0.1)
    second.load_state_dict(first.state_dict())
    for bar in (first, second):
        bar.pulse(x, d, 0.1)
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("update", [PulsedUpdate(), PulsedUpdate(eager=True)])
def test_nan_is_refused_in_a_weight_and_in_columns(update):
    bar, spoilt = Crossbar((2, 3), device=SoftBounds(), update=update), torch.zeros(2, 3)
    spoilt[0, 1] = torch.nan
    with pytest.raises(ValueError, match="weight needs finite numbers"):
        bar.set_weight(spoilt)
    with pytest.raises(ValueError, match="values needs finite numbers"):
        bar.write_columns(torch.tensor([0, 1]), spoilt[:, :2], 0.1)
    with pytest.raises(ValueError, match="dW needs finite numbers"):
        bar.write(Dense(spoilt), 0.1)
    assert not bar.weight.any()


def test_a_copy_keeps_its_devices_when_the_original_loads_others():
    original, other = (Crossbar((4, 5), device=device(SoftBounds), update=PulsedUpdate(), seed=s) for s in (1, 2))
    x, d = torch.randn(3, 5), torch.randn(3, 4)
    original.pulse(x, d, 0.1)
    twins = [copy.deepcopy(original), pickle.loads(pickle.dumps(original))]
    expected = copy.deepcopy(original)
    expected.pulse(x, d, 5.0)
    original.load_state_dict(other.state_dict())
    for twin in twins:
        twin.pulse(x, d, 5.0)  # long enough trains to meet the bounds
        assert torch.equal(twin.weight, expected.weight)
