"""Multi-head attention, and torch's transformers around it."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contracts.layer import assert_close, assert_same_parameters, assert_twins, gaussian, train_once
from ohmgrad import AnalogMultiheadAttention, Rule, convert, to_digital
from ohmgrad.crossbar import Tile
from ohmgrad.devices import Ideal
from ohmgrad.devices.presets import aihwkit_soft_bounds


@st.composite
def attentions(draw: st.DrawFn) -> tuple[nn.Module, tuple, dict]:
    """A layer of any options, inputs and masks."""
    heads, is_batched, batch_first = draw(st.integers(1, 3)), draw(st.booleans()), draw(st.booleans())
    L, S, batch = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    size, kdim, vdim = heads * draw(st.integers(1, 2)), *draw(st.sampled_from([(None, None), (3, None), (2, 5)]))
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(
        size, heads, bias=draw(st.booleans()), add_zero_attn=draw(st.booleans()), kdim=kdim, vdim=vdim,
        batch_first=batch_first, dtype=torch.float64,
    )  # fmt: skip

    def sequence(length: int, width: int, seed: int) -> torch.Tensor:
        lead = (batch, length) if batch_first else (length, batch)
        return gaussian(*(lead if is_batched else (length,)), width, seed=seed)

    inputs = sequence(L, size, 0), sequence(S, kdim or size, 1), sequence(S, vdim or size, 2)
    options = {"need_weights": draw(st.booleans()), "average_attn_weights": draw(st.booleans())}
    is_bool = draw(st.booleans())  # torch warns of masks of two kinds

    def mask(*shape: int, seed: int) -> torch.Tensor:
        values = gaussian(*shape, seed=seed)
        values[..., 0] = -1.0  # the first is always seen: no row without an entry
        return values > 0.5 if is_bool else values

    if draw(st.booleans()):
        options["key_padding_mask"] = mask(*((batch, S) if is_batched else (S,)), seed=3)
    n = heads * (batch if is_batched else 1)
    if shape := draw(st.sampled_from([None, (L, S), (n, L, S)])):
        options["attn_mask"] = mask(*shape, seed=4)
    return layer, inputs, options


@settings(max_examples=80)
@given(attentions())
def test_every_option_is_torchs(drawn):
    layer, inputs, options = drawn
    analog = assert_twins(layer, *inputs, **options)
    if layer.in_proj_weight is not None:
        assert_close([analog.in_proj_weight], [layer.in_proj_weight])
        assert (analog.in_proj_bias is None) == (layer.in_proj_bias is None)
    else:
        assert analog.in_proj_weight is None


@pytest.mark.parametrize("need_weights", [False, True])
def test_dropout_is_torchs(need_weights):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(4, 2, dropout=0.5, dtype=torch.float64)
    assert_twins(layer, *[gaussian(5, 3, 4)] * 3, need_weights=need_weights)
    # And none in evaluation.
    inputs = [gaussian(5, 3, 4)] * 3
    ours, theirs = (m(*inputs, need_weights=need_weights)[0] for m in (convert(layer.eval(), device=Ideal()), layer))
    assert_close([ours], [theirs])


def test_a_causal_hint():
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(4, 2, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    assert_twins(layer, *[gaussian(5, 3, 4)] * 3, need_weights=False, attn_mask=mask, is_causal=True)


def test_every_projection_has_a_tile_and_devices_of_its_own():
    layer = convert(nn.MultiheadAttention(4, 2), device=aihwkit_soft_bounds())
    tiles = {name: m for name, m in layer.named_modules() if isinstance(m, Tile)}
    assert list(tiles) == ["q_proj.tile", "k_proj.tile", "v_proj.tile", "out_proj.tile"]
    assert len({int(t.crossbars[0].seed) for t in tiles.values()}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attn_mask": torch.zeros(4, 5)}, r"attn_mask needs the shape \(5, 5\) or \(6, 5, 5\), got \(4, 5\)"),
        ({"key_padding_mask": torch.zeros(5, 3)}, r"key_padding_mask needs the shape \(3, 5\), got \(5, 3\)"),
        ({"is_causal": True}, "is_causal=True is a hint about attn_mask, got no attn_mask"),
    ],
)
def test_wrong_masks(options, message):
    x = torch.zeros(5, 3, 4)
    with pytest.raises(ValueError, match=message):
        AnalogMultiheadAttention(4, 2, device=Ideal())(x, x, x, **options)


def test_refusals():
    with pytest.raises(ValueError, match="AnalogMultiheadAttention needs add_bias_kv=False, got True"):
        convert(nn.MultiheadAttention(4, 2, add_bias_kv=True), device=Ideal())
    x = torch.zeros(5, 3, 4)
    with pytest.raises(ValueError, match="query, key and value need 2 or 3 dimensions"):
        AnalogMultiheadAttention(4, 2, device=Ideal())(x, x, x[0])


def encoder(**options) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True, dtype=torch.float64, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=not options.get("norm_first"))


PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
class TestEncoder:
    """torch's encoder, which in evaluation has a fused kernel for digital layers."""

    @pytest.mark.parametrize("norm_first", [False, True])
    @pytest.mark.parametrize("options", [{}, {"src_key_padding_mask": PADDING}], ids=["plain", "padded"])
    def test_training(self, norm_first, options):
        assert_twins(encoder(norm_first=norm_first), gaussian(2, 5, 4), **options)

    @pytest.mark.parametrize("options", [{}, {"src_key_padding_mask": PADDING}], ids=["plain", "padded"])
    @pytest.mark.parametrize(
        "rules",
        [
            [],
            [Rule(nn.MultiheadAttention, digital=True)],
            [Rule(nn.Linear, digital=True)],
            [Rule("layers.1", digital=True)],
        ],
        ids=["all", "linear layers", "attention", "first layer"],
    )
    def test_evaluation_reads_the_tiles(self, rules, options):
        digital = encoder().eval()
        analog = convert(digital, device=Ideal(), rules=rules)
        x = gaussian(2, 5, 4)
        with torch.no_grad():
            y, expected = analog(x, **options), digital(x, **options)
        seen = ~PADDING if options else torch.ones_like(PADDING)
        assert_close([y[seen]], [expected[seen]])
        tiles = [m for m in analog.modules() if isinstance(m, Tile)]
        assert tiles and all(t.crossbars[0].counters.reads for t in tiles)

    def test_the_way_back_has_the_fused_kernel_again(self):
        digital = encoder().eval()
        analog = convert(digital, device=Ideal())
        assert not analog.use_nested_tensor
        back = to_digital(analog)
        assert back.use_nested_tensor and back.layers[0].activation_relu_or_gelu == 1
        assert_same_parameters(back, digital)
        with torch.no_grad():
            assert_close([back(gaussian(2, 5, 4))], [digital(gaussian(2, 5, 4))])


def test_a_whole_transformer_trains():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's, of its own nested tensors
        digital = nn.Transformer(4, 2, 1, 1, 6, dropout=0.0, batch_first=True, dtype=torch.float64)
    source, target = gaussian(2, 5, 4), gaussian(2, 3, 4, seed=1)
    analog = assert_twins(digital, source, target)
    assert sum(isinstance(m, AnalogMultiheadAttention) for m in analog.modules()) == 3
    train_once(analog.eval(), (source, target))
