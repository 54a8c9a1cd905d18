"""Problems with data: least squares and logistic regression."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ohmgrad.pulses.forms import Dense, Outer, Update
from ohmgrad.theory.instances.base import Instance, matrix
from ohmgrad.theory.noise import Noise


@dataclass(frozen=True, eq=False, kw_only=True)
class LeastSquares(Instance):
    """f = ||X W' - Y||^2 / (2 n), Hessian H = X'X / n for each row of W.

    Args:
        inputs: X, (n, in). targets: Y, (n, out). Both finite.
        noise: added to the exact gradient; None takes the gradient of one sample, drawn at random.

    Raises:
        ValueError: a value breaks its rule.
    """

    inputs: Tensor
    targets: Tensor
    noise: Noise | None = field(default_factory=lambda: Noise(std=0.0))

    def __post_init__(self) -> None:
        for name in ("inputs", "targets"):
            object.__setattr__(self, name, matrix("LeastSquares", name, getattr(self, name)))
        _need_equal_rows("LeastSquares", self.inputs, self.targets)

    @property
    def optimum(self) -> Tensor:
        """(out, in); of least norm where the samples do not settle it."""
        return self._solution

    @cached_property
    def _solution(self) -> Tensor:
        return torch.linalg.lstsq(self.inputs, self.targets, driver="gelsd").solution.mT.contiguous()

    @cached_property
    def hessian(self) -> Tensor:
        """H, (in, in)."""
        return self.inputs.mT @ self.inputs / len(self.inputs)

    @property
    def smoothness(self) -> float:
        """The largest eigenvalue of H."""
        return float(torch.linalg.eigvalsh(self.hessian)[-1])

    @property
    def convexity(self) -> float:
        """The smallest eigenvalue of H."""
        return max(float(torch.linalg.eigvalsh(self.hessian)[0]), 0.0)

    @property
    def sigma_squared(self) -> float:
        """Of the added noise, or of drawing a sample at the optimum."""
        if self.noise is not None:
            return self.optimum.numel() * self.noise.std**2
        return float(self._errors(self.optimum).square().sum(-1) @ self.inputs.square().sum(-1)) / len(self.inputs)

    def _errors(self, w: Tensor) -> Tensor:
        """X w' - Y, (*replica, n, out)."""
        return self.inputs @ w.mT - self.targets

    def loss(self, w: Tensor) -> Tensor:
        """||X w' - Y||^2 / (2 n)."""
        return self._errors(w).square().sum((-2, -1)) / (2 * len(self.inputs))

    def gradient(self, w: Tensor) -> Tensor:
        """(w - W*) H, which has fewer factors than the sum over samples."""
        return (w - self.optimum) @ self.hessian

    def sample(self, w: Tensor, generator: torch.Generator) -> Update:
        """The gradient plus noise, or that of one sample, of rank 1."""
        if self.noise is not None:
            return Dense(self.gradient(w) + self.noise.draw(w.shape, generator))
        x, y = _draw(self.inputs, self.targets, w, generator)
        return Outer(x @ w.mT - y, x)

    def mean_modulus(self, w: Tensor) -> Tensor:
        """By the law of the noise, or exactly over the samples."""
        if self.noise is not None:
            return self.noise.mean_modulus(self.gradient(w))
        return self._errors(w).abs().mT @ self.inputs.abs() / len(self.inputs)


@dataclass(frozen=True, eq=False, kw_only=True)
class LogisticRegression(Instance):
    """f = mean over samples of log(1 + exp(-y x.w)) + ridge/2 ||w||^2, w one row.

    Args:
        inputs: X, (n, in), finite. labels: y, (n, 1), each 1 or -1.
        ridge: > 0, so that there is one optimum.
        noise: as of `LeastSquares`; the gradient of one sample keeps the whole ridge.

    Raises:
        ValueError: a value breaks its rule.
    """

    inputs: Tensor
    labels: Tensor
    ridge: float = 1e-2
    noise: Noise | None = field(default_factory=lambda: Noise(std=0.0))

    def __post_init__(self) -> None:
        for name in ("inputs", "labels"):
            object.__setattr__(self, name, matrix("LogisticRegression", name, getattr(self, name)))
        _need_equal_rows("LogisticRegression", self.inputs, self.labels)
        if self.labels.shape[1] != 1 or not (self.labels.abs() == 1.0).all():
            raise ValueError(f"LogisticRegression needs labels (n, 1) of 1 and -1, got {tuple(self.labels.shape)}")
        if not 0.0 < self.ridge < math.inf:
            raise ValueError(f"LogisticRegression needs a finite ridge > 0, got {self.ridge}")

    @property
    def optimum(self) -> Tensor:
        """(1, in), by Newton's steps."""
        return self._solution

    @cached_property
    def _solution(self) -> Tensor:
        w = self.inputs.new_zeros(1, self.inputs.shape[1])
        for _ in range(50):
            step = torch.linalg.solve(self.hessian(w), self.gradient(w)[0])
            w = w - step
            if step.abs().max() < 1e-14:
                return w
        raise ValueError("LogisticRegression needs inputs for which Newton's steps converge")

    def hessian(self, w: Tensor) -> Tensor:
        """(in, in), of one row w."""
        p = torch.sigmoid(self.inputs @ w.mT)
        return self.inputs.mT @ (p * (1.0 - p) * self.inputs) / len(self.inputs) + self.ridge * torch.eye(w.shape[-1])

    @property
    def smoothness(self) -> float:
        """A bound on every Hessian: that of log(1 + exp) is at most 1/4."""
        largest = torch.linalg.eigvalsh(self.inputs.mT @ self.inputs / len(self.inputs))[-1]
        return float(largest) / 4.0 + self.ridge

    @property
    def convexity(self) -> float:
        """The ridge, below every Hessian."""
        return self.ridge

    @property
    def sigma_squared(self) -> float:
        """Of the added noise, or of drawing a sample at the optimum."""
        if self.noise is not None:
            return self.optimum.numel() * self.noise.std**2
        g = self._slopes(self.optimum) * self.inputs + self.ridge * self.optimum
        return float(g.square().sum(-1).mean())

    def _slopes(self, w: Tensor) -> Tensor:
        """Derivative of each sample's loss by x.w, (*replica, n, 1)."""
        return -self.labels * torch.sigmoid(-self.labels * (self.inputs @ w.mT))

    def loss(self, w: Tensor) -> Tensor:
        """Mean over the samples, and the ridge."""
        fit = softplus(-self.labels * (self.inputs @ w.mT)).mean((-2, -1))
        return fit + 0.5 * self.ridge * w.square().sum((-2, -1))

    def gradient(self, w: Tensor) -> Tensor:
        """Mean over the samples, and the ridge's."""
        return self._slopes(w).mT @ self.inputs / len(self.inputs) + self.ridge * w

    def sample(self, w: Tensor, generator: torch.Generator) -> Dense:
        """The gradient plus noise, or that of one sample."""
        if self.noise is not None:
            return Dense(self.gradient(w) + self.noise.draw(w.shape, generator))
        x, y = _draw(self.inputs, self.labels, w, generator)
        slope = -y * torch.sigmoid(-y * (x @ w.mT))
        return Dense(slope.mT @ x + self.ridge * w)

    def mean_modulus(self, w: Tensor) -> Tensor:
        """By the law of the noise, or exactly over the samples."""
        if self.noise is not None:
            return self.noise.mean_modulus(self.gradient(w))
        return (self._slopes(w) * self.inputs + self.ridge * w).abs().mean(-2, keepdim=True)


def _draw(inputs: Tensor, targets: Tensor, w: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A sample for each replica: (*replica, 1, in) and (*replica, 1, out)."""
    index = torch.randint(len(inputs), (*w.shape[:-2], 1), generator=generator)
    return inputs[index], targets[index]


def _need_equal_rows(family: str, inputs: Tensor, targets: Tensor) -> None:
    if len(inputs) != len(targets):
        raise ValueError(f"{family} needs as many inputs as targets, got {len(inputs)} and {len(targets)}")
