"""Floor 4: what the theorems say about a device and a run."""

from ohmgrad.theory.descent import Descent, Estimate, descend, estimate
from ohmgrad.theory.error import asymmetry, asymptotic_error, balanced_gradient, saturation
from ohmgrad.theory.noise import Noise
from ohmgrad.theory.zero_shift import pulses_to_symmetric_point

__all__ = [
    "Descent",
    "Estimate",
    "Noise",
    "asymmetry",
    "asymptotic_error",
    "balanced_gradient",
    "descend",
    "estimate",
    "pulses_to_symmetric_point",
    "saturation",
]
