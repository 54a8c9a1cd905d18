"""The operator `ohmgrad::pulse`: in torch's graphs a crossbar is pulsed as outside of them, to the bit."""

import copy
import pickle
import shutil

import pytest
import torch
from torch import Tensor, nn

from ohmgrad import AnalogOptimizer, Crossbar, PulsedUpdate, convert
from ohmgrad.devices import ConstantStep, Device, SoftBounds
from ohmgrad.pulses import op

SPREAD = SoftBounds(w_min=-0.6, w_max=0.6, dw_min=0.01, dw_min_ctoc=0.3, w_max_dtod=0.2, dw_min_dtod=0.2)
UNIFORM = ConstantStep(dw_min=0.01)
# A library's own warnings, laid at the door of whoever compiles.
pytestmark = [
    pytest.mark.filterwarnings("default::DeprecationWarning", "default::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def inputs(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def crossbar(device: Device = SPREAD, **options) -> Crossbar:
    return Crossbar((5, 6), device=device, **{"update": PulsedUpdate(), "count_pulses": True, "seed": 3, **options})


def assert_same(a: nn.Module, b: nn.Module) -> None:
    other = b.state_dict()
    different = [name for name, value in a.state_dict().items() if not torch.equal(value, other[name])]
    assert not different


def given(bar: Crossbar, x: Tensor, d: Tensor, lr: float = 0.05) -> tuple:
    """The operator's arguments for a pulse of that crossbar."""
    values = [torch.as_tensor(v, dtype=torch.float64) if isinstance(v, float) else v for v in bar.params.values()]
    law = op.number_of(bar.device_model, bar.update)
    moved = torch.zeros_like(bar.weight, dtype=torch.uint8)
    names = " ".join(bar.params)
    counters = bar.cycles, bar.pulses, bar.pulse_counts
    return bar.weight, x, d, lr, *counters, moved, bar.seed, bar.seed, bar.granularity, names, values, law


class TestOperator:
    @pytest.mark.parametrize("device", [SPREAD, UNIFORM], ids=["planes", "numbers"])
    @pytest.mark.parametrize("replicas", [(), (2,)])
    def test_torchs_own_check(self, device, replicas):
        bar = crossbar(device, replicas=replicas)
        torch.library.opcheck(torch.ops.ohmgrad.pulse.default, given(bar, inputs(3, 6), inputs(3, 5)))

    def test_it_pulses(self):
        bar, other = crossbar(), crossbar()
        arguments = given(bar, inputs(3, 6), inputs(3, 5))
        torch.ops.ohmgrad.pulse(*arguments)
        other.pulse(inputs(3, 6), inputs(3, 5), 0.05)
        assert_same(bar, other)
        assert torch.equal(arguments[7].bool(), bar.pulse_counts > 0) and bar.pulses > 0

    def test_nothing_changes_where_it_refuses(self):
        bar, x = crossbar(), inputs(3, 6)
        before = {name: value.clone() for name, value in bar.state_dict().items()}
        x[2, 5] = torch.nan
        with pytest.raises(ValueError, match="x needs finite numbers"):
            torch.ops.ohmgrad.pulse(*given(bar, x, inputs(3, 5)))
        assert all(torch.equal(value, before[name]) for name, value in bar.state_dict().items())

    def test_strided_inputs_give_the_same(self):
        bar, other = crossbar(), crossbar()
        torch.ops.ohmgrad.pulse(*given(bar, inputs(3, 6), inputs(3, 5)))
        torch.ops.ohmgrad.pulse(*given(other, inputs(3, 6).mT.contiguous().mT, inputs(3, 5).mT.contiguous().mT))
        assert_same(bar, other)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
class TestGraph:
    def compare(self, backend: str, bar: Crossbar, step, batches: list[tuple[Tensor, Tensor]]) -> None:
        """One graph, without breaks, for all batches; the same bits as without it."""
        other = copy.deepcopy(bar)
        compiled = torch.compile(step, backend=backend, fullgraph=True)
        for x, d in batches:
            y, expected = compiled(bar, x, d), step(other, x, d)
            assert torch.equal(y, expected)
            assert_same(bar, other)
        assert bar.pulses.min() > 0 and bar.cycles > 0

    @pytest.mark.parametrize("device", [SPREAD, UNIFORM], ids=["planes", "numbers"])
    @pytest.mark.parametrize("replicas", [(), (2,)])
    @pytest.mark.parametrize("count", [True, False])
    def test_the_same_bits(self, backend, device, replicas, count):
        def step(bar, x, d):
            bar.pulse(2.0 * x, d - 0.1, 0.05)
            y = bar.weight @ x.mT.sum(-1)
            bar.pulse(x, d.abs(), -0.05)
            return y + bar.weight.sum()

        batches = [(inputs(4, 6, seed=s), inputs(4, 5, seed=s + 9)) for s in range(3)]
        self.compare(backend, crossbar(device, replicas=replicas, count_pulses=count), step, batches)

    @pytest.mark.slow  # half a minute, in which torch traces its random numbers
    def test_write_noise(self, backend):
        def step(bar, x, d):
            bar.pulse(x, d, 0.05)
            return bar.weight + 0.0

        self.compare(backend, crossbar(SoftBounds(write_noise=1.0)), step, [(inputs(4, 6), inputs(4, 5))] * 2)

    def test_a_law_from_another_process(self, backend):
        def step(bar, x, d):
            bar.pulse(x, d, 0.05)
            return bar.weight + 0.0

        bar = crossbar(update=PulsedUpdate(bit_length=50 + len(backend)))
        sent = pickle.dumps(bar)
        known = dict(op._laws)
        op._laws.clear()
        try:
            self.compare(backend, pickle.loads(sent), step, [(inputs(4, 6), inputs(4, 5))])
        finally:
            op._laws.clear()
            op._laws.update(known)

    def test_batches_of_several_sizes(self, backend):
        def step(bar, x, d):
            bar.pulse(x, d, 0.05)
            return bar.weight + 0.0

        self.compare(backend, crossbar(), step, [(inputs(n, 6), inputs(n, 5)) for n in (4, 7, 1, 9, 4)])

    def test_transposed_inputs_and_those_with_a_history(self, backend):
        def step(bar, x, d):
            bar.pulse(x.mT, (d * d).mT, 0.05)
            return bar.weight + 0.0

        self.compare(backend, crossbar(), step, [(inputs(6, 4).requires_grad_(), inputs(5, 4))])

    def test_two_crossbars_of_different_laws(self, backend):
        def step(bars, x, d):
            for bar in bars:
                bar.pulse(x, d, 0.05)
            return bars[0].weight - bars[1].weight

        # Of laws that no other test knows, so that this graph is the first to name them.
        bars = [crossbar(), crossbar(UNIFORM, update=PulsedUpdate(train="mean-count", bit_length=len(backend)))]
        others = copy.deepcopy(bars)
        compiled = torch.compile(step, backend=backend, fullgraph=True)
        for seed in range(3):
            x, d = inputs(4, 6, seed=seed), inputs(4, 5, seed=seed)
            assert torch.equal(compiled(bars, x, d), step(others, x, d))
        for bar, other in zip(bars, others, strict=True):
            assert_same(bar, other)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a compiler of C++")
def test_inductor():
    def step(bar, x, d):
        bar.pulse(2.0 * x.mT, d + 0.1, 0.05)
        return bar.weight.sum(0) + 1.0

    bar, x, d = crossbar(), inputs(6, 4), inputs(4, 5)
    other, compiled = copy.deepcopy(bar), torch.compile(step, fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(compiled(bar, x, d), step(other, x, d))  # it sums in an order of its own
        assert_same(bar, other)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("device", [SPREAD, SoftBounds(write_noise=1.0)], ids=["visible", "write noise"])
def test_a_compiled_network_trains_as_the_plain_one(backend, device):
    torch.manual_seed(0)
    digital = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    models = [convert(digital, device=device, update=PulsedUpdate(), seed=4) for _ in range(2)]
    start = copy.deepcopy(models[0])
    runs = [torch.compile(models[0], backend=backend), models[1]]
    optimizers = [AnalogOptimizer(model, lr=0.05) for model in models]
    for k in range(4):
        for run, optimizer in zip(runs, optimizers, strict=True):
            optimizer.zero_grad()
            run(inputs(8, 6, seed=k)).square().sum().backward()
            optimizer.step()
    assert_same(models[0], models[1])
    assert not torch.equal(models[0][0].weight, start[0].weight)


def test_a_graph_takes_another_lr_each_time():
    bar, other = crossbar(), crossbar()
    step = torch.compile(lambda x, d, lr: bar.pulse(x, d, lr), backend="eager", fullgraph=True)
    for lr in (0.1, 0.2, 0.3):
        step(inputs(3, 6), inputs(3, 5), lr)
        other.pulse(inputs(3, 6), inputs(3, 5), lr)
    assert_same(bar, other)


def test_buffers_that_are_replaced_count_from_then_on():
    bar = crossbar(SoftBounds(dw_min_dtod=0.3))
    bar.pulse(inputs(3, 6), inputs(3, 5), 0.1)
    bar.cycles, bar.pulses = torch.zeros_like(bar.cycles), torch.zeros_like(bar.pulses)
    bar.pulse(inputs(3, 6), inputs(3, 5), 0.1)
    assert bar.cycles == 3 and bar.pulses > 0
    for name in ("device_dw_up", "device_dw_down"):
        setattr(bar, name, torch.zeros_like(bar.weight))
    before = bar.weight.clone()
    bar.pulse(inputs(3, 6), inputs(3, 5), 0.1)
    assert torch.equal(bar.weight, before) and bar.cycles == 6
