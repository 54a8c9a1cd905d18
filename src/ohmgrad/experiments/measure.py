"""What is measured on a model of replicas: loss, accuracy, gradient and its noise, saturation, predicted floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ohmgrad.crossbar.tile import Tile
from ohmgrad.pulses.forms import Update
from ohmgrad.theory import asymmetry, balanced_gradient, tile_saturation


def replica_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each replica: logits (replica, batch, class), labels (replica, batch), to (replica,)."""
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(-1)


@torch.no_grad()
def loss_and_accuracy(model: nn.Module, x: Tensor, y: Tensor, n_replicas: int) -> tuple[Tensor, Tensor]:
    """Mean loss and accuracy in percent of each replica, (replica,), on one data set."""
    losses, hits = torch.zeros(n_replicas, dtype=torch.float64), torch.zeros(n_replicas, dtype=torch.float64)
    for part, labels in zip(x.split(2000), y.split(2000), strict=True):
        logits = model(part.expand(n_replicas, -1, -1))
        labels = labels.expand(n_replicas, -1)
        losses += replica_loss(logits, labels).cpu() * len(part)
        hits += (logits.argmax(-1) == labels).sum(-1).cpu()
    return losses / len(x), 100.0 * hits / len(x)


@dataclass(frozen=True)
class Gradients:
    """Gradient of the loss with respect to one tile's matrix, over mini-batches; (replica, out, in).

    mean: the gradient. variance: of a mini-batch's gradient.
    mean_abs: E|g| of what devices are asked for: a mini-batch's gradient, or, where the update is per sample, the sum
        over its samples of each one's modulus.
    """

    mean: Tensor
    mean_abs: Tensor
    variance: Tensor


def tile_gradients(
    model: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor] = replica_loss,
) -> dict[str, Gradients]:
    """Gradients of every tile at the model's present weights; nothing is updated.

    Args:
        batches: mini-batches as the training saw them, x (replica, batch, in), y (replica, batch).
        loss: of a mini-batch, from model(x) and y; of replicas, each one's.
    """
    tiles = {name: m for name, m in model.named_modules() if isinstance(m, Tile)}
    sums = {
        name: [torch.zeros_like(tile.weight, dtype=torch.float64) for _ in range(3)] for name, tile in tiles.items()
    }
    n = 0
    for x, y in batches:
        model.zero_grad()
        loss(model(x), y).sum().backward()
        for name, tile in tiles.items():
            g = torch.stack([u.as_dense() for u in tile.waiting]).sum(0).double()
            # Where samples are applied one after the other, their pulses do not cancel before they reach the devices.
            parts = [_modulus(u) for u in tile.waiting] if tile.crossbars[0].update.per_sample else [g.abs()]
            for total, value in zip(sums[name], (g, sum(parts), g.square()), strict=True):
                total += value
            tile.forget()
        n += 1
    model.zero_grad()
    return {
        name: Gradients(g / n, g_abs / n, (g_squared / n - (g / n).square()) * n / max(n - 1, 1))
        for name, (g, g_abs, g_squared) in sums.items()
    }


def _modulus(update: Update) -> Tensor:
    outer = update.as_outer()
    return (outer.d.abs().mT @ outer.x.abs()).double()


@dataclass(frozen=True)
class Floor:
    """Squared gradient norm over all tiles, per replica, (replica,): what stands, what theory expects.

    measured: ||mean gradient||^2, less what drawing some of the epoch's mini-batches adds to it. Unbiased, so a single
        one may lie below 0.
    predicted: the same where pulses balance (theory, eq. 1), for the algorithm's own state at rest.
    bound: sigma^2 S(W) (theory, eq. 2), summed over tiles; infinite once a device sits at its bound.
    """

    measured: Tensor
    predicted: Tensor
    bound: Tensor


def floor(model: nn.Module, gradients: dict[str, Gradients], n_batches: int, n_all: int) -> Floor:
    """Measured and predicted squared gradient norm, summed over the tiles; from n_batches of the epoch's n_all."""
    share_unseen = 1.0 - n_batches / n_all
    measured = predicted = bound = torch.zeros(())
    for name, tile in model.named_modules():
        if not isinstance(tile, Tile):
            continue
        g = gradients[name]
        bar, w = tile.algorithm.at_rest(tile.state)
        variance = g.variance.sum((-2, -1))
        measured = measured + g.mean.square().sum((-2, -1)) - share_unseen * variance / n_batches
        balanced = balanced_gradient(bar.device_model, w.double(), g.mean_abs, bar.params)
        predicted = predicted + balanced.square().sum((-2, -1))
        bound = bound + variance * asymmetry(bar.device_model, w.double(), bar.params)
    return Floor(measured.cpu(), predicted.cpu(), bound.cpu())


def mean_saturation(model: nn.Module) -> Tensor:
    """Mean over all devices that hold weights of |w| / bound, (replica,)."""
    parts = [tile_saturation(m).flatten(-2) for m in model.modules() if isinstance(m, Tile)]
    return torch.cat(parts, -1).mean(-1).cpu()
