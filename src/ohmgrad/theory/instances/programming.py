"""Problems whose weights are told how far off they are: the lower-bound instance, the quadratic, programming."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ohmgrad.pulses.forms import Dense, Outer
from ohmgrad.theory.instances.base import Instance, matrix
from ohmgrad.theory.noise import Noise


@dataclass(frozen=True, kw_only=True)
class LowerBound(Instance):
    """The instance on which no Analog SGD does better: noise that the asymmetric linear device rectifies at best.

    f = L/2 ||W - w* 1||^2 on one row of `size` weights. With p = (1 - w / tau) / 2, an entry's noise is
    s sqrt((1 - p) / p) with odds p, else -s sqrt(p / (1 - p)), s = sigma / sqrt(size). Mean 0, variance s^2, and
    E|g| = s sqrt(1 - (w / tau)^2) - g w / tau while |g| stays below both values.

    Args:
        size: D. L: curvature. tau: range of the device, bounds +-tau. w_star: |w_star| <= tau / 4.
        sigma: E||noise||^2 = sigma^2, 0 < sigma <= tau L sqrt(D) / (4 sqrt 3).

    Raises:
        ValueError: a value breaks its rule.

    Source: Wu et al. 2024 (arXiv 2406.12774), Thm. 3 and its proof.
    """

    size: int = 1
    L: float = 1.0
    tau: float = 1.0
    w_star: float = 0.25
    sigma: float = 0.1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"LowerBound needs size >= 1, got {self.size}")
        for name in ("L", "tau"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"LowerBound needs a finite {name} > 0, got {getattr(self, name)}")
        if not abs(self.w_star) <= self.tau / 4.0:
            raise ValueError(f"LowerBound needs |w_star| <= tau / 4 = {self.tau / 4.0:g}, got {self.w_star}")
        most = self.tau * self.L * math.sqrt(self.size) / (4.0 * math.sqrt(3.0))
        if not 0.0 < self.sigma <= most:
            raise ValueError(f"LowerBound needs 0 < sigma <= tau L sqrt(D) / (4 sqrt 3) = {most:g}, got {self.sigma}")

    @property
    def optimum(self) -> Tensor:
        """w* in every place, (1, size)."""
        return torch.full((1, self.size), self.w_star, dtype=torch.float64)

    @property
    def smoothness(self) -> float:
        """L."""
        return self.L

    @property
    def convexity(self) -> float:
        """L: all curvatures are equal."""
        return self.L

    @property
    def sigma_squared(self) -> float:
        """sigma^2, at every w."""
        return self.sigma**2

    def loss(self, w: Tensor) -> Tensor:
        """L/2 ||w - w*||^2."""
        return 0.5 * self.L * (w - self.w_star).square().sum((-2, -1))

    def gradient(self, w: Tensor) -> Tensor:
        """L (w - w*)."""
        return self.L * (w - self.w_star)

    def _noise(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Odds and value of the positive noise, and the negative one."""
        p = (1.0 - w / self.tau) / 2.0
        odds = (p / (1.0 - p)).sqrt()
        s = self.sigma / math.sqrt(self.size)
        return p, s / odds, -s * odds

    def sample(self, w: Tensor, generator: torch.Generator) -> Dense:
        """The gradient plus that noise."""
        p, up, down = self._noise(w)
        u = torch.rand(w.shape, generator=generator, dtype=torch.float64)
        return Dense(self.gradient(w) + torch.where(u < p, up, down))

    def mean_modulus(self, w: Tensor) -> Tensor:
        """p |g + up| + (1 - p) |g + down|."""
        g, (p, up, down) = self.gradient(w), self._noise(w)
        return p * (g + up).abs() + (1.0 - p) * (g + down).abs()


@dataclass(frozen=True, eq=False, kw_only=True)
class Quadratic(Instance):
    """f = 1/2 sum h (w - w*)^2: every weight on its own, so that one run of a row is many runs of one weight.

    Args:
        target: W*, (out, in), finite.
        h: curvature, one number or (out, in), finite and >= 0.
        noise: of each entry of the gradient.

    Raises:
        ValueError: a value breaks its rule.
    """

    target: Tensor
    h: Tensor | float = 1.0
    noise: Noise = field(default_factory=lambda: Noise(std=0.0))

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", matrix("Quadratic", "target", self.target))
        h = torch.as_tensor(self.h, dtype=torch.float64)
        if not (torch.isfinite(h) & (h >= 0.0)).all():
            raise ValueError(f"Quadratic needs finite h >= 0, got {self.h}")
        object.__setattr__(self, "h", h.expand_as(self.target))

    @property
    def optimum(self) -> Tensor:
        """W*."""
        return self.target

    @property
    def smoothness(self) -> float:
        """The largest h."""
        return float(torch.as_tensor(self.h).max())

    @property
    def convexity(self) -> float:
        """The smallest h."""
        return float(torch.as_tensor(self.h).min())

    @property
    def sigma_squared(self) -> float:
        """Noise of all entries."""
        return self.target.numel() * self.noise.std**2

    def loss(self, w: Tensor) -> Tensor:
        """1/2 sum h (w - w*)^2."""
        return 0.5 * (self.h * (w - self.target).square()).sum((-2, -1))

    def gradient(self, w: Tensor) -> Tensor:
        """h (w - w*)."""
        return self.h * (w - self.target)

    def sample(self, w: Tensor, generator: torch.Generator) -> Dense:
        """The gradient plus noise."""
        return Dense(self.gradient(w) + self.noise.draw(w.shape, generator))

    def mean_modulus(self, w: Tensor) -> Tensor:
        """By the law of the noise."""
        return self.noise.mean_modulus(self.gradient(w))


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightProgramming(Instance):
    """A matrix is to become B, and is told so by x ~ N(0, 1) and errors (W - B) x: f = E||(W - B) x||^2 / 2.

    Args:
        target: B, (out, in), finite. noise: standard deviation of each error's noise, finite and >= 0.

    Raises:
        ValueError: a value breaks its rule.

    Source: Rasch et al. 2024 (Nat. Commun. 15:7133), eq. 1 and Fig. 4.
    """

    target: Tensor
    noise: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", matrix("WeightProgramming", "target", self.target))
        if not 0.0 <= self.noise < math.inf:
            raise ValueError(f"WeightProgramming needs a finite noise >= 0, got {self.noise}")

    @property
    def optimum(self) -> Tensor:
        """B."""
        return self.target

    @property
    def smoothness(self) -> float:
        """1, the variance of an input."""
        return 1.0

    @property
    def convexity(self) -> float:
        """1."""
        return 1.0

    @property
    def sigma_squared(self) -> float:
        """At B, where only the errors' noise is left."""
        return self.target.numel() * self.noise**2

    def loss(self, w: Tensor) -> Tensor:
        """||w - B||^2 / 2."""
        return 0.5 * (w - self.target).square().sum((-2, -1))

    def gradient(self, w: Tensor) -> Tensor:
        """w - B."""
        return w - self.target

    def sample(self, w: Tensor, generator: torch.Generator) -> Outer:
        """One input, and its error."""
        x = torch.randn((*w.shape[:-2], 1, w.shape[-1]), generator=generator, dtype=torch.float64)
        d = x @ (w - self.target).mT
        return Outer(d + self.noise * torch.randn(d.shape, generator=generator, dtype=torch.float64), x)

    def mean_modulus(self, w: Tensor) -> Tensor:
        """E|d_i x_j| = (2/pi) (a asin(a/s) + sqrt(s^2 - a^2)): a the entry of W - B, s^2 the variance of d_i."""
        a = (w - self.target).abs()
        s = (a.square().sum(-1, keepdim=True) + self.noise**2).sqrt()
        share = (a / s.clamp(min=1e-300)).clamp(max=1.0)
        return (2.0 / math.pi) * s * (share * torch.asin(share) + (1.0 - share.square()).sqrt())
