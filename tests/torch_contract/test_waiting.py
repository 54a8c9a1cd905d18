"""What waits on a tile belongs to the tile: nobody's change in place reaches it, and it waits until zero_grad."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from contracts.twins import KINDS, PLACES, WRITES, twins
from exact import assert_bits
from ohmgrad import AnalogOptimizer, Mapping, convert
from ohmgrad.devices import Ideal

CANNOT = {("a position added", "replicas")}  # it keeps a digital parameter, which convert cannot replicate


def biases(model: nn.Module) -> list[nn.Parameter]:
    """Digital parameters, whose gradients may be views of what a tile was given."""
    return [p for name, p in model.named_parameters() if "bias" in name or "position" in name]


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(("kind", "place"), [both for both in product(KINDS, PLACES) if both not in CANNOT])
def test_micro_batches(kind, place, write, size):
    # Two mini-batches of five samples, in micro-batches, with the gradient of the biases clipped in between.
    pair = twins(kind, place, write)
    for _ in range(2):
        for model, optimizer in pair.both:
            optimizer.zero_grad()
            for start in range(0, 5, size):
                pair.loss(model, *(x[start : start + size] for x in KINDS[kind][1])).backward()
                for bias in biases(model):
                    bias.grad.clamp_(-1e-3, 1e-3)
            optimizer.step()
    pair.assert_same()


def test_micro_batches_of_one_by_hand():
    layer = nn.Linear(2, 2)
    model = convert(layer, device=Ideal())
    optimizer = AnalogOptimizer(model, lr=1.0)
    for x, d in (((1.0, 0.0), (1.0, 2.0)), ((0.0, 1.0), (10.0, 20.0))):
        model(torch.tensor([x])).backward(torch.tensor([d]))
    optimizer.step()
    torch.testing.assert_close(layer.weight - model.weight, torch.tensor([[1.0, 10.0], [2.0, 20.0]]))


def buffer_of_inputs(x, d, y):
    x.fill_(7.0)


def gradient_given(x, d, y):
    d.zero_()


@pytest.mark.parametrize("kind", ["Linear", "Conv1d", "Embedding", "RNN", "MultiheadAttention"])
@pytest.mark.parametrize("change", [buffer_of_inputs, gradient_given])
def test_what_is_changed_between_backward_and_step(kind, change):
    pair = twins(kind)
    for model, optimizer in pair.both:
        inputs = tuple(x.clone() for x in KINDS[kind][1])
        y = model(*inputs)
        y = y[0] if isinstance(y, tuple) else y
        d = torch.ones_like(y)
        y.backward(d)
        for x in inputs:
            change(x, d, y)
        optimizer.step()
    pair.assert_same()


def test_a_static_buffer_of_inputs():
    # As CUDA graphs and loaders have: filled anew after each backward pass, before the step.
    pair = twins("Linear")
    for model, optimizer in pair.both:
        x = torch.empty(5, 4, dtype=torch.float64)
        for k in range(3):
            x.copy_(torch.full((5, 4), float(k)))
            pair.loss(model, x).backward()
        x.fill_(100.0)
        optimizer.step()
    pair.assert_same()


@pytest.mark.parametrize("kind", ["Linear", "Conv1d", "a position added"])
def test_compiled_micro_batches_of_one(kind):
    pair = twins(kind)
    models = [(torch.compile(m, backend="aot_eager"), o) for m, o in pair.both]
    for (model, optimizer), (own, _) in zip(models, pair.both, strict=True):
        for start in range(2):
            pair.loss(model, *(x[start : start + 1] for x in KINDS[kind][1])).backward()
            for p in own.parameters():
                if p.dim() == 1:
                    p.grad.mul_(0.5)
        optimizer.step()
    pair.assert_same()


@pytest.mark.filterwarnings("ignore:updates that waited on a tile were dropped")  # as some of these do
@given(st.lists(st.sampled_from(["backward", "step", "zero", "zero to 0", "module zero"]), min_size=1, max_size=12))
def test_without_zero_grad_updates_add_up(calls):
    # Whatever the order of passes, steps and zero_grad, also steps that nothing waits for.
    pair = twins("Linear")
    for model, optimizer in pair.both:
        pair.loss(model, KINDS["Linear"][1][0]).backward()  # so that there is a gradient
        for k, call in enumerate(calls):
            if call == "backward":
                pair.loss(model, KINDS["Linear"][1][0] + k).backward()
            elif call == "step":
                optimizer.step()
            elif call == "module zero":
                model.zero_grad()
            else:
                optimizer.zero_grad(set_to_none=call == "zero")
        optimizer.step()
    pair.assert_same()


def test_many_passes_that_nobody_sends_are_told():
    model = convert(nn.Linear(2, 2), device=Ideal())
    x = torch.ones(1, 2)
    with pytest.warns(UserWarning, match=r"the updates of 1000 backward passes wait on a tile.*zero_grad"):
        for _ in range(1001):
            model(x).sum().backward()


def test_an_update_does_not_share_memory():
    model = convert(nn.Linear(3, 3, bias=False).double(), device=Ideal())
    x, d = torch.ones(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    model(x).backward(d)
    (update,) = model.tile.waiting
    assert update.x.data_ptr() != x.data_ptr() and update.d.data_ptr() != d.data_ptr()
    assert_bits(update.x, x)


def test_zeroed_gradients_are_free_memory():
    model = convert(nn.Linear(3, 3), device=Ideal())
    optimizer = AnalogOptimizer(model, lr=0.1)
    for to_none in (True, False):
        model(torch.ones(2, 3)).sum().backward()
        assert len(model.tile.waiting) == 1
        optimizer.zero_grad(set_to_none=to_none)
        assert model.tile.waiting == []


class Parallel(nn.Module):
    """Two layers whose outputs are added, so that both get the same gradient."""

    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x):
        return self.a(x) + self.b(x)


PARALLEL = {
    "Linear": (lambda: nn.Linear(4, 3), (1, 4)),
    "Conv1d": (lambda: nn.Conv1d(2, 3, 3), (1, 2, 3)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(2, 3, 1), (1, 2, 1)),
}


@pytest.mark.parametrize("kind", PARALLEL)
@pytest.mark.parametrize("mapping", [None, Mapping(max_input_size=2), Mapping(learn_out_scaling=True)])
def test_biases_share_no_memory(kind, mapping):
    # Torch would make both gradients, of one sample, views of one tensor: clipped twice, and added twice.
    make, shape = PARALLEL[kind]
    torch.manual_seed(0)
    digital = Parallel(make(), make()).double()
    analog = convert(digital, device=Ideal(), mapping=mapping)
    x = torch.ones(shape, dtype=torch.float64)
    for model, optimizer in (
        (digital, torch.optim.SGD(digital.parameters(), 0.1)),
        (analog, AnalogOptimizer(analog, 0.1)),
    ):
        for _ in range(3):
            model(x).square().sum().backward()
        nn.utils.clip_grad_norm_([p for n, p in model.named_parameters() if "bias" in n], 0.1)
        optimizer.step()
    for a, b in ((analog.a, digital.a), (analog.b, digital.b)):
        torch.testing.assert_close(a.bias, b.bias)
        if mapping is None or not mapping.learn_out_scaling:
            torch.testing.assert_close(a.weight.detach(), b.weight.detach())


def test_a_gradient_that_the_caller_keeps():
    layer = convert(nn.Linear(4, 3), device=Ideal())
    d = torch.ones(1, 3)
    for _ in range(3):
        layer(torch.ones(1, 4)).backward(d)
    nn.utils.clip_grad_norm_(layer.parameters(), 0.1)
    assert torch.equal(d, torch.ones(1, 3))
