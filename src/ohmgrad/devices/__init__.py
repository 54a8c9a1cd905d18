"""Floor 1: what one resistive element does when a pulse arrives."""

from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import OneSidedCell, VectorCell, reference_cell
from ohmgrad.devices.constant_step import ConstantStep
from ohmgrad.devices.exp_step import ExpStep
from ohmgrad.devices.exponential_response import ExponentialResponse
from ohmgrad.devices.ideal import Ideal
from ohmgrad.devices.linear_step import LinearStep
from ohmgrad.devices.log_domain import LogDomain
from ohmgrad.devices.look_up_table import LookUpTable
from ohmgrad.devices.piecewise_step import PiecewiseStep
from ohmgrad.devices.power_response import PowerResponse
from ohmgrad.devices.power_step import PowStep
from ohmgrad.devices.power_step_reference import PowStepReference
from ohmgrad.devices.soft_bounds import SoftBounds
from ohmgrad.devices.soft_bounds_reference import SoftBoundsReference

DEVICES: tuple[type[Device], ...] = (
    Ideal,
    ConstantStep,
    LinearStep,
    SoftBounds,
    SoftBoundsReference,
    ExpStep,
    PowStep,
    PowStepReference,
    PiecewiseStep,
    LookUpTable,
    PowerResponse,
    ExponentialResponse,
    LogDomain,
)

__all__ = [
    "DEVICES",
    "ConstantStep",
    "Device",
    "ExpStep",
    "ExponentialResponse",
    "Ideal",
    "LinearStep",
    "LogDomain",
    "LookUpTable",
    "OneSidedCell",
    "PiecewiseStep",
    "PowStep",
    "PowStepReference",
    "PowerResponse",
    "SoftBounds",
    "SoftBoundsReference",
    "VectorCell",
    "reference_cell",
]
