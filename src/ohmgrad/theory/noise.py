"""Gradient noise of a stated law, and the mean modulus that it gives a gradient: what an asymmetric device feels.

Of one entry with mean m and noise of standard deviation s (elementary integrals):

    gaussian     E|m + e| = s sqrt(2/pi) exp(-m^2 / 2 s^2) + m erf(m / (s sqrt 2))
    laplace      |m| + b exp(-|m| / b),  b = s / sqrt 2
    uniform      (a^2 + m^2) / (2 a) within +-a, else |m|,  a = s sqrt 3
    two-point    max(|m|, s)

At m = 0 these are 0.798 s, 0.707 s, 0.866 s and s: laws of equal variance drive a device by up to 1.41 apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LAWS = ("gaussian", "laplace", "uniform", "two-point")


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Independent, symmetric noise on every entry of a gradient.

    Args:
        std: standard deviation of an entry, finite and >= 0.
        law: gaussian, laplace, uniform, or two-point (+-std).

    Raises:
        ValueError: a value breaks its rule.
    """

    std: float
    law: Literal["gaussian", "laplace", "uniform", "two-point"] = "gaussian"

    def __post_init__(self) -> None:
        if not 0.0 <= self.std < math.inf:
            raise ValueError(f"Noise needs a finite std >= 0, got {self.std}")
        if self.law not in LAWS:
            raise ValueError(f"Noise needs a law of {', '.join(LAWS)}, got {self.law!r}")

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Fresh noise, float64."""
        kind = {"generator": generator, "dtype": torch.float64}
        if self.law == "gaussian":
            return torch.randn(shape, **kind).mul_(self.std)
        u = torch.rand(shape, **kind).mul_(2.0).sub_(1.0)  # in [-1, 1)
        if self.law == "uniform":
            return u.mul_(self.std * math.sqrt(3.0))
        if self.law == "two-point":
            return torch.full_like(u, self.std).copysign_(u)
        size = -torch.log1p(-u.abs().clamp(max=1.0 - 2.0**-53))  # u may be -1
        return size.copysign_(u).mul_(self.std / math.sqrt(2.0))

    def mean_modulus(self, mean: Tensor) -> Tensor:
        """E|mean + noise|, element by element.

        >>> Noise(std=0.3).mean_modulus(torch.tensor([0.0, 10.0]))
        tensor([ 0.2394, 10.0000])
        """
        m, s = mean.abs(), self.std
        if s == 0.0:
            return m
        if self.law == "gaussian":
            return s * math.sqrt(2.0 / math.pi) * torch.exp(-0.5 * (m / s) ** 2) + m * torch.erf(m / (s * math.sqrt(2)))
        if self.law == "laplace":
            b = s / math.sqrt(2.0)
            return m + b * torch.exp(-m / b)
        if self.law == "two-point":
            return m.clamp(min=s)
        a = s * math.sqrt(3.0)
        return torch.where(m < a, (a * a + m * m) / (2.0 * a), m)
