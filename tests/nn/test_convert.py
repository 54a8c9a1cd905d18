"""convert: the same model, its linear layers on tiles."""

import pytest
import torch
from torch import nn

from exact import assert_bits, assert_within_ulps
from ohmgrad import AnalogLinear, convert, to_digital
from ohmgrad.devices import Ideal
from ohmgrad.devices.presets import aihwkit_soft_bounds, asymmetric_linear


class Net(nn.Module):
    """Linear layers in a list, in a tree, alone, and one that hangs in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU()) for _ in range(2)])
        self.norm = nn.LayerNorm(4)
        self.shared = self.first
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = block(h)
        return self.norm(h) * self.scale


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().double()


def test_the_model_computes_what_it_did_and_the_original_is_left(net):
    state = {k: v.clone() for k, v in net.state_dict().items()}
    analog = convert(net, device=Ideal())
    x = torch.randn(3, 5, dtype=torch.float64)
    assert_within_ulps(analog(x).detach(), net(x).detach(), ulps=32)
    assert type(analog) is Net and type(net.first) is nn.Linear
    assert sum(isinstance(m, AnalogLinear) for m in analog.modules()) == 3
    assert analog.first is analog.shared
    # Nothing is shared with the original.
    for p in (p for p in analog.parameters() if p.dim()):
        p.data.fill_(7.0)
    analog.first.tile.crossbars[0].weight.fill_(7.0)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_a_lone_layer():
    assert isinstance(convert(nn.Linear(3, 2), device=Ideal()), AnalogLinear)


def test_every_layer_has_devices_of_its_own(net):
    # Equal seeds for all layers is what aihwkit does (reference 8.4): their variations would be the same.
    analog = convert(net, device=aihwkit_soft_bounds(), seed=3)
    planes = [block[0].tile.crossbars[0].params["w_max"] for block in analog.blocks]
    assert not (planes[0] == planes[1]).any()
    again = convert(net, device=aihwkit_soft_bounds(), seed=3)
    assert_bits(again.blocks[0][0].tile.crossbars[0].params["w_max"], planes[0])
    other = convert(net, device=aihwkit_soft_bounds(), seed=4)
    assert not (other.blocks[0][0].tile.crossbars[0].params["w_max"] == planes[0]).any()


def test_bounds_clip_the_initial_weight(net):
    analog = convert(net, device=asymmetric_linear(tau=0.1))
    assert_bits(analog.first.weight, net.first.weight.detach().clamp(-0.1, 0.1))


def test_what_is_frozen_stays_frozen_and_eval_stays_eval(net):
    net.first.weight.requires_grad_(False)
    net.blocks[1].requires_grad_(False)
    net.eval()
    analog = convert(net, device=Ideal())
    assert not analog.first.tile.handle.requires_grad and analog.first.bias.requires_grad
    assert not analog.blocks[1][0].tile.handle.requires_grad and analog.blocks[0][0].tile.handle.requires_grad
    assert not any(m.training for m in analog.modules())


def test_one_device_for_each_replica():
    models = [nn.Linear(3, 2) for _ in range(2)]
    analog = convert(models, device=[asymmetric_linear(0.1), asymmetric_linear(0.2)])
    for r, tau in enumerate((0.1, 0.2)):
        assert_bits(analog.weight[r], models[r].weight.detach().clamp(-tau, tau))


def test_a_single_replica_may_have_its_dimension():
    assert convert([nn.Linear(3, 2)], device=Ideal(), replicas=True).weight.shape == (1, 2, 3)
    assert convert([nn.Linear(3, 2)], device=Ideal()).weight.shape == (2, 3)


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ([], {}, "at least one model"),
        (nn.Sequential(nn.Tanh()), {}, "found no layer for tiles in Sequential; it knows Linear, Conv1d"),
        ([nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2))], {}, "equal structure .* different module names"),
        ([nn.Linear(3, 2), nn.Linear(4, 2)], {}, "equal structure .* different layers ''"),
        ([nn.Linear(3, 2), nn.Linear(3, 2, bias=False)], {}, "equal structure .* different layers ''"),
        ([nn.Linear(3, 2), nn.Tanh()], {}, "equal structure .* different layers ''"),
        (
            [nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)) for _ in range(2)],
            {},
            r"cannot replicate '1' \(LayerNorm\): it keeps digital parameters",
        ),
        ([nn.Linear(3, 2), nn.Linear(3, 2)], {"replicas": False}, "one model where replicas=False, got 2"),
        ([nn.Linear(3, 2), nn.Linear(3, 2)], {"seed": [1, 2, 3]}, "one for each of the 2 replicas, got 3"),
    ],
)
def test_refusals(models, options, message):
    with pytest.raises(ValueError, match=message):
        convert(models, device=Ideal(), **options)


class Watched(Net):
    """A network that watches a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.first.register_forward_hook(self.note)

    def note(self, module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        self.seen.append(type(module).__name__)
        return 2.0 * output


def test_hooks_of_a_layer_go_with_it():
    torch.manual_seed(0)
    net, errors = Watched().double(), []
    net.first.register_forward_pre_hook(lambda m, args, kwargs: ((3.0 * args[0],), kwargs), with_kwargs=True)
    net.blocks[0][0].register_full_backward_hook(lambda m, to_x, to_y: errors.append(to_y[0]))
    x = torch.randn(3, 5, dtype=torch.float64)
    analog = convert(net, device=Ideal())
    for model, kind in ((net, "Linear"), (analog, "AnalogLinear"), (to_digital(analog), "Linear")):
        y = model(x)
        y.square().sum().backward()
        torch.testing.assert_close(y, net(x))
        assert model.seen[0] == kind and len(model.seen) == 1 + (model is net)  # each model's own method
    torch.testing.assert_close(errors[1:], errors[:1] * 2)
