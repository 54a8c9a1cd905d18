"""Equality within rounding, which states how much rounding."""

import torch
from torch import Tensor


def assert_within_ulps(actual: Tensor, expected: Tensor, ulps: float) -> None:
    """Shapes and dtypes are equal, and entries differ by at most `ulps` roundings of the largest expected entry.

    A sum of n terms in another order is off by about n roundings of its largest partial sum, not of its result.
    """
    actual, expected = actual.detach(), expected.detach()
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    scale = float(expected.abs().max()) * torch.finfo(expected.dtype).eps
    worst = float((actual - expected).abs().max())
    assert worst <= ulps * scale, f"off by {worst / scale if scale else worst:.3g} ulps, {ulps} allowed"


def assert_bits(actual: Tensor, expected: Tensor) -> None:
    """Shapes, dtypes and every bit are equal."""
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    assert torch.equal(actual, expected), f"{int((actual != expected).sum())} of {actual.numel()} entries differ"
