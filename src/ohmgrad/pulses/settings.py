"""How a crossbar turns an asked-for change into a change of its devices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class ExpectedUpdate:
    """The paper's discrete-time dynamics, W <- W + dW * F(W) - |dW| * G(W) (Wu et al. 2024, eq. 8).

    Args:
        per_sample: apply the samples of a mini-batch one after the other, as hardware does; otherwise their
            sum at once, which is the paper's lumped model. The two differ in the asymmetric term, which sees
            the sum over samples of |d_i x_i'| or the modulus of the sum.
        noise: add zero-mean noise with the variance that stochastic pulse trains and cycle-to-cycle noise
            would have had: one train for each sample, or one for the sum.
        bit_length: longest pulse train, which the matched noise needs.

    Raises:
        ValueError: bit_length < 1.
    """

    per_sample: bool = False
    noise: bool = False
    bit_length: int = 31

    def __post_init__(self) -> None:
        if self.bit_length < 1:
            raise ValueError(f"ExpectedUpdate needs bit_length >= 1, got {self.bit_length}")


@dataclass(frozen=True, kw_only=True)
class PulsedUpdate:
    """What hardware does: each sample's outer product as pulse trains on rows and columns, each coincidence one pulse.

    The samples of a mini-batch follow one another; every pulse has its own cycle-to-cycle noise and meets the hard
    bounds. Source: Gokmen and Vlasov 2016; aihwkit's `UpdateParameters` (names in parentheses).

    Args:
        bit_length: slots of a train (`desired_bl`); the most, where bit-length management shortens it. 0 sends nothing.
        update_management: share the amplitude between rows and columns so that neither side saturates early (`UM`).
        bit_length_management: only as many slots as the largest product needs; implies update management (`UBLM`).
        train: "stochastic": one Bernoulli draw for each line and slot, shared along the line. "mean-count": at each
            crosspoint, the mean number of coincidences, rounded at random. "deterministic": that, rounded to nearest.
        resolution: step in which a line's probability is given (`res`), 0 for no steps.
        stochastic_rounding: round probabilities to those steps at random (`sto_round`).
        merge: let the pulses of one train at one crosspoint act at once, where the device's response is affine and
            theory says that the law stays the same; False applies all pulses one by one.
        eager: use plain torch, the slow reference, where a compiled kernel would do.

    Raises:
        ValueError: a value breaks its rule.
    """

    per_sample: ClassVar[bool] = True  # as ExpectedUpdate's field; hardware knows no other way

    bit_length: int = 31
    update_management: bool = True
    bit_length_management: bool = True
    train: Literal["stochastic", "mean-count", "deterministic"] = "stochastic"
    resolution: float = 0.0
    stochastic_rounding: bool = False
    merge: bool = True
    eager: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.bit_length <= 65535:
            raise ValueError(f"PulsedUpdate needs bit_length in 0 ... 65535, got {self.bit_length}")
        if self.train not in TRAINS:
            raise ValueError(f"PulsedUpdate needs a train of {', '.join(TRAINS)}, got {self.train!r}")
        if not 0.0 <= self.resolution <= 1.0 or math.isnan(self.resolution):
            raise ValueError(f"PulsedUpdate needs resolution in [0, 1], got {self.resolution}")


@dataclass(frozen=True)
class Lines:
    """What drives the lines of a crossbar, or of several that share them.

    seed: of the trains' bits. granularity: the step that pulses are counted in, > 0.
    """

    seed: int
    granularity: float


TRAINS = ("stochastic", "mean-count", "deterministic")
