"""Bags of embeddings: every mode, however the bags are given, and what a bag sends to the tile."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from chance import assert_mean
from contracts.layer import assert_close, assert_same_parameters, assert_twins, gaussian, train_once
from exact import assert_bits
from ohmgrad import AnalogEmbeddingBag, AnalogOptimizer, InputRange, Mapping, PulsedUpdate, convert, to_digital
from ohmgrad.devices import Ideal
from ohmgrad.devices.presets import aihwkit_soft_bounds

MAPPINGS = {
    "plain": None,
    "grid": Mapping(max_input_size=2, max_output_size=3),
    "scaled": Mapping(weight_scaling_omega=0.4, weight_scaling_columnwise=True),
    "range": Mapping(digital_bias=False, input_range=InputRange(init_from_data=0, init_value=0.3)),
}


@st.composite
def bags(draw: st.DrawFn) -> tuple[nn.Module, tuple[torch.Tensor, ...], dict]:
    """A layer of any options, indices with or without offsets, and weights of samples where torch takes them."""
    n, dim, mode = draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(st.sampled_from(["sum", "mean", "max"]))
    has_offsets, has_last = draw(st.booleans()), draw(st.booleans())
    padding_idx = draw(st.one_of(st.none(), st.integers(-n, n - 1)))
    layer = nn.EmbeddingBag(
        n, dim, mode=mode, include_last_offset=has_last, padding_idx=padding_idx, dtype=torch.float64
    )
    # With "max" few values, so that several vectors have the largest.
    layer.weight.data = gaussian(n, dim).round() if mode == "max" else gaussian(n, dim)
    shape = (draw(st.integers(0, 9)),) if has_offsets else (draw(st.integers(1, 3)), draw(st.integers(1, 4)))
    size = torch.Size(shape).numel()
    index = torch.tensor(draw(st.lists(st.integers(0, n - 1), min_size=size, max_size=size))).reshape(shape).long()
    starts = sorted(draw(st.lists(st.integers(0, size), max_size=4)))
    dtype = draw(st.sampled_from([torch.int64, torch.int32]))
    inputs = (index.to(dtype), torch.tensor([0, *starts, *[size] * has_last]).to(dtype))[: 1 + has_offsets]
    has_weights = mode == "sum" and draw(st.booleans())
    return layer, inputs, {"per_sample_weights": gaussian(*shape, seed=1)} if has_weights else {}


@settings(max_examples=150)
@given(bags(), st.sampled_from(list(MAPPINGS)))
def test_every_option_is_torchs(drawn, mapping):
    layer, inputs, options = drawn
    analog = assert_twins(layer, *inputs, mapping=MAPPINGS[mapping], **options)
    assert_close([analog.weight], [layer.weight])


@settings(max_examples=40)
@given(bags())
def test_the_gradient_of_weights_of_samples_is_torchs(drawn):
    layer, (index, *offsets), options = drawn
    twins, gradients = (layer, convert(layer, device=Ideal())), []
    for model in twins if options else ():
        weights = options["per_sample_weights"].clone().requires_grad_()
        y = model(index, *offsets, per_sample_weights=weights)
        (y * gaussian(*y.shape, seed=2)).sum().backward()
        gradients.append(weights.grad)
    assert_close(gradients[:1], gradients[1:])


@pytest.mark.parametrize("mapping", ["plain", "grid", "scaled"])  # the range would act on the linear layer
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_several_steps_with_gathered_batches(mode, mapping):
    torch.manual_seed(0)
    digital = nn.Sequential(
        nn.EmbeddingBag(7, 5, mode=mode, padding_idx=3), nn.Tanh(), nn.Linear(5, 2, bias=False)
    ).double()
    analog = convert(digital, device=Ideal(), mapping=MAPPINGS[mapping])
    draw = torch.Generator().manual_seed(0)
    batches = [torch.randint(7, (1 + k % 3, 4), generator=draw) for k in range(8)]
    for model, optimizer in (
        (digital, torch.optim.SGD(digital.parameters(), lr=0.1)),
        (analog, AnalogOptimizer(analog, lr=0.1)),
    ):
        for k, batch in enumerate(batches):
            model(batch).square().sum().backward()
            if k % 2:
                optimizer.step()
                optimizer.zero_grad()
    assert_same_parameters(to_digital(analog), digital)


class TestWhatABagSends:
    """To the tile, by its mode."""

    INDEX, OFFSETS = torch.tensor([4, 1, 4, 0]), torch.tensor([0, 3, 3])

    def waiting(self, mode, **options):
        layer = convert(nn.EmbeddingBag(5, 2, mode=mode).double(), device=Ideal())
        layer(self.INDEX, self.OFFSETS, **options).backward(torch.tensor([[1.0, 2], [3, 4], [5, 6]]).double())
        (update,) = layer.tile.waiting
        return update.x.tolist(), update.d.tolist()

    def test_a_sum_is_one_read_with_counts(self):
        x, d = self.waiting("sum")
        assert x == [[0, 1, 0, 0, 2], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
        assert d == [[1, 2], [0, 0], [5, 6]]  # nothing from an empty bag

    def test_weights_of_samples_are_added_up(self):
        x, _ = self.waiting("sum", per_sample_weights=torch.tensor([0.5, -1, 2, 3]).double())
        assert x == [[0, -1, 0, 0, 2.5], [0, 0, 0, 0, 0], [3, 0, 0, 0, 0]]

    def test_a_mean_is_divided_digitally(self):
        x, d = self.waiting("mean")
        assert x == [[0, 1, 0, 0, 2], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
        assert_close([torch.tensor(d).double()], [torch.tensor([[1 / 3, 2 / 3], [0, 0], [5, 6]]).double()])

    def test_a_maximum_needs_a_read_for_each_index(self):
        x, _ = self.waiting("max")
        assert x == [[0, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]]


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("update", [None, PulsedUpdate()], ids=["expected", "pulses"])
def test_only_vectors_that_were_asked_for_move_and_never_the_padding(update, mode):
    torch.manual_seed(0)
    digital = nn.EmbeddingBag(6, 3, padding_idx=1, mode=mode, dtype=torch.float64)
    digital.weight.data.mul_(0.2)
    analog = convert(digital, device=aihwkit_soft_bounds(), update=update)
    before = analog.weight
    train_once(analog, (torch.tensor([1, 4, 4, 1, 2]), torch.tensor([0, 3, 4])))
    moved = (analog.weight != before).any(-1)
    assert moved.tolist() == [False, False, True, False, True, False]


def test_pulses_on_ideal_devices_move_the_mean_as_torch_does():
    # 4000 layers side by side see steps that are 10% too large.
    digital, lr = nn.EmbeddingBag(4, 2, mode="sum", dtype=torch.float64), 1e-3
    analog = convert([digital] * 4000, device=Ideal(dw_min=1e-3), update=PulsedUpdate())
    before, x = digital.weight.detach().clone(), torch.tensor([[0, 1, 1], [2, 1, 3]])
    optimizers = torch.optim.SGD(digital.parameters(), lr=lr), AnalogOptimizer(analog, lr=lr)
    for y, optimizer in zip((digital(x), analog(x.expand(4000, 2, 3))), optimizers, strict=True):
        (y * gaussian(2, 2, seed=1)).sum().backward()
        optimizer.step()
    moved, expected = (analog.weight - before).flatten(1), (digital.weight.detach() - before).flatten()
    for k in range(expected.numel()):
        assert_mean(moved[:, k], float(expected[k]))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_replicas_cut_their_bags_themselves(mode):
    layer = AnalogEmbeddingBag(6, 3, mode=mode, device=Ideal(), replicas=(2,))
    index, offsets = torch.tensor([[0, 5, 2, 2], [3, 3, 1, 0]]), torch.tensor([[0, 1, 4], [0, 0, 2]])
    y = layer(index, offsets)
    for r in range(2):
        alone = layer.to_digital(r)
        assert_bits(alone.weight.detach(), layer.weight[r])
        torch.testing.assert_close(y[r], alone(index[r], offsets[r]))
    assert layer(index.unsqueeze(-1)).shape == (2, 4, 3)
    with pytest.raises(ValueError, match=r"one index for each of the replica dimensions \(2,\), got \(\)"):
        layer.to_digital()


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}], ids=str)
def test_options_that_act_on_weights(options):
    ((name, value),) = options.items()
    message = f"'0' .EmbeddingBag. on tiles: AnalogEmbeddingBag needs {name}=.*, got {value}"
    with pytest.raises(ValueError, match=message):
        convert(nn.Sequential(nn.EmbeddingBag(5, 3, **options)), device=Ideal())


def test_a_mode_that_torch_has_not():
    with pytest.raises(ValueError, match="needs a mode of sum, mean, max, got 'median'"):
        AnalogEmbeddingBag(5, 3, mode="median", device=Ideal())


def of(*numbers):
    return torch.tensor(numbers)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ((of(0, 6), of(0)), IndexError, "numbers from 0 to 5, got 0 to 6"),
        ((of([-1]),), IndexError, "numbers from 0 to 5, got -1 to -1"),
        ((of([0.0]),), ValueError, "input needs integers of the shape .bags, places. without offsets, got torch.float"),
        ((of(0, 1),), ValueError, r"of the shape \(bags, places\) without offsets, got torch.int64 of \(2,\)"),
        ((of([0, 1]), of(0)), ValueError, r"of the shape \(places\) with offsets, got torch.int64 of \(1, 2\)"),
        ((of(0, 1), of([0])), ValueError, r"offsets need integers of the shape \(bags\), got .* of \(1, 1\)"),
        ((of(0, 1), of(0.0)), ValueError, "offsets need integers"),
        ((of(0, 1), of(1)), ValueError, r"begin with 0, never fall and stay within the 2 indices, got \[1\]"),
        ((of(0, 1, 2), of(0, 2, 1)), ValueError, r"got \[0, 2, 1\]"),
        ((of(0, 1), of(0, 3)), ValueError, r"got \[0, 3\]"),
        ((of([0, 1]), None, of([1.0, 2.0])), ValueError, 'per_sample_weights need mode="sum", got mode="mean"'),
    ],
)
def test_wrong_inputs(inputs, error, message):
    with pytest.raises(error, match=message):
        AnalogEmbeddingBag(6, 3, device=Ideal())(*inputs)


@pytest.mark.parametrize(
    ("index", "offsets"), [(of(0, 6, 2), of(0, 2)), (of(0, -1, 2), of(0, 2)), (of(0, 1, 2), of(1, 2))], ids=str
)
def test_a_graph_refuses_wrong_numbers_too(index, offsets):
    layer = AnalogEmbeddingBag(6, 3, device=Ideal())
    with pytest.raises(RuntimeError, match="out of bounds"):
        torch.compile(layer, fullgraph=True, backend="aot_eager")(index, offsets)


@pytest.mark.parametrize("offsets", [of(0, 2), of(0, 1, 4), torch.zeros(0, dtype=torch.int64)], ids=str)
def test_the_last_offset_is_the_number_of_indices(offsets):
    # torch takes fewer, and then reads and trains different places.
    layer = AnalogEmbeddingBag(6, 3, include_last_offset=True, device=Ideal())
    with pytest.raises(ValueError, match="begin with 0, never fall and end with 3, as include_last_offset says"):
        layer(of(0, 1, 2), offsets)


def test_wrong_weights_of_samples():
    layer = AnalogEmbeddingBag(6, 3, mode="sum", device=Ideal())
    with pytest.raises(ValueError, match=r"need torch.float32 of the input's shape \(1, 2\), got torch.float64 of"):
        layer(of([0, 1]), None, gaussian(1, 2))


def test_a_nested_tensor():
    x = torch.nested.nested_tensor([of(0, 1), of(2)], layout=torch.jagged)
    layer = AnalogEmbeddingBag(6, 3, include_last_offset=True, device=Ideal())
    with pytest.raises(ValueError, match=r"its values\(\) and offsets\(\) make bags too"):
        layer(x)
    torch.testing.assert_close(layer(x.values(), x.offsets()), to_digital(layer)(x))
