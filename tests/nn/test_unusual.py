"""What users try: other dtypes, autocast, empty batches, settings of another kind, torch's own optimizers."""

import pytest
import torch
from torch import nn

from exact import assert_bits
from ohmgrad import IO, AnalogOptimizer, Mapping, Periphery, PulsedUpdate, Rule, TikiTaka, convert
from ohmgrad.devices import Ideal, SoftBounds


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def test_autocast_leaves_tiles_alone():
    # Where all layers are analog, a step under it is a step without it; and it still acts on digital ones.
    x, results = torch.randn(5, 4), []
    for enabled in (False, True):
        model = convert(mlp(), device=SoftBounds(), periphery=Periphery(), algorithm=TikiTaka())
        optimizer = AnalogOptimizer(model, lr=0.1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = model(x)
            y.square().sum().backward()
            optimizer.step()
        results.append([y.detach(), *(model[k].weight for k in (0, 2)), model[0].bias.detach()])
    for plain, cast in zip(*results, strict=True):
        assert_bits(cast, plain)
    mixed = convert(mlp(), device=Ideal(), rules=Rule("0", digital=True))
    with torch.autocast("cpu", torch.bfloat16):
        assert mixed[0](x).dtype == torch.bfloat16 and mixed(x).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_devices_need_a_dtype_that_holds_small_pulses(dtype):
    with pytest.raises(TypeError, match=r"cannot put '0' \(Linear\) on tiles: Crossbar needs dtype float32 or float64"):
        convert(mlp().to(dtype), device=Ideal())
    with pytest.raises(TypeError, match="a tile needs dtype float32 or float64, got torch"):
        convert(mlp(), device=Ideal()).to(dtype)


@pytest.mark.parametrize("layer", [nn.GRU(3, 2), nn.LSTM(3, 2, bidirectional=True), nn.RNN(3, 2, batch_first=True)])
def test_an_empty_batch(layer):
    x = torch.zeros(0, 4, 3) if layer.batch_first else torch.zeros(4, 0, 3)
    y, _ = convert(layer, device=Ideal(), periphery=Periphery())(x)
    assert y.shape == layer(x)[0].shape
    with pytest.raises(ValueError, match="at least one time step"):
        convert(layer, device=Ideal())(x.transpose(0, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": SoftBounds}, r"device needs .*got <class .*SoftBounds\(\) makes one"),
        ({"device": "soft-bounds"}, "device needs an instance of its own kind, got 'soft-bounds'"),
        ({"algorithm": TikiTaka}, r"algorithm needs .*; TikiTaka\(\) makes one"),
        ({"update": PulsedUpdate}, r"update needs .*; PulsedUpdate\(\) makes one"),
        ({"periphery": IO()}, "periphery needs an instance of its own kind, got IO"),
        ({"mapping": {"digital_bias": False}}, "mapping needs an instance of its own kind, got {"),
    ],
)
def test_settings_of_another_kind(options, message):
    with pytest.raises(TypeError, match=message):
        convert(mlp(), **({"device": Ideal()} | options))


def test_a_range_of_another_kind():
    with pytest.raises(TypeError, match="Mapping needs an InputRange or None as input_range, got True"):
        Mapping(input_range=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", [None, nn.Linear, [nn.Linear(2, 2), "x"]])
def test_what_is_no_model(model):
    with pytest.raises(TypeError, match="convert needs a module, or a sequence of them, got"):
        convert(model, device=Ideal())


def test_a_model_that_is_analog_already():
    with pytest.raises(ValueError, match="in Sequential, whose layers are analog already"):
        convert(convert(mlp(), device=Ideal()), device=Ideal())


@pytest.mark.parametrize("is_ours", [True, False])
def test_an_optimizer_that_trains_no_tile_is_told(is_ours):
    model = convert(nn.Linear(4, 3), device=Ideal())
    optimizer = AnalogOptimizer(model, lr=0.1) if is_ours else torch.optim.SGD([model.bias], lr=0.1)

    def train(n: int) -> None:
        for _ in range(n):
            model.zero_grad()
            model(torch.ones(1, 4)).sum().backward()
            optimizer.step()

    train(3)
    if is_ours:
        train(3)  # without a warning, which would be an error
    else:
        with pytest.warns(UserWarning, match=r"trained by ohmgrad\.AnalogOptimizer, not by torch's"):
            train(1)
