"""AnalogOptimizer: one torch optimizer for tiles and digital parameters alike."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from exact import assert_bits, assert_within_ulps
from ohmgrad import AnalogOptimizer, ExpectedUpdate, TikiTaka, convert
from ohmgrad.devices import Ideal
from ohmgrad.devices.presets import aihwkit_soft_bounds


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def digital() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)).double()


def analog(**options) -> nn.Sequential:
    return convert(digital(), **{"device": Ideal(), **options})


def loss_of(model: nn.Module, k: int = 0, rows: slice = slice(None)) -> torch.Tensor:
    return (model(gaussian(8, 5, seed=k)[rows]) - gaussian(8, 3, seed=k + 50)[rows]).square().sum()


def assert_same_model(ours: nn.Module, theirs: nn.Module, ulps: float = 64) -> None:
    """An analog and a digital network, weight by weight."""
    for a, b in zip(ours, theirs, strict=True):
        assert_within_ulps(a.weight.detach(), b.weight.detach(), ulps)
        assert_within_ulps(a.bias.detach(), b.bias.detach(), ulps)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, scheduler=None) -> None:
    for k in steps:
        optimizer.zero_grad()
        loss_of(model, k).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


SCHEDULERS = {
    "StepLR": lambda optimizer: StepLR(optimizer, 2, gamma=0.3),
    "OneCycleLR": lambda optimizer: OneCycleLR(optimizer, 0.01, total_steps=8, cycle_momentum=False),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers_act_on_both_halves(scheduler):
    ours, theirs = analog(), digital()
    optimizers = AnalogOptimizer(ours, lr=0.02), torch.optim.SGD(theirs.parameters(), lr=0.02)
    schedulers = [SCHEDULERS[scheduler](o) for o in optimizers]
    for k in range(6):
        for model, optimizer, s in zip((ours, theirs), optimizers, schedulers, strict=True):
            train(model, optimizer, range(k, k + 1), s)
        assert {g["lr"] for g in optimizers[0].param_groups} == {optimizers[1].param_groups[0]["lr"]}
    assert_same_model(ours, theirs)


def test_a_group_has_an_lr_of_its_own():
    ours, theirs = analog(), digital()
    groups = [{"params": ours[0].parameters(), "lr": 0.001}]
    optimizers = (
        AnalogOptimizer(ours, lr=0.02, groups=groups),
        torch.optim.SGD(
            [
                {"params": [*theirs[1].parameters(), *theirs[2].parameters()]},
                {"params": theirs[0].parameters(), "lr": 0.001},
            ],
            lr=0.02,
        ),
    )
    schedulers = [StepLR(o, 2, gamma=0.1) for o in optimizers]
    for model, optimizer, s in zip((ours, theirs), optimizers, schedulers, strict=True):
        train(model, optimizer, range(4), s)
    assert_same_model(ours, theirs)
    # Tiles and digital parameters of a group lie in two, with equal options.
    lrs = sorted(g["lr"] for g in optimizers[0].param_groups)
    assert lrs == pytest.approx([1e-5, 1e-5, 2e-4, 2e-4])


@pytest.mark.parametrize("per_sample", [False, True])
def test_accumulated_passes_equal_one_large_batch(per_sample):
    # Also where the order of samples matters, and the modulus of a sum.
    options = {"device": aihwkit_soft_bounds(), "update": ExpectedUpdate(per_sample=per_sample)}
    one, parts = analog(**options), analog(**options)
    optimizers = [AnalogOptimizer(m, lr=0.01) for m in (one, parts)]
    loss_of(one).backward()
    for rows in (slice(3), slice(3, 4), slice(4, None)):
        loss_of(parts, rows=rows).backward()
    for optimizer in optimizers:
        optimizer.step()
    assert_same_model(parts, one)
    assert parts[0].tile.crossbars[0].counters.cycles == 8


ZERO = {
    "optimizer": lambda model, optimizer: optimizer.zero_grad(),
    "optimizer, to zero": lambda model, optimizer: optimizer.zero_grad(set_to_none=False),
    "module": lambda model, optimizer: model.zero_grad(),
    "module, to zero": lambda model, optimizer: model.zero_grad(set_to_none=False),
}


@pytest.mark.parametrize("zero", ZERO)
def test_zero_grad_forgets(zero):
    model, expected = analog(), analog()
    optimizer = AnalogOptimizer(model, lr=0.01)
    loss_of(model, 7).backward()
    ZERO[zero](model, optimizer)
    if zero.startswith("optimizer"):
        assert model[0].tile.waiting == []  # its memory is free
    before = model[0].weight
    optimizer.step()
    assert_bits(model[0].weight, before)
    # And what comes afterwards is not mixed with what was forgotten.
    for m, o in ((model, optimizer), (expected, AnalogOptimizer(expected, lr=0.01))):
        loss_of(m).backward()
        o.step()
    assert_bits(model[0].weight, expected[0].weight)


def test_a_second_step_without_zero_grad_takes_the_same_gradient_again():
    ours, theirs = analog(), digital()
    optimizers = AnalogOptimizer(ours, lr=0.01), torch.optim.SGD(theirs.parameters(), lr=0.01)
    for model, optimizer in zip((ours, theirs), optimizers, strict=True):
        train(model, optimizer, range(1))
        optimizer.step()
    assert_same_model(ours, theirs)


def test_closure():
    ours, theirs = analog(), digital()
    losses = []
    for model, optimizer in (
        (ours, AnalogOptimizer(ours, lr=0.01)),
        (theirs, torch.optim.SGD(theirs.parameters(), lr=0.01)),
    ):

        def closure(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            return loss

        with torch.no_grad():
            losses.append(optimizer.step(closure).detach())
    assert_within_ulps(losses[0], losses[1], ulps=16)
    assert_same_model(ours, theirs)


def test_momentum_acts_on_the_digital_half_alone():
    ours, theirs = analog(), digital()
    weights = [theirs[0].weight, theirs[2].weight]
    rest = [p for p in theirs.parameters() if all(p is not w for w in weights)]
    reference = torch.optim.SGD([{"params": weights}, {"params": rest, "momentum": 0.9, "nesterov": True}], lr=0.01)
    for model, optimizer in ((ours, AnalogOptimizer(ours, lr=0.01, momentum=0.9, nesterov=True)), (theirs, reference)):
        train(model, optimizer, range(4))
    assert_same_model(ours, theirs)


def test_a_resumed_run_goes_on_bit_by_bit(tmp_path):
    # With Adam inside, a scheduler, Tiki-Taka's step counter, and noise.
    def start(seed: int):
        model = analog(
            device=aihwkit_soft_bounds(), algorithm=TikiTaka(n_reads=2), update=ExpectedUpdate(noise=True), seed=seed
        )
        optimizer = AnalogOptimizer(
            model, lr=0.01, digital=torch.optim.Adam, groups=[{"params": model[2].parameters(), "lr": 0.02}]
        )
        return model, optimizer, StepLR(optimizer, 2, gamma=0.5)

    whole, first, second = start(1), start(1), start(99)
    train(whole[0], whole[1], range(6), whole[2])
    train(first[0], first[1], range(3), first[2])
    torch.save([part.state_dict() for part in first], tmp_path / "run.pt")
    for part, state in zip(second, torch.load(tmp_path / "run.pt"), strict=True):
        part.load_state_dict(state)
    train(second[0], second[1], range(3, 6), second[2])
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, second[0].state_dict()[name]), name
    assert [g["lr"] for g in second[1].param_groups] == [g["lr"] for g in whole[1].param_groups]


def test_a_state_dict_does_not_change_under_the_one_who_holds_it():
    model = analog()
    optimizer = AnalogOptimizer(model, lr=0.01)
    state = optimizer.state_dict()
    kept = copy.deepcopy(state)
    StepLR(optimizer, 1, gamma=0.1)
    for group in optimizer.param_groups:
        group["lr"] = 5.0
    assert state == kept


@pytest.mark.parametrize("model", ["tiles alone", "no tiles"])
def test_one_half_may_be_missing(model):
    made = {
        "tiles alone": lambda: convert(nn.Sequential(nn.Linear(5, 3, bias=False)).double(), device=Ideal()),
        "no tiles": lambda: nn.Sequential(nn.Linear(5, 3)).double(),
    }[model]()
    optimizer = AnalogOptimizer(made, lr=0.01)
    before = made[0].weight.detach().clone()
    train(made, optimizer, range(1))
    assert (made[0].weight != before).all()
    optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("lr", [-0.1, math.nan, math.inf])
def test_wrong_lr(lr):
    with pytest.raises(ValueError, match=f"AnalogOptimizer needs a finite lr >= 0, got {lr}"):
        AnalogOptimizer(analog(), lr=lr)


def test_an_lr_that_a_group_or_scheduler_spoils_is_caught_at_the_step():
    model = analog()
    optimizer = AnalogOptimizer(model, lr=0.1)
    loss_of(model).backward()
    optimizer.param_groups[0]["lr"] = math.nan
    with pytest.raises(ValueError, match="lr needs a finite number, got nan"):
        optimizer.step()


def test_parameters_of_another_model():
    with pytest.raises(ValueError, match="got 2 parameters in groups that the model does not own"):
        AnalogOptimizer(analog(), lr=0.1, groups=[{"params": nn.Linear(2, 2).parameters()}])


def test_a_parameter_in_two_groups():
    model = analog()
    for params in ([model[0].tile.handle], [model[0].bias]):
        with pytest.raises(ValueError, match="more than one parameter group"):
            AnalogOptimizer(model, lr=0.1, groups=[{"params": params}, {"params": params}])


def test_a_model_without_parameters():
    with pytest.raises(ValueError, match="a model with parameters, got one without"):
        AnalogOptimizer(nn.Tanh(), lr=0.1)


def test_the_state_of_another_optimizer():
    state = AnalogOptimizer(nn.Linear(2, 2), lr=0.1).state_dict()
    with pytest.raises(ValueError, match="other parameter groups"):
        AnalogOptimizer(analog(), lr=0.1).load_state_dict(state)


def test_a_group_that_comes_later_is_trained():
    ours, theirs = analog(), digital()
    heads = [nn.Linear(3, 3).double() for _ in range(2)]
    heads[1].load_state_dict(heads[0].state_dict())
    optimizers = AnalogOptimizer(ours, lr=0.02), torch.optim.SGD(theirs.parameters(), lr=0.02)
    for model, head, optimizer in zip((ours, theirs), heads, optimizers, strict=True):
        optimizer.add_param_group({"params": head.parameters()})
        optimizer.param_groups[-1]["lr"] *= 0.5
        for _ in range(3):
            optimizer.zero_grad()
            head(model(gaussian(8, 5))).square().sum().backward()
            optimizer.step()
    assert_within_ulps(heads[0].weight.detach(), heads[1].weight.detach(), 256)
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizers[0].add_param_group({"params": ours[0].parameters()})
    alone = AnalogOptimizer(convert(nn.Linear(3, 2, bias=False), device=Ideal()), lr=0.1)
    with pytest.raises(ValueError, match="got one of tiles alone"):
        alone.add_param_group({"params": heads[0].parameters()})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_with_its_model_trains_that(copied):
    model = analog()
    optimizer = AnalogOptimizer(model, lr=0.02, momentum=0.9)
    train(model, optimizer, range(2))
    twin, its_own = copied((model, optimizer))
    for m, o in ((model, optimizer), (twin, its_own)):
        o.param_groups[0]["lr"] = o.param_groups[-1]["lr"] = 0.01
        train(m, o, range(2, 5))
    assert_same_model(twin, model, ulps=0)
