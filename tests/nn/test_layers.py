"""Whole models on tiles, beyond what a layer alone shows: training, saving, replicas, hooks, and NaN."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from exact import assert_bits, assert_within_ulps
from ohmgrad import AnalogOptimizer, ExpectedUpdate, PulsedUpdate, TikiTaka, convert
from ohmgrad.crossbar import Tile
from ohmgrad.devices import Ideal, SoftBounds
from ohmgrad.devices.presets import aihwkit_soft_bounds

UPDATES = {"noise": ExpectedUpdate(noise=True), "pulses": PulsedUpdate()}
ALGORITHMS = {"analog sgd": None, "tiki-taka": TikiTaka(n_reads=2, gamma=0.3)}


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, lead: tuple[int, ...] = ()) -> None:
    for k in steps:
        optimizer.zero_grad()
        (model(gaussian(*lead, 6, 5, seed=k)) - gaussian(*lead, 6, 3, seed=k + 50)).square().sum().backward()
        optimizer.step()


def assert_same_state(ours: nn.Module, theirs: nn.Module) -> None:
    """Bit for bit, all that a state dict holds."""
    a, b = ours.state_dict(), theirs.state_dict()
    assert list(a) == list(b)
    assert not [name for name in a if not torch.equal(a[name], b[name])]


def test_training_on_sequences_is_torchs():
    # 3-D inputs: all positions of all sequences are one mini-batch. An update that dropped or averaged a dimension
    # would be off by a factor, not by roundings.
    digital = network()
    analog = convert(digital, device=Ideal())
    optimizers = [AnalogOptimizer(analog, lr=0.01), torch.optim.SGD(digital.parameters(), lr=0.01)]
    for k in range(5):
        for model, optimizer in zip((analog, digital), optimizers, strict=True):
            train(model, optimizer, range(k, k + 1), lead=(2,))
        for i in (0, 2):
            assert_within_ulps(analog[i].weight, digital[i].weight.detach(), ulps=16 * (k + 1))
            assert_within_ulps(analog[i].bias.detach(), digital[i].bias.detach(), ulps=16 * (k + 1))
    assert analog[0].tile.crossbars[0].counters.cycles == 5 * 2 * 6


def test_training_leaves_the_model_that_was_given():
    digital = network()
    state = copy.deepcopy(digital.state_dict())
    analog = convert(digital, device=aihwkit_soft_bounds())
    train(analog, AnalogOptimizer(analog, lr=0.05), range(3))
    assert (analog[0].bias != digital[0].bias).all()
    for name, value in digital.state_dict().items():
        assert_bits(value, state[name])
    assert all(p.grad is None and p.requires_grad for p in digital.parameters())


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
class TestNoisyTraining:
    """Noise is a function of seed and cycle, so that every run can be repeated to the bit."""

    def start(self, update: str, algorithm: str, seed: int = 3) -> tuple[nn.Module, AnalogOptimizer]:
        device = SoftBounds(w_max_dtod=0.2, dw_min_dtod=0.2, dw_min_ctoc=0.3, write_noise=1.0)
        options = {"update": UPDATES[update], "algorithm": ALGORITHMS[algorithm]}
        model = convert(network(), device=device, seed=seed, **options)
        return model, AnalogOptimizer(model, lr=0.05, momentum=0.9)

    def test_a_resumed_run_goes_on_bit_by_bit(self, update, algorithm, tmp_path):
        # Into a model of other weights and devices: whatever the state dict lacked would differ.
        whole, first, second = (self.start(update, algorithm, seed) for seed in (3, 3, 99))
        train(*whole, range(5))
        train(*first, range(2))
        torch.save([part.state_dict() for part in first], tmp_path / "run.pt")
        for part, state in zip(second, torch.load(tmp_path / "run.pt"), strict=True):
            part.load_state_dict(state)
        train(*second, range(2, 5))
        assert_same_state(second[0], whole[0])

    def test_a_deepcopy_trains_on_its_own(self, update, algorithm):
        model, optimizer = self.start(update, algorithm)
        train(model, optimizer, range(2))
        twin, kept = copy.deepcopy(model), copy.deepcopy(model.state_dict())
        train(twin, AnalogOptimizer(twin, lr=0.05), range(2, 4))
        for name, value in model.state_dict().items():
            assert_bits(value, kept[name])
        # And draws the numbers that the original draws.
        train(model, AnalogOptimizer(model, lr=0.05), range(2, 4))
        assert_same_state(twin, model)
        assert (model[0].tile.crossbars[0].weight != kept[next(k for k in kept if k.endswith(".weight"))]).any()

    def test_a_frozen_tile_stays_while_the_rest_trains(self, update, algorithm):
        model, optimizer = self.start(update, algorithm)
        model[0].tile.handle.requires_grad_(False)
        first, second = model[0].weight, model[2].weight
        train(model, optimizer, range(3))
        assert_bits(model[0].weight, first)
        assert all(bar.counters.cycles == 0 for bar in model[0].tile.crossbars)
        assert (model[2].weight != second).any()
        # Thawed, it trains.
        model[0].tile.handle.requires_grad_(True)
        train(model, optimizer, range(3, 4))
        assert (model[0].weight != first).any()

    def test_nothing_waits_after_evaluation(self, update, algorithm):
        model, optimizer = self.start(update, algorithm)
        train(model, optimizer, range(1))
        optimizer.zero_grad()
        before = [model[i].weight for i in (0, 2)]
        model.eval()
        with torch.no_grad():
            model(gaussian(6, 5))
        with torch.inference_mode():
            model(gaussian(6, 5))
        assert not any(m.waiting for m in model.modules() if isinstance(m, Tile))
        optimizer.step()
        for i, weight in zip((0, 2), before, strict=True):
            assert_bits(model[i].weight, weight)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_replicas_draw_the_noise_of_models_alone(algorithm):
    # Weights differ by roundings of stacked products alone, also after noise: another draw would be 1e-3 off.
    options = {"device": aihwkit_soft_bounds(), "update": UPDATES["noise"], "algorithm": ALGORITHMS[algorithm]}
    models = [network(seed) for seed in range(3)]
    together = convert(models, seed=10, **options)
    x, y = gaussian(3, 6, 5), gaussian(3, 6, 3, seed=1)
    optimizer = AnalogOptimizer(together, lr=0.02)
    for _ in range(3):
        optimizer.zero_grad()
        (together(x) - y).square().sum().backward()
        optimizer.step()
    for r, digital in enumerate(models):
        alone = convert(digital, seed=10 + r, **options)
        optimizer = AnalogOptimizer(alone, lr=0.02)
        for _ in range(3):
            optimizer.zero_grad()
            (alone(x[r]) - y[r]).square().sum().backward()
            optimizer.step()
        for i in (0, 2):
            torch.testing.assert_close(together[i].weight[r], alone[i].weight, rtol=0.0, atol=1e-11)


class TestHooks:
    """Of module and tensor, on a converted model."""

    def test_pre_hooks_may_replace_what_the_tile_reads(self):
        model = convert(network(), device=Ideal())
        x = gaussian(6, 5)
        expected = model(2.0 * x).detach()
        model[0].register_forward_pre_hook(lambda module, args: (2.0 * args[0],))
        assert_bits(model(x).detach(), expected)

    def test_a_tensor_hook_changes_what_waits(self):
        # A hook on the layer's output scales the error that the tile records.
        model = convert(nn.Linear(5, 4).double(), device=Ideal())
        y = model(gaussian(6, 5))
        y.register_hook(lambda d: 3.0 * d)
        y.sum().backward()
        assert_bits(model.tile.waiting[0].d, torch.full((6, 4), 3.0, dtype=torch.float64))


NAN_STATES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "one crossbar": lambda net: convert(net, device=Ideal()),
    "two crossbars": lambda net: convert(net, device=Ideal(), algorithm=TikiTaka()),
}


@pytest.mark.parametrize("kind", NAN_STATES)
def test_a_nan_weight_is_refused_when_it_is_loaded(kind):
    model = NAN_STATES[kind](network())
    names = [name for name in model.state_dict() if name.endswith(".weight")]
    assert len(names) == (2 if kind == "one crossbar" else 4)
    for name in names:
        state = copy.deepcopy(model.state_dict())
        state[name][0, 0] = torch.nan
        with pytest.raises(ValueError, match=f"{name} of the state dict needs finite numbers, got NaN or infinity"):
            model.load_state_dict(state)


@pytest.mark.parametrize("update", [ExpectedUpdate(), *UPDATES.values()], ids=["expected", *UPDATES])
def test_a_nan_bias_is_noticed_by_the_first_step(update):
    # A bias is a plain parameter, so that it loads as in torch; the error that it makes is refused before a device
    # moves.
    model = convert(network(), device=aihwkit_soft_bounds(), update=update)
    state = model.state_dict()
    state["2.bias"][0] = torch.nan
    model.load_state_dict(state)
    before = [model[i].weight for i in (0, 2)]
    optimizer = AnalogOptimizer(model, lr=0.05)
    with pytest.raises(ValueError, match="d needs finite numbers, got NaN or infinity"):
        train(model, optimizer, range(1))
    for i, weight in zip((0, 2), before, strict=True):
        assert_bits(model[i].weight, weight)


@pytest.mark.parametrize(
    "update",
    [
        pytest.param(ExpectedUpdate(), id="expected"),
        pytest.param(PulsedUpdate(eager=True), id="eager pulses"),
        pytest.param(
            PulsedUpdate(),
            id="compiled pulses",
        ),
    ],
)
@pytest.mark.parametrize("spoilt", ["x", "d"])
def test_one_nan_is_refused_by_every_update(update, spoilt):
    # In a single place, not the last of its row: a running maximum may pass it by.
    layer = convert(nn.Linear(5, 4).double(), device=aihwkit_soft_bounds(), update=update)
    x, d = gaussian(6, 5), gaussian(6, 4)
    (x if spoilt == "x" else d)[1, 2] = torch.nan
    before = layer.weight
    layer(x).backward(d)
    with pytest.raises(ValueError, match=f"{spoilt} needs finite numbers, got NaN or infinity"):
        AnalogOptimizer(layer, lr=0.1).step()
    assert_bits(layer.weight, before)
