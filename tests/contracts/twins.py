"""A converted model beside torch's own: the same layers on ideal devices, trained by the same loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from contracts.layer import gaussian, tensors
from ohmgrad import AnalogOptimizer, Mapping, PulsedUpdate, convert, to_digital
from ohmgrad.devices import Ideal

LR = 0.01
STEP = 1e-5  # of a pulse, so fine that a train of 65535 slots makes any update here
PULSED = PulsedUpdate(train="deterministic", bit_length=65535)

# How a matrix may lie on crossbars.
PLACES: dict[str, dict[str, Any]] = {
    "plain": {},
    "replicas": {"replicas": True},
    "grid": {"mapping": Mapping(max_input_size=3, max_output_size=2)},
    "scaled": {"mapping": Mapping(weight_scaling_omega=0.4, weight_scaling_columnwise=True)},
}
# How devices are written, and how far each written sample may be off.
WRITES: dict[str, tuple[dict[str, Any], float]] = {
    "expected": ({"device": Ideal()}, 0.0),
    "pulsed": ({"device": Ideal(dw_min=STEP), "update": PULSED}, 0.5 * STEP),
}
INDICES = torch.tensor([[1, 2], [3, 1], [5, 0], [2, 2], [4, 4]])
KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "Linear": (lambda: nn.Linear(4, 3), (gaussian(5, 4),)),
    "Conv1d": (lambda: nn.Conv1d(2, 3, 3), (gaussian(5, 2, 3),)),
    "Conv2d, grouped": (lambda: nn.Conv2d(4, 6, 2, groups=2), (gaussian(5, 4, 2, 2),)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2), (gaussian(5, 2, 3, 2, 2),)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(2, 3, 2), (gaussian(5, 2, 1, 1),)),
    "Embedding": (lambda: nn.Embedding(6, 3), (INDICES,)),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(6, 3, mode="sum"), (INDICES,)),
    "RNN": (lambda: nn.RNN(4, 3, batch_first=True), (gaussian(5, 1, 4),)),
    "GRU": (lambda: nn.GRU(4, 3, batch_first=True), (gaussian(5, 2, 4),)),
    "LSTM": (lambda: nn.LSTM(4, 3, batch_first=True, proj_size=2), (gaussian(5, 1, 4),)),
    "RNNCell": (lambda: nn.RNNCell(4, 3), (gaussian(5, 4),)),
    "GRUCell": (lambda: nn.GRUCell(4, 3), (gaussian(5, 4),)),
    "LSTMCell": (lambda: nn.LSTMCell(4, 3), (gaussian(5, 4),)),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(4, 2, batch_first=True), (gaussian(5, 1, 4),) * 3),
    "a position added": (lambda: Positioned(), (gaussian(5, 4),)),
}  # fmt: skip


class Positioned(nn.Module):
    """A user's own sum, of which torch makes the gradient a view of the output's, as of a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.position = nn.Linear(4, 3, bias=False), nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        """Batch in front, or replicas and batch."""
        return self.layer(x) + self.position.reshape(*[1] * (x.dim() - 1), 3)


@dataclass
class Twins:
    """The same model twice, with an optimizer each.

    off: how far each written sample may be off at a crosspoint. n_samples: written so far, at most.
    """

    digital: nn.Module
    analog: nn.Module
    is_replicated: bool
    off: float
    n_samples: int = 0

    @property
    def both(self) -> list[tuple[nn.Module, torch.optim.Optimizer]]:
        """Each with its optimizer."""
        return [(self.digital, self.theirs), (self.analog, self.ours)]

    def __post_init__(self) -> None:
        self.theirs = torch.optim.SGD(self.digital.parameters(), lr=LR)
        self.ours = AnalogOptimizer(self.analog, lr=LR)

    def loss(self, model: nn.Module, *inputs: Tensor) -> Tensor:
        """The same for both; of replicas, each computes it, and the sum is as of one."""
        if model is self.analog and self.is_replicated:
            inputs = tuple(x[None] for x in inputs)
        self.n_samples += 8 * len(inputs[-1])
        outputs = [y for y in tensors(model(*inputs)) if y.is_floating_point()]
        return sum((y.square().sum() + y.sum() for y in outputs), torch.zeros(()))

    def assert_same(self) -> None:
        """Every parameter of torch's model is what the tiles represent."""
        ours = dict(to_digital(self.analog, replica=0 if self.is_replicated else None).named_parameters())
        for name, value in self.digital.named_parameters():
            atol = 1e-10 + self.off * self.n_samples
            torch.testing.assert_close(
                ours[name].detach(), value.detach(), rtol=0.0, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
            )


def twins(kind: str, place: str = "plain", write: str = "expected", **options: Any) -> Twins:
    """Torch's layer and ours, in float64."""
    torch.manual_seed(0)
    make, _ = KINDS[kind]
    digital, (written, off) = make().double(), WRITES[write]
    given = {**written, **PLACES[place], **options}
    is_replicated = given.get("replicas", False)
    analog = convert([digital] if is_replicated else digital, **given)
    return Twins(digital, analog, is_replicated, off)
