"""How a crossbar turns an asked-for change into a change of its devices."""

from __future__ import annotations

from dataclasses import dataclass


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
