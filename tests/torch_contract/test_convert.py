"""convert replaces only what it understands: the rest stays digital with a reason, or is refused."""

import functools
import types
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, spectral_norm

from ohmgrad import AnalogLinear, AnalogOptimizer, Rule, convert, summary, to_digital
from ohmgrad.devices import Ideal


class Scaled(nn.Conv1d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, 2.0 * weight, bias)


class Called(nn.Linear):
    def __call__(self, x: Tensor) -> Tensor:
        return 2.0 * super().__call__(x)


class Positive(nn.Linear):
    """Its weight is a property, the parameter has another name."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.raw = nn.Parameter(self._parameters.pop("weight"))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.raw.exp()

    @weight.setter
    def weight(self, value: Tensor) -> None:
        self._parameters["weight"] = value


class Shadowed(nn.Linear):
    """The parameter is there, and a property hides it."""

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        return 1.0 + self._parameters["bias"]


class Frozen(nn.GRUCell):
    def train(self, mode: bool = True) -> nn.GRUCell:
        return super().train(False)


class Renamed(nn.Linear):
    """Only how it is made and printed is its own."""

    def __init__(self, n: int) -> None:
        super().__init__(n, n)

    def reset_parameters(self) -> None:
        nn.init.eye_(self.weight)
        nn.init.ones_(self.bias)

    def extra_repr(self) -> str:
        return "mine"

    def of_ones_own(self) -> int:
        return 3


class Quantized(nn.Parameter):
    """As libraries for few bits have them."""


def made(layer: nn.Module, change: Callable[[nn.Module], object]) -> nn.Module:
    change(layer)
    return layer


def low_rank(layer: nn.Module) -> None:
    """As patches for LoRA do."""
    layer.down, layer.up, before = nn.Linear(3, 1), nn.Linear(1, 3), layer.forward
    layer.forward = lambda x: before(x) + layer.up(layer.down(x))


def hooked_by_accelerate(layer: nn.Module) -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module

    class Doubles(ModelHook):
        def post_forward(self, module: nn.Module, output: Tensor) -> Tensor:
            return 2.0 * output

    add_hook_to_module(layer, Doubles())


def dropped(layer: nn.Module) -> None:
    del layer._parameters["weight_hh_l0"]


def tensor_for(name: str) -> Callable[[nn.Module], None]:
    def change(layer: nn.Module) -> None:
        value = layer._parameters.pop(name)
        setattr(layer, name, 2.0 * value)

    return change


def own_parameter(layer: nn.Module) -> None:
    layer.gain = nn.Parameter(torch.ones(()))


def of_another_kind(layer: nn.Module) -> None:
    layer.weight = Quantized(layer.weight.detach())


# What is put into a model, its input, and the reason in the table.
DIGITAL = {
    "instance forward": (
        lambda: made(nn.Linear(3, 3), lambda m: setattr(m, "forward", functools.partial(F.linear, weight=m.weight))),
        "its forward is replaced",
    ),
    "instance method": (
        lambda: made(nn.Linear(3, 3), lambda m: setattr(m, "forward", types.MethodType(lambda s, x: 2.0 * x, m))),
        "its forward is replaced",
    ),
    "instance call": (
        lambda: made(nn.Linear(3, 3), lambda m: setattr(m, "_call_impl", torch.relu)),
        "its _call_impl is replaced",
    ),
    "accelerate": (lambda: made(nn.Linear(3, 3), hooked_by_accelerate), "its forward is replaced"),
    "conv forward": (lambda: Scaled(2, 2, 1), "Scaled has a _conv_forward of its own"),
    "instance conv forward": (
        lambda: made(nn.Conv1d(2, 2, 1), lambda m: setattr(m, "_conv_forward", lambda x, w, b: 2.0 * x)),
        "its _conv_forward is replaced",
    ),
    "call": (lambda: Called(3, 3), "Called has a __call__ of its own"),
    "weight property": (lambda: Positive(3, 3), "its weight is computed"),
    "bias property": (
        lambda: made(nn.Linear(3, 3), lambda m: setattr(m, "__class__", Shadowed)),
        "its bias is computed",
    ),
    "plain weight": (lambda: made(nn.Linear(3, 3), tensor_for("weight")), "its weight is computed"),
    "plain bias": (lambda: made(nn.Linear(3, 3), tensor_for("bias")), "its bias is computed"),
    "plain cell weight": (lambda: made(nn.GRUCell(3, 3), tensor_for("weight_hh")), "its weight_hh is computed"),
    "train": (lambda: Frozen(3, 3), "Frozen has a train of its own"),
    "parameter": (lambda: made(nn.Linear(3, 3), own_parameter), "it has a parameter gain"),
    "buffer": (
        lambda: made(nn.Linear(3, 3), lambda m: m.register_buffer("mask", torch.ones(3))),
        "it has a buffer mask",
    ),
    "module": (lambda: made(nn.Linear(3, 3), lambda m: m.add_module("norm", nn.Tanh())), "it has a module norm"),
    "other parameter": (lambda: made(nn.Linear(3, 3), of_another_kind), "its weight is a Quantized"),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(3, 3)), "its weight is computed"),
    "spectral norm": (lambda: spectral_norm(nn.Linear(3, 3)), "its weight is computed"),
    "pruned": (lambda: prune.l1_unstructured(nn.Linear(3, 3), "weight", 0.5), "its weight is computed"),
    "pruned bias": (lambda: prune.l1_unstructured(nn.Linear(3, 3), "bias", 0.5), "its bias is computed"),
    "parametrized out_proj": (
        lambda: made(nn.MultiheadAttention(3, 1), lambda m: parametrizations.weight_norm(m.out_proj)),
        "its out_proj is a ParametrizedNonDynamicallyQuantizableLinear",
    ),
    "other out_proj": (
        lambda: made(nn.MultiheadAttention(3, 1), lambda m: setattr(m, "out_proj", Called(3, 3))),
        "its out_proj is a Called",
    ),
}


def inputs(layer: nn.Module) -> tuple[Tensor, ...]:
    x = torch.randn(4, 2 if isinstance(layer, nn.Conv1d) else 3, 5 if isinstance(layer, nn.Conv1d) else 3)
    if isinstance(layer, nn.GRUCell):
        return (x[0],)
    return (x, x, x) if isinstance(layer, nn.MultiheadAttention) else (x,)


def first(y: Tensor | tuple[Tensor, ...]) -> Tensor:
    return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("case", DIGITAL)
def test_what_is_not_understood_stays_digital_with_its_reason(case):
    torch.manual_seed(0)
    make, reason = DIGITAL[case]
    model = nn.ModuleDict({"mine": make(), "other": nn.Linear(3, 2)}).eval()  # spectral norm changes in training
    analog = convert(model, device=Ideal())
    rows = {row.name: row for row in summary(analog).rows}
    assert rows["mine"].why_digital == reason and rows["mine"].device is None
    assert rows["other"].why_digital == "" and isinstance(analog["other"], AnalogLinear)
    assert any(line.startswith("mine ") and line.endswith(reason) for line in str(summary(analog)).splitlines())
    x = inputs(model["mine"])
    torch.testing.assert_close(first(analog["mine"](*x)), first(model["mine"](*x)), rtol=0, atol=0)


def test_a_low_rank_patch_is_refused_with_the_way():
    # Its function holds the layer: a copy would add what the old layer's adapters give.
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    low_rank(model[0])
    with pytest.raises(ValueError, match=r"a function in '0.forward' would go on to use '0.*call convert first, then"):
        convert(model, device=Ideal())


def test_a_function_in_the_class_of_torch(monkeypatch):
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: 2.0 * F.linear(x, self.weight, self.bias))
    with pytest.raises(ValueError, match=r"no layer .*'' stays digital, since torch's Linear\.forward is replaced"):
        convert(nn.Linear(3, 2), device=Ideal())


@pytest.mark.parametrize("make", [lambda: Renamed(3), lambda: made(nn.Linear(3, 3), lambda m: m.compile())])
def test_what_computes_as_torchs_layer_becomes_analog(make):
    layer = make()
    analog = convert(layer, device=Ideal())
    assert isinstance(analog, AnalogLinear)
    torch.testing.assert_close(analog.weight, layer.weight.detach())


def test_a_rule_does_not_reach_what_is_not_understood():
    model = nn.Sequential(Called(3, 3), nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"matches no layer; .*; '0' stays digital, since Called has a __call__"):
        convert(model, device=Ideal(), rules=Rule("0", device=Ideal()))
    assert summary(convert(model, device=Ideal(), rules=Rule("0", digital=True))).rows[0].why_digital.startswith("Call")


def test_the_table_names_rules_and_has_no_column_without_reasons():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3))
    ruled = summary(convert(model, device=Ideal(), rules=Rule("2", digital=True)))
    assert [row.why_digital for row in ruled.rows] == ["", "", "a rule, or added later"]
    assert "because" in str(ruled) and "because" not in str(summary(convert(model, device=Ideal())))
    assert "because" not in str(summary(model))


def test_the_inside_of_an_attention_that_stays_digital_does_too():
    model = nn.ModuleDict({"mine": nn.MultiheadAttention(3, 1), "other": nn.Linear(3, 2)})
    model["mine"].out_proj = nn.Linear(3, 3)  # an ordinary layer, whose weight the attention reads all the same
    model["mine"].gain = nn.Parameter(torch.ones(()))
    rows = {row.name: row for row in summary(convert(model, device=Ideal())).rows}
    assert rows["mine"].why_digital == "it has a parameter gain"
    assert rows["mine.out_proj"].why_digital == "the attention around it reads its weight"


class WeightDrop(nn.Module):
    """The AWD-LSTM's: dropout on a recurrent matrix, before each call."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.LSTM(3, 3)
        self.raw = nn.Parameter(self.module._parameters.pop("weight_hh_l0").data)

    def forward(self, x: Tensor) -> Tensor:
        self.module.weight_hh_l0 = F.dropout(self.raw, 0.5, self.training)
        return self.module(x)[0]


@pytest.mark.parametrize("calls_before", [0, 1])
def test_a_weight_dropped_lstm_trains_on_as_it_did(calls_before):
    torch.manual_seed(0)
    model, x = nn.Sequential(WeightDrop(), nn.Linear(3, 2)), torch.randn(4, 2, 3)
    for _ in range(calls_before):
        model(x)  # its weight has a history now, which torch copies not
    analog = convert(model, device=Ideal())
    assert summary(analog).rows[1].why_digital == "its weight_hh_l0 is computed"
    digital = torch.optim.SGD(model.parameters(), lr=0.1)
    for net, optimizer in ((model, digital), (analog, AnalogOptimizer(analog, lr=0.1))):
        torch.manual_seed(1)
        for _ in range(3):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(analog[0].raw, model[0].raw)
    torch.testing.assert_close(analog[1].weight, model[1].weight.detach())


def pair() -> nn.ModuleDict:
    return nn.ModuleDict({"lin": nn.Linear(3, 3), "head": nn.Linear(3, 2)})


def test_replicas_have_the_same_code():
    patched = made(pair(), lambda n: setattr(n["lin"], "forward", functools.partial(F.relu)))
    for others in ([nn.Sequential(nn.Linear(3, 3), nn.Tanh()), nn.Sequential(nn.Linear(3, 3), nn.ReLU())],
                   [nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.1)), nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.2))],
                   [nn.Sequential(nn.Linear(3, 3)), nn.Sequential(Called(3, 3))],
                   [pair(), patched]):  # fmt: skip
        with pytest.raises(ValueError, match="convert needs models of equal structure as replicas, got different lay"):
            convert(others, device=Ideal())
    computed = [nn.Sequential(made(nn.Linear(3, 3, bias=False), tensor_for("weight")), nn.Linear(3, 3)) for _ in "ab"]
    with pytest.raises(ValueError, match=r"cannot replicate '0' \(Linear\)"):
        convert(computed, device=Ideal())


def test_to_digital_knows_its_own_layers_alone():
    analog = convert(pair(), device=Ideal())
    hooked_by_accelerate(analog["lin"])
    with pytest.raises(ValueError, match=r"needs AnalogLinear as it is, but 'lin' is not: its forward is replaced"):
        to_digital(analog)

    class Mine(AnalogLinear):
        def forward(self, input: Tensor) -> Tensor:
            return 2.0 * super().forward(input)

    with pytest.raises(ValueError, match="but '0' is not: Mine has a forward of its own"):
        to_digital(nn.Sequential(Mine(3, 2, device=Ideal())))


class InAList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.penalised = [self.layer.weight]


class WithAnOptimizer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.layer.parameters(), 0.1)


@pytest.mark.parametrize("kind", [InAList, WithAnOptimizer])
def test_parameters_that_something_else_holds_are_refused(kind):
    with pytest.raises(ValueError, match=r"convert cannot put 'layer' on tiles: something else in the model"):
        convert(kind(), device=Ideal())
