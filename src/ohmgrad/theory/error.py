"""Why training on asymmetric devices stops short: the asymptotic error, and the gradient at which pulses balance.

Analog SGD moves W by -lr (g * F(W) + |g| * G(W)). Where the mean gradient and its noise balance,

    E g_i = -E|g_i| G(w_i) / F(w_i)                                                     (1)

the weights stand still although the gradient does not vanish: gradient noise keeps sending pulses up and down, and
an asymmetric device turns them into a drift toward its symmetric point (Wu et al. 2024, arXiv 2406.12774, sec. 3;
Wu et al. 2025, arXiv 2502.06309, Thm. 1). For the worst device this gives the paper's bound

    mean ||grad f||^2 -> sigma^2 S_K,    S_K = mean over steps of max_i G^2 / (F^2 - G^2)    (2)

(Thm. 2 and 3; there S_K = mean of (||W||_inf/tau)^2 / (1 - (||W||_inf/tau)^2), the same for the asymmetric linear
device). The theorems print 4 sigma^2 S_K; carrying their own proofs through gives the constant 1 (docs/lower-bound.md
derives and measures it).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ohmgrad.devices.base import Device, Params
from ohmgrad.theory.assumptions import assume


def saturation(w: Tensor, params: Params) -> Tensor:
    """|w| over the bound on its side, element by element, in [0, 1]; 0 for a device without bounds.

    Source: assumption A4 of Wu et al. 2024, which asks for less than 1. Assumes: bounds on both sides of 0.

    >>> saturation(torch.tensor([0.3, -0.3]), {"w_max": 0.6, "w_min": -1.0})
    tensor([0.5000, 0.3000])
    """
    w_max, w_min = (torch.as_tensor(params[k], dtype=w.dtype, device=w.device) for k in ("w_max", "w_min"))
    return torch.where(w > 0, w / w_max, w / w_min).nan_to_num(0.0)


def asymmetry(device: Device, w: Tensor, params: Params | None = None) -> Tensor:
    """S(W) of eq. 2: the largest G^2 / (F^2 - G^2) over the last two dimensions; infinite at a bound.

    Source: Wu et al. 2024, Thm. 2, for any response. Assumes: A4, that no device is at a bound; it is infinite at one.

    >>> from ohmgrad.devices import SoftBounds
    >>> asymmetry(SoftBounds(), torch.tensor([[0.0, 0.6]]))
    tensor(0.5625)
    """
    F, G = device.F(w, params), device.G(w, params)
    return (G.square() / (F.square() - G.square()).clamp(min=0.0)).nan_to_num(0.0, posinf=torch.inf).amax((-2, -1))


def asymptotic_error(sigma_squared: Tensor | float, asymmetries: Tensor) -> Tensor:
    """sigma^2 S_K: the most that mean ||grad f||^2 of Analog SGD tends to as lr goes to 0.

    Args:
        sigma_squared: E||g - grad f||^2, the noise of one update's gradient.
        asymmetries: S(W_k) along the run, (steps, ...).

    Source: Wu et al. 2024, Thm. 2 and 3, with their constant put right. Assumes: A1 to A4; A4 is checked, by name.
    """
    n = int(torch.isinf(asymmetries).sum())
    assume(not n, f"A4: a device is at its bound in {n} of {asymmetries.numel()} states")
    return sigma_squared * asymmetries.mean(0)


def balanced_gradient(device: Device, w: Tensor, mean_abs_gradient: Tensor, params: Params | None = None) -> Tensor:
    """The mean gradient at which pulses at state w balance, eq. 1: (*replica, out, in).

    Args:
        device, params: of the crossbar that the gradient's pulses go to.
        w: its state at rest.
        mean_abs_gradient: E|g|, element by element, of one update.

    Source: Wu et al. 2025, Thm. 1. Assumes: w stands still, apart from steps that are small; F > 0 there, so that a
    device beyond its bound, which has none, is given 0.
    """
    ratio = device.G(w, params) / device.F(w, params)
    return -mean_abs_gradient * ratio.nan_to_num(0.0)
