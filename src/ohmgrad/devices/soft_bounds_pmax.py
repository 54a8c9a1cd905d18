"""Soft bounds by what an experiment measures: the range, and the pulses from one end of it to the other.

From range_min, p up pulses lead to range_min + B (1 - exp(-alpha p)), with B such that p_max of them reach range_max;
from there, p down pulses to range_max - B (1 - exp(-alpha p)).
"""

from __future__ import annotations

import math
from typing import Any, Literal

from ohmgrad.devices.soft_bounds import SoftBounds


def soft_bounds_pmax(
    p_max: float = 1000.0,
    alpha: float = 5e-4,
    range_min: float = -1.0,
    range_max: float = 1.0,
    reading: Literal["aihwkit", "formula"] = "aihwkit",
    **fields: Any,
) -> SoftBounds:
    """Soft bounds with p_max. Source: aihwkit `SoftBoundsPmaxDevice`.

    Args:
        p_max: pulses from range_min to range_max, > 0. alpha: what each takes of the way that is left, > 0.
        range_min, range_max: ends of the experiment, range_min < 0 < range_max.
        reading: "aihwkit" as its code has it: w_min = range_min, w_max = range_min + B, dw_min = B alpha,
            up_down = 1 + 2 range_min / B. Those steps do not follow the equations above: up pulses are
            B / (range_min + B) times too large, and down pulses end at range_min. "formula" follows them to the pulse:
            bounds range_min + B and range_max - B, both steps in proportion.
        fields: further ones of SoftBounds.

    Raises:
        ValueError: a value breaks its rule.

    >>> soft_bounds_pmax(reading="formula", p_max=10, alpha=0.1).w_max
    2.163953413738653
    """
    if not (p_max > 0 and alpha > 0 and math.isfinite(p_max * alpha)):
        raise ValueError(f"soft-bounds-pmax needs p_max > 0 and alpha > 0, got {p_max} and {alpha}")
    if not -math.inf < range_min < 0 < range_max < math.inf:
        raise ValueError(f"soft-bounds-pmax needs range_min < 0 < range_max, got {range_min} and {range_max}")
    if reading not in ("aihwkit", "formula"):
        raise ValueError(f"soft-bounds-pmax needs reading 'aihwkit' or 'formula', got {reading!r}")
    b = (range_max - range_min) / -math.expm1(-p_max * alpha)
    if reading == "aihwkit":
        up_down = 1.0 + 2.0 * range_min / b
        return SoftBounds(w_min=range_min, w_max=range_min + b, dw_min=b * alpha, up_down=up_down, **fields)
    low, high, share = range_max - b, range_min + b, -math.expm1(-alpha)
    step = max(high, -low)
    return SoftBounds(w_min=low, w_max=high, dw_min=share * step, up_down=(high + low) / step, **fields)
