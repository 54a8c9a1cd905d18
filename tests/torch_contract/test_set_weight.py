"""`set_weight` on tiles under every algorithm, `load_digital` into whole models, and what neither lets through."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.layer import assert_same_parameters, assert_state, gaussian, state_of
from ohmgrad import (
    AnalogConv2d,
    AnalogGRU,
    AnalogLinear,
    AnalogMultiheadAttention,
    AnalogOptimizer,
    Mapping,
    Rule,
    TikiTaka,
    convert,
    load_digital,
    to_digital,
)
from ohmgrad.algorithms import ALGORITHMS, MixedPrecision, MultiTile, Rider, Stale
from ohmgrad.crossbar import Grid, Tile
from ohmgrad.devices import ConstantStep, Ideal, OneSidedCell, SoftBounds, VectorCell
from ohmgrad.devices.presets import aihwkit_soft_bounds

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "replicas": {"replicas": (2,)},
    "grid": {"mapping": Mapping(max_input_size=3, max_output_size=3)},
    "scaled": {"mapping": Mapping(weight_scaling_omega=0.5, learn_out_scaling=True)},
}
# What goes on when a weight is programmed: of crossbars, and of converters.
GOES_ON = ("seed", "cycles", "pulses", "reads", "digital_memory", "relaxations", "writes", "calls")
OTHERS = [MultiTile(n_tiles=3, n_reads=2), MixedPrecision(momentum=0.9), Stale(algorithm=Rider(), delay=3)]


def trained(layer: nn.Module, optimizer: AnalogOptimizer, steps: int = 4) -> None:
    """Some steps on numbers that are always the same."""
    for k in range(steps):
        optimizer.zero_grad()
        layer(gaussian(*layer.replicas, 3, 5, seed=k)).square().sum().backward()
        optimizer.step()


def kept(layer: nn.Module) -> dict[str, Tensor]:
    """The state, without what goes on."""
    return {name: v for name, v in layer.state_dict().items() if not name.endswith(GOES_ON)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("algorithm", [*(A() for A in ALGORITHMS), *OTHERS], ids=lambda a: type(a).__name__)
class TestEveryAlgorithm:
    # Devices with bounds that no weight here comes to, without variation: then a layer with that weight is as a new
    # one, but for what goes on.
    def layer(self, algorithm, kind) -> AnalogLinear:
        options = {"device": SoftBounds(w_min=-2.0, w_max=2.0), "algorithm": algorithm, **KINDS[kind]}
        return AnalogLinear(5, 4, dtype=torch.float64, seed=0, **options)  # of choppers too

    def test_it_starts_anew_from_that_weight(self, algorithm, kind):
        layer, other = self.layer(algorithm, kind), self.layer(algorithm, kind)
        optimizer, parameters = AnalogOptimizer(layer, lr=0.1), list(layer.parameters())
        trained(layer, optimizer)
        before = [bar.counters.cycles for bar in layer.tile.crossbars]
        layer.set_weight(other.weight, other.bias)
        torch.testing.assert_close(layer.weight, other.weight)
        a, b = kept(layer), kept(other)
        assert list(a) == list(b)
        for name, value in a.items():
            torch.testing.assert_close(value, b[name], msg=lambda text, name=name: f"{name}: {text}")
        assert all(p is q for p, q in zip(parameters, layer.parameters(), strict=True))
        assert [bar.counters.cycles for bar in layer.tile.crossbars] == before
        trained(layer, optimizer)
        trained(other, AnalogOptimizer(other, lr=0.1))
        torch.testing.assert_close(layer.weight, other.weight)

    def test_one_matrix_goes_to_all_replicas(self, algorithm, kind):
        layer, w = self.layer(algorithm, kind), 0.5 * gaussian(4, 5, seed=9)
        layer.set_weight(w)
        torch.testing.assert_close(layer.weight.detach(), w.expand_as(layer.weight))
        layer.tile.set_weight(-w)
        torch.testing.assert_close(layer.tile.weight, -w.expand_as(layer.weight))


def test_bounds_of_each_device_clip():
    layer = AnalogLinear(40, 30, device=aihwkit_soft_bounds(), algorithm=TikiTaka())
    layer.set_weight(torch.full((30, 40), 5.0))
    slow = layer.tile.state.slow
    assert torch.equal(layer.weight, slow.params["w_max"]) and len(slow.params["w_max"].unique()) > 1000


def test_write_noise_shows():
    layer = AnalogLinear(3, 2, device=SoftBounds(write_noise=5.0))
    w = torch.full((2, 3), 0.1)
    layer.set_weight(w)
    (bar,) = layer.tile.crossbars
    assert torch.equal(bar.persistent, w) and not (layer.weight == w).any()
    first = layer.weight.clone()
    layer.set_weight(w)
    assert not (layer.weight == first).any()  # drawn anew each time


@pytest.mark.parametrize("cell", [VectorCell(devices=(SoftBounds(), SoftBounds())), OneSidedCell(device=SoftBounds())])
def test_unit_cells_share_the_weight(cell):
    layer, w = AnalogLinear(3, 2, device=cell, algorithm=TikiTaka()), 0.5 * gaussian(2, 3).float()
    layer.set_weight(w.clamp(-0.9, 0.9))
    torch.testing.assert_close(layer.weight.detach(), w.clamp(-0.9, 0.9))


def test_scales_are_found_anew():
    layer = AnalogLinear(3, 2, device=ConstantStep(w_min=-0.6, w_max=0.6), mapping=Mapping(weight_scaling_omega=0.5))
    w = 100.0 * torch.ones(2, 3)
    layer.set_weight(w)
    torch.testing.assert_close(layer.weight.detach(), w)
    torch.testing.assert_close(layer.tile.crossbars[0].weight, torch.full((2, 3), 0.5))


def test_within_inference_mode_it_stays_trainable():
    layer = AnalogLinear(5, 4, device=SoftBounds(), algorithm=TikiTaka(), dtype=torch.float64)
    with torch.inference_mode():
        layer.set_weight(0.1 * torch.ones(4, 5, dtype=torch.float64))
    trained(layer, AnalogOptimizer(layer, lr=0.1))


def analog(kind: type[nn.Module], *sizes: int, **options: Any) -> Any:
    return kind(*sizes, device=Ideal(), **options)


@pytest.mark.parametrize(
    ("layer", "given", "error", "words"),
    [
        (analog(AnalogLinear, 3, 2), {"weight": torch.ones(3, 2)}, ValueError, r"weight needs the shape \(2, 3\)"),
        (
            analog(AnalogLinear, 3, 2),
            {"weight": torch.ones(2, 3).double()},
            TypeError,
            "weight needs the layer's dtype",
        ),
        (analog(AnalogLinear, 3, 2), {"weight": torch.full((2, 3), torch.nan)}, ValueError, "weight needs finite"),
        (analog(AnalogLinear, 3, 2), {"weight": [[1.0]]}, TypeError, "weight needs a tensor"),
        (analog(AnalogLinear, 3, 2), {"weight": torch.ones(2, 3), "bias": torch.ones(3)}, ValueError, "bias needs the"),
        (analog(AnalogLinear, 3, 2, False), {"bias": torch.ones(2)}, ValueError, "bias needs a layer with a bias"),
        (analog(AnalogConv2d, 2, 4, 3), {"weight": torch.ones(4, 18)}, ValueError, r"shape \(4, 2, 3, 3\)"),
        (analog(AnalogGRU, 3, 2), {"weight": torch.ones(6, 3)}, ValueError, "has no 'weight'; it has .*weight_ih_l0"),
        (
            analog(AnalogMultiheadAttention, 4, 2),
            {"q_proj_weight": torch.ones(4, 4)},
            ValueError,
            "has no 'q_proj_weight'; it has in_proj_weight",
        ),
        (
            analog(AnalogLinear, 3, 2, replicas=(2,)),
            {"weight": torch.ones(3, 2, 3)},
            ValueError,
            r"shape \(2, 3\) with replicas \(2,\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(layer, given, error, words):
    before = state_of(layer)
    with pytest.raises(error, match=words):
        layer.set_weight(**given)
    assert_state(layer, before)


@pytest.mark.parametrize("mapping", [Mapping(), Mapping(max_input_size=2)])
def test_tiles_and_grids_refuse_before_they_write(mapping):
    tile = AnalogLinear(3, 2, device=Ideal(), mapping=mapping).tile
    assert isinstance(tile, Grid if mapping.max_input_size else Tile)
    before, bad = state_of(tile), torch.ones(2, 3)
    bad[1, 2] = torch.inf
    with pytest.raises(ValueError, match="weight needs finite numbers"):
        tile.set_weight(bad)
    assert_state(tile, before)


def network() -> nn.Module:
    """With digital parts, a shared layer, and a layer that holds another."""
    shared = nn.Linear(4, 4)
    return nn.Sequential(
        nn.Conv1d(2, 4, 3),
        nn.BatchNorm1d(4),
        nn.Flatten(),
        nn.Linear(16, 4),
        shared,
        nn.Tanh(),
        shared,
        nn.Linear(4, 2),
    ).double()


def converted() -> nn.Module:
    return convert(network(), device=Ideal(), algorithm=TikiTaka(), rules=Rule("7", digital=True))


class TestLoadDigital:
    def test_a_whole_model(self):
        digital, model = network(), converted()
        digital(gaussian(3, 2, 6))  # moves the running statistics
        result = load_digital(model, digital.state_dict())
        assert not result.missing_keys and not result.unexpected_keys
        assert_state(to_digital(model), state_of(digital))
        assert_same_parameters(to_digital(model), digital)

    def test_missing_and_unexpected_names_are_told_as_torch_does(self):
        model, state = converted(), network().state_dict()
        before = state_of(model)
        state["extra"] = state.pop("3.weight")
        with pytest.raises(RuntimeError) as ours:
            load_digital(model, state)
        with pytest.raises(RuntimeError) as theirs:
            network().load_state_dict(state)
        assert str(ours.value) == str(theirs.value)
        assert_state(model, before)

    def test_what_is_missing_stays_where_it_need_not_be_strict(self):
        model, state = converted(), network().state_dict()
        for layer in (model[3], model[4]):  # what is not given is not programmed either
            layer.tile.state.step += 5
        w = model[3].weight.clone()
        given = {name: v for name, v in state.items() if name not in ("3.weight", "3.bias", "1.running_mean")}
        result = load_digital(model, given, strict=False)
        assert set(result.missing_keys) == {"3.weight", "3.bias", "1.running_mean"}
        assert torch.equal(model[3].weight, w) and int(model[3].tile.state.step) == 5
        assert int(model[4].tile.state.step) == 0
        assert torch.equal(model[7].weight, state["7.weight"])

    @pytest.mark.parametrize("name", ["0.weight", "3.bias"])
    def test_nothing_is_written_where_a_number_is_not_finite(self, name):
        model, state = converted(), copy.deepcopy(network().state_dict())
        before = state_of(model)
        state[name].flatten()[-1] = torch.nan
        with pytest.raises(ValueError, match=f"{name} of the state dict needs finite"):
            load_digital(model, state)
        assert_state(model, before)

    def test_a_wrong_shape_is_torchs_error(self):
        model, state = converted(), network().state_dict()
        before = state_of(model)
        state["3.weight"] = torch.ones(2, 2)
        with pytest.raises(RuntimeError, match=r"size mismatch for 3.weight"):
            load_digital(model, state)
        assert_state(model, before)

    def test_replicas_need_a_state_dict_each(self):
        nets = [nn.Sequential(nn.Linear(3, 2)) for _ in range(2)]
        model, state = convert(nets, device=Ideal()), nets[0].state_dict()
        for wrong in (state, [state], [state] * 3):
            with pytest.raises(ValueError, match="sequence of 2 state dicts"):
                load_digital(model, wrong)
        with pytest.raises(ValueError, match="needs one state dict"):
            load_digital(convert(nets[0], device=Ideal()), [state])


class TestStatesBeyondBounds:
    """`load_state_dict` is for states that devices can have."""

    def test_a_number(self):
        model = convert(nn.Sequential(nn.Linear(3, 2)), device=SoftBounds(w_max=0.6, w_min=-0.5))
        state = state_of(model)
        state["0.tile.state.bar.weight"][1, 2] = -0.52
        with pytest.raises(ValueError, match=r"0.tile.state.bar.weight .* got -0.52 where w_min is -0.5; `set_weight`"):
            model.load_state_dict(state)
        state["0.tile.state.bar.weight"][1, 2] = -0.5  # float32's, a rounding beyond
        model.load_state_dict(state)

    def test_planes_of_the_same_file(self):
        first, second = (
            AnalogLinear(30, 20, device=aihwkit_soft_bounds(), seed=seed, algorithm=TikiTaka()) for seed in (1, 2)
        )
        first.set_weight(torch.full((20, 30), 9.0))  # at the bounds, which are those of other devices than the second's
        second.load_state_dict(first.state_dict())
        assert torch.equal(second.weight, first.weight)
        state = state_of(first)
        state["tile.state.fast.weight"] += 2.0
        with pytest.raises(ValueError, match=r"tile.state.fast.weight .* where w_max is"):
            second.load_state_dict(state)

    def test_write_noise_may_show_more(self):
        layer = AnalogLinear(30, 20, device=SoftBounds(write_noise=50.0))
        layer.set_weight(torch.ones(20, 30))
        assert (layer.weight > 1.0).any()
        layer.load_state_dict(layer.state_dict())
        state = state_of(layer)
        state["tile.state.bar.persistent"] += 0.1
        with pytest.raises(ValueError, match="persistent of the state dict needs states within"):
            layer.load_state_dict(state)
