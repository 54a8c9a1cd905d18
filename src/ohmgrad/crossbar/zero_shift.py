"""Zero-shifting: every device of a crossbar is brought to its symmetric point, where up and down pulses cancel.

Pulses that alternate, or are up and down at random, pull a device to the state at which their steps are equal. The
states reached are kept in a reference R, and W - R takes the place of the weight: its symmetric points are 0, up to
what is left. Near the point a pair of pulses shrinks the distance by dw_min (q_down' - q_up'), so that the number of
pulses goes as log(distance) / dw_min (`ohmgrad.theory.pulses_to_symmetric_point`).

Source: Kim et al. 2019 (arXiv 1907.10228); arXiv 2602.21321, Algorithm 1.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.pulses.settings import PulsedUpdate


@torch.no_grad()
def zero_shift(
    bar: Crossbar, n_pulses: int, *, order: Literal["alternating", "random"] = "alternating", seed: int | None = None
) -> Tensor:
    """Bring all devices near their symmetric points.

    Args:
        bar: the crossbar, which stays in the state reached.
        n_pulses: pulses to each device.
        order: up and down in turn; or the sign of each pulse at random, that of its row times that of its column, from
            the seed.
        seed: of random signs; None draws it from torch's default generator.

    Returns:
        The states reached, (*replica, out, in): the reference R. `bar.read(x, bar.weight - R)` reads against it.

    Raises:
        ValueError: n_pulses < 0, an unknown order, or an update that cannot send one pulse to every device.

    >>> from ohmgrad.devices import SoftBounds
    >>> bar = Crossbar((1, 2), device=SoftBounds(dw_min=0.01, up_down=0.2), weight=torch.tensor([[-0.9, 0.9]]))
    >>> zero_shift(bar, 2000).round(decimals=2)  # at c / (2 - c)
    tensor([[0.1100, 0.1100]])
    """
    if n_pulses < 0:
        raise ValueError(f"n_pulses needs a whole number >= 0, got {n_pulses}")
    if order not in ("alternating", "random"):
        raise ValueError(f"order needs 'alternating' or 'random', got {order!r}")
    if seed is None:
        seed = random.fresh_seed() if order == "random" else 0  # signs in turn need none
    for k in range(n_pulses):
        if order == "alternating":
            one_pulse(bar, up=k % 2 == 0)
        else:
            key = random.root(seed, random.Stream.ORDER, k)
            signs = (torch.as_tensor(random.bits(*key, torch.arange(sum(bar.shape)))) >> 16 & 1) * 2 - 1
            _send(bar, *signs.split([bar.shape[1], bar.shape[0]]))
    return bar.weight.clone()


@torch.no_grad()
def one_pulse(bar: Crossbar, *, up: bool) -> None:
    """One pulse to every device of a crossbar, all up or all down.

    Raises:
        ValueError: an update that cannot send one pulse to every device.
    """
    out, n_in = bar.shape
    _send(bar, torch.ones(n_in), torch.full((out,), -1 if up else 1))


def _send(bar: Crossbar, x: Tensor, d: Tensor) -> None:
    update = bar.update
    if isinstance(update, PulsedUpdate) and not (update.bit_length and update.bit_length_management):
        raise ValueError("one pulse to every device needs bit-length management and a bit length of at least 1")
    # An increment of one granularity on all lines: trains of one slot that is certain to fire.
    bar.pulse(x.to(bar.weight), d.to(bar.weight), lr=bar.device_model.granularity)
