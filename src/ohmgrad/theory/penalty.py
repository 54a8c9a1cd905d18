"""The loss that Analog SGD minimises in place of f: f plus a penalty that pulls weights to the symmetric point (T6).

    f_Sigma(W) = f(W) + <Sigma, R_c(W)>,    Sigma = E|g(W*; xi)|,  R_c' = R = G/F                       (1)

With H the Hessian and R linear about the symmetric point SP, it is stationary at

    W~* = (H + D)^-1 (H W* + D SP),    D = Diag(Sigma R'(SP))                                            (2)

so on soft bounds +-tau the penalty is a ridge, Sigma / (2 tau) ||W||^2, D = Sigma / tau.
Source: Wu et al. 2025 (arXiv 2502.06309), Thm. 1 and 5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ohmgrad.devices.base import Device, Params
from ohmgrad.theory.assumptions import assume
from ohmgrad.theory.response import potential, pull

LINEAR = 0.1  # by how much R(W*) may differ from its tangent at the symmetric point, of itself


def implicit_penalty(device: Device, w: Tensor, mean_abs_gradient: Tensor, params: Params | None = None) -> Tensor:
    """<Sigma, R_c(W)>, eq. 1, (*replica,).

    Args:
        w: (*replica, out, in). mean_abs_gradient: Sigma, E|g| of an update's gradient at the optimum, broadcast to w.

    Source: Wu et al. 2025, Thm. 1. Assumes: W near both W* and the symmetric point, where E|g| is Sigma; checks that w
    is inside the bounds.

    >>> from ohmgrad.devices import SoftBounds
    >>> implicit_penalty(SoftBounds(), torch.tensor([[0.1, 0.2]]), torch.tensor(2.0))  # w^2 / (2 tau) each
    tensor(0.0500, dtype=torch.float64)
    """
    given = device.nominal() if params is None else params
    low, high = (torch.as_tensor(given[k], dtype=w.dtype) for k in ("w_min", "w_max"))
    outside = int(((w <= low) | (w >= high)).sum())
    assume(not outside, f"A4: {outside} of {w.numel()} weights are not inside their bounds")
    return (mean_abs_gradient * potential(device, w, params)).sum((-2, -1))


def slope_at_symmetric_point(device: Device, params: Params | None = None) -> Tensor:
    """R'(SP) of each element, the strength of the penalty: 1/tau of soft bounds +-tau. By autograd, float64.

    Source: Wu et al. 2025, Thm. 1. Assumes: each element has a symmetric point (else ValueError) and a response that is
    differentiable there.

    >>> from ohmgrad.devices import SoftBounds
    >>> slope_at_symmetric_point(SoftBounds(w_max=0.5, w_min=-0.5))
    tensor(2., dtype=torch.float64)
    """
    point = device.symmetric_point(params).requires_grad_()
    with torch.enable_grad():
        total = pull(device, point, params).sum()
    # A step that does not depend on the state has no slope.
    return torch.autograd.grad(total, point)[0] if total.requires_grad else torch.zeros_like(point).detach()


def penalised_optimum(
    hessian: Tensor, optimum: Tensor, mean_abs_gradient: Tensor, device: Device, params: Params | None = None
) -> Tensor:
    """W~* of eq. 2, where the mean dynamics of Analog SGD nearly stand still, (out, in).

    Args:
        hessian: of one row of W, the same for all, (in, in). optimum: W*, (out, in).
        mean_abs_gradient: Sigma, (out, in) or one number.

    Source: Wu et al. 2025, Thm. 5; the error is O(||SP - W*||^2). Assumes: W* near the symmetric points; checks that
    R(W*) is within 10 % of its tangent there.
    """
    point = device.symmetric_point(params)
    slope = slope_at_symmetric_point(device, params)
    optimum = optimum.double()
    straight, exact = slope * (optimum - point), pull(device, optimum, params)
    stray = float((straight - exact).abs().max() / exact.abs().max().clamp(min=1e-300))
    assume(stray <= LINEAR, f"Theorem 5: R(W*) is {stray:.0%} off its tangent at the symmetric point, more than 10 %")
    D = (mean_abs_gradient * slope).expand(optimum.shape).double()
    system = hessian.double() + torch.diag_embed(D)
    return torch.linalg.solve(system, optimum @ hessian.double() + D * point)
