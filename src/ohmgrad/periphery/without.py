"""Settings of a read with one effect switched off, for measurements of what that effect alone does."""

from __future__ import annotations

import math
from dataclasses import replace

from ohmgrad.periphery.settings import IO

WIDER = 1000.0  # how far bounds are moved where nothing is to meet them; the step stays


def noise(io: IO) -> IO:
    """No noise of inputs, weights and outputs.

    >>> noise(IO()).out_noise
    0.0
    """
    return replace(io, inp_noise=0.0, w_noise=0.0, out_noise=0.0)


def steps(io: IO) -> IO:
    """No steps of DAC and ADC.

    >>> steps(IO()).out_step
    0.0
    """
    return replace(io, inp_res=0.0, out_res=0.0)


def clipping(io: IO) -> IO:
    """Bounds that nothing meets, with the same steps; inputs are scaled by their largest where a scale could be short.

    >>> clipping(IO()).out_bound, round(clipping(IO()).out_step - IO().out_step, 12)
    (12000.0, 0.0)
    """
    wide = widened(replace(io, bound_management="none"), WIDER)
    if io.noise_management == "none":
        return replace(wide, inp_bound=io.inp_bound * WIDER, inp_res=_finer(io.inp_res, WIDER))
    return wide if io.noise_management == "abs-max" and not io.nm_thres else replace(
        wide, noise_management="abs-max", nm_thres=0.0
    )  # fmt: skip


def line_effects(io: IO) -> IO:
    """No voltage drop, offset, resistance, non-linearity or asymmetry."""
    return replace(
        io, inp_asymmetry=0.0, out_asymmetry=0.0, ir_drop=0.0, v_offset_std=0.0, r_series=0.0, out_nonlinearity=0.0,
        w_read_asymmetry_dtod=0.0,
    )  # fmt: skip


def widened(io: IO, factor: float) -> IO:
    """The ADC's bound times a factor; its step and everything else stay, of which some is in units of the bound."""
    if math.isinf(io.out_bound):
        return io
    return replace(
        io, out_bound=io.out_bound * factor, out_res=_finer(io.out_res, factor),
        out_nonlinearity=io.out_nonlinearity * factor, slope_calibration=io.slope_calibration / factor,
    )  # fmt: skip


def _finer(res: float, factor: float) -> float:
    """A step as a share of a bound that grows by this factor; where it is a number of steps, more of them."""
    return res * factor if res > 1.0 else res / factor
