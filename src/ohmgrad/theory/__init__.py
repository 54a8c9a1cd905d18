"""Floor 4: what the theorems say about a device and a run."""

from ohmgrad.theory.error import asymmetry, asymptotic_error, balanced_gradient, saturation
from ohmgrad.theory.zero_shift import pulses_to_symmetric_point

__all__ = ["asymmetry", "asymptotic_error", "balanced_gradient", "pulses_to_symmetric_point", "saturation"]
