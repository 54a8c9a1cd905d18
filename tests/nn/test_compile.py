"""torch.compile around a converted model: one graph, and what the tiles keep is what it is without."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ohmgrad import AnalogOptimizer, InputRange, Mapping, Periphery, TikiTaka, convert
from ohmgrad.devices import SoftBounds

MAPPING = Mapping(
    digital_bias=False, input_range=InputRange(init_from_data=1), learn_out_scaling=True, max_input_size=4,
    weight_scaling_omega=0.4,
)  # fmt: skip


class Small(nn.Module):
    """Layers of several kinds; one is read twice with the same input, which its noise tells apart."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear, self.cell = nn.Embedding(7, 5), nn.Linear(5, 4), nn.GRUCell(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        return self.cell(self.linear(h) + self.linear(h))


class Large(nn.Module):
    """The other layers."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.lstm = nn.Embedding(7, 6), nn.LSTM(6, 5, batch_first=True)
        self.attention, self.conv = nn.MultiheadAttention(5, 1, batch_first=True), nn.Conv1d(5, 4, 2, groups=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lstm(self.small(x)[None])[0]
        return self.conv((h + self.attention(h, h, h)[0]).mT)


class Decoder(nn.Module):
    """Bags in each mode, and transposed convolutions with a bias and without."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(7, 6, mode=mode, padding_idx=1) for mode in ("sum", "mean", "max"))
        self.up, self.out = (
            nn.ConvTranspose1d(6, 4, 3, stride=2),
            nn.ConvTranspose2d(4, 2, (1, 2), groups=2, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        sums, offsets = self.bags[0](x, x.new_tensor([0, 2, 2]), x / 4.0), x.new_tensor([0, 1, 3])
        h = torch.stack([sums, self.bags[1](x, offsets), self.bags[2](x, offsets)], -1)
        return self.out(torch.tanh(self.up(h)).unsqueeze(-2))


def trained(net: nn.Module, mapping: Mapping | None, **options) -> list[dict[str, Tensor]]:
    """State dicts of a model and of its compiled twin, after three steps."""
    torch.manual_seed(0)
    plain = convert(
        net, device=SoftBounds(dw_min_dtod=0.3), periphery=Periphery(), mapping=mapping, algorithm=TikiTaka(), seed=1
    )
    twin, x = copy.deepcopy(plain), torch.tensor([3, 6, 0, 1])
    for model, call in ((plain, plain), (twin, torch.compile(twin, fullgraph=True, **options))):
        optimizer = AnalogOptimizer(model, lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            call(x).square().sum().backward()
            optimizer.step()
    return [plain.state_dict(), twin.state_dict()]


def test_one_graph_bit_by_bit():
    # Reads that were taken for one show in counters and noise; so does an error that went back for nothing.
    a, b = trained(Small(), MAPPING, backend="aot_eager")
    assert not [name for name in a if not torch.equal(a[name], b[name])]


def test_bags_and_transposed_convolutions_bit_by_bit():
    a, b = trained(Decoder(), MAPPING, backend="aot_eager")
    assert not [name for name in a if not torch.equal(a[name], b[name])]


@pytest.mark.slow
@pytest.mark.parametrize("mapping", [None, MAPPING], ids=["plain", "all"])
@pytest.mark.parametrize("net", [Small, Large, Decoder])
def test_generated_code(net, mapping):
    # Its sums have other roundings, which converters may make steps of; so in the mean.
    a, b = trained(net(), mapping)
    for name in a:
        assert float((a[name].double() - b[name].double()).abs().mean()) < 1e-3, name


@pytest.mark.slow
@pytest.mark.parametrize("mapping", [None, MAPPING], ids=["plain", "all"])
def test_the_other_layers_bit_by_bit(mapping):
    a, b = trained(Large(), mapping, backend="aot_eager")
    assert not [name for name in a if not torch.equal(a[name], b[name])]
