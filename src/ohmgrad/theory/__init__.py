"""Floor 4: what the theorems say about a device and a run.

`ohmgrad.theory.instances` holds the problems on which they are tested, `ohmgrad.theory.portrait` figures of a device.
"""

from ohmgrad.theory.assumptions import AssumptionWarning
from ohmgrad.theory.bounds import (
    Bound,
    analog_gd_bound,
    analog_sgd_bound,
    analog_sgd_lower_bound,
    bounded_weight,
    digital_sgd_bound,
    generic_analog_sgd_bound,
    saturation_sum,
)
from ohmgrad.theory.descent import Descent, Estimate, descend, estimate
from ohmgrad.theory.error import asymmetry, asymptotic_error, balanced_gradient, saturation
from ohmgrad.theory.floor import Floor, predicted_floor
from ohmgrad.theory.measured import GradientNoise, convexity, gradient_noise, smoothness, tile_saturation
from ohmgrad.theory.noise import Noise
from ohmgrad.theory.penalty import implicit_penalty, penalised_optimum, slope_at_symmetric_point
from ohmgrad.theory.response import ResponseRange, potential, potential_by_quadrature, pull, response_range
from ohmgrad.theory.transfer_bounds import (
    calibration_pulses,
    exact_residual_learning_bound,
    granular_sgd_bound,
    multi_tile_bound,
    rate_factors,
    residual_learning_bound,
    rider_bound,
    tiki_taka_bound,
    tiki_taka_residual,
)
from ohmgrad.theory.zero_shift import pulses_to_symmetric_point, zero_shift_floor

__all__ = [
    "AssumptionWarning",
    "Bound",
    "Descent",
    "Estimate",
    "Floor",
    "GradientNoise",
    "Noise",
    "ResponseRange",
    "analog_gd_bound",
    "analog_sgd_bound",
    "analog_sgd_lower_bound",
    "asymmetry",
    "asymptotic_error",
    "balanced_gradient",
    "bounded_weight",
    "calibration_pulses",
    "convexity",
    "descend",
    "digital_sgd_bound",
    "estimate",
    "exact_residual_learning_bound",
    "generic_analog_sgd_bound",
    "gradient_noise",
    "granular_sgd_bound",
    "implicit_penalty",
    "multi_tile_bound",
    "penalised_optimum",
    "potential",
    "potential_by_quadrature",
    "predicted_floor",
    "pull",
    "pulses_to_symmetric_point",
    "rate_factors",
    "residual_learning_bound",
    "response_range",
    "rider_bound",
    "saturation",
    "saturation_sum",
    "slope_at_symmetric_point",
    "smoothness",
    "tile_saturation",
    "tiki_taka_bound",
    "tiki_taka_residual",
    "zero_shift_floor",
]
