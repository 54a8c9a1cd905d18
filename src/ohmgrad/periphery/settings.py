"""Settings of the imperfect matrix-vector product: converters, ranges, noise and their management.

The fields have aihwkit's names (`IOParameters`), so that its configurations carry over. Bounds, noise and steps are in
units of the scaled input (at most `inp_bound`) and of what the array gives for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

NOISE_MANAGEMENT = ("none", "abs-max", "max", "constant", "abs-max-np-sum", "average-abs-max")
BOUND_MANAGEMENT = ("none", "iterative", "iterative-worst-case", "shift")
WEIGHT_NOISE = ("additive-constant", "pcm-read")
MV_TYPES = ("one-pass", "pos-neg-separate", "pos-neg-separate-digital-sum")
CHOICES = {
    "noise_management": NOISE_MANAGEMENT,
    "bound_management": BOUND_MANAGEMENT,
    "w_noise_type": WEIGHT_NOISE,
    "mv_type": MV_TYPES,
}
SIGNED = ("v_offset_w_min", "slope_calibration", "out_scale", "inp_res", "out_res", "inp_asymmetry", "out_asymmetry")
MAY_BE_INFINITE = ("inp_bound", "out_bound", "max_bm_factor")


@dataclass(frozen=True, kw_only=True)
class IO:
    """One direction of reading a crossbar, y = W x with the converters and noises in between.

    Args:
        is_perfect: exact products; everything else is ignored.
        inp_bound, out_bound: the converters' ranges, > 0; infinite for none.
        inp_res, out_res: steps of DAC and ADC as a share of twice the bound, 1 / (2**bits - 2) for so many bits, or
            their number where > 1; no quantisation where <= 0 or where the bound is infinite.
        inp_sto_round, out_sto_round: round at random, so that the mean is right.
        inp_noise: of each input after the DAC. out_noise: of each output before the ADC, and its relative spread
            between lines `out_noise_std`, fixed at construction.
        inp_asymmetry, out_asymmetry: relative loss of negative inputs and outputs.
        w_noise, w_noise_type: read noise of the weights: "additive-constant", of equal size at each weight, or
            "pcm-read", growing with the square root of its size.
        ir_drop: scale of the voltage drop along the lines; ir_drop_g_ratio: wire's conductance over the largest
            device's.
        v_offset_std, v_offset_w_min, r_series: voltage offset of the ADC's lines, reference conductance (as a negative
            weight), and series resistance.
        out_nonlinearity, out_nonlinearity_std: saturation of an output at the ADC's bound (at 1 where there is none),
            and its relative spread between lines; slope_calibration: share of the loss by it and by r_series that a
            gain restores.
        w_read_asymmetry_dtod: spread of the relative difference between reads of either polarity; acts where these are
            separate.
        mv_type: one pass, or positive and negative inputs apart, summed before the ADC or after it.
        noise_management: how inputs are scaled to the DAC's range: "none", by the largest size ("abs-max") or value
            ("max"), by "constant" `nm_thres` (1 where that is 0), "abs-max-np-sum" (as much less as the sums of
            positive or negative inputs may need, with weights up to nm_assumed_wmax), or "average-abs-max", a running
            mean of rate nm_decay, which reads in evaluation take and leave as it is. nm_thres > 0 limits the largest
            size or value. A vector whose scale is 0 gives exactly 0: the scale is the digital factor of the output, and
            so of its noise.
        bound_management: what happens where outputs meet their bound: "none", "iterative" (read again with inputs
            halved, down to 1 / max_bm_factor or to max_bm_res steps of the DAC), "iterative-worst-case" (the
            first time with the scale of "abs-max-np-sum", then halved), "shift" (by what the largest output is above
            the bound).
        bm_test_negative_bound: whether negative outputs at their bound count.
        out_scale: digital factor of the output.

    Source: aihwkit `IOParameters` and `rpu_forward_backward_pass.cpp`.
    """

    is_perfect: bool = False
    inp_bound: float = 1.0
    inp_res: float = 1.0 / 126.0
    inp_sto_round: bool = False
    inp_noise: float = 0.0
    inp_asymmetry: float = 0.0
    out_bound: float = 12.0
    out_res: float = 1.0 / 510.0
    out_sto_round: bool = False
    out_noise: float = 0.06
    out_noise_std: float = 0.0
    out_asymmetry: float = 0.0
    out_scale: float = 1.0
    w_noise: float = 0.0
    w_noise_type: str = "additive-constant"
    ir_drop: float = 0.0
    ir_drop_g_ratio: float = 571428.57
    v_offset_std: float = 0.0
    v_offset_w_min: float = -1.0
    r_series: float = 0.0
    out_nonlinearity: float = 0.0
    out_nonlinearity_std: float = 0.0
    slope_calibration: float = 0.0
    w_read_asymmetry_dtod: float = 0.0
    mv_type: str = "one-pass"
    noise_management: str = "abs-max"
    nm_thres: float = 0.0
    nm_assumed_wmax: float = 0.6
    nm_decay: float = 1e-3
    bound_management: str = "iterative"
    bm_test_negative_bound: bool = True
    max_bm_factor: float = 1000.0
    max_bm_res: float = 0.25

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in CHOICES:
                if value not in CHOICES[f.name]:
                    raise ValueError(f"IO needs {f.name} among {', '.join(CHOICES[f.name])}, got {value!r}")
            elif f.type == "bool":
                if not isinstance(value, bool):
                    raise TypeError(f"IO needs {f.name} True or False, got {value!r}")
            else:
                self._need_number(f.name, value)
        if self.noise_management != "none" and self.inp_bound != 1.0:
            raise ValueError(
                f"IO needs inp_bound 1 where inputs are scaled (noise_management={self.noise_management!r}), "
                f"got {self.inp_bound}"
            )

    def _need_number(self, name: str, value: object) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError(f"IO needs a number as {name}, got {value!r}")
        if name == "nm_decay" and not 0 <= value <= 1:
            raise ValueError(f"IO needs nm_decay between 0 and 1, got {value}")
        is_fine = value >= 0 or name in SIGNED
        if name in ("inp_bound", "out_bound", "max_bm_factor", "ir_drop_g_ratio"):
            is_fine = value > 0
        if not is_fine or (not math.isfinite(value) and (name not in MAY_BE_INFINITE or math.isnan(value))):
            rule = "> 0" if name in ("inp_bound", "out_bound", "max_bm_factor", "ir_drop_g_ratio") else ">= 0"
            rule = "that is finite" if name in SIGNED else rule
            raise ValueError(f"IO needs {name} {rule}, got {value}")

    @property
    def inp_step(self) -> float:
        """Step of the DAC; 0 for none."""
        return _step(self.inp_res, self.inp_bound)

    @property
    def out_step(self) -> float:
        """Step of the ADC; 0 for none."""
        return _step(self.out_res, self.out_bound)

    @property
    def largest_input(self) -> float:
        """The largest input that is surely not clipped where it is a vector's largest; infinite with free scales."""
        if self.noise_management == "none":
            return self.inp_bound
        if self.noise_management == "constant":
            return self.nm_thres or 1.0
        is_limited = self.nm_thres > 0 and self.noise_management != "average-abs-max"
        return self.nm_thres if is_limited else math.inf

    @property
    def out_unit(self) -> float:
        """Output to which saturation, its calibration and the worst case of sums refer: the bound, or 1 for none."""
        return 1.0 if math.isinf(self.out_bound) else self.out_bound

    @property
    def bm_limit(self) -> float:
        """The factor above which bound management reduces inputs no further."""
        return min(self.max_bm_factor, self.max_bm_res / self.inp_step) if self.inp_step else self.max_bm_factor


def _step(res: float, bound: float) -> float:
    """A converter's step; where a whole number of them makes the bound, so that in float32 too they don't exceed it.

    Otherwise an output at the last step would count as one beyond the bound in some settings.
    """
    if res <= 0 or math.isinf(bound):
        return 0.0
    step = 2.0 * bound * (1.0 / res if res > 1 else res)
    n = round(bound / step)
    if not math.isclose(n * step, bound, rel_tol=1e-6):
        return step
    while n * step > bound or np.float32(n) * np.float32(step) > np.float32(bound):
        step = float(np.nextafter(np.float32(step), np.float32(0)))
    return step


PERFECT = IO(is_perfect=True)
# aihwkit's sets: `IOParameters` (of `build_config` and the papers' scripts), `PresetIOParameters` (of its presets) and
# `StandardIOParameters`.
DEFAULT = IO()
PRESET = IO(out_bound=20.0, out_noise=0.1)
STANDARD = IO(inp_res=1.0 / 254.0, out_res=1.0 / 254.0, out_bound=10.0, out_noise=0.04)


def weight_noise(sigma: float) -> IO:
    """Noise of the weights and nothing else, as in the toy problems of Wu et al. 2024 (Fig. 1, 3, 4)."""
    return IO(
        inp_bound=10.0, out_bound=10.0, inp_res=0.0, out_res=0.0, out_noise=0.0, w_noise=sigma, v_offset_w_min=0.0,
        noise_management="none", bound_management="none",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Periphery:
    """How a crossbar is read: forward, backward (transposed) and when an algorithm transfers columns.

    Where outputs meet their bounds the backward read is never repeated, and a transfer's inputs are not scaled either:
    both as in the reference, whatever the settings say.

    Args:
        forward, backward, transfer: settings of each; transfer is as forward where None.

    >>> Periphery().forward.out_bound
    12.0
    """

    forward: IO = DEFAULT
    backward: IO = DEFAULT
    transfer: IO | None = None

    def __post_init__(self) -> None:
        for name in ("forward", "backward", "transfer"):
            value = getattr(self, name)
            if not isinstance(value, IO) and not (name == "transfer" and value is None):
                raise TypeError(f"Periphery needs an IO as {name}, got {value!r}")
