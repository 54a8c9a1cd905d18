"""Floor 4: what the theorems say about a device and a run."""

from ohmgrad.theory.error import asymmetry, asymptotic_error, balanced_gradient, saturation

__all__ = ["asymmetry", "asymptotic_error", "balanced_gradient", "saturation"]
