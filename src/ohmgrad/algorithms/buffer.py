"""The digital buffer between two crossbars: it fills with what transfers read, and sends whole pulses when full."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ohmgrad.algorithms.rules import scaled
from ohmgrad.algorithms.transfer import n_lines
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Step


def fire(H: Tensor, *, max_pulses: int, momentum: float, forget: bool) -> tuple[Tensor, Tensor]:
    """Pulses n that a buffer sends where |H| >= 1, and what stays in it; H is in pulses, of any shape.

    n = trunc(H), at most max_pulses. What stays where n is not 0: momentum H if `forget`, which loses the rest above
    the threshold too, else H - (1 - momentum) n. Source: Gokmen 2021, Algorithm 1; aihwkit, `ChoppedTransferCompound`.

    >>> import torch
    >>> fire(torch.tensor([0.6, -2.5]), max_pulses=1, momentum=0.0, forget=False)
    (tensor([ 0., -1.]), tensor([ 0.6000, -1.5000]))
    """
    n = H.trunc().clamp(-max_pulses, max_pulses) + 0.0  # no -0.0
    rest = momentum * H if forget else H - (1.0 - momentum) * n
    return n, rest.where(n != 0, H)


def filling_rate(settings: Any, fast: Crossbar, lr: Step) -> Step:
    """Pulses that a read of 1 adds to the buffer.

    settings: of an algorithm with a buffer (Any: they share fields, not a class). At transfer_lr = 1 it takes reads of
    `buffer_granularity` granularities to make a pulse; with `auto_granularity` it takes so many times more, divided by
    the steps, samples or mini-batches, between two reads of a line. With gamma > 0 all of that is times gamma, what the
    fast crossbar counts in the weight, as in aihwkit.
    """
    lines = n_lines(fast, settings.transfer_columns)
    threshold = settings.buffer_granularity * fast.device_model.granularity
    if settings.auto_granularity:
        threshold *= settings.auto_granularity * (settings.n_reads or lines) / (lines * settings.transfer_every)
    share = getattr(settings, "gamma", 0.0) or 1.0  # AGAD has none
    return scaled(settings, "transfer_lr", lr) * share / threshold
