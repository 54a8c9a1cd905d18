"""What the fused ways of a read have in common: the settings that they know, and those as numbers for a kernel.

For the settings that are in use everywhere; all others go by `product`, which has the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ohmgrad.periphery.settings import IO

# read(w, x, scale) -> y of w (out, in) and x (batch, in), which counts its vectors; the scale (batch, 1) or None, for
# kernels to find it, as `way_of_scale` has it.
Read = Callable[[Tensor, Tensor, Tensor | None], Tensor]
# Noise management in the kernel: the largest size, or one number for all. Any other scale is given.
GIVEN, LARGEST, CONSTANT = range(3)
SCALES = {"abs-max": LARGEST, "none": CONSTANT, "constant": CONSTANT}


def is_fused(io: IO, w: Tensor) -> bool:
    """Whether kernels know these settings, and this weight."""
    return (
        w.dim() == 2
        and w.dtype in (torch.float32, torch.float64)
        and io.mv_type == "one-pass"
        and io.bound_management in ("none", "iterative")
        and io.w_noise_type == "additive-constant"
        and not (io.ir_drop or io.v_offset_std or io.r_series or io.out_nonlinearity)
        and not (io.inp_asymmetry or io.out_asymmetry)
    )


def way_of_scale(io: IO) -> int:
    """Where the scale of an input vector comes from; GIVEN where `product.input_scale` has to find it."""
    return SCALES.get(io.noise_management, GIVEN)


def numbers_of(io: IO) -> list[float]:
    """What kernels want to know: of the DAC, of the weights, of the ADC, and noise management's number."""
    given = {"abs-max": io.nm_thres, "constant": io.nm_thres or 1.0}.get(io.noise_management, 1.0)
    into, out_of = (io.inp_step, io.inp_bound, io.inp_noise), (io.out_step, io.out_bound, io.out_scale)
    return [*into, io.w_noise, *out_of, given]


def need_vectors(x: Tensor, n_in: int, w: Tensor) -> None:
    """Door for what a kernel takes by its address: (batch, in) of the weight's dtype and device."""
    if x.dtype != w.dtype or x.device != w.device:
        raise TypeError(f"x needs the weight's {w.dtype} on {w.device}, got {x.dtype} on {x.device}")
    if x.dim() != 2 or x.shape[1] != n_in:
        raise ValueError(f"x needs the shape (batch, {n_in}), got {tuple(x.shape)}")
