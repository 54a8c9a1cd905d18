"""What a user may try and tiles have no answer to: each is one clear sentence that names the way, or works."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, functional
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, stack_module_state, vmap

import ohmgrad
from contracts.layer import gaussian, tensors
from ohmgrad import (
    AnalogConv2d,
    AnalogEmbedding,
    AnalogGRU,
    AnalogLinear,
    AnalogLSTMCell,
    AnalogMultiheadAttention,
    AnalogOptimizer,
    AnalogRNN,
    InputRange,
    Mapping,
    Rule,
    convert,
    to_digital,
)
from ohmgrad.devices import Ideal
from ohmgrad.nn import Hardware

SPELLING: list[tuple[Callable[..., object], tuple, dict[str, object], str, str]] = [
    (AnalogLinear, (3, 2), {"devcie": Ideal()}, "devcie", "device"),
    (AnalogLinear, (3, 2), {"device": Ideal(), "seeed": 1}, "seeed", "seed"),
    (AnalogConv2d, (3, 2), {"device": Ideal(), "kernel": 1}, "kernel", "kernel_size"),
    (AnalogEmbedding, (3, 2), {"device": Ideal(), "padding": 0}, "padding", "padding_idx"),
    (AnalogMultiheadAttention, (4,), {"device": Ideal(), "heads": 2}, "heads", "num_heads"),
    (AnalogGRU, (3, 2), {"device": Ideal(), "num_layer": 2}, "num_layer", "num_layers"),
    (AnalogRNN, (3, 2), {"device": Ideal(), "nonlinearty": "relu"}, "nonlinearty", "nonlinearity"),
    (AnalogLSTMCell, (3, 2), {"devices": Ideal()}, "devices", "device"),
    (convert, (nn.Linear(3, 2),), {"devcie": Ideal()}, "devcie", "device"),
    (convert, (nn.Linear(3, 2),), {"device": Ideal(), "rule": ()}, "rule", "rules"),
    (to_digital, (nn.Linear(3, 2),), {"replicas": 1}, "replicas", "replica"),
    (Rule, ("0",), {"digitl": True}, "digitl", "digital"),
    (Hardware, (), {"device": Ideal(), "algoritm": None}, "algoritm", "algorithm"),
]


@pytest.mark.parametrize(("make", "args", "options", "wrong", "right"), SPELLING)
def test_a_misspelt_option(make, args, options, wrong, right):
    with pytest.raises(TypeError, match=f"has no option '{wrong}', did you mean '{right}'. Its options: .*{right}"):
        make(*args, **options)


def test_an_option_that_is_near_to_none():
    with pytest.raises(TypeError, match=r"AnalogLinear has no option 'zzz'\. Its options: in_features, .*mapping"):
        AnalogLinear(3, 2, device=Ideal(), zzz=1)


ANALOG = [getattr(ohmgrad, name) for name in ohmgrad.__all__ if name.startswith("Analog")]
LAYERS = [kind for kind in ANALOG if inspect.isclass(kind) and issubclass(kind, nn.Module)]


@pytest.mark.parametrize("kind", [*LAYERS, Hardware])
def test_a_missing_device(kind):
    with pytest.raises(TypeError, match=rf"{kind.__name__} needs the option device, for example device=ohmgrad\.dev"):
        kind() if kind is Hardware else kind(4, 2)


def test_right_options_pass():
    layer = AnalogRNN(3, 2, 2, nonlinearity="relu", dropout=0.5, seed=3, dtype=torch.float64, device=Ideal())
    assert (layer.num_layers, layer.dropout, layer.mode) == (2, 0.5, "RNN_RELU")


def model(mapping: Mapping | None = None) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    return convert(net, device=Ideal(), mapping=mapping)


X = gaussian(5, 3)


def dual(net: nn.Module) -> object:
    with forward_ad.dual_level():
        return net(forward_ad.make_dual(X, X))


def penalized(net: nn.Module, power: int) -> None:
    """A loss on the gradient of the input; with power 1 the error that comes back is a constant."""
    x = X.clone().requires_grad_()
    y = (net(x) ** power).sum()
    (g,) = torch.autograd.grad(y, x, create_graph=True)
    (y + g.square().sum()).backward()


TRANSFORM, TWICE = (
    r"inside a transform of torch\.func .*to_digital\(model\)",
    r"differentiated twice.*to_digital\(model\)",
)
REFUSED: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "vmap": (lambda m: vmap(m)(X), TRANSFORM),
    "grad": (lambda m: grad(lambda x: m(x).sum())(X), TRANSFORM),
    "grad of parameters": (
        lambda m: grad(lambda p: functional_call(m, p, (X,)).sum())(dict(m.named_parameters())),
        TRANSFORM,
    ),
    "jvp": (lambda m: jvp(m, (X,), (X,)), TRANSFORM),
    "jacrev": (lambda m: jacrev(m)(X), TRANSFORM),
    "jacfwd": (lambda m: jacfwd(m)(X), TRANSFORM),
    "ensemble": (
        lambda m: vmap(lambda p, b: functional_call(m, (p, b), (X,)))(*stack_module_state([m, m])),
        TRANSFORM,
    ),
    "forward mode": (dual, r"no forward-mode derivative: .*to_digital\(model\)"),
    "second derivative": (lambda m: penalized(m, 2), TWICE),
    "loss on a gradient": (lambda m: penalized(m, 1), TWICE),
    "hessian": (lambda m: functional.hessian(lambda x: m(x).square().sum(), X), TWICE),
    "other parameters": (
        lambda m: functional_call(m, {k: v.detach() + 1.0 for k, v in m.named_parameters()}, (X,)),
        r"functional_call gave a tile another parameter .*to_digital\(model\)",
    ),
}


MAPPINGS = [None, Mapping(max_input_size=2), Mapping(input_range=InputRange(init_value=0.5))]


@pytest.mark.parametrize("mapping", MAPPINGS, ids=["tile", "grid", "range"])
@pytest.mark.parametrize("case", REFUSED)
def test_derivatives_that_tiles_have_not(case, mapping):
    call, words = REFUSED[case]
    with pytest.raises(RuntimeError, match=words):
        call(model(mapping))


@pytest.mark.parametrize("make", [lambda: nn.Conv1d(3, 2, 1), lambda: nn.GRU(3, 2), lambda: nn.LSTMCell(3, 2)])
def test_other_layers_refuse_transforms_too(make):
    analog = convert(make().double(), device=Ideal())
    x = X.T if isinstance(make(), nn.Conv1d) else X
    with pytest.raises(RuntimeError, match=TRANSFORM):
        vmap(analog)(x[None])
    with pytest.raises(RuntimeError, match="no forward-mode derivative"), forward_ad.dual_level():
        analog(forward_ad.make_dual(x, x))
    given = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(tensors(analog(given))[0].square().sum(), given, create_graph=True)
    with pytest.raises(RuntimeError, match=TWICE):
        g.sum().backward()


def test_second_derivatives_of_a_compiled_model():
    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        penalized(torch.compile(model(), backend="aot_eager"), 1)


def test_what_needs_no_second_derivative_works():
    net, twin = model(), to_digital(model())
    x, y = (X.clone().requires_grad_() for _ in range(2))
    (g,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)  # and nobody asks for more
    torch.testing.assert_close(g.detach(), *torch.autograd.grad(twin(y).square().sum(), y))
    torch.testing.assert_close(functional.jacobian(net, X), functional.jacobian(twin, X))
    torch.testing.assert_close(functional.jacobian(net, X, vectorize=True), functional.jacobian(twin, X))


def test_functional_call_with_a_models_own_parameters_works():
    net, plain = model(), model()
    optimizers = [AnalogOptimizer(m, lr=0.1) for m in (net, plain)]
    for m, call in ((net, lambda x: functional_call(net, dict(net.named_parameters()), (x,))), (plain, plain)):
        call(X).square().sum().backward()
        optimizers[m is plain].step()
    torch.testing.assert_close(net[0].weight, plain[0].weight, rtol=0, atol=0)
    torch.testing.assert_close(net[2].bias, plain[2].bias, rtol=0, atol=0)


def inputs_of(kind: str, x: Tensor) -> object:
    if kind == "nested":
        return torch.nested.nested_tensor([x, x])
    if kind == "jagged":
        return torch.nested.nested_tensor([x, x], layout=torch.jagged)
    made = {"sparse": x.to_sparse, "complex": lambda: x.to(torch.complex128), "integer": x.long, "list": x.tolist,
            "array": x.numpy}  # fmt: skip
    return made[kind]()


WORDS = {
    "nested": (ValueError, r"a dense tensor, got a nested one; torch\.nested\.to_padded_tensor makes one"),
    "jagged": (ValueError, r"a dense tensor, got a nested one"),
    "sparse": (ValueError, r"a dense tensor, got one of layout torch\.sparse_coo; .*\.to_dense\(\) makes one"),
    "complex": (TypeError, r"dtype torch\.float64, got torch\.complex128: read its real and imaginary parts apart"),
    "integer": (TypeError, r"dtype torch\.float64, got torch\.int64: x\.to\(torch\.float64\) has it"),
    "list": (TypeError, r"needs a tensor, got list; torch\.as_tensor makes one"),
    "array": (TypeError, r"needs a tensor, got ndarray; torch\.as_tensor makes one"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", WORDS)
@pytest.mark.parametrize("layer", ["linear", "conv", "gru", "cell", "attention"])
def test_inputs_that_are_no_dense_tensor_of_the_tiles_dtype(layer, kind):
    made = {"linear": nn.Linear(3, 2), "conv": nn.Conv1d(3, 2, 1), "gru": nn.GRU(3, 2), "cell": nn.GRUCell(3, 2),
            "attention": nn.MultiheadAttention(3, 1)}[layer]  # fmt: skip
    x = inputs_of(kind, X.T.contiguous() if layer == "conv" else X)
    error, words = WORDS[kind]
    with pytest.raises(error, match=words):
        convert(made.double(), device=Ideal())(*[x] * (3 if layer == "attention" else 1))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ["nested", "sparse", "list"])
def test_indices_that_are_no_dense_tensor(kind):
    x = torch.tensor([1, 2])
    with pytest.raises(WORDS[kind][0], match=WORDS[kind][1]):
        convert(nn.Embedding(4, 2), device=Ideal())(inputs_of(kind, x))


def test_an_input_that_requires_its_gradient_or_is_a_parameter():
    net, twin = model(), to_digital(model())
    for x in (X.clone().requires_grad_(), nn.Parameter(X.clone())):
        torch.testing.assert_close(
            torch.autograd.grad(net(x).square().sum(), x), torch.autograd.grad(twin(x).square().sum(), x)
        )


@pytest.mark.parametrize("mapping", [None, Mapping(max_input_size=2)], ids=["tile", "grid"])
def test_data_parallel_copies_no_tile(mapping):
    net = model(mapping)
    tiles = [m for m in net.modules() if isinstance(m, ohmgrad.Tile)]
    for tile in tiles:
        with pytest.raises(RuntimeError, match="DataParallel would train copies of a tile and drop them: leave it out"):
            tile._replicate_for_data_parallel()  # as torch.nn.parallel.replicate does for each module
    with pytest.raises(RuntimeError, match="DataParallel would train copies"):
        [m._replicate_for_data_parallel() for m in net.modules()]
