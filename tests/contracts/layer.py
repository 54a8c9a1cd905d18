"""What every analog layer promises: torch's layer on ideal devices, and a well-behaved module on all.

A new layer gives its cases in tests/nn/test_contract.py; one that does not fails.
"""

import copy
import inspect
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from exact import assert_bits
from ohmgrad import AnalogOptimizer, Mapping, TikiTaka, convert, to_digital
from ohmgrad.crossbar import Tile
from ohmgrad.devices import Device, Ideal
from ohmgrad.devices.presets import aihwkit_soft_bounds

TOLERANCE = 1e-10  # of sums of at most some hundred products near 1, in float64
LR = 0.1
NO_OPTIONS: AnyMapping[str, Any] = MappingProxyType({})


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    """The same numbers at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tensors(value: Any) -> list[Tensor]:
    """All tensors of what a layer takes or gives."""
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in tensors(part)] if isinstance(value, tuple) else []


def fresh(value: Any) -> Any:
    """The same inputs, floating ones as new leaves."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.is_floating_point())
    if isinstance(value, PackedSequence):
        return PackedSequence(fresh(value.data), value.batch_sizes, value.sorted_indices, value.unsorted_indices)
    return tuple(map(fresh, value)) if isinstance(value, tuple) else value


def loss_of(model: nn.Module, inputs: tuple, options: AnyMapping[str, Any] = NO_OPTIONS) -> tuple[Tensor, list[Tensor]]:
    """A loss that weighs every output differently, and the outputs."""
    torch.manual_seed(1)  # the same dropout
    outputs = [t for t in tensors(model(*inputs, **options)) if t.is_floating_point()]
    return sum(((y * gaussian(*y.shape, seed=k)).sum() for k, y in enumerate(outputs)), torch.zeros(())), outputs


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """Ours where there is a tile."""
    has_tiles = any(isinstance(m, Tile) for m in model.modules())
    return AnalogOptimizer(model, lr=LR) if has_tiles else torch.optim.SGD(model.parameters(), lr=LR)


def train_once(
    model: nn.Module, inputs: tuple, options: AnyMapping[str, Any] = NO_OPTIONS
) -> tuple[list[Tensor], list[Tensor]]:
    """One step; the outputs before it, and the gradients of the inputs."""
    given = fresh(inputs)
    optimizer = optimizer_of(model)
    optimizer.zero_grad()
    loss, outputs = loss_of(model, given, options)
    if loss.requires_grad:  # a frozen embedding has nothing to train, and no inputs that could
        loss.backward()
    optimizer.step()
    return outputs, [t.grad for t in tensors(given) if t.is_floating_point() and t.grad is not None]


def train_on_squares(model: nn.Module, inputs: tuple) -> tuple[list[Tensor], list[Tensor]]:
    """As `train_once`, with a loss that has the same weight for every output, in whatever shape."""
    given, optimizer = fresh(inputs), optimizer_of(model)
    outputs = [t for t in tensors(model(*given)) if t.is_floating_point()]
    sum((y.square().sum() for y in outputs), torch.zeros(())).backward()
    optimizer.step()
    return outputs, [t.grad for t in tensors(given) if t.grad is not None]


def doubled(value: Any) -> Any:
    """The same inputs for two replicas."""
    return torch.stack([value] * 2) if isinstance(value, Tensor) else tuple(map(doubled, value))


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """As many tensors, each within the tolerance."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=0.0, atol=TOLERANCE)


def assert_twins(digital: nn.Module, *inputs: Any, mapping: Mapping | None = None, **options: Any) -> nn.Module:
    """Outputs, gradients of inputs, and all parameters after a step are torch's; gives the trained analog model."""
    analog = convert(digital, device=Ideal(), mapping=mapping)
    (y, dx), (expected, dx_expected) = (train_once(m, inputs, options) for m in (analog, digital))
    assert_close(y, expected)
    assert_close(dx, dx_expected)
    assert_same_parameters(to_digital(analog), digital)
    return analog


def assert_same_parameters(ours: nn.Module, theirs: nn.Module) -> None:
    """Names, values within the tolerance, and which of them train."""
    a, b = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert list(a) == list(b)
    assert [p.requires_grad for p in a.values()] == [p.requires_grad for p in b.values()]
    assert_close(list(a.values()), list(b.values()))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all that a state dict holds."""
    return copy.deepcopy(model.state_dict())


def assert_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert list(model.state_dict()) == list(state)
    assert not [name for name, value in model.state_dict().items() if not torch.equal(value, state[name])]


def weights_of(model: nn.Module) -> list[Tensor]:
    """Of every tile."""
    return [m.weight for m in model.modules() if isinstance(m, Tile)]


@dataclass(frozen=True)
class Case:
    """A layer by torch's class and its arguments, and what it is called with."""

    kind: type[nn.Module]
    sizes: tuple[int, ...]
    inputs: tuple[Any, ...]
    arguments: dict[str, Any] = field(default_factory=dict)

    def make(self) -> nn.Module:
        """In float32, with weights of its own at each call."""
        return self.kind(*self.sizes, **self.arguments)

    def digital(self) -> nn.Module:
        """In float64, with the same weights at every call."""
        torch.manual_seed(0)
        return self.make().double()

    def analog(self, device: Device | None = None, **options: Any) -> nn.Module:
        """Its twin."""
        return convert(self.digital(), device=device or Ideal(), **options)


class LayerContract:
    """Tests of one case; the test file supplies the fixture `case`."""

    def test_torchs_layer_on_ideal_devices(self, case):
        assert_twins(case.digital(), *case.inputs)

    def test_an_analog_bias_is_torchs_too(self, case):
        mapping = Mapping(digital_bias=False, weight_scaling_omega=0.4, max_input_size=4, max_output_size=5)
        analog = assert_twins(case.digital(), *case.inputs, mapping=mapping)
        assert not [name for name, _ in analog.named_parameters() if "bias" in name]

    def test_replicas_are_layers_side_by_side(self, case):
        torch.manual_seed(0)
        layers = [case.make().double() for _ in range(2)]
        both = convert(layers, device=aihwkit_soft_bounds(), seed=[3, 4], algorithm=TikiTaka())
        y, dx = train_on_squares(both, doubled(case.inputs))
        for r, layer in enumerate(layers):
            alone = convert(layer, device=aihwkit_soft_bounds(), seed=3 + r, algorithm=TikiTaka())
            expected, dx_expected = train_on_squares(alone, case.inputs)
            assert_close([t[r] for t in y], expected)
            assert_close([t[r] for t in dx], dx_expected)
            assert_same_parameters(to_digital(both, replica=r), to_digital(alone))

    def test_the_way_back_gives_what_was_given(self, case):
        digital = case.digital()
        back = to_digital(convert(digital, device=Ideal()))
        assert type(back) is type(digital) and repr(back) == repr(digital)
        assert_state(back, state_of(digital))
        assert all(a is not b for a, b in zip(back.parameters(), digital.parameters(), strict=True))

    def test_what_is_frozen_stays_so_on_both_ways(self, case):
        digital = case.digital().requires_grad_(False).eval()
        analog = convert(digital, device=Ideal())
        assert not any(p.requires_grad for p in analog.parameters())
        assert not any(m.training for m in analog.modules())
        back = to_digital(analog)
        assert not any(p.requires_grad for p in back.parameters()) and not any(m.training for m in back.modules())

    def test_a_frozen_tile_gets_no_update(self, case):
        analog = case.analog(aihwkit_soft_bounds())
        for m in analog.modules():
            if isinstance(m, Tile):
                m.handle.requires_grad_(False)
        before = weights_of(analog)
        train_once(analog, case.inputs)
        for a, b in zip(weights_of(analog), before, strict=True):
            assert_bits(a, b)

    def test_initialisation_is_torchs(self, case):
        # Through our constructor, with the arguments that the digital layer had.
        kind, digital = type(case.analog()), case.digital()
        torch.manual_seed(0)
        ours = to_digital(kind(*case.sizes, **case.arguments, device=Ideal()).double())
        for a, b in zip(ours.parameters(), digital.parameters(), strict=True):
            assert_bits(a.detach(), b.detach())

    def test_a_state_dict_round_trip(self, case, tmp_path):
        # Into a layer of other weights and devices, which then goes on bit by bit.
        options = {"algorithm": TikiTaka(n_reads=2)}
        first = case.analog(aihwkit_soft_bounds(), **options)
        train_once(first, case.inputs)
        torch.save(first.state_dict(), tmp_path / "layer.pt")
        torch.manual_seed(5)
        second = convert(case.make().double(), device=aihwkit_soft_bounds(), seed=9, **options)
        second.load_state_dict(torch.load(tmp_path / "layer.pt"))
        for model in (first, second):
            train_once(model, case.inputs)
        assert_state(second, state_of(first))

    def test_a_deepcopy_trains_on_its_own(self, case):
        analog = case.analog(aihwkit_soft_bounds())
        twin, before = copy.deepcopy(analog), state_of(analog)
        train_once(twin, case.inputs)
        assert_state(analog, before)
        train_once(analog, case.inputs)
        assert_state(analog, state_of(twin))

    def test_two_passes_gather(self, case):
        digital, analog = case.digital(), case.analog()
        for model in (digital, analog):
            optimizer = optimizer_of(model)
            for _ in range(2):
                loss_of(model, case.inputs)[0].backward()
            optimizer.step()
        assert_same_parameters(to_digital(analog), digital)

    def test_evaluation_leaves_nothing_behind(self, case):
        analog = case.analog().eval()
        expected = loss_of(case.digital().eval(), case.inputs)[1]
        with torch.no_grad():
            outputs = loss_of(analog, case.inputs)[1]
        assert_close(outputs, expected)
        assert not any(y.requires_grad for y in outputs)
        with torch.inference_mode():
            loss_of(analog, case.inputs)
        assert not any(m.waiting for m in analog.modules() if isinstance(m, Tile))

    def test_arguments_have_torchs_names(self, case):
        ours, theirs = (list(inspect.signature(m.forward).parameters) for m in (case.analog(), case.digital()))
        assert ours == theirs

    def test_hooks_run(self, case):
        analog, seen = case.analog(), []
        analog.register_forward_pre_hook(lambda module, args: seen.append("before"))
        analog.register_forward_hook(lambda module, args, output: seen.append("after"))
        for y in loss_of(analog, case.inputs)[1][:1]:
            y.register_hook(lambda d: seen.append("gradient"))
            y.sum().backward()
        assert seen == ["before", "after", "gradient"]

    def test_double_after_construction(self, case):
        torch.manual_seed(0)
        analog = convert(case.make(), device=Ideal()).double()
        train_once(analog, case.inputs)
        assert {p.dtype for p in to_digital(analog).parameters()} == {torch.float64}

    def test_print_tells_the_sizes(self, case):
        assert str(case.analog()).startswith(f"Analog{type(case.digital()).__name__}(")
