"""Graphs on file: a tile is never part of one; the digital twin is, and gives the same outputs elsewhere."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from contracts.layer import gaussian
from ohmgrad import AnalogOptimizer, Mapping, convert, to_digital
from ohmgrad.devices import Ideal, SoftBounds

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (gaussian(5, 3).float(),)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, padding=1), (gaussian(2, 2, 6).float(),)),
    "conv2d": (lambda: nn.Conv2d(2, 4, 3, groups=2, stride=2), (gaussian(2, 2, 7, 7).float(),)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2), (gaussian(2, 1, 3, 3, 3).float(),)),
    "embedding": (lambda: nn.Embedding(7, 3, padding_idx=1), (torch.tensor([[1, 2], [6, 0]]),)),
    "rnn": (lambda: nn.RNN(3, 4, batch_first=True), (gaussian(2, 5, 3).float(),)),
    "gru": (lambda: nn.GRU(3, 4, bidirectional=True), (gaussian(5, 2, 3).float(),)),
    "lstm": (lambda: nn.LSTM(3, 4, num_layers=2), (gaussian(5, 2, 3).float(),)),
    "gru cell": (lambda: nn.GRUCell(3, 4), (gaussian(2, 3).float(),)),
    "lstm cell": (lambda: nn.LSTMCell(3, 4), (gaussian(2, 3).float(),)),
    "attention": (lambda: nn.MultiheadAttention(4, 2, batch_first=True), (gaussian(2, 5, 4).float(),) * 3),
}


def analog(name: str, **options: Any) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    make, x = LAYERS[name]
    return convert(make().eval(), device=Ideal(), **options), x


def strictly(model: nn.Module, x: tuple[Tensor, ...]) -> object:
    return torch.export.export(model, x, strict=True)


GRAPHS: dict[str, Callable[[nn.Module, tuple[Tensor, ...]], object]] = {
    "export": torch.export.export,
    "strict export": strictly,
    "jit.trace": lambda m, x: torch.jit.trace(m, x),
    "jit.script": lambda m, x: torch.jit.script(m),
    "symbolic_trace": lambda m, x: torch.fx.symbolic_trace(m),
    "make_fx": lambda m, x: make_fx(m)(*x),
    "onnx": lambda m, x: torch.onnx.export(m, x, verbose=False),
}


@pytest.mark.filterwarnings("ignore")  # torch's, of its own deprecated parts
@pytest.mark.parametrize(
    ("name", "graph"),
    # ONNX's exporter begins with torch's, in seconds.
    [(n, g) for n in LAYERS for g in GRAPHS if g != "onnx" or n in ("linear", "lstm")],
)
def test_a_tile_is_no_part_of_a_graph_on_file(name, graph):
    model, x = analog(name)
    with pytest.raises(Exception, match=r"ohmgrad\.to_digital\(model\)"):  # of the exporters' own kinds, some
        GRAPHS[graph](model, x)


@pytest.mark.parametrize("mapping", [None, Mapping(max_input_size=2, digital_bias=False)], ids=["tile", "grid"])
def test_torch_compile_goes_on_working(mapping):
    model, x = analog("linear", mapping=mapping)
    twin = copy.deepcopy(model)
    torch._dynamo.reset()
    for net, call in ((model, model), (twin, torch.compile(twin, fullgraph=True, backend="aot_eager"))):
        optimizer = AnalogOptimizer(net, lr=0.1)
        call(*x).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(model[0].weight, twin[0].weight)


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for part in value for t in flat(part)]


def trained(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A model that has left the weights it started from."""
    torch.manual_seed(0)
    make, x = LAYERS[name]
    model = convert(make(), device=SoftBounds())
    optimizer = AnalogOptimizer(model, lr=0.1)
    sum((y.square().sum() for y in flat(model(*x))), torch.zeros(())).backward()
    optimizer.step()
    return model.eval(), x


QUICK = ("linear", "conv2d", "lstm", "attention")


@pytest.mark.filterwarnings("ignore")  # of exporters
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in LAYERS])
def test_the_digital_twin_runs_in_onnxruntime(name, tmp_path):
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    model, x = trained(name)
    file = str(tmp_path / "model.onnx")
    torch.onnx.export(to_digital(model), x, file, verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    found = session.run(None, {k: v.numpy() for k, v in zip(names, x, strict=True)})
    expected = flat(model(*x))
    assert len(found) >= len(expected) > 0
    for a, b in zip(found, expected, strict=False):
        torch.testing.assert_close(torch.as_tensor(a), b.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LAYERS)
def test_the_digital_twin_is_exported_and_traced(name):
    model, x = trained(name)
    digital = to_digital(model)
    for graph in (torch.export.export(digital, x).module(), torch.jit.trace(digital, x)):
        for a, b in zip(flat(graph(*x)), flat(model(*x)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
