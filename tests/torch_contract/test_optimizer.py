"""The optimizer's own contract: options, schedulers, state dicts of others, wrappers, and words for what is refused."""

import copy
import re
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, OneCycleLR, ReduceLROnPlateau

from contracts.layer import gaussian
from contracts.twins import Twins, twins
from exact import assert_bits
from ohmgrad import AnalogOptimizer, Periphery, TikiTaka, convert
from ohmgrad.devices import Ideal, SoftBounds

X = gaussian(5, 4)


def pair_of(**options) -> Twins:
    """Twins whose optimizers have these options."""
    pair = twins("Linear")
    pair.theirs = torch.optim.SGD(pair.digital.parameters(), lr=0.01, **options)
    pair.ours = AnalogOptimizer(pair.analog, lr=0.01, **options)
    return pair


def train(pair: Twins, n: int = 4, schedulers=(None, None)) -> None:
    """Both, some steps."""
    for (model, optimizer), scheduler in zip(pair.both, schedulers, strict=True):
        for k in range(n):
            optimizer.zero_grad()
            pair.loss(model, X + k).backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()


@pytest.mark.parametrize(
    "options", [{"maximize": True}, {"weight_decay": 0.3}, {"weight_decay": 0.3, "maximize": True}], ids=str
)
def test_options_that_act_on_both_halves(options):
    pair = pair_of(**options)
    train(pair)
    pair.assert_same()


def test_weight_decay_of_one_group():
    pair = twins("Linear")
    pair.theirs = torch.optim.SGD(
        [{"params": [pair.digital.weight], "weight_decay": 0.5}, {"params": [pair.digital.bias]}], lr=0.01
    )
    groups = [{"params": [pair.analog.tile.handle], "weight_decay": 0.5}]
    pair.ours = AnalogOptimizer(pair.analog, lr=0.01, groups=groups)
    train(pair)
    pair.assert_same()


def test_weight_decay_is_one_mini_batch_with_the_gradient():
    # Otherwise algorithms would count twice as many mini-batches, and transfer twice as often.
    model = convert(nn.Linear(3, 2, bias=False), device=Ideal(), algorithm=TikiTaka(transfer_every=2))
    optimizer = AnalogOptimizer(model, lr=0.1, weight_decay=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert int(model.tile.state.step) == 1


@pytest.mark.parametrize("bias", [True, False])
def test_an_unknown_option_is_refused(bias):
    model = convert(nn.Linear(2, 2, bias=bias), device=Ideal())
    with pytest.raises(TypeError, match="momentun"):
        AnalogOptimizer(model, lr=0.1, momentun=0.9)
    with pytest.raises(ValueError, match="momentum"):
        AnalogOptimizer(model, lr=0.1, momentum=-1.0)


def test_parameters_in_place_of_the_model():
    model = convert(nn.Linear(2, 2), device=Ideal())
    with pytest.raises(TypeError, match=re.escape("AnalogOptimizer(model, lr=...), not model.parameters()")):
        AnalogOptimizer(model.parameters(), lr=0.1)


def test_an_optimizer_that_needs_a_closure():
    model = convert(nn.Linear(2, 2), device=Ideal())
    with pytest.raises(ValueError, match="got LBFGS, whose step needs a closure"):
        AnalogOptimizer(model, lr=0.1, digital=torch.optim.LBFGS)


SCHEDULERS = {
    "OneCycleLR": lambda o: OneCycleLR(o, 0.05, total_steps=8),
    "CyclicLR": lambda o: CyclicLR(o, 0.001, 0.05, step_size_up=2),
    "LambdaLR": lambda o: LambdaLR(o, lambda k: 1.0 / (k + 1)),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(name, bias):
    # Those that cycle momentum look for it in each group; momentum itself acts on digital parameters alone.
    digital = nn.Linear(4, 3, bias=bias).double()
    analog = convert(digital, device=Ideal())
    weight = digital.weight
    rest = [p for p in digital.parameters() if p is not weight]
    groups = [{"params": [weight], "momentum": 0.5}, {"params": rest}] if rest else [{"params": [weight]}]
    theirs = torch.optim.SGD(groups, lr=0.01, momentum=0.5)
    ours = AnalogOptimizer(analog, lr=0.01, momentum=0.5)
    schedulers = [SCHEDULERS[name](o) for o in (ours, theirs)]
    analog(X).sum().backward()
    for _ in range(6):
        for optimizer, scheduler in zip((ours, theirs), schedulers, strict=True):
            optimizer.step()
            scheduler.step()
        keys = ("lr", "momentum")
        settings = [[{k: g[k] for k in keys} for g in o.param_groups] for o in (ours, theirs)]
        assert settings[0] == settings[1]


def test_a_scheduler_of_betas_with_adam_inside():
    model = convert(nn.Linear(4, 3), device=Ideal())
    optimizer = AnalogOptimizer(model, lr=0.01, digital=torch.optim.AdamW)
    scheduler = OneCycleLR(optimizer, 0.05, total_steps=4)
    for _ in range(3):
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        scheduler.step()
    assert len({g["betas"] for g in optimizer.param_groups}) == 1


def test_reduce_on_plateau():
    optimizer = AnalogOptimizer(convert(nn.Linear(4, 3), device=Ideal()), lr=0.01)
    scheduler = ReduceLROnPlateau(optimizer, patience=0)
    for _ in range(3):
        scheduler.step(1.0)
    assert [g["lr"] for g in optimizer.param_groups] == [pytest.approx(1e-4)] * 2


def test_the_state_dict_has_torchs_layout():
    model = convert(nn.Linear(4, 3), device=Ideal())
    optimizer = AnalogOptimizer(model, lr=0.01, momentum=0.9)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    assert [g["params"] for g in state["param_groups"]] == [[0], [1]]
    assert list(state["state"]) == [0, 1] and "momentum_buffer" in state["state"][1]
    other = AnalogOptimizer(convert(nn.Linear(4, 3), device=Ideal()), lr=0.5, momentum=0.1)
    other.load_state_dict(state)
    assert [g["lr"] for g in other.param_groups] == [0.01, 0.01]
    assert other.digital.param_groups[0] is other.param_groups[1] and other.digital.state is other.state
    assert_bits(other.state_dict()["state"][1]["momentum_buffer"], state["state"][1]["momentum_buffer"])


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_distributed_checkpoints_change_nothing():
    # get_state_dict makes a step with gradients of 0 where an optimizer has no state yet: no time may pass in it.
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    def start(seed: int):
        torch.manual_seed(seed)
        device = SoftBounds(lifetime=10.0, diffusion=0.01)
        model = convert(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), device=device, seed=1, periphery=Periphery())
        return model, AnalogOptimizer(model, lr=0.1, digital=torch.optim.Adam)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(X.float()).square().sum().backward()
        optimizer.step()

    model, optimizer = start(0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model_state, optimizer_state = get_state_dict(model, optimizer)
    assert not [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
    step(model, optimizer)
    model_state, optimizer_state = copy.deepcopy(get_state_dict(model, optimizer))  # which are torch's own tensors
    other, its_own = start(5)
    set_state_dict(other, its_own, model_state_dict=model_state, optim_state_dict=optimizer_state)
    for _ in range(2):
        step(model, optimizer)
        step(other, its_own)
    assert not [k for k, v in other.state_dict().items() if not torch.equal(v, model.state_dict()[k])]


def test_time_passes_also_where_the_lr_is_0():
    # The first step of a warm-up is no rehearsal.
    model = convert(nn.Linear(4, 3), device=SoftBounds(lifetime=10.0))
    optimizer = AnalogOptimizer(model, lr=0.0)
    before = model.weight
    model(X.float()).sum().backward()
    optimizer.step()
    torch.testing.assert_close(model.weight, 0.9 * before)


def test_a_step_of_a_model_that_reads_no_tile_is_told():
    net = nn.Sequential(nn.Linear(4, 3))
    model = convert(net, device=Ideal())
    with pytest.warns(UserWarning, match=r"no tile of its model was ever read"):
        net(torch.ones(1, 4)).sum().backward()
        AnalogOptimizer(model, lr=0.1).step()


DDP = """
import sys, torch, torch.distributed
from torch import nn
from ohmgrad import AnalogOptimizer, convert
from ohmgrad.devices.presets import aihwkit_soft_bounds

rank, n, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.distributed.init_process_group("gloo", rank=rank, world_size=n, init_method=f"file://{store}")
model = convert(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), device=aihwkit_soft_bounds(), seed=0)
wrapped, optimizer = nn.parallel.DistributedDataParallel(model), AnalogOptimizer(model, lr=0.1)
wrapped(torch.ones(2, 4)).square().sum().backward()
before = model[0].weight.clone()
try:
    optimizer.step()
    print("moved" if (model[0].weight != before).any() else "nothing happened")
except RuntimeError as error:
    print(error)
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize(
    ("n", "expected"),
    [pytest.param(1, "moved", marks=pytest.mark.slow), (2, "DistributedDataParallel on 2 ranks")],
)
def test_data_parallel_on_several_ranks_is_refused(n, expected, tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(DDP)
    commands = [[sys.executable, script, str(rank), str(n), tmp_path / "store"] for rank in range(n)]
    ranks = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands]
    for rank in ranks:
        said, errors = rank.communicate(timeout=120)
        assert rank.returncode == 0, errors
        assert expected in said


def test_averaged_models_are_refused_and_digital_ones_work():
    model = convert(nn.Sequential(nn.Linear(4, 3)), device=Ideal())
    averaged = torch.optim.swa_utils.AveragedModel(model)
    averaged.update_parameters(model)
    with pytest.raises(RuntimeError, match=r"AveragedModel\(ohmgrad.to_digital\(model\)\)"):
        averaged(torch.ones(1, 4))


def test_hooks_of_all_optimizers_run_once_a_step():
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    pair = pair_of()
    calls = []
    handle = register_optimizer_step_pre_hook(lambda optimizer, *_: calls.append(type(optimizer)))
    try:
        train(pair, n=2)
    finally:
        handle.remove()
    assert calls == [torch.optim.SGD] * 2 + [AnalogOptimizer] * 2
    pair.assert_same()
