"""Zero shifting: alternating pulses bring every device to its symmetric point, where a reference can copy it.

From w0, soft bounds at +-tau with symmetric point w* come within e of it after tau ln((w0 - w*) / e) / (2 dw_min)
pairs of pulses, and then jump about it by about dw_min. Source: Kim et al. 2019 (arXiv 1907.10228); arXiv 2602.21321,
Algorithm 1 and Theorem 2.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.pulses.forms import Dense


def zero_shift(bar: Crossbar, n_pulses: int) -> Tensor:
    """Send n_pulses pulses, up and down in turn, to every device; the states that they end in, (*replica, out, in).

    Each pulse takes a cycle for each row.

    >>> from ohmgrad.devices import SoftBounds
    >>> zero_shift(Crossbar((1, 1), device=SoftBounds(dw_min=0.1), weight=torch.tensor([[0.5]])), 100)
    tensor([[-0.0526]])
    """
    if n_pulses < 0:
        raise ValueError(f"zero_shift needs n_pulses >= 0, got {n_pulses}")
    one_each = Dense(torch.ones_like(bar.weight))
    for k in range(n_pulses):
        bar.write(one_each, bar.device_model.granularity * (1.0 if k % 2 else -1.0))
    return bar.weight.clone()
