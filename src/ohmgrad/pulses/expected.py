"""The expected update: what pulse trains do to the weights in the mean, at the cost of a few array operations."""

from __future__ import annotations

from torch import Tensor

from ohmgrad import random
from ohmgrad.devices.base import Device, Params, noise, step
from ohmgrad.pulses.settings import ExpectedUpdate
from ohmgrad.pulses.train import WHOLE


def expected_increment(
    w: Tensor,
    delta: Tensor,
    device: Device,
    params: Params,
    *,
    settings: ExpectedUpdate,
    seed: Tensor,
    cycle: Tensor,
    granularity: float,
    lines: Tensor | None = None,
    columns: Tensor | slice = slice(None),
) -> Tensor:
    """Change of w when an increment delta is asked for; shapes (*replica, out, in).

    Args:
        lines: seeds of the noise of trains, where several crossbars share their lines, and so the pulses that they get.
        columns: which columns these are, (n,), if not all: what noise an element gets depends on its own place alone.

    n = |delta| / granularity pulses of the step at w: delta * F(w) - |delta| * G(w), written with the response
    itself. The matched noise is that of a train of n pulses in the mean, each a Bernoulli trial of odds
    p = n / length, with its own cycle-to-cycle noise s: variance n (step^2 (1 - p) + s^2).

    Source: Wu et al. 2024 (arXiv 2406.12774), eq. 6-8; variance: binomial count of coincidences.
    """
    up_or_down = delta > 0
    one_pulse = step(type(device), w, up_or_down, params)
    n = delta.abs() / granularity
    change = n * one_pulse
    if settings.noise:
        length = (n.amax((-2, -1), keepdim=True) * WHOLE).ceil().clamp(1, settings.bit_length)
        spread = device.dw_min_ctoc * noise(device, w, up_or_down, one_pulse, params)
        chance = (1.0 - n / length).clamp(min=0.0)
        own = _normals(seed, cycle, w, columns)
        if lines is None:
            return change + (n * (one_pulse.square() * chance + spread**2)).sqrt() * own
        common = _normals(lines, cycle, w, columns)
        change = change + n.sqrt() * spread * own + (n * chance).sqrt() * one_pulse * common
    return change


def _normals(seed: Tensor, cycle: Tensor, w: Tensor, columns: Tensor | slice) -> Tensor:
    words = (random.Stream.PULSE, cycle)
    if isinstance(columns, slice):
        return random.normal_plane(seed, words, w.shape[-2], w.shape[-1], w.dtype)
    return random.normal(random.plane_key(seed, words, w.shape[-2]), columns, w.dtype)
