"""Functions and hooks on a model that hold parts of it: convert refuses what its copy would share with the original."""

import functools
import types
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohmgrad import AnalogLinear, AnalogOptimizer, Tile, convert, summary, to_digital
from ohmgrad.devices import Ideal


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin, self.norm, self.head = nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.lin(x)))

    def part(self, x: Tensor) -> Tensor:
        return self.norm(self.lin(x))


def layer_of(net: Net) -> nn.Module:
    return net.lin


HELD: dict[str, tuple[Callable[[Net], object], str]] = {
    "compiled forward": (lambda n: setattr(n, "forward", torch.compile(n.forward)), "'forward' .* the model given"),
    "closure": (lambda n: setattr(n, "act", lambda x: n.lin(x)), "'act' .* the model given"),
    "layer": (lambda n: n.__dict__.update(act=(lambda lin: lambda x: lin(x))(n.lin)), "'act' .* 'lin' of the model"),
    "default": (lambda n: setattr(n, "act", lambda x, lin=n.lin: lin(x)), "'act' .* 'lin' of the model given"),
    "parameter": (
        lambda n: setattr(n, "act", (lambda w: lambda x: x @ w)(n.lin.weight)), "'act' .* 'lin.weight' of the model"
    ),
    "norm": (lambda n: setattr(n, "act", (lambda m: lambda x: m(x))(n.norm)), "'act' .* 'norm' of the model given"),
    "partial in a closure": (
        lambda n: setattr(n, "act", (lambda f: lambda x: f(x))(functools.partial(Net.part, n))), "'act' .* the model"
    ),
    "wrapped": (
        lambda n: setattr(n, "act", functools.wraps(n.part)(lambda *a: None)), "'act' .* the model given"
    ),
    "list": (lambda n: setattr(n, "acts", [(lambda m: lambda x: m(x))(n.lin)]), "'acts' .* 'lin' of the model given"),
    "layers in a list": (
        lambda n: setattr(n, "act", (lambda ms: lambda x: ms[0](x))([n.lin])), "'act' .* 'lin' of the model given"
    ),
    "method": (
        lambda n: setattr(n, "forward", types.MethodType(lambda self, x: n.lin(x), n)), "'forward' .* the model given"
    ),
    "hook": (lambda n: n.norm.register_forward_hook(lambda m, x, y: n.lin(y)), "'norm._forward_hooks' .* the model"),
    "hook of a layer": (
        lambda n: n.lin.register_forward_pre_hook(lambda m, x: (n.norm(x[0]),)), "'lin._forward_pre_hooks' .* the model"
    ),
    "weak": (lambda n: n.norm.__dict__.update(whose=weakref.ref(n)), "'norm.whose' .* the model given"),
    "built in": (lambda n: setattr(n, "add", n.lin.weight.add), "'add' .* 'lin.weight' of the model given"),
    "outputs as float": (
        lambda n: setattr(n, "forward", __import__("accelerate").utils.convert_outputs_to_fp32(n.forward)),
        "'forward' .* the model given",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HELD)
def test_functions_that_hold_the_model_are_refused(case):
    change, words = HELD[case]
    net = Net()
    change(net)
    with pytest.raises(ValueError, match=f"convert copies the model, but a function in {words}.*call convert first"):
        convert(net, device=Ideal())
    analog = convert(Net(), device=Ideal())
    if case not in ("parameter", "built in"):  # a tile's weight is no parameter
        change(analog)
        with pytest.raises(ValueError, match=f"to_digital copies the model, but a function in {words}"):
            to_digital(analog)


GLOBAL = Net()


def global_part(x: Tensor) -> Tensor:
    return GLOBAL.lin(x)


def test_a_global_name_is_held_too():
    for act in (lambda x: GLOBAL.lin(x), lambda x: global_part(x)):
        GLOBAL.act = act
        with pytest.raises(ValueError, match="a function in 'act' would go on to use the model given"):
            convert(GLOBAL, device=Ideal())
    assert convert(Net(), device=Ideal()) is not None  # another model than the one they name


def accelerated(net: nn.Module) -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module

    add_hook_to_module(net, ModelHook())


UNRELATED: dict[str, Callable[[Net], object]] = {
    "bound method": lambda n: setattr(n, "act", n.part),
    "partial": lambda n: setattr(n, "act", functools.partial(Net.part, n)),
    "method": lambda n: setattr(n, "forward", types.MethodType(Net.part, n)),
    "other layer": lambda n: setattr(n, "act", (lambda m: lambda x: m(x))(nn.Linear(3, 3))),
    "other model": lambda n: setattr(n, "act", global_part),
    "a list that grows": lambda n: n.lin.register_forward_hook((lambda seen: lambda m, x, y: seen.append(y))([])),
    "torch's functions": lambda n: n.__dict__.update(act=F.gelu, norm_of=torch.linalg.norm, fold=functools.reduce),
    "compiled function": lambda n: setattr(n, "act", torch.compile(F.gelu)),
    "compiled in place": lambda n: n.compile(backend="eager"),
    "accelerate": accelerated,
    "checkpointing": lambda n: setattr(
        n, "_gradient_checkpointing_func", functools.partial(torch.utils.checkpoint.checkpoint, use_reentrant=False)
    ),
    "weak list": lambda n: n.add_module("rnn", nn.LSTM(3, 3)),  # torch's keeps weak references to its weights
}


@pytest.mark.parametrize("case", UNRELATED)
def test_what_holds_nothing_of_the_model_is_taken_along(case):
    torch.manual_seed(0)
    net, x = Net(), torch.randn(4, 3)
    UNRELATED[case](net)
    analog = convert(net, device=Ideal())
    torch.testing.assert_close(analog(x), net(x))
    if case in ("bound method", "partial"):
        torch.testing.assert_close(analog.act(x), net.act(x))
        before = reads(analog)
        analog.act(x)
        assert reads(analog) > before  # of the tile, not of the layer that was given
    to_digital(analog)


def reads(model: nn.Module) -> int:
    return sum(int(bar.counters.reads) for m in model.modules() if isinstance(m, Tile) for bar in m.crossbars)


@pytest.mark.filterwarnings("default")  # of a library's own
def test_a_model_of_hugging_face_is_no_false_alarm():
    import transformers

    config = transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=8,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    analog, x = convert(model, device=Ideal()), torch.tensor([[1, 2, 3]])
    assert not [row for row in summary(analog).rows if row.why_digital]
    torch.testing.assert_close(analog(x).logits, model(x).logits)


def test_a_compiled_model_is_converted_inside():
    torch.manual_seed(0)
    net, x = Net(), torch.randn(4, 3)
    for model in (torch.compile(net, backend="aot_eager"), torch.fx.symbolic_trace(net)):
        analog = convert(model, device=Ideal())
        optimizer = AnalogOptimizer(analog, lr=0.1)
        torch.testing.assert_close(analog(x), net(x))
        analog(x).square().sum().backward()
        optimizer.step()
        parts = dict(analog.named_modules())
        lin = parts["_orig_mod.lin"] if "_orig_mod" in parts else parts["lin"]
        assert isinstance(lin, AnalogLinear) and not torch.equal(lin.weight, net.lin.weight)
        assert reads(analog) > 0


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
@pytest.mark.parametrize("name", ["lin.weight", "lin.bias", "norm.weight"])
def test_hooks_on_gradients_are_refused(register, name):
    net = Net()
    getattr(net.get_parameter(name), register)(lambda g: None)
    with pytest.raises(ValueError, match=f"convert cannot take along the hooks on the gradient of '{name}': remove"):
        convert(net, device=Ideal())
