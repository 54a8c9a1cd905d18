"""What a theorem assumes, said by name when it does not hold.

Names as in the papers. Wu et al. 2024 (arXiv 2406.12774): A1 f is L-smooth; A2 f >= f*; A3 noise of mean 0, independent
from step to step, E||noise||^2 <= sigma^2; A4 max|W| <= W_max < tau; A5 (Tiki-Taka) entries of the noise are alike, and
E|g + noise| >= c sigma for every g. A1 to A3 hold of a whole problem and cannot be seen in a few numbers: functions
here take them for granted, say so, and check what can be checked.
"""

from __future__ import annotations

import math
import warnings


class AssumptionWarning(UserWarning):
    """A theorem was asked about something that it does not cover; the message names the assumption and the value."""


def assume(holds: bool, message: str, *, depth: int = 0) -> bool:
    """Whether it holds; warns by `message` if not, at the line that called the public function.

    depth: functions between that public one and this.
    """
    if not holds:
        warnings.warn(message, AssumptionWarning, stacklevel=3 + depth)
    return holds


def need_numbers(
    where: str, positive: dict[str, float] | None = None, not_negative: dict[str, float] | None = None
) -> None:
    """Door for a bound's numbers. Raises ValueError that names number, value and rule."""
    for name, value in (positive or {}).items():
        if not 0.0 < value < math.inf:
            raise ValueError(f"{where} needs a finite {name} > 0, got {value}")
    for name, value in (not_negative or {}).items():
        if not 0.0 <= value < math.inf:
            raise ValueError(f"{where} needs a finite {name} >= 0, got {value}")
