"""Networks of the experiments, built from torch's own layers: `ohmgrad.convert` puts them on tiles."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def lenet5(classes: int = 10, act: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """LeCun et al. 1998 as the papers' scripts have it: (batch, 1, 28, 28) to (batch, classes); 80,000 weights.

    >>> sum(p.numel() for p in lenet5().parameters())
    80202
    """
    return nn.Sequential(
        nn.Conv2d(1, 16, 5), act(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5), act(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 128), act(), nn.Linear(128, classes),
    )  # fmt: skip


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut. Source: He et al. 2016."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, h, w) to (batch, outputs, h / stride, w / stride)."""
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (y + self.shortcut(x)).relu()


def resnet18(classes: int = 10, width: int = 64) -> nn.Sequential:
    """ResNet-18 for CIFAR: (batch, 3, 32, 32) to (batch, classes); no pooling at the entrance."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for k in range(4):
        for stride in (2 if k else 1, 1):
            layers.append(ResidualBlock(inputs, width << k, stride))
            inputs = width << k
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


class VisionTransformer(nn.Module):
    """A small ViT: (batch, 3, size, size) to (batch, classes). Source: Dosovitskiy et al. 2021."""

    def __init__(
        self, classes: int = 10, size: int = 32, patch: int = 4, dim: int = 64, depth: int = 4, heads: int = 4
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2 + 1, dim))
        layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, size, size) to (batch, classes)."""
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.norm(self.encoder(x))[:, 0])


class GRULanguageModel(nn.Module):
    """Predicts each next token: (batch, time) of indices to (batch, time, tokens)."""

    def __init__(self, tokens: int, dim: int = 64, hidden: int = 128, layers: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, dim)
        self.gru = nn.GRU(dim, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, time) of indices to (batch, time, tokens)."""
        return self.head(self.gru(self.embedding(tokens))[0])
