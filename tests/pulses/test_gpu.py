"""The GPU's kernels against the eager reference: the same numbers of pulses, and weights within rounding.

Triton decides at its import whether it compiles or interprets; so without a GPU these tests
run in a process of their own.
"""

import math
import os
import subprocess
import sys
from itertools import product

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ohmgrad import Crossbar, PulsedUpdate, random, vocabulary
from ohmgrad.devices import DEVICES, ConstantStep, Device, SoftBounds
from ohmgrad.devices.base import CTOC, draw
from ohmgrad.pulses import eager, op
from ohmgrad.pulses.settings import TRAINS, Lines
from users import SPREAD, TELLING, Bent

pytest.importorskip("triton")
HOME = "cuda" if torch.cuda.is_available() else "cpu"
CAN_RUN = HOME == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
if CAN_RUN:
    import triton.language as tl

    from ohmgrad.pulses import gpu
    from ohmgrad.pulses.gpu_kernel import quick_normal
    from ohmgrad.pulses.triton_target import jit, popcount

    @jit
    def normals(counters, k0, k1, z, n_set):
        at = tl.arange(0, 8192)
        counter = tl.load(counters + at).to(tl.uint32)
        tl.store(z + at, quick_normal(tl.cast(k0, tl.uint32), tl.cast(k1, tl.uint32), counter))
        tl.store(n_set + at, popcount(counter).to(tl.int64))


# Older interpreters cast NaN to whole numbers in lanes whose result is dropped, and say so.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
inside = pytest.mark.skipif(not CAN_RUN, reason="runs in the process that test_in_a_process_of_its_own starts")
# Ulps at |w| = 1, half a dozen samples of up to 20 pulses: steps' rounding; in float64 also the float32 normals' own.
ROUNDING = {torch.float32: 2.0**-23, torch.float64: 2e-8}
CYCLE = 2**33 + 5  # beyond 32 bits, where a key's second word begins to tell


def device(family: type[Device], **fields) -> Device:
    bounds = {"w_min": -0.6, "w_max": 0.6} if math.isfinite(family.w_min) else {}
    given = TELLING.get(family, {}) | (SPREAD if bounds else {})
    return family(**bounds, dw_min=0.02, dw_min_ctoc=0.3, **(given | fields))


def assert_agree(model: Device, x: torch.Tensor, d: torch.Tensor, lr: float = 0.1, least: int = 10, **settings) -> None:
    """Two mini-batches with the kernels and with eager torch."""
    update, x, d = PulsedUpdate(**settings), x.to(HOME), d.to(HOME)
    params = draw(model, torch.tensor(3), (d.shape[1], x.shape[1]), x.dtype)
    params = {k: v.to(HOME) if isinstance(v, torch.Tensor) else v for k, v in params.items()}
    w = torch.zeros(d.shape[1], x.shape[1], dtype=x.dtype, device=HOME)
    v, counts, expected = w.clone(), torch.zeros_like(w, dtype=torch.int64), torch.zeros_like(w, dtype=torch.int64)
    launch = gpu.launcher(model, params, update, 7, w)
    total = 0.0
    for part, cycle in ((slice(0, 1), CYCLE), (slice(1, None), CYCLE + 1)):
        total += float(launch(x[part], d[part], lr, len(x[part]), torch.tensor(cycle, device=HOME), counts, None))
        given = {"device": model, "params": params, "settings": update, "seed": 7, "cycle": cycle}
        expected += eager.pulse(v, x[part], d[part], lr, **given)
    assert torch.equal(counts, expected) and total == int(expected.sum()) >= least
    assert (w - v).abs().max() <= ROUNDING[w.dtype]


def lines(batch: int, n_in: int, n_out: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, d = (torch.randn(batch, n, generator=generator, dtype=dtype) for n in (n_in, n_out))
    return x, d * 0.25


@pytest.mark.skipif(CAN_RUN, reason="this is that process, or there is a GPU")
def test_in_a_process_of_its_own():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@inside
@pytest.mark.parametrize("key", [(0, 0), (0x1E3779B9, 0x7FFFFFFF), (0x7FFFFFFF, 0x05EBCA6B)])
def test_quick_normals_and_population_counts(key):
    # Neighbouring words give numbers 5e-6 apart, over four times the tolerance: so the words are equal bit for bit.
    counters = (torch.arange(2**32 - 4096, 2**32 + 4096) & 0xFFFFFFFF).to(HOME)
    z, n_set = torch.empty(8192, device=HOME), torch.empty_like(counters)
    normals[(1,)](counters, *key, z, n_set)
    torch.testing.assert_close(z, random.quick_normal(*key, counters), rtol=3 * 2.0**-24, atol=0.0)
    assert torch.equal(n_set, vocabulary.popcount(counters))


@inside
@pytest.mark.parametrize(("family", "ctoc", "merge"), [
    (family, ctoc, merge) for family, ctoc, merge in product(DEVICES, CTOC, (True, False))
    if (ctoc != "own" or family.noise) and (not merge or family.is_affine)
])  # fmt: skip
def test_kernels_equal_eager(family, ctoc, merge):
    dtype = torch.float64 if (ctoc == "additive") == merge else torch.float32
    assert_agree(device(family, ctoc=ctoc), *lines(2, 9, 5, dtype), merge=merge)


@inside
def test_n_steps_are_n_sure_pulses():
    # 0.07 / 0.01 is 7.000000000000001, and 0.14 / 0.01 and 0.28 / 0.01 are above whole numbers too.
    model, w = ConstantStep(dw_min=0.01), torch.zeros(2, 3, dtype=torch.float64, device=HOME)
    launch = gpu.launcher(model, model.nominal(), PulsedUpdate(), 7, w)
    x, d = (torch.ones(1, n, dtype=torch.float64, device=HOME) for n in (3, 2))
    for n in (7, 14, 15, 28, 29, 30):
        counts = torch.zeros_like(w, dtype=torch.int64)
        launch(x, d, float(f"0.{n:02d}"), 1, 0, counts, None)
        assert (counts == n).all()


@inside
@pytest.mark.parametrize("train", TRAINS)
def test_shared_lines(train):
    # Trains of another seed and step than the devices' own.
    model, settings, shared = device(SoftBounds), PulsedUpdate(train=train), Lines(11, 0.013)
    x, d = (t.to(HOME) for t in lines(2, 9, 5))
    params = draw(model, torch.tensor(3), (5, 9), x.dtype)
    params = {k: v.to(HOME) if isinstance(v, torch.Tensor) else v for k, v in params.items()}
    w = torch.zeros(5, 9, device=HOME)
    v, counts = w.clone(), torch.zeros_like(w, dtype=torch.int64)
    gpu.launcher(model, params, settings, 7, w, shared)(x, d, 0.1, 2, CYCLE, counts, None)
    given = {"device": model, "params": params, "settings": settings, "seed": 7, "cycle": CYCLE}
    assert torch.equal(counts, eager.pulse(v, x, d, 0.1, **given, lines=shared))
    assert (w - v).abs().max() <= ROUNDING[w.dtype]
    assert not torch.equal(counts, eager.pulse(v, x, d, 0.1, **given))


@inside
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_users_device_that_is_not_affine(dtype):
    assert_agree(device(Bent), *lines(2, 9, 5, dtype))


@inside
def test_trains_of_several_words_and_unmanaged_ones():
    x, d = lines(2, 5, 3)
    settings = {"bit_length": 40, "bit_length_management": False, "update_management": False}
    assert_agree(device(SoftBounds), x, d, lr=-0.1, **settings)
    for bit_length in (31, 32, 63, 64, 1000):  # 31 slots leave room for the sign in a first word, 32 need a second
        assert_agree(device(SoftBounds), x[:1], 20.0 * d[:1], bit_length=bit_length)


@inside
@pytest.mark.parametrize("train", ["mean-count", "deterministic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trains_of_counts(train, dtype):
    assert_agree(device(SoftBounds), *lines(3, 9, 5, dtype), train=train)
    assert_agree(device(ConstantStep), *lines(2, 9, 5, dtype), lr=-0.1, train=train, merge=False, bit_length=40)
    assert_agree(device(Bent), *lines(2, 5, 3, dtype), train=train, bit_length_management=False)


@inside
@pytest.mark.parametrize("train", TRAINS)
@pytest.mark.parametrize("rounded", [True, False])
def test_probabilities_in_steps(train, rounded):
    dtype = torch.float64 if rounded else torch.float32
    for resolution in (0.03, 0.5, 1.0):
        steps = {"resolution": resolution, "stochastic_rounding": rounded}
        assert_agree(device(SoftBounds), *lines(3, 9, 5, dtype), least=0, train=train, **steps)


@inside
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_one_pulse_that_leads_to_its_fixed_point():
    # S = -1: over 1 + S it is infinite. Merged or not, an up pulse ends at w_max, a down pulse at w_min.
    for merge in (True, False):
        assert_agree(SoftBounds(dw_min=1.0), *lines(3, 9, 5), lr=4.0, merge=merge)


@inside
@pytest.mark.parametrize("shape", [(1, 1), (1, 70)])
def test_positive_inputs_and_extreme_shapes(shape):
    x, d = lines(2, shape[1], shape[0])
    assert_agree(device(SoftBounds), x.abs() + 0.5, d.abs() + 0.1, least=2)


@inside
def test_nothing_to_do_and_what_is_not_finite():
    x, d = torch.ones(2, 3, device=HOME), torch.ones(2, 2, device=HOME)
    w = torch.zeros(2, 3, device=HOME)
    launch = gpu.launcher(SoftBounds(), SoftBounds().nominal(), PulsedUpdate(), 0, w)
    for zero in (
        launch(0.0 * x, d, 0.1, len(x), 0, None, None),
        launch(x, d, 0.0, len(x), 0, None, None),
        launch(x[:0], d[:0], 0.1, 0, 0, None, None),
    ):
        assert zero == 0.0 and not w.any()
    for bad in (math.nan, math.inf, -math.inf):
        assert launch(torch.full_like(x, bad), d, 0.1, len(x), 0, None, None).isnan() and not w.any()
        assert launch(x, torch.full_like(d, bad), 0.1, len(x), 0, None, None).isnan() and not w.any()


def gpu_crossbar(monkeypatch, **settings) -> Crossbar:
    """A crossbar of two replicas that uses the kernels, on the CPU too."""
    monkeypatch.setattr(op, "is_for_gpu", lambda w: True)
    model = SoftBounds(dw_min=0.02, dw_min_ctoc=0.3, w_max_dtod=0.3, write_noise=0.5)
    return Crossbar((3, 5), device=model, replicas=(2,), seed=3, update=PulsedUpdate(**settings)).to(HOME)


@inside
def test_a_crossbar_equals_its_eager_self(monkeypatch):
    x, d = lines(3, 5, 3)
    bars = []
    for is_eager in (False, True):
        bar = gpu_crossbar(monkeypatch, eager=is_eager)
        monkeypatch.setattr(op, "is_for_gpu", lambda w, is_eager=is_eager: not is_eager)
        for _ in range(2):
            bar.pulse(x.to(HOME), d.to(HOME), 0.1)
        bars.append(bar)
    ours, reference = bars
    assert torch.equal(ours.pulses, reference.pulses) and ours.counters.cycles == 6 and (ours.pulses > 10).all()
    assert (ours.weight - reference.weight).abs().max() <= ROUNDING[torch.float32]


@inside
def test_a_crossbar_tells_of_what_was_not_finite_when_it_is_asked(monkeypatch):
    x, d = lines(3, 5, 3)
    x[1, 2] = math.nan
    bar = gpu_crossbar(monkeypatch)
    bar.pulse(x.to(HOME), d.to(HOME), 0.1)
    assert bar.weight.isfinite().all() and bar.weight.any()
    with pytest.raises(ValueError, match="x and d need finite numbers, got NaN or infinity in samples"):
        _ = bar.counters


class NoWord(TorchDispatchMode):
    """Refuses every reading of a tensor by the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "the host reads a tensor"
        return func(*args, **(kwargs or {}))


@inside
def test_a_step_never_waits_for_the_gpu(monkeypatch):
    bar, sums = gpu_crossbar(monkeypatch), torch.full((), 2.0, dtype=torch.float64, device=HOME)
    monkeypatch.setattr(
        gpu, "launcher", lambda *_: lambda x, d, lr, batch, cycle, counts, moved: moved.add_(cycle).sum() * 0 + sums
    )
    x, d = (t.to(HOME) for t in lines(3, 5, 3))
    bar.pulse(x, d, 0.1)  # the first call makes the launchers, of each replica's seed
    with NoWord():
        bar.pulse(x, d, 0.1)
    with pytest.raises(AssertionError, match="the host reads"), NoWord():
        bar.counters  # noqa: B018  # the mode sees a reading
    assert bar.pulses.tolist() == [4.0, 4.0]


@pytest.mark.skipif(HOME != "cuda", reason="needs a GPU")
def test_a_cuda_graph_replays_with_a_new_lr_and_cycle():
    x, d = (t.to(HOME) for t in lines(3, 9, 5))
    model, w, settings = device(SoftBounds), torch.zeros(5, 9, device=HOME), PulsedUpdate()
    params = {k: torch.as_tensor(v).to(HOME) for k, v in draw(model, torch.tensor(3), (5, 9), x.dtype).items()}
    launch = gpu.launcher(model, params, settings, 7, w)
    lr, cycle = torch.zeros((), dtype=torch.float64, device=HOME), torch.zeros((), dtype=torch.int64, device=HOME)
    launch(x, d, lr, len(x), cycle, None, None)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch(x, d, lr, len(x), cycle, None, None)
        cycle += len(x)
    v = w.clone()
    for i, step in enumerate((0.1, -0.05)):
        lr.fill_(step)
        graph.replay()
        eager.pulse(v, x, d, step, device=model, params=params, settings=settings, seed=7, cycle=i * len(x))
    assert v.any() and (w - v).abs().max() <= ROUNDING[w.dtype]
