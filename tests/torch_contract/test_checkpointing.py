"""torch.utils.checkpoint: what it repeats has the noise of the first time, and counts once."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from ohmgrad import IO, AnalogOptimizer, InputRange, Mapping, Periphery, PulsedUpdate, TikiTaka, convert
from ohmgrad.crossbar import repeated
from ohmgrad.devices import SoftBounds, VectorCell

NOISY = IO(inp_noise=0.05, w_noise=0.02)
AVERAGE = IO(noise_management="average-abs-max", nm_decay=0.3)
RANGE = Mapping(digital_bias=False, input_range=InputRange(init_from_data=2), learn_out_scaling=True, max_input_size=4)
CELL = VectorCell(devices=(SoftBounds(),) * 2)


def model(io: IO = NOISY, mapping: Mapping | None = None, n: int = 1, **options) -> nn.Module:
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5)) for _ in range(n)]
    hardware = {"device": SoftBounds(dw_min_dtod=0.3), "algorithm": TikiTaka()} | options
    return convert(
        nets, update=PulsedUpdate(), mapping=mapping, periphery=Periphery(forward=io, backward=io), seed=1, **hardware
    )


def trained(net: nn.Module, call, shape: tuple[int, ...] = (7, 6), backward: int = 1) -> list[Tensor]:
    """Outputs, gradients and states of three steps."""
    optimizer, seen = AnalogOptimizer(net, lr=0.1), []
    for k in range(3):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(k)).requires_grad_()
        optimizer.zero_grad()
        y = call(net, x)
        loss = y.square().sum()
        for n in reversed(range(backward)):
            loss.backward(retain_graph=n > 0)
        seen += [y.detach(), x.grad, *[p.grad for p in net.parameters() if p.grad is not None]]
        optimizer.step()
        seen += [v.nan_to_num(7.0).clone() for v in net.state_dict().values()]
    return [v.clone() for v in seen]


def plainly(net: nn.Module, x: Tensor) -> Tensor:
    return net(x)


def assert_the_same(call, plain=plainly, made=model, **options) -> None:
    ours, expected = trained(made(), call, **options), trained(made(), plain, **options)
    assert [k for k, (a, b) in enumerate(zip(ours, expected, strict=True)) if not torch.equal(a, b)] == []


both = pytest.mark.parametrize("is_reentrant", [True, False], ids=["reentrant", "hooks"])


@both
@pytest.mark.parametrize("options", [
    {}, {"mapping": RANGE}, {"io": AVERAGE}, {"io": IO(w_noise=0.02, ir_drop=1.0)},
    {"device": CELL, "algorithm": None}, {"io": AVERAGE, "mapping": Mapping(max_output_size=3)},
], ids=["two crossbars", "grid and range", "average", "torch", "cells", "grid"])  # fmt: skip
def test_bit_by_bit(options, is_reentrant):
    made = lambda: model(**options)  # noqa: E731
    assert_the_same(lambda net, x: checkpoint(net, x, use_reentrant=is_reentrant), made=made)
    assert_the_same(lambda net, x: checkpoint_sequential(net, 2, x, use_reentrant=is_reentrant), made=made)


@both
def test_replicas(is_reentrant):
    made = lambda: model(mapping=RANGE, n=2)  # noqa: E731
    assert_the_same(lambda net, x: checkpoint(net, x, use_reentrant=is_reentrant), made=made, shape=(2, 7, 6))


@both
def test_the_same_inputs_twice(is_reentrant):
    # One layer reads the same vectors four times, in two checkpoints: by their bits nobody could tell them apart.
    # Sums of gradients come in another order, so within rounding, beside which noise is large.
    def gradient(run):
        net, x = model(), torch.linspace(-1.0, 1.0, 42).reshape(7, 6).requires_grad_()
        part = lambda h: net(h) * net(h).sigmoid()  # noqa: E731
        (run(part, x) * run(part, x)).sum().backward()
        return x.grad

    ours = gradient(lambda part, x: checkpoint(part, x, use_reentrant=is_reentrant))
    torch.testing.assert_close(ours, gradient(lambda part, x: part(x)))


@both
def test_one_inside_another(is_reentrant):
    def call(net, x):
        inner = lambda h: net[4](checkpoint(net[1:4], h, use_reentrant=False))  # noqa: E731
        return checkpoint(lambda h: inner(net[0](h)), x, use_reentrant=is_reentrant)

    assert_the_same(call)


def test_backward_twice():
    assert_the_same(lambda net, x: checkpoint(net, x, use_reentrant=False), backward=2)


@both
def test_layers_that_read_many_times(is_reentrant):
    def made():
        torch.manual_seed(0)
        layer = nn.LSTM(6, 3)
        return convert(layer, device=SoftBounds(), periphery=Periphery(forward=NOISY), seed=1)

    def call(net, x):
        return checkpoint(lambda h: net(h)[0], x, use_reentrant=is_reentrant)

    assert_the_same(call, lambda net, x: net(x)[0], made=made, shape=(5, 2, 6))


@both
def test_a_compiled_part(is_reentrant):
    def call(net, x):
        return checkpoint(torch.compile(net, backend="aot_eager"), x, use_reentrant=is_reentrant)

    assert_the_same(call)


def test_what_graphs_repeat_is_refused():
    torch.compiler.reset()  # after many graphs of other models torch would fall back to none
    net, x = model(), torch.randn(7, 6, requires_grad=True)
    whole = torch.compile(lambda x: checkpoint(net, x, use_reentrant=False), backend="aot_eager")
    with pytest.raises(RuntimeError, match=r"torch\.compile around activation checkpointing repeats noisy reads"):
        whole(x).sum().backward()
    net = model(mapping=RANGE)
    part = torch.compile(net, backend="aot_eager")
    with pytest.raises(RuntimeError, match="counts the first batches of an input range twice, of which 1 of init_from"):
        checkpoint(part, x, use_reentrant=False).sum().backward()


def test_models_in_evaluation():
    ours, theirs = model().eval(), model().eval()
    x = torch.randn(7, 6)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    checkpoint(ours, a, use_reentrant=False).square().sum().backward()
    theirs(b).square().sum().backward()
    assert torch.equal(a.grad, b.grad)
    with pytest.raises(RuntimeError, match=r"noisy read that was not noted .* models in eval\(\) need use_reentrant"):
        checkpoint(ours, a, use_reentrant=True).square().sum().backward()
    exact = convert(nn.Linear(6, 2), device=SoftBounds()).eval()
    checkpoint(exact, a, use_reentrant=True).sum().backward()  # has no noise


def test_notes_go_with_the_graph():
    net = model()
    part = checkpoint(net, torch.randn(7, 6, requires_grad=True), use_reentrant=True).grad_fn
    assert sum(len(v) for v in vars(part)[repeated.NOTES].values()) == 3
    del part
    copy.deepcopy(net)
    assert "_ohmgrad" not in str(net.state_dict().keys())


def test_a_torch_without_these_names_reads_plainly(monkeypatch):
    monkeypatch.setattr(repeated, "_graph_task", repeated._nothing)
    monkeypatch.setattr(repeated, "_hooks", repeated._nothing)
    net = model()
    assert torch.isfinite(checkpoint(net, torch.randn(7, 6), use_reentrant=False)).all()
