"""Reading and writing weights: a read is a copy that refuses writes, `set_weight` and `load_digital` write."""

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from contracts.layer import assert_close, assert_same_parameters, gaussian, loss_of
from ohmgrad import AnalogLinear, AnalogOptimizer, Mapping, convert, load_digital, to_digital
from ohmgrad.devices import Ideal
from ohmgrad.nn.convert import LAYERS

x = gaussian(5, 3, 6)
# By torch's layer: its arguments, and what it is called with. Both forms of attention, and all that a bias can be.
CASES: dict[type[nn.Module], list[tuple[nn.Module, tuple]]] = {
    nn.Linear: [(nn.Linear(6, 4), (x,)), (nn.Linear(6, 4, bias=False), (x,))],
    nn.Conv1d: [(nn.Conv1d(3, 4, 3), (x,))],
    nn.Conv2d: [(nn.Conv2d(4, 6, (3, 2), padding=1, groups=2), (gaussian(2, 4, 6, 5),))],
    nn.Conv3d: [(nn.Conv3d(2, 3, 2), (gaussian(2, 2, 4, 3, 5),))],
    nn.ConvTranspose1d: [(nn.ConvTranspose1d(3, 4, 3, stride=2), (x,))],
    nn.ConvTranspose2d: [(nn.ConvTranspose2d(4, 6, (3, 2), groups=2), (gaussian(2, 4, 3, 2),))],
    nn.ConvTranspose3d: [(nn.ConvTranspose3d(2, 3, 2, bias=False), (gaussian(2, 2, 2, 1, 2),))],
    nn.EmbeddingBag: [(nn.EmbeddingBag(7, 4, mode="sum"), (torch.tensor([[1, 2, 6], [2, 1, 1]]),))],
    nn.Embedding: [(nn.Embedding(7, 4), (torch.tensor([[1, 2, 6], [2, 1, 1]]),))],
    nn.RNN: [(nn.RNN(6, 4), (x,))],
    nn.GRU: [(nn.GRU(6, 4, bidirectional=True), (x,))],
    nn.LSTM: [(nn.LSTM(6, 4, num_layers=2, proj_size=2), (x,))],
    nn.RNNCell: [(nn.RNNCell(6, 4), (x[0],))],
    nn.GRUCell: [(nn.GRUCell(6, 4, bias=False), (x[0],))],
    nn.LSTMCell: [(nn.LSTMCell(6, 4), (x[0],))],
    nn.MultiheadAttention: [
        (nn.MultiheadAttention(6, 2, batch_first=True), (x, x, x)),
        (nn.MultiheadAttention(6, 3, kdim=4, vdim=5), (x, gaussian(5, 3, 4), gaussian(5, 3, 5))),
    ],
}
MAPPINGS = {
    "plain": None,
    "grid": Mapping(max_input_size=4, max_output_size=5),
    "scaled": Mapping(weight_scaling_omega=0.5, weight_scaling_columnwise=True),
    "analog bias": Mapping(digital_bias=False, weight_scaling_omega=0.4, max_input_size=4),
}


def cases() -> list:
    """Every layer on every mapping; a layer without a case gets one that fails."""
    pairs = [(kind, one) for kind in LAYERS for one in CASES.get(kind, [(None, ())])]
    return [
        pytest.param(*one, MAPPINGS[name], id=f"{kind.__name__}-{i}-{name}")
        for i, (kind, one) in enumerate(pairs)
        for name in MAPPINGS
    ]


def fresh(layer: nn.Module, seed: int) -> nn.Module:
    """The same layer with other weights, in float64; biases too, which some of torch's layers start at 0."""
    other = copy.deepcopy(layer).double()
    for k, p in enumerate(other.parameters()):
        p.data = 0.3 * gaussian(*p.shape, seed=100 * seed + k)
    return other


def at(model: nn.Module, name: str) -> Any:
    """The attribute of that dotted name."""
    *path, last = name.split(".")
    return getattr(model.get_submodule(".".join(path)), last)


def shown(analog: nn.Module) -> dict[str, Tensor]:
    """What tiles represent, by torch's names."""
    found = {name: at(analog, name) for name, _ in to_digital(analog).named_parameters()}
    return {name: value for name, value in found.items() if not isinstance(value, nn.Parameter)}


def ones(w: Tensor) -> Tensor:
    return torch.ones_like(w)


WRITES = {
    "nn.init": lambda w: nn.init.uniform_(w),
    "data.fill_": lambda w: w.data.fill_(1.0),
    "data +=": lambda w: w.data.__iadd__(1.0),
    "item": lambda w: w.__setitem__((0, 0), 1.0),
    "view": lambda w: w.view(-1)[0].zero_(),
    "rows": lambda w: w.unbind(0)[0].mul_(2.0),
    "loop": lambda w: [row.zero_() for row in w],
    "transposed": lambda w: w.mT.fill_(1.0) if w.dim() > 1 else w.fill_(1.0),
    "detached": lambda w: w.detach().add_(1.0),
    "copy_": lambda w: w.copy_(ones(w)),
    "out=": lambda w: torch.add(ones(w), 1.0, out=w),
    "data =": lambda w: setattr(w, "data", ones(w)),
    "grad =": lambda w: setattr(w, "grad", ones(w)),
    "inplace=": lambda w: relu(w, inplace=True),
    "foreach": lambda w: torch._foreach_add_([w], 1.0),
    "operator": lambda w: torch.ops.aten.add_(w, 1.0),
    "vector": lambda w: nn.utils.vector_to_parameters(ones(w).flatten(), [w]),
    "hook": lambda w: w.register_hook(lambda d: 2.0 * d),
    "parameter": lambda w: nn.Parameter(w),
    "dlpack": lambda w: np.from_dlpack(w.detach()),
}


@pytest.mark.parametrize(("layer", "inputs", "mapping"), cases())
class TestEveryLayer:
    def test_a_write_raises_and_names_the_way(self, layer, inputs, mapping):
        analog = convert(fresh(layer, 1), device=Ideal(), mapping=mapping)
        before = {name: w.clone() for name, w in shown(analog).items()}
        assert before
        for name in before:
            for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
                for what, write in WRITES.items():
                    with mode(), pytest.raises(RuntimeError, match="set_weight"):
                        write(at(analog, name))
                        pytest.fail(f"{what} of {name} went through in {mode.__name__}")
        for name, value in before.items():
            assert torch.equal(at(analog, name), value)

    def test_attributes_are_not_set_or_deleted(self, layer, inputs, mapping):
        analog = convert(fresh(layer, 1), device=Ideal(), mapping=mapping)
        for name, w in shown(analog).items():
            *path, last = name.split(".")
            owner = analog.get_submodule(".".join(path))
            for value in (w.clone(), nn.Parameter(w.detach().clone()), None):
                with pytest.raises(AttributeError, match="set_weight"):
                    setattr(owner, last, value)
            with pytest.raises(AttributeError, match="set_weight"):
                delattr(owner, last)

    def test_set_weight_and_load_digital_make_it_the_other_layer(self, layer, inputs, mapping):
        other = fresh(layer, 2)
        by_hand, loaded = (convert(fresh(layer, 1), device=Ideal(), mapping=mapping) for _ in range(2))
        own = dict(other.named_parameters())
        by_hand.set_weight(**{name: p for name, p in own.items() if "." not in name})
        if outs := {name.removeprefix("out_proj."): p for name, p in own.items() if "." in name}:
            by_hand.out_proj.set_weight(**outs)
        load_digital(loaded, other.state_dict())
        for analog in (by_hand, loaded):
            assert_same_parameters(to_digital(analog), other)
            assert_close(loss_of(analog, inputs)[1], loss_of(other, inputs)[1])

    def test_replicas_take_one_each_or_one_for_all(self, layer, inputs, mapping):
        analog = convert([fresh(layer, k) for k in (1, 2)], device=Ideal(), mapping=mapping)
        others = [fresh(layer, k) for k in (3, 4)]
        load_digital(analog, [m.state_dict() for m in others])
        for r, other in enumerate(others):
            assert_same_parameters(to_digital(analog, replica=r), other)
        analog.set_weight(**{name: p for name, p in others[0].named_parameters() if "." not in name})
        name = next(iter(dict(others[0].named_parameters())))
        for r in range(2):
            assert_close([at(to_digital(analog, replica=r), name)], [at(others[0], name)])

    def test_a_loss_of_the_weight_trains_it_as_torchs(self, layer, inputs, mapping):
        digital = fresh(layer, 1)
        analog = convert(digital, device=Ideal(), mapping=mapping)
        names = [name for name, _ in digital.named_parameters()]
        for model in (analog, digital):
            is_analog = model is analog
            optimizer = AnalogOptimizer(model, lr=0.1) if is_analog else torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(2):
                optimizer.zero_grad()
                loss = loss_of(model, inputs)[0]
                (loss + sum((k + 1) * at(model, n).square().sum() for k, n in enumerate(names))).backward()
                optimizer.step()
        assert_same_parameters(to_digital(analog), digital)

    def test_freezing_the_weight_freezes_the_devices(self, layer, inputs, mapping):
        analog = convert(fresh(layer, 1), device=Ideal(), mapping=mapping)
        for name, w in shown(analog).items():
            assert w.requires_grad
            has_bias = any("bias" in n for n, _ in layer.named_parameters()) and "weight_hr" not in name
            has_bias = has_bias and "Transpose" not in type(layer).__name__  # whose bias has a tile of its own
            if mapping is MAPPINGS["analog bias"] and has_bias:
                with pytest.raises(RuntimeError, match="trained with its matrix"):
                    w.requires_grad = False
                assert at(analog, name).requires_grad
            else:
                w.requires_grad = False
                with torch.no_grad():
                    assert not at(analog, name).requires_grad
        if not any(w.requires_grad for w in shown(analog).values()):
            before = {name: w.clone() for name, w in shown(analog).items()}
            optimizer = AnalogOptimizer(analog, lr=0.1)
            loss = loss_of(analog, inputs)[0]
            if loss.requires_grad:
                loss.backward()
            optimizer.step()
            assert all(torch.equal(at(analog, name), value) for name, value in before.items())
            for name in before:
                assert at(analog, name).requires_grad_(requires_grad=True).requires_grad


def analog_linear(**options: Any) -> AnalogLinear:
    return AnalogLinear(3, 2, device=Ideal(), dtype=torch.float64, **options)


def test_reading_gives_plain_tensors():
    layer = analog_linear()
    w = layer.weight
    plain = [w + 1.0, w @ w.mT, w.clone(), w.abs(), torch.stack([w, w]), w.float(), copy.deepcopy(w), w.new_zeros(2)]
    plain += [pickle.loads(pickle.dumps(w)), load(save({"w": w}))["w"], linear(gaussian(4, 3), w), w.sum()]
    assert {type(t) for t in plain} == {Tensor}
    file = io.BytesIO()
    torch.save(w, file)
    file.seek(0)
    assert type(torch.load(file, weights_only=True)) is Tensor
    assert torch.equal(w, w.clone()) and str(w) == str(w.detach().clone().requires_grad_())
    torch.testing.assert_close(w, w.clone())
    other = torch.zeros(2, 3, dtype=torch.float64)
    other.copy_(w.detach())
    other[0] = w[0].detach()
    assert torch.equal(other, w) and f"{w[0, 0]:.3f}" == f"{w[0, 0].item():.3f}"


def test_a_frozen_layer_shows_it():
    digital = nn.Linear(3, 2).requires_grad_(False)
    assert not convert(digital, device=Ideal()).weight.requires_grad
    layer = analog_linear()
    layer.tile.requires_grad_(False)
    assert not layer.weight.requires_grad and layer.bias.requires_grad


def test_numpy_sees_it_and_cannot_write():
    w = analog_linear().weight
    for view in (w.numpy(), np.asarray(w), w.detach().numpy()):
        assert np.array_equal(view, w.tolist())
        with pytest.raises(ValueError, match="read-only"):
            view[0, 0] = 1.0
    assert np.array(w).flags.writeable  # a copy of its own


def test_tiles_show_the_same_without_gradients():
    layer = analog_linear()
    w = layer.tile.weight
    assert torch.equal(w, layer.weight) and not w.requires_grad
    for write in WRITES.values():
        with pytest.raises(RuntimeError, match="set_weight"):
            write(w)
    with pytest.raises(RuntimeError, match="requires_grad_"):
        w.requires_grad = False


class Tied(nn.Module):
    """A decoder that is the embedding's table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.middle = nn.Linear(4, 4)

    def forward(self, i: Tensor) -> Tensor:
        """Scores of all entries."""
        return linear(self.middle(self.table(i)), self.table.weight)


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("scale", [None, Mapping(learn_out_scaling=True, weight_scaling_omega=0.5)])
def test_a_tied_decoder_trains_as_torchs(is_compiled, scale):
    digital = fresh(Tied(), 1)
    analog = convert(digital, device=Ideal(), mapping=scale)
    run = torch.compile(analog, backend="aot_eager", fullgraph=True) if is_compiled else analog
    optimizer = AnalogOptimizer(analog, lr=0.1)
    for model in (run, digital):
        loss = model(torch.arange(5)).square().sum() + digital.middle.weight.detach().sum()
        loss.backward()
    if scale is not None:  # W = s V: the gradient of s is that of W times V, of V that of W times s
        for layer, own in ((analog.table, digital.table), (analog.middle, digital.middle)):
            expected = (own.weight.grad * own.weight).sum().detach()
            torch.testing.assert_close(layer.tile.out_scale.grad.sum(), expected)
            layer.tile.out_scale.grad = None
    torch.optim.SGD(digital.parameters(), lr=0.1).step()
    optimizer.step()
    assert_same_parameters(to_digital(analog), digital)


def test_a_graph_takes_it_for_a_plain_tensor():
    w = analog_linear().weight.detach()
    total = torch.compile(lambda w: (2.0 * w).square().sum(), backend="eager", fullgraph=True)
    torch.testing.assert_close(total(w), (2.0 * w).square().sum())


def test_an_init_function_does_not_reach_crossbars():
    model = convert(nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)), device=Ideal())
    state = copy.deepcopy(model.state_dict())

    def init(module: nn.Module) -> None:
        for buffer in module._buffers.values():
            nn.init.constant_(buffer, 1.0)
        seen.append(type(module).__name__)

    seen: list[str] = []
    assert model.apply(init) is model
    assert seen == ["AnalogLinear", "Tanh", "AnalogLinear", "Sequential"]
    for tile in (model[0].tile, convert(nn.Linear(3, 2), device=Ideal(), mapping=MAPPINGS["grid"]).tile):
        assert tile.apply(init) is tile
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    with pytest.raises(RuntimeError, match="set_weight"):
        for module in model.modules():
            if hasattr(module, "weight"):
                nn.init.ones_(module.weight)
    with pytest.raises(RuntimeError, match="set_weight"):
        model.apply(lambda m: nn.init.ones_(m.weight) if hasattr(m, "weight") else None)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kind", [nn.Linear, nn.LSTM])
def test_a_digital_state_dict_is_refused_and_names_the_way(strict, kind):
    digital = nn.Sequential(kind(3, 2))
    with pytest.raises(RuntimeError, match=r"is of a digital model: ohmgrad\.load_digital"):
        convert(digital, device=Ideal()).load_state_dict(digital.state_dict(), strict=strict)
