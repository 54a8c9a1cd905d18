"""Rules of convert, what it leaves digital, what it refuses, and the way back."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from contracts.layer import assert_same_parameters, assert_state, gaussian, state_of, train_once
from exact import assert_bits
from ohmgrad import (
    AnalogConv2d,
    AnalogLinear,
    AnalogOptimizer,
    ExpectedUpdate,
    PulsedUpdate,
    Rule,
    TikiTaka,
    convert,
    to_digital,
)
from ohmgrad.crossbar import Crossbar, Tile
from ohmgrad.devices import Ideal, SoftBounds
from ohmgrad.devices.presets import aihwkit_soft_bounds


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        nn.Sequential(nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3)),
    )


def kinds(model: nn.Module) -> dict[str, str]:
    """Class of every layer with weights."""
    inside = (Tile, Crossbar)
    layers = [(name, m) for name, m in model.named_modules() if hasattr(m, "weight") and not isinstance(m, inside)]
    return {name: type(m).__name__ for name, m in layers}


class TestRules:
    """The first that matches decides; what it leaves open comes from the arguments."""

    @pytest.mark.parametrize(
        ("rules", "digital"),
        [
            ([], set()),
            ([Rule("1.2", digital=True)], {"1.2"}),
            ([Rule("1", digital=True)], {"1.0", "1.2"}),
            ([Rule("1.*", digital=True)], {"1.0", "1.2"}),
            ([Rule(nn.Linear, digital=True)], {"1.0", "1.2"}),
            ([Rule((nn.Conv1d, nn.Conv2d), digital=True)], {"0.0"}),
            ([Rule("1.0", device=Ideal()), Rule(nn.Linear, digital=True)], {"1.2"}),
            ([Rule("?.0", digital=True), Rule("0.0", device=Ideal())], {"0.0", "1.0"}),
            ([Rule("0.1", digital=True)], set()),
        ],
    )
    def test_which_layers(self, rules, digital):
        found = kinds(convert(network(), device=Ideal(), rules=rules))
        assert {name for name, kind in found.items() if not kind.startswith("Analog")} == digital | {"0.1"}

    def test_settings(self):
        model = convert(
            network(),
            device=SoftBounds(),
            algorithm=TikiTaka(),
            rules=[
                Rule("0.0", device=Ideal(), count_pulses=True),
                Rule(nn.Linear, algorithm=TikiTaka(gamma=0.5), update=PulsedUpdate()),
            ],
        )
        conv, linear = model[0][0].tile, model[1][0].tile
        assert conv.crossbars[0].device_model == Ideal() and conv.algorithm == TikiTaka()
        assert (
            conv.crossbars[0].update == ExpectedUpdate()
            and conv.crossbars[0].counters.pulses_per_crosspoint is not None
        )
        assert linear.crossbars[0].device_model == SoftBounds() and linear.algorithm == TikiTaka(gamma=0.5)
        assert (
            linear.crossbars[0].update == PulsedUpdate() and linear.crossbars[0].counters.pulses_per_crosspoint is None
        )

    def test_devices_from_rules_alone(self):
        rules = [Rule("0", digital=True), Rule(nn.Linear, device=Ideal())]
        assert isinstance(convert(network(), rules=rules)[1][0], AnalogLinear)
        with pytest.raises(ValueError, match=r"needs a device for '0.0': neither device= nor a rule gives it one"):
            convert(network(), rules=rules[1:])

    def test_numbers_of_a_layer_do_not_depend_on_rules_for_others(self):
        whole = convert(network(), device=aihwkit_soft_bounds(), seed=3)
        part = convert(network(), device=aihwkit_soft_bounds(), seed=3, rules=[Rule("0", digital=True)])
        planes = [m[1][2].tile.crossbars[0].params["w_max"] for m in (whole, part)]
        assert_bits(*planes)

    @pytest.mark.parametrize("match", ["2.*", "head", nn.Conv3d], ids=str)
    def test_a_rule_that_matches_nothing(self, match):
        name = re.escape(repr(match))
        with pytest.raises(
            ValueError, match=f"a rule for {name} that matches no layer; there are .'0.0', '1.0', '1.2'."
        ):
            convert(network(), device=Ideal(), rules=[Rule(match, digital=True)])

    def test_a_rule_for_a_layer_that_cannot_be_analog(self):
        with pytest.raises(ValueError, match=r"a rule for .0\.1. that matches no layer"):
            convert(network(), device=Ideal(), rules=[Rule("0.1", device=SoftBounds())])

    @pytest.mark.parametrize("options", [{"digital": True}, {"device": SoftBounds()}], ids=["digital", "device"])
    def test_a_part_of_a_layer_has_no_rule_of_its_own(self, options):
        model = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2)})
        with pytest.raises(ValueError, match=r"a rule for '.*' that matches no layer; there are .'attention'."):
            convert(model, device=Ideal(), rules=[Rule("attention.out_proj", **options)])

    def test_all_digital(self):
        with pytest.raises(ValueError, match="rules keep all of them digital"):
            convert(network(), device=Ideal(), rules=[Rule("*", digital=True)])

    @pytest.mark.parametrize(
        ("match", "options", "error", "message"),
        [
            (3, {}, TypeError, "a name pattern, a type of module or a tuple of types, got 3"),
            ((), {}, TypeError, "a name pattern, a type"),
            (int, {}, TypeError, "a name pattern, a type"),
            ("a", {"digital": True, "device": Ideal()}, ValueError, "digital=True. has no use for device"),
        ],
    )
    def test_wrong_rules(self, match, options, error, message):
        with pytest.raises(error, match=message):
            Rule(match, **options)


class Doubled(nn.Linear):
    """A forward of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2.0 * super().forward(x)


class Named(nn.Linear):
    """Only a name of its own."""


class TestWhatStaysDigital:
    """Layers of which a tile would not know all."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Doubled(3, 3),
            lambda: parametrizations.weight_norm(nn.Linear(3, 3)),
            torch.no_grad()(lambda: prune.l1_unstructured(nn.Linear(3, 3), "weight", 0.5)),  # torch's copies else not
            lambda: nn.Bilinear(3, 3, 2),
        ],
        ids=["own forward", "weight norm", "pruned", "bilinear"],
    )
    def test_by_itself(self, make):
        model = nn.Sequential(make(), nn.Linear(3, 3))
        analog = convert(model, device=Ideal())
        assert type(analog[0]) is type(model[0]) and isinstance(analog[1], AnalogLinear)

    def test_a_subclass_with_torchs_forward_becomes_analog(self):
        assert isinstance(convert(Named(3, 2), device=Ideal()), AnalogLinear)

    def test_the_inside_of_an_attention_of_ones_own(self):
        class Mine(nn.MultiheadAttention):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x, x, x)[0]

        model = convert(nn.Sequential(Mine(4, 2), nn.Linear(4, 3)), device=Ideal())
        assert isinstance(model[0], Mine) and isinstance(model[0].out_proj, nn.Linear)

    def test_an_analog_layer_stays_what_it_is(self):
        first = convert(network(), device=aihwkit_soft_bounds(), rules=[Rule(nn.Linear, digital=True)])
        second = convert(first, device=Ideal())
        assert isinstance(second[0][0], AnalogConv2d) and isinstance(second[1][0], AnalogLinear)
        assert_bits(second[0][0].weight, first[0][0].weight)


class Tied(nn.Module):
    """An embedding whose table is also the weight of the head."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.middle, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.table(x)))


class TestSharing:
    """A layer at two places is one; a parameter of two layers cannot be."""

    def test_a_shared_layer_goes_by_each_of_its_names(self):
        linear = nn.Linear(3, 3)
        model = nn.ModuleDict({"a": linear, "b": nn.Sequential(linear), "c": nn.Linear(3, 3)})
        analog = convert(model, device=Ideal(), rules=[Rule("c", digital=True), Rule("b.0", device=SoftBounds())])
        assert analog["a"] is analog["b"][0]
        assert analog["a"].tile.crossbars[0].device_model == SoftBounds()
        back = to_digital(analog)
        assert back["a"] is back["b"][0] and type(back["a"]) is nn.Linear

    @pytest.mark.parametrize("rules", [[], [Rule("head", digital=True)], [Rule("table", digital=True)]])
    def test_a_shared_parameter(self, rules):
        message = (
            "cannot put 'table' or 'head' on tiles: they share the parameter 'weight'. Keep both digital, with Rule"
        )
        with pytest.raises(ValueError, match=message):
            convert(Tied(), device=Ideal(), rules=rules)

    def test_a_shared_parameter_of_digital_layers(self):
        analog = convert(Tied(), device=Ideal(), rules=[Rule("head", digital=True), Rule("table", digital=True)])
        assert analog.head.weight is analog.table.weight and isinstance(analog.middle, AnalogLinear)

    def test_a_parameter_shared_with_a_part_of_a_layer(self):
        model = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "head": nn.Linear(4, 4)})
        model["head"].weight = model["attention"].out_proj.weight
        with pytest.raises(ValueError, match="cannot put 'attention' or 'head' on tiles: they share the parameter"):
            convert(model, device=Ideal(), rules=[Rule("head", digital=True)])

    def test_a_parameter_that_the_model_holds_itself(self):
        model = nn.Sequential(nn.Linear(3, 2))
        model.register_parameter("spare", model[0].weight)
        with pytest.raises(ValueError, match="cannot put '' or '0' on tiles: they share the parameter 'weight'"):
            convert(model, device=Ideal())


def test_layers_without_weights():
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"got '0' \(LazyLinear\) without: run a model with lazy layers once before"):
        convert(model, device=Ideal())
    with pytest.raises(ValueError, match=r"got '' \(Linear\) without"):
        convert(nn.Linear(3, 2, device="meta"), device=Ideal())
    model(torch.zeros(2, 5))
    assert convert(model, device=Ideal())[0].weight.shape == (3, 5)
    with pytest.raises(ValueError, match=r"cannot put '' \(Embedding\) on tiles: .*positive sizes, got \(3, 0\)"):
        convert(nn.Embedding(0, 3), device=Ideal())


def test_two_models_that_share_nothing():
    # What waits on the tiles, and everything else, belongs to the copy alone.
    digital = network()
    state = state_of(digital)
    analog = convert(digital, device=SoftBounds())
    for _ in range(2):
        train_once(analog.train(), (gaussian(2, 1, 5, 5).float(),))
    assert_state(digital, state)


class TestToDigital:
    """The same tree, of torch's layers."""

    def test_after_training_it_computes_the_same(self):
        analog = convert(network(), device=SoftBounds(w_min=-0.3, w_max=0.3))
        x = gaussian(4, 1, 5, 5).float()
        for _ in range(3):
            train_once(analog, (x,))
        back = to_digital(analog)
        assert kinds(back) == kinds(network())
        torch.testing.assert_close(back.eval()(x), analog.eval()(x))
        # A deep copy: training one leaves the other.
        kept = state_of(analog)
        train_once(back.train(), (x,))
        assert_state(analog, kept)

    def test_a_model_may_be_both(self):
        analog = convert(network(), device=Ideal(), rules=[Rule("1", digital=True)])
        assert_same_parameters(to_digital(analog), network())

    def test_a_replica_of_several(self):
        models = [nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(3)]
        together = convert(models, device=Ideal())
        for r, model in enumerate(models):
            assert_state(to_digital(together, replica=r), state_of(model))
        with pytest.raises(ValueError, match=r"one index for each of the replica dimensions \(3,\), got \(\)"):
            to_digital(together)
        with pytest.raises(ValueError, match=r"one index for each of the replica dimensions \(\), got \(1,\)"):
            to_digital(convert(models[0], device=Ideal()), replica=1)

    def test_what_waits_is_left(self):
        analog = convert(network(), device=Ideal())
        analog(gaussian(2, 1, 5, 5).float()).sum().backward()
        back = to_digital(copy.deepcopy(analog))
        assert all(p.grad is None for p in back.parameters())
        AnalogOptimizer(analog, lr=0.1).step()
