"""The expected update against every pulse: they differ by alpha and by dw_min / alpha, relatively.

One increment dw from state w on soft bounds, by trains of n = dw / dw_min pulses without draws: the state moves under
the train, and the lumped update exceeds it by q dw^2 / (2 tau); pulses are whole, and n + 0.4 of them fall short by
0.4 dw_min q.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.devices import Device, SoftBounds
from ohmgrad.experiments.verify.planted import doubled_asymmetry
from ohmgrad.experiments.verify.verdict import Estimate, Panel, Point, Verdict, equal, slope, worst
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate

PLANTED = (doubled_asymmetry,)
ROUNDED = PulsedUpdate(train="deterministic", bit_length=65535)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """w: state before. increments: at dw_min = increment / 1000. pulses: n + 0.4 of them at a tiny increment.

    seed: of nothing, as nothing is random.
    """

    tau: float = 2.0
    w: float = 0.5
    increments: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    pulses: tuple[int, ...] = (1, 10, 100)
    tiny: float = 1e-6
    seed: int = 0


QUICK = Settings()


def change(device: Device, update: ExpectedUpdate | PulsedUpdate, increment: float, start: float) -> float:
    """Of one weight that is asked to move by `increment`."""
    d = torch.tensor([[-math.copysign(1.0, increment)]])
    return float(changes(device, update, abs(increment), d, start))


def changes(
    device: Device,
    update: ExpectedUpdate | PulsedUpdate,
    lr: float,
    d: Tensor,
    start: float,
    columns: int = 1,
    seed: int = 0,
) -> Tensor:
    """Of every weight, (out, columns), when row i is asked to move by -lr d_i; d is (1, out)."""
    weight = torch.full((d.shape[1], columns), start, dtype=torch.float64)
    bar = Crossbar((d.shape[1], columns), device=device, update=update, seed=seed, weight=weight, dtype=torch.float64)
    bar.pulse(torch.ones(1, columns, dtype=torch.float64), d.double(), lr)
    return bar.weight - weight


def run(settings: Settings) -> Verdict:
    """Both parts of the difference, up and down: their sizes and their slopes."""
    tau, points = settings.tau, []
    soft = SoftBounds(w_max=tau, w_min=-tau)
    moving, whole, slopes = [], [], []
    for up in (True, False):
        sign, q = (1.0, 1.0 - settings.w / tau) if up else (-1.0, 1.0 + settings.w / tau)
        rest = []
        for size in settings.increments:
            device = replace(soft, dw_min=size / 1000)
            lumped, pulsed = (change(device, u, sign * size, settings.w) for u in (ExpectedUpdate(), ROUNDED))
            rest.append(sign * (lumped - pulsed))
            predicted = q * size**2 / (2.0 * tau)
            moving.append(Estimate(rest[-1] / predicted))
            points.append(Point("up" if up else "down", size, abs(rest[-1]), 0.0, predicted))
        slopes.append(Estimate(_slope(settings.increments, rest)))
        for n in settings.pulses:
            device = replace(soft, dw_min=settings.tiny / (n + 0.4))
            lumped, pulsed = (change(device, u, sign * settings.tiny, settings.w) for u in (ExpectedUpdate(), ROUNDED))
            whole.append(Estimate(sign * (lumped - pulsed) / (0.4 * device.dw_min * q)))
    return Verdict(
        name="E18",
        title="lumped against pulse by pulse",
        statement="the expected update differs from the pulses by q dw^2 / (2 tau), and by less than dw_min",
        source="Wu et al. 2024, eq. 20; Wu et al. 2025, Thm. 4",
        claims=(
            equal(
                "difference over q dw^2 / (2 tau), worst of all",
                1.0,
                worst(moving, 1.0),
                within=0.01,
                because="of n pulses 1 - 1/n of it, n = 1000; next order in dw",
            ),
            equal(
                "its slope with dw, worse of up and down",
                2.0,
                worst(slopes, 2.0),
                within=0.01,
                because="next order in dw",
            ),
            equal(
                "difference of n + 0.4 pulses over 0.4 dw_min q, worst of all",
                1.0,
                worst(whole, 1.0),
                within=0.01,
                because="the increment is so small that its square is 1e-6 of it",
            ),
        ),
        panels=(Panel(x="dw", y="|expected - pulsed|", points=tuple(points)),),
    )


def _slope(x: tuple[float, ...], y: list[float]) -> float:
    """On logarithmic axes, of the moduli."""
    return slope(torch.tensor(x), torch.tensor(y, dtype=torch.float64).abs())
