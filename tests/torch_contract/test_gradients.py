"""What is done to gradients reaches tiles as it reaches digital weights, or is refused."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from contracts.layer import gaussian
from contracts.twins import KINDS, PLACES, WRITES, twins
from ohmgrad import AnalogOptimizer, TikiTaka, convert
from ohmgrad.algorithms import MixedPrecision
from ohmgrad.devices import Ideal

MLP = (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), (gaussian(7, 6),))
KINDS.setdefault("a network", MLP)
REPLICATED = [kind for kind in KINDS if kind not in ("a position added",)]


def backward(pair, *, passes: int = 1) -> None:
    """The same gradients in both, but for a pass that both forget."""
    inputs = next(given for name, (_, given) in KINDS.items() if name == pair.kind)
    for model, optimizer in pair.both:
        optimizer.zero_grad()
        for _ in range(passes):
            pair.loss(model, *inputs).backward()


def pair_of(kind: str, *args, **options):
    """Twins that know their kind."""
    pair = twins(kind, *args, **options)
    pair.kind = kind
    return pair


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", REPLICATED)
def test_clip_grad_norm(kind, place, write):
    pair = pair_of(kind, place, write)
    for passes in (1, 2):
        backward(pair, passes=passes)
        norms = [nn.utils.clip_grad_norm_(m.parameters(), 0.05) for m, _ in pair.both]
        # Afterwards weights differ by the rounding of pulses, and so do gradients.
        torch.testing.assert_close(norms[1], norms[0], rtol=1e-3 if pair.off and passes > 1 else 1e-10, atol=0.0)
        assert norms[0] > 0.05  # it clips
        for _, optimizer in pair.both:
            optimizer.step()
    pair.assert_same()


@pytest.mark.parametrize("foreach", [None, True])
@pytest.mark.parametrize("ord", [0.5, 1.0, 2.0, math.inf])
def test_other_norms(ord, foreach):
    pair = pair_of("a network")
    backward(pair)
    norms = [nn.utils.clip_grad_norm_(m.parameters(), 0.1, norm_type=ord, foreach=foreach) for m, _ in pair.both]
    torch.testing.assert_close(norms[1], norms[0], rtol=1e-10, atol=0.0)
    for _, optimizer in pair.both:
        optimizer.step()
    pair.assert_same()


def test_the_trainers_default_moves_a_tile_as_a_digital_weight():
    # A gradient of norm far above 1: it moved a tile by a thousand times as much as a digital weight.
    x = torch.full((1, 2), 100.0)
    digital = nn.Linear(2, 2)
    analog = convert(digital, device=Ideal())
    moved = []
    for model, optimizer in (
        (digital, torch.optim.SGD(digital.parameters(), lr=0.02)),
        (analog, AnalogOptimizer(analog, lr=0.02)),
    ):
        before = model.weight.detach().clone()
        model(x).sum().mul(50.0).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        moved.append((model.weight.detach() - before).norm())
    assert float(moved[0]) == pytest.approx(float(moved[1]), rel=1e-4) and float(moved[0]) < 0.03


def in_place(p):
    p.grad.mul_(0.5)


def divided(p):
    p.grad /= 4


def data_divided(p):
    p.grad.data.div_(torch.tensor(4.0))


def negative(p):
    p.grad.neg_()


def assigned(p):
    p.grad = -0.5 * p.grad


def detached(p):
    p.grad.detach().mul_(3.0)


def cloned(p):
    p.grad = p.grad.clone() / 3


def normalised(p):
    p.grad.div_(p.grad.norm() + 1.0)


def without_data_attribute(p):
    p.grad = (p.grad.data * torch.tensor(2.0)).detach()


def twice(p):
    p.grad.mul_(0.1).mul_(torch.tensor([4.0]))


def added_to_itself(p):
    p.grad = p.grad + 2 * p.grad


def by_alpha(p):
    p.grad.add_(p.grad.clone(), alpha=-0.25)


def less(p):
    p.grad.sub_(p.grad.clone() * 0.25)


def zeroed(p):
    p.grad.zero_()


FACTORS = [
    in_place, divided, data_divided, negative, assigned, detached, cloned, normalised, without_data_attribute, twice,
    added_to_itself, by_alpha, less, zeroed,
]  # fmt: skip


@pytest.mark.parametrize("place", ["plain", "grid", "scaled"])
@pytest.mark.parametrize("edit", FACTORS)
def test_common_factors_and_sums(edit, place):
    pair = pair_of("a network", place)
    for k in range(2):
        backward(pair, passes=1 + k)
        for model, optimizer in pair.both:
            # A tile of a grid has a part of the matrix, so that its norm is another.
            if edit is not normalised or place != "grid":
                for p in model.parameters():
                    edit(p)
            optimizer.step()
    pair.assert_same()


@given(st.lists(st.one_of(st.floats(-2.0, 2.0), st.just("backward")), min_size=1, max_size=8))
def test_factors_between_passes(calls):
    # Each factor acts on what came before it, and not on what comes after.
    pair = pair_of("Linear")
    backward(pair)
    for model, optimizer in pair.both:
        for call in calls:
            if call == "backward":
                pair.loss(model, gaussian(3, 4, seed=4)).backward()
            else:
                for p in model.parameters():
                    p.grad.mul_(call)
        optimizer.step()
    pair.assert_same()


def test_gradients_kept_and_given_back():
    # As sharpness-aware minimisation and gradients of several tasks do: a pass, its gradients laid aside, another.
    pair = pair_of("a network")
    backward(pair)
    for model, optimizer in pair.both:
        kept = [p.grad for p in model.parameters()]
        optimizer.zero_grad()
        pair.loss(model, gaussian(2, 6, seed=9)).backward()
        for p, old in zip(model.parameters(), kept, strict=True):
            p.grad = 0.3 * p.grad + old
        optimizer.step()
    pair.assert_same()


READS = {
    "norm": lambda g: g.norm(),
    "sum of squares": lambda g: g.pow(2).sum(),
    "largest": lambda g: g.abs().max(),
    "is finite": lambda g: torch.isfinite(g).all(),
    "mean of squares": lambda g: (g**2).mean(),
    "as float32": lambda g: g.detach().float().norm().double(),
}


@pytest.mark.parametrize("read", READS)
def test_gradients_can_be_looked_at(read):
    pair = pair_of("Linear")
    backward(pair)
    grad = pair.analog.tile.handle.grad
    torch.testing.assert_close(READS[read](grad), READS[read](pair.digital.weight.grad))
    assert repr(grad) == "Gradient of a tile, which waits as [Outer]"


def clip_value(model):
    nn.utils.clip_grad_value_(model.parameters(), 1e-3)


def clip_values_at_once(model):
    nn.utils.clip_grad_value_(model.parameters(), 1e-3, foreach=True)


def sign(model):
    for p in model.parameters():
        p.grad.sign_()


def noise(model):
    for p in model.parameters():
        p.grad.add_(1e-3)


def by_mask(model):
    for p in model.parameters():
        p.grad.data.clamp_(min=0.0)


ELEMENTS = [clip_value, clip_values_at_once, sign, noise, by_mask]


@pytest.mark.parametrize("edit", ELEMENTS)
@pytest.mark.parametrize("algorithm", [None, TikiTaka()])
def test_edits_number_by_number_are_refused_at_the_step(edit, algorithm):
    pair = pair_of("a network", algorithm=algorithm)
    before = [m.weight for m in pair.analog if isinstance(getattr(m, "weight", None), torch.Tensor)]
    backward(pair)
    edit(pair.analog)
    with pytest.raises(TypeError, match=r"changed number by number .*clip_grad_norm_.*MixedPrecision"):
        pair.ours.step()
    for a, b in zip((pair.analog[0].weight, pair.analog[2].weight), before, strict=True):
        assert torch.equal(a, b)
    # And after zero_grad all is as ever.
    backward(pair)
    pair.ours.step()


@pytest.mark.parametrize("edit", ELEMENTS)
def test_mixed_precision_takes_any_gradient(edit):
    pair = pair_of("a network", device=Ideal(dw_min=1e-9), algorithm=MixedPrecision())
    pair.off = 1e-8
    for _ in range(2):
        backward(pair)
        for model, optimizer in pair.both:
            edit(model)
            optimizer.step()
    pair.assert_same()


def test_a_gradient_that_somebody_else_made_is_refused():
    pair = pair_of("Linear")
    for p in pair.analog.parameters():
        p.grad = torch.ones_like(p)
    with pytest.raises(TypeError, match="that somebody else made"):
        pair.loss(pair.analog, *KINDS["Linear"][1]).backward()
    with pytest.raises(TypeError, match="somebody else made"):
        pair.ours.step()


TORCHS = ["SGD", "Adam", "AdamW", "Adagrad", "Adadelta", "RMSprop", "Adamax", "NAdam", "RAdam"]


@pytest.mark.parametrize("options", [{}, {"foreach": True}])
@pytest.mark.parametrize("kind", TORCHS)
def test_torchs_optimizers_are_refused_at_the_step(kind, options):
    pair = pair_of("Linear")
    optimizer = getattr(torch.optim, kind)(pair.analog.parameters(), lr=0.1, **options)
    backward(pair)
    with pytest.raises(TypeError, match=r"trained by ohmgrad\.AnalogOptimizer"):
        optimizer.step()


def test_hooks_of_parameters_act():
    pair = pair_of("a network")
    for model, _ in pair.both:
        for p in model.parameters():
            p.register_hook(lambda g: 0.25 * g)
    backward(pair, passes=2)
    for _, optimizer in pair.both:
        optimizer.step()
    pair.assert_same()


def halve(p: nn.Parameter) -> None:
    p.grad.mul_(0.5)


def test_hooks_after_accumulation_act():
    pair = pair_of("a network", "grid")
    for model, _ in pair.both:
        for p in model.parameters():
            p.register_post_accumulate_grad_hook(halve)
    backward(pair, passes=2)
    for _, optimizer in pair.both:
        optimizer.step()
    pair.assert_same()


@pytest.mark.parametrize("place", ["plain", "grid"])
def test_autograd_grad_over_parameters(place):
    # Gradients that autograd.grad returns are as good as those that it leaves.
    pair = pair_of("a network", place)
    for model, optimizer in pair.both:
        parameters = list(model.parameters())
        loss = pair.loss(model, *KINDS["a network"][1])
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            assert p.grad is None
            p.grad = 0.5 * g
        optimizer.step()
    pair.assert_same()


def test_a_recurrent_matrix_by_autograd_grad():
    pair = pair_of("GRU")
    for model, optimizer in pair.both:
        parameters = list(model.parameters())
        loss = pair.loss(model, *KINDS["GRU"][1])
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = g
        optimizer.step()
    pair.assert_same()


def test_backward_of_some_parameters_alone():
    pair = pair_of("a network")
    for model, optimizer in pair.both:
        first = [p for name, p in model.named_parameters() if name.startswith("0.")]
        pair.loss(model, *KINDS["a network"][1]).backward(inputs=first)
        optimizer.step()
    pair.assert_same()


def test_a_grad_scaler():
    pair = pair_of("a network")
    for model, optimizer in pair.both:
        scaler = torch.amp.GradScaler("cpu")
        for k in range(4):
            optimizer.zero_grad()
            loss = pair.loss(model, *KINDS["a network"][1]) * (math.inf if k == 1 else 1.0)  # a step that is left out
            scaler.scale(loss).backward()
            if k == 2:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
    pair.assert_same()


def test_gradients_move_with_the_model():
    pair = pair_of("a network")
    backward(pair)
    for model, optimizer in pair.both:
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        model.float().double()
        optimizer.step()
    pair.off, pair.n_samples = 1e-6, 1
    pair.assert_same()


def initialised(model):
    for p in model.parameters():
        nn.init.normal_(p)


def averaged(model):
    # As hand-written averages do, often by way of .data.
    for p in model.parameters():
        p.data.mul_(0.9)


def from_a_vector(model):
    vector = nn.utils.parameters_to_vector(model.parameters())
    nn.utils.vector_to_parameters(vector + 0.1, model.parameters())


def perturbed(model):
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)


@pytest.mark.parametrize("write", [initialised, averaged, from_a_vector, perturbed])
@pytest.mark.parametrize(
    "use", [lambda m: m(torch.ones(1, 2)), lambda m: m.weight, lambda m: m.state_dict(), lambda m: m.double()]
)
def test_a_handle_that_somebody_wrote_into_is_refused(write, use):
    model = convert(nn.Linear(2, 2), device=Ideal())
    with pytest.raises(RuntimeError, match="set_weight"):
        write(model)
        use(model)


def test_what_moves_handles_rightly():
    model = convert(nn.Linear(2, 2), device=Ideal())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.double().float()):
        other.load_state_dict(model.state_dict())
        optimizer = AnalogOptimizer(other, lr=0.1)
        other.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
        other(torch.ones(1, 2)).sum().backward()
        before = other.weight.clone()
        optimizer.step()
        assert (other.weight != before).all()


def test_freezing_between_the_passes():
    # As a generator's step does with its discriminator: torch accumulates what is trained when backward runs.
    pair = pair_of("a network")
    for model, optimizer in pair.both:
        loss = pair.loss(model, *KINDS["a network"][1])
        model[2].requires_grad_(False)
        loss.backward()
        model[2].requires_grad_(True)
        optimizer.step()
    pair.assert_same()


def test_data_of_gradients():
    pair = pair_of("a network")
    backward(pair)
    for model, optimizer in pair.both:
        for p in model.parameters():
            p.grad.data = p.grad.data * 0.5
        optimizer.step()
    pair.assert_same()


OUT_OF_PLACE = {
    "clamp": lambda g: g.clamp(-1e-2, 1e-2),
    "sign": lambda g: g.sign(),
    "nan_to_num": torch.nan_to_num,
    "where": lambda g: torch.where(g > 0, g, 0.1 * g),
    "noise": lambda g: g + 1e-3,
}


@pytest.mark.parametrize("edit", OUT_OF_PLACE)
@pytest.mark.parametrize("by_hook", [False, True])
def test_edits_out_of_place(edit, by_hook):
    change = OUT_OF_PLACE[edit]
    for algorithm in (None, MixedPrecision()):
        pair = pair_of("a network", device=Ideal(dw_min=1e-9), algorithm=algorithm)
        pair.off = 1e-8
        if by_hook:
            for model, _ in pair.both:
                for p in model.parameters():
                    p.register_hook(change)
        backward(pair)
        for model, _ in pair.both:
            for p in model.parameters():
                p.grad = p.grad if by_hook else change(p.grad)
        if algorithm is None:
            with pytest.raises(TypeError, match="changed number by number"):
                pair.ours.step()
        else:
            for _, optimizer in pair.both:
                optimizer.step()
            pair.assert_same()


def test_sums_of_gradients_begin_at_0():
    pair = pair_of("a network")
    backward(pair)
    for model, optimizer in pair.both:
        for p in model.parameters():
            p.grad = sum([p.grad, 2 * p.grad]) / 4
        optimizer.step()
    pair.assert_same()


def penalty(model, optimizer):
    (model(torch.ones(1, 2)).sum() + sum(p.square().sum() for p in model.parameters())).backward()
    optimizer.step()


def decay_by_hand(model, optimizer):
    model(torch.ones(1, 2)).sum().backward()
    for p in model.parameters():
        p.grad.add_(p, alpha=0.1)
    optimizer.step()


def proximal(model, optimizer):
    old = [p.detach().clone() for p in model.parameters()]
    loss = model(torch.ones(1, 2)).sum()
    (loss + sum((p - q).square().sum() for p, q in zip(model.parameters(), old, strict=True))).backward()
    optimizer.step()


@pytest.mark.parametrize("use", [penalty, decay_by_hand, proximal])
def test_a_handle_that_is_read_for_the_matrix_is_refused(use):
    model = convert(nn.Linear(2, 2), device=Ideal())
    before = model.weight.clone()
    with pytest.raises(TypeError, match=r"layer\.weight is the matrix"):
        use(model, AnalogOptimizer(model, lr=0.1))
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("write", ["step", "set_weight"])
def test_a_write_between_forward_and_backward_is_refused(write):
    # torch: "modified by an inplace operation".
    model = convert(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), device=Ideal())
    optimizer, x = AnalogOptimizer(model, lr=0.1), torch.ones(2, 3)
    late = model(x).sum()
    if write == "step":
        model(x).square().sum().backward()
        optimizer.step()
    else:
        model[1].set_weight(torch.zeros(2, 4))
    with pytest.raises(RuntimeError, match="between a forward pass and its backward pass"):
        late.backward()


def test_the_gradient_of_a_shown_weight_is_the_tiles():
    pair = pair_of("a network")
    backward(pair)
    for model, optimizer in pair.both:
        nn.utils.clip_grad_norm_([model[0].weight, model[2].weight], 0.05)
        model[2].bias.grad = None
        optimizer.step()
        model[0].weight.grad = None
        optimizer.step()
    pair.assert_same()


def test_a_matrix_is_no_single_number():
    pair = pair_of("Linear")
    backward(pair)
    with pytest.raises(RuntimeError, match=r"a matrix of 12 numbers, got item"):
        pair.analog.tile.handle.grad.item()
