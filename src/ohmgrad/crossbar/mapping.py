"""How a layer's matrix is put onto crossbars."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ohmgrad.crossbar.input_range import InputRange, LearnedRange
from ohmgrad.periphery.settings import Periphery


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """How a layer's matrix W is put onto crossbars: W = a W_t with digital scales a, split where it is too large.

    Args:
        digital_bias: False puts a layer's bias onto the crossbar too: one more column, whose input is always 1. It is
            scaled, split, read and pulsed with the rest. Converters that would cut off that 1 are refused, and an
            input range below 1 limits the other inputs, not the DAC.
        weight_scaling_omega: the largest |W_t| at the start; 0 for no scaling, a = 1. Keep it below
            w_max (1 - 2 w_max_dtod).
        weight_scaling_columnwise: a scale for each output instead of one.
        weight_scaling_lr_compensation: send updates with lr / mean(a) and errors that are as much larger, which
            matters to update management and to an absolute `fast_lr`.
        learn_out_scaling: a digital factor of the output, trained as any digital parameter; it starts at 1.
        out_scaling_columnwise: such a factor for each output.
        round_to_states: round what is programmed (initial weights, `set_weight`) to states that pulses lead to, each
            device by its own steps, as `ohmgrad.crossbar.states` says; for devices of few states.
        max_input_size, max_output_size: the largest crossbar; larger matrices go onto several, whose partial sums are
            added digitally. None for no limit.
        input_range: a learned range of the inputs; None for none, where noise management scales each vector.

    Source: aihwkit `MappingParameter` and `InputRangeParameter`, whose names these are.
    """

    digital_bias: bool = True
    weight_scaling_omega: float = 0.0
    weight_scaling_columnwise: bool = False
    weight_scaling_lr_compensation: bool = False
    learn_out_scaling: bool = False
    out_scaling_columnwise: bool = False
    round_to_states: bool = False
    max_input_size: int | None = None
    max_output_size: int | None = None
    input_range: InputRange | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.weight_scaling_omega < math.inf:
            raise ValueError(f"Mapping needs a finite weight_scaling_omega >= 0, got {self.weight_scaling_omega}")
        for name in ("max_input_size", "max_output_size"):
            if (size := getattr(self, name)) is not None and size < 1:
                raise ValueError(f"Mapping needs {name} >= 1 or None, got {size}")
        if not isinstance(self.input_range, InputRange | None):
            raise TypeError(f"Mapping needs an InputRange or None as input_range, got {self.input_range!r}")

    def scales(self, weight: Tensor) -> Tensor | None:
        """The scales a of a matrix (*replica, out, in): (*replica, out), or (*replica, 1) for one; 1 where W is 0."""
        if not self.weight_scaling_omega:
            return None
        largest = weight.abs().amax(-1)
        if not self.weight_scaling_columnwise:
            largest = largest.amax(-1, keepdim=True)
        return torch.where(largest > 0, largest / self.weight_scaling_omega, 1.0)

    def learned_scale(self, weight: Tensor) -> nn.Parameter | None:
        """The factor of the output that is trained, (*replica, out), or (*replica, 1) for one."""
        n = weight.shape[-2] if self.out_scaling_columnwise else 1
        return nn.Parameter(weight.new_ones(*weight.shape[:-2], n)) if self.learn_out_scaling else None

    def largest_output(self, periphery: Periphery | None) -> float:
        """What the ADC gives at its bound; only a range that manages output clipping asks for it."""
        io = None if periphery is None else periphery.forward
        if self.input_range is not None and self.input_range.manage_output_clipping:
            if io is None or io.is_perfect:
                raise ValueError(
                    "manage_output_clipping needs a periphery whose ADC has an out_bound, got perfect reads"
                )
            if (io.noise_management, io.bound_management) != ("none", "none"):
                raise ValueError(
                    'manage_output_clipping needs noise_management and bound_management "none" in forward reads, got '
                    f'"{io.noise_management}" and "{io.bound_management}"'
                )
        return math.inf if io is None else io.out_bound * abs(io.out_scale)

    def learned_range(self, weight: Tensor) -> LearnedRange | None:
        """The range of the inputs of a matrix (*replica, out, in)."""
        if self.input_range is None:
            return None
        return LearnedRange(self.input_range, replicas=weight.shape[:-2], dtype=weight.dtype)
