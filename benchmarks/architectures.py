"""Do common architectures train on tiles, with Tiki-Taka and every pulse, and how long is a step?

Six networks are converted whole and trained for some steps on one small batch of random data; the loss must fall.
Last figures: `results/architectures.json`. The transformers package is asked for the sixth.

    python benchmarks/architectures.py --out benchmarks/results/architectures.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import ohmgrad
from ohmgrad.experiments import models
from ohmgrad.experiments.networks import MLP
from ohmgrad.experiments.update_speed import machine

Loss = Callable[[nn.Module], Tensor]


def images(batch: int, channels: int, size: int) -> Loss:
    x, y = torch.rand(batch, channels, size, size), torch.arange(batch) % 10
    return lambda model: nn.functional.cross_entropy(model(x), y)


def tokens(batch: int, length: int, vocabulary: int) -> Loss:
    t = torch.randint(vocabulary, (batch, length + 1))
    return lambda model: nn.functional.cross_entropy(model(t[:, :-1]).flatten(0, 1), t[:, 1:].flatten())


def transformer() -> tuple[nn.Module, Loss]:
    """A BERT classifier built from its configuration."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, num_labels=4
    )
    t, y = torch.randint(100, (8, 16)), torch.arange(8) % 4
    return BertForSequenceClassification(config), lambda model: model(input_ids=t, labels=y).loss


def cases() -> dict[str, tuple[nn.Module, Loss]]:
    return {
        "MLP 784-256-128-10": (nn.Sequential(nn.Flatten(), MLP(hidden=(256, 128)).build(784, 10)), images(16, 1, 28)),
        "LeNet-5": (models.lenet5(), images(8, 1, 28)),
        "ResNet-18 (CIFAR, width 16)": (models.resnet18(width=16), images(8, 3, 32)),
        "ViT (32x32, 4 blocks of 64)": (models.VisionTransformer(), images(8, 3, 32)),
        "GRU language model": (models.GRULanguageModel(100), tokens(8, 16, 100)),
        "BERT (transformers, 2 blocks of 64)": transformer(),
    }


def train(model: nn.Module, loss_of: Loss, steps: int) -> dict[str, float]:
    analog = ohmgrad.convert(
        model,
        device=ohmgrad.devices.SoftBounds(w_max=1.0, w_min=-1.0, dw_min=1e-3, dw_min_ctoc=0.3, dw_min_dtod=0.3),
        algorithm=ohmgrad.TikiTaka(fast_lr=0.5, transfer_lr=1.0, gamma=0.2, scale_fast_lr=False, n_reads=None),
        update=ohmgrad.PulsedUpdate(),
        periphery=ohmgrad.Periphery(),
        seed=0,
    )
    optimizer = ohmgrad.AnalogOptimizer(analog, lr=0.05, digital=torch.optim.Adam)
    for group in optimizer.digital.param_groups if optimizer.digital else ():
        group["lr"] = 1e-3
    losses, times = [], []
    for _ in range(steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = loss_of(analog)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        times.append(time.perf_counter() - start)
    n = max(1, steps // 5)
    return {
        "first_loss": statistics.mean(losses[:n]),
        "last_loss": statistics.mean(losses[-n:]),
        "seconds_per_step": statistics.median(times[1:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    for name, (model, loss_of) in cases().items():
        rows.append({"model": name, **train(model, loss_of, given.steps)})
        print("{model:36} loss {first_loss:.3f} -> {last_loss:.3f}, {seconds_per_step:.3f} s a step".format(**rows[-1]))
    if given.out:
        given.out.write_text(json.dumps({"machine": machine(), "steps": given.steps, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
