"""Exponential steps: a step that an exponential of the state takes away from.

    z = 2 a w / (w_max - w_min) + b
    q_up = max(1 - A_up exp(gamma_up z), 0),    q_down = max(1 - A_down exp(-gamma_down z), 0)

With a = 1/2, b = 0, gammas g and A = exp(-g/2) on bounds +-tau these are the saturating exponentials of Wu et al. 2024
(arXiv 2406.12774), app. C.3, q_up = 1 - exp(-g (tau - w) / (2 tau)).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ohmgrad.devices.base import Device
from ohmgrad.vocabulary import absolute, exp, maximum, minimum, where


@dataclass(frozen=True, kw_only=True)
class ExpStep(Device):
    """Exponential steps with noise of three parts. Source: aihwkit `ExpStepDevice`, whose defaults these are.

    Args:
        A_up, A_down, gamma_up, gamma_down, a, b: the equations above; those of an element hold its own bounds.
        noise_add, noise_slope: under the noise "own" a pulse that moves the state by dw has the standard deviation
            dw_min_ctoc (|dw| + noise_add + noise_slope |w|); at 0 and 0 that is multiplicative noise.
        granularity_from: step that pulse counts are reckoned in: "down", the down step at w = 0, as aihwkit has it,
            whose mean of both steps takes the down step twice; or the "mean" of both.
    """

    A_up: float = 0.00081
    A_down: float = 0.36833
    gamma_up: float = 12.44625
    gamma_down: float = 12.78785
    a: float = 0.244
    b: float = 0.2425
    noise_add: float = 0.0
    noise_slope: float = 0.0
    ctoc: Literal["multiplicative", "additive", "own"] = "own"
    granularity_from: Literal["down", "mean"] = "down"

    fitted: ClassVar[Mapping[str, tuple[float, float]]] = {
        "A_up": (-math.inf, 1.0),
        "A_down": (-math.inf, 1.0),
        "gamma_up": (-math.inf, math.inf),
        "gamma_down": (-math.inf, math.inf),
    }  # a and b only rename these

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_finite_bounds()
        for name in ("noise_add", "noise_slope"):
            if getattr(self, name) < 0:
                raise ValueError(f"ExpStep needs {name} >= 0, got {getattr(self, name)}")
        if self.granularity_from not in ("down", "mean"):
            raise ValueError(f"ExpStep needs granularity_from 'down' or 'mean', got {self.granularity_from!r}")

    @staticmethod
    def response(w, up, dw_min, w_max, w_min, A_up, A_down, gamma_up, gamma_down, a, b, noise_add, noise_slope):
        """Signed change of w by one noise-free pulse."""
        z = 2.0 * a * w / maximum(w_max - w_min, 1e-6) + b
        # An exponent that float32 holds, also of an element whose bounds coincide.
        taken = where(up, A_up, A_down) * exp(minimum(where(up, gamma_up * z, -gamma_down * z), 80.0))
        step = dw_min * maximum(1.0 - taken, 0.0)
        return where(up, step, -step)

    @staticmethod
    def noise(  # type: ignore[reportIncompatibleVariableOverride]  # a function where others have none
        w, up, change, dw_min, w_max, w_min, A_up, A_down, gamma_up, gamma_down, a, b, noise_add, noise_slope
    ):
        """Standard deviation of one pulse in units of dw_min_ctoc."""
        return absolute(change) + noise_add + noise_slope * absolute(w)

    def starts(self) -> Iterator[dict[str, float]]:
        """For each direction: steps that hold and end late, more or less bent; steps that are large at first."""
        slope = 2.0 * self.a / (self.w_max - self.w_min) or 1.0
        low, high = slope * self.w_min + self.b, slope * self.w_max + self.b
        # Exponent over the whole range, and A exp(...) at the end that the exponential grows to.
        shapes = [
            *itertools.product((0.4, 1.5, 4.0, 10.0), (0.5, 0.95)),
            *itertools.product((-1.5, -5.0), (-1.0, -4.0, -15.0)),
        ]
        for (up, grown_up), (down, grown_down) in itertools.product(shapes, shapes):
            g_up, g_down = (bend / (2.0 * self.a or 1.0) for bend in (up, down))
            yield {
                "gamma_up": g_up,
                "A_up": grown_up * math.exp(-g_up * (high if up > 0.0 else low)),
                "gamma_down": g_down,
                "A_down": grown_down * math.exp(g_down * (low if down > 0.0 else high)),
            }

    @property
    def granularity(self) -> float:
        """The step at w = 0, or dw_min where that is 0. Source: aihwkit, `rpu_expstep_device.h`."""
        up_exp, down_exp = (math.exp(min(v * self.b, 80.0)) for v in (self.gamma_up, -self.gamma_down))
        up = (1.0 + min(self.up_down, 0.0)) * max(1.0 - self.A_up * up_exp, 0.0)
        down = (1.0 - max(self.up_down, 0.0)) * max(1.0 - self.A_down * down_exp, 0.0)
        step = down if self.granularity_from == "down" else (up + down) / 2.0
        return self.dw_min * (step if step > 0.0 else 1.0)
