"""What a device's response means for the theorems: R = G/F, its integral R_c, and extremes over the states in use.

    R = G / F              the pull per mean modulus of the gradient
    R_c(w) = int_SP^w R    the penalty that it amounts to; soft bounds +-tau: w^2 / (2 tau)
    M = F^2 - G^2 = q_up q_down        what is left of the steps near a bound; soft bounds: 1 - (w / tau)^2

Everything is of the mean device, or of drawn devices where `params` has their planes. Source: Wu et al. 2025
(arXiv 2502.06309), Def. 1 and Thm. 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ohmgrad.devices.base import Device, Params

# Gauss-Legendre in panels: a smooth response is integrated to rounding, one with kinks to the panel that they are in.
NODES, WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(12))
PANELS = 24


def pull(device: Device, w: Tensor, params: Params | None = None) -> Tensor:
    """R = G/F, element by element; 0 where both vanish.

    Source: Wu et al. 2025, Thm. 1, for any response. Assumes: F > 0 at w, so not beyond a bound.

    >>> from ohmgrad.devices import SoftBounds
    >>> pull(SoftBounds(w_max=0.5, w_min=-0.5), torch.tensor([0.0, 0.25]))
    tensor([0.0000, 0.5000])
    """
    F = device.F(w, params)
    return torch.where(F == 0.0, 0.0, device.G(w, params) / torch.where(F == 0.0, 1.0, F))


def potential(device: Device, w: Tensor, params: Params | None = None) -> Tensor:
    """R_c(w), the integral of R from the symmetric point to w, element by element, in float64.

    In closed form for a linear response, else by Gauss-Legendre in panels (`potential_by_quadrature`).

    Source: Wu et al. 2025, Thm. 1. Assumes: every element has a symmetric point, and F > 0 between it and w.

    Raises:
        ValueError: an element has no symmetric point.

    >>> from ohmgrad.devices import SoftBounds
    >>> potential(SoftBounds(w_max=0.5, w_min=-0.5), torch.tensor(0.1))
    tensor(0.0100, dtype=torch.float64)
    """
    if not device.is_affine:
        return potential_by_quadrature(device, w, params)
    w, point = w.double(), device.symmetric_point(params)
    f0, g0 = (part(torch.zeros_like(w), params) for part in (device.F, device.G))
    f1, g1 = (part(torch.ones_like(w), params) - at_0 for part, at_0 in ((device.F, f0), (device.G, g0)))
    # (g0 + g1 w) / (f0 + f1 w), with h = f1 (w - point) / F(point): G(point) = 0 leaves g1 (w - point) above.
    at_point = f0 + f1 * point
    x = w - point
    h = f1 * x / at_point
    # (h - log(1 + h)) / h^2, by its series where that loses digits.
    is_small = h.abs() < 0.02
    safe = torch.where(is_small, 1.0, h)
    series = torch.stack([(-h) ** n / (n + 2.0) for n in range(8)]).sum(0)
    share = torch.where(is_small, series, (safe - torch.log1p(safe)) / safe.square())
    return g1 * x * x / at_point * share


def potential_by_quadrature(device: Device, w: Tensor, params: Params | None = None) -> Tensor:
    """R_c(w) of any response, as `potential`; with kinks, to about 1e-3 of itself.

    Source: Wu et al. 2025, Thm. 1. Assumes: as `potential`. Raises: as `potential`.
    """
    w, point = w.double(), device.symmetric_point(params)
    edge = (w - point) / PANELS
    nodes, weights = (a.reshape(-1, *[1] * edge.dim()).to(edge.device) for a in (NODES, WEIGHTS))
    total = torch.zeros_like(edge)
    for k in range(PANELS):
        total = total + (weights * pull(device, point + edge * (k + (nodes + 1.0) / 2.0), params)).sum(0)
    return total * edge / 2.0


@dataclass(frozen=True)
class ResponseRange:
    """Extremes of a response over states and elements, one number for each replica, (*replica,).

    q_min, q_max: of both directions. F_max. M_min: of q_up q_down. M_over_F_min: of M / F.
    asymmetry: largest G^2 / M, the S of Wu et al. 2024. drift: largest G^2 / F, the S of Wu et al. 2025, Thm. 2.
    """

    q_min: Tensor
    q_max: Tensor
    F_max: Tensor
    M_min: Tensor
    M_over_F_min: Tensor
    asymmetry: Tensor
    drift: Tensor


def response_range(device: Device, w: Tensor, params: Params | None = None) -> ResponseRange:
    """Extremes over states w, (*replica, out, in), such as the weights of a crossbar or a grid from bound to bound.

    Source: Wu et al. 2025, Def. 1. Assumes: nothing; q_min <= 0 says that Def. 1 does not hold at these states.

    >>> from ohmgrad.devices import SoftBounds
    >>> found = response_range(SoftBounds(), torch.tensor([[-0.5, 0.25]]))
    >>> float(found.q_min), float(found.q_max), float(found.M_min)
    (0.5, 1.5, 0.75)
    """
    up, down = device.q_up(w, params), device.q_down(w, params)
    F, G, M = (down + up) / 2.0, (down - up) / 2.0, up * down

    def over(numerator: Tensor, denominator: Tensor) -> Tensor:
        return (numerator / denominator.clamp(min=0.0)).nan_to_num(0.0, posinf=torch.inf)

    def largest(x: Tensor) -> Tensor:
        return x.amax((-2, -1))

    return ResponseRange(
        q_min=-largest(-torch.minimum(up, down)),
        q_max=largest(torch.maximum(up, down)),
        F_max=largest(F),
        M_min=-largest(-M),
        M_over_F_min=-largest(-torch.where(F > 0.0, M / F, 0.0)),
        asymmetry=largest(over(G.square(), M)),
        drift=largest(over(G.square(), F)),
    )
