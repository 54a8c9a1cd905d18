"""Evaluation has noise of its own: training goes on as if there had been none, and a resumed run repeats both."""

import copy

import pytest
import torch
from torch import Tensor, nn

from chance import assert_mean
from ohmgrad import IO, AnalogOptimizer, InputRange, Mapping, Periphery, PulsedUpdate, TikiTaka, convert
from ohmgrad.devices import Ideal, SoftBounds
from ohmgrad.periphery import DEFAULT, Reader

NOISY = IO(inp_noise=0.05, w_noise=0.02)
PLAIN = IO(w_noise=0.02, ir_drop=1.0)  # which no kernels know
AVERAGE = IO(noise_management="average-abs-max", nm_decay=0.3)
ALL = Mapping(digital_bias=False, input_range=InputRange(init_from_data=3), max_input_size=4)


def model(io: IO, mapping: Mapping | None = None, n: int = 1) -> nn.Module:
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)) for _ in range(n)]
    return convert(
        nets, device=SoftBounds(dw_min_dtod=0.3), update=PulsedUpdate(), algorithm=TikiTaka(), mapping=mapping,
        periphery=Periphery(forward=io, backward=io), seed=1,
    )  # fmt: skip


def train(net: nn.Module, steps: range, evaluations: int, call=None, shape: tuple[int, ...] = (7, 6)) -> list[Tensor]:
    """Some steps, each after so many evaluations with gradients; what evaluations gave."""
    optimizer, seen = AnalogOptimizer(net, lr=0.1), []
    call = call or net
    for k in steps:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(k))
        net.eval()
        for _ in range(evaluations):
            inputs = (5.0 * x).requires_grad_()
            y = call(inputs)
            (gradient,) = torch.autograd.grad(y.sum(), inputs)
            seen += [y.detach(), gradient]
        net.train()
        optimizer.zero_grad()
        call(x).square().sum().backward()
        optimizer.step()
    return seen


def moved(a: nn.Module, b: nn.Module) -> set[str]:
    """Last names of the states that differ; an average that nobody read is NaN."""
    return {
        name.rpartition(".")[2]
        for (name, v), w in zip(a.state_dict().items(), b.state_dict().values(), strict=True)
        if not torch.equal(v.nan_to_num(7.0), w.nan_to_num(7.0))
    }


@pytest.mark.parametrize("mapping", [None, ALL], ids=["plain", "all"])
@pytest.mark.parametrize("io", [NOISY, PLAIN, AVERAGE], ids=["kernels", "torch", "average"])
def test_training_goes_on_as_if_there_were_none(io, mapping):
    if io is AVERAGE and mapping is ALL:
        mapping = Mapping(max_input_size=4)
    quiet, watched = model(io, mapping), model(io, mapping)
    train(quiet, range(4), 0)
    seen = train(watched, range(4), 2)
    assert moved(quiet, watched) == {"evaluated", "reads"}
    assert not torch.equal(seen[0], seen[2])  # each evaluation has other noise than the last


def test_replicas():
    quiet, watched = (model(NOISY, n=2) for _ in range(2))
    train(quiet, range(3), 0, shape=(2, 7, 6)), train(watched, range(3), 2, shape=(2, 7, 6))
    assert moved(quiet, watched) == {"evaluated", "reads"}


def test_a_compiled_model():
    quiet, watched = model(NOISY), model(NOISY)
    train(quiet, range(2), 0)
    train(watched, range(2), 1, torch.compile(watched, backend="aot_eager"))
    assert moved(quiet, watched) == {"evaluated", "reads"}


def test_a_resumed_run_repeats_both():
    whole, first, second = (model(NOISY) for _ in range(3))
    seen = train(whole, range(4), 2)
    again = train(first, range(2), 2)
    second.load_state_dict(first.state_dict())
    again += train(second, range(2, 4), 2)
    assert not moved(whole, second) and all(torch.equal(a, b) for a, b in zip(seen, again, strict=True))


def test_states_from_before_there_was_such_a_counter():
    net, old = model(NOISY), model(NOISY)
    train(old, range(2), 0)
    state = {name: value for name, value in old.state_dict().items() if not name.endswith("evaluated")}
    assert len(state) < len(old.state_dict())
    net.load_state_dict(state)
    assert not moved(net, old)


def test_the_noise_of_both_is_independent(seed):
    # 40,000 products of two noises: sees a correlation of 0.025.
    reader = Reader(IO(noise_management="none", bound_management="none", out_res=0.0), direction=0, replicas=(),
                    dtype=torch.float32)  # fmt: skip
    w, x, own = torch.zeros(8, 3), torch.ones(5000, 3), torch.tensor(seed)
    training, evaluation = reader.train()(w, x, own), reader.eval()(w, x, own)
    assert int(reader.vectors) == int(reader.evaluated) == 5000
    assert_mean(training * evaluation / DEFAULT.out_noise**2, 0.0, std=1.0)


class TestAverage:
    X = torch.tensor([[1.0, 0.5], [4.0, -2.0]])

    @staticmethod
    def reader() -> Reader:
        io = IO(noise_management="average-abs-max", nm_decay=0.5, out_noise=0.0, inp_res=0.0, out_res=0.0)
        return Reader(io, direction=0, replicas=(), dtype=torch.float32)

    def test_evaluation_takes_it_as_it_is(self):
        reader, seed = self.reader(), torch.tensor(0)
        reader(torch.eye(2), self.X, seed)
        assert reader.average == 2.5
        got = reader.eval()(torch.eye(2), self.X, seed)
        assert reader.average == 2.5 and got.tolist() == [[1.0, 0.5], [2.5, -2.0]]  # the DAC ends there
        x = self.X.clone()
        x[0, 1] = torch.nan
        assert reader(torch.eye(2), x, seed)[0].isnan().all()

    def test_before_any_training_vectors_scale_as_a_first_batch(self):
        first, trained, seed = self.reader().eval(), self.reader(), torch.tensor(0)
        assert torch.equal(first(torch.eye(2), self.X, seed), trained(torch.eye(2), self.X, seed))
        assert first.average.isnan()


def test_copies_and_moves_keep_both():
    net = model(NOISY)
    train(net, range(1), 1)
    twin, wide = copy.deepcopy(net), copy.deepcopy(net).double()
    x = torch.randn(4, 6)
    for mode in (True, False):
        for one in (net, twin, wide):
            one.train(mode)
        y = net(x)
        assert torch.equal(y, twin(x))
        torch.testing.assert_close(wide(x.double()).float(), y, atol=1e-4, rtol=1e-4)


def test_ideal_reads_are_the_same_in_both():
    net = convert(nn.Linear(3, 2), device=Ideal())
    assert torch.equal(net.train()(torch.ones(1, 3)), net.eval()(torch.ones(1, 3)))
