"""Quantities of a problem that the bounds ask for, measured: curvatures, gradient noise, saturation.

They work on any torch model: `loss` is a function that computes it from the tensors in `parameters`. A network on
tiles is measured as its digital twin (`ohmgrad.nn.to_digital`), as reads have no second derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ohmgrad.crossbar.tile import Tile
from ohmgrad.theory.assumptions import assume
from ohmgrad.theory.error import saturation

ITERATIONS, TOLERANCE = 1000, 1e-6  # the change of the last step, of itself; what is left may be 100 times that


def smoothness(loss: Callable[[], Tensor], parameters: Sequence[Tensor], *, seed: int = 0) -> float:
    """L at the present parameters: the largest modulus of an eigenvalue of the Hessian, by power iteration.

    One forward pass, then one Hessian-vector product for each iteration, until L stands still.

    Args:
        loss: of no argument, a scalar. parameters: what it is differentiated by.
        seed: of the first vector.

    Source: assumption A1 of Wu et al. 2024. Assumes: curvature elsewhere on the way is no larger than here, and the
    iteration has settled; warns if it has not, as then the value is too small.

    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> round(smoothness(lambda: w[0] ** 2 + 0.25 * w[1] ** 2, [w]), 3)
    2.0
    """
    value, is_settled = _largest(_hessian_product(loss, parameters), parameters, seed)
    assume(
        is_settled, f"A1: power iteration for L has not settled in {ITERATIONS} steps, L may exceed {abs(value):.4g}"
    )
    return abs(value)


def convexity(loss: Callable[[], Tensor], parameters: Sequence[Tensor], *, seed: int = 0) -> float:
    """mu at the present parameters: the smallest eigenvalue of the Hessian, by power iteration on L - H.

    Negative where the loss bends down: then it is not convex.

    Source: assumption of Wu et al. 2025, Thm. 3. Assumes: as `smoothness`; warns also where mu <= 0.
    """
    product = _hessian_product(loss, parameters)
    L = abs(_largest(product, parameters, seed)[0]) * (1.0 + 1e-3)
    above, is_settled = _largest(lambda v: [L * a - b for a, b in zip(v, product(v), strict=True)], parameters, seed)
    mu = L - above
    assume(is_settled, f"power iteration for mu has not settled in {ITERATIONS} steps, mu may be below {mu:.4g}")
    assume(mu > 0.0, f"strong convexity: mu = {mu:.4g} is not above 0")
    return mu


Vectors = list[Tensor]


def _hessian_product(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> Callable[[Vectors], Vectors]:
    gradients = torch.autograd.grad(loss(), list(parameters), create_graph=True, materialize_grads=True)
    if not any(g.requires_grad for g in gradients):  # linear in the parameters
        return lambda v: [torch.zeros_like(p) for p in parameters]

    def product(v: Vectors) -> Vectors:
        along = sum((g * a).sum() for g, a in zip(gradients, v, strict=True))
        assert isinstance(along, Tensor)  # said for the type checker
        return list(torch.autograd.grad(along, list(parameters), retain_graph=True, materialize_grads=True))

    return product


def _largest(product: Callable[[Vectors], Vectors], like: Sequence[Tensor], seed: int) -> tuple[float, bool]:
    """The eigenvalue of largest modulus, and whether the iteration came to rest."""
    generator = torch.Generator().manual_seed(seed)
    v = [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p) for p in like]
    value, before = 0.0, math.nan
    for _ in range(ITERATIONS):
        norm = math.sqrt(sum(float(a.square().sum()) for a in v))
        if norm == 0.0:
            return 0.0, True
        v = [a / norm for a in v]
        image = product(v)
        value = sum(float((a * b).sum()) for a, b in zip(v, image, strict=True))
        if abs(value - before) <= TOLERANCE * abs(value):
            return value, True
        v, before = image, value
    return value, False


@dataclass(frozen=True)
class GradientNoise:
    """Of one matrix, from n mini-batches.

    mean: the gradient. mean_abs: E|g|. mean_abs_noise: E|g - E g|, element by element; each in the parameter's shape.
    sigma_squared: E||g - E g||^2. standard_error: of sigma_squared.
    """

    mean: Tensor
    mean_abs: Tensor
    mean_abs_noise: Tensor
    sigma_squared: float
    standard_error: float


def gradient_noise(
    loss: Callable[[Any], Tensor], parameters: Sequence[Tensor], batches: Iterable[Any]
) -> list[GradientNoise]:
    """Gradient noise of each parameter at their present values, from replicated mini-batches.

    Args:
        loss: of one mini-batch, a scalar. batches: at least two, drawn independently.

    Raises:
        ValueError: fewer than two mini-batches.

    Source: assumption A3 of Wu et al. 2024; E|noise| is the Sigma of Wu et al. 2025, Thm. 1. Assumes: mini-batches are
    independent. E|noise| is corrected for the mean being estimated, exactly for Gaussian noise.
    """
    drawn = [torch.autograd.grad(loss(b), list(parameters), materialize_grads=True) for b in batches]
    if len(drawn) < 2:
        raise ValueError(f"gradient_noise needs at least two mini-batches, got {len(drawn)}")
    return [_noise_of(torch.stack(g).double()) for g in zip(*drawn, strict=True)]


def _noise_of(g: Tensor) -> GradientNoise:
    n, mean = len(g), g.mean(0)
    rest = (g - mean) * math.sqrt(n / (n - 1))
    squares = rest.square().flatten(1).sum(-1)
    error = float(squares.std()) / math.sqrt(n)
    return GradientNoise(mean, g.abs().mean(0), rest.abs().mean(0), float(squares.mean()), error)


def tile_saturation(tile: Tile) -> Tensor:
    """|w| over the bound on its side of the devices that hold a tile's weight, (*replica, out, in), in [0, 1].

    Source: assumption A4 of Wu et al. 2024. Assumes: the first crossbar of the algorithm's mixture holds the weight.
    """
    _, bar = tile.algorithm.mixture(tile.state)[0]
    return saturation(bar.weight, bar.params)
