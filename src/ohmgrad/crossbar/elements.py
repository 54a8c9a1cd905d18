"""The parameters of a crossbar's elements: of one device, or of one device for each replica."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ohmgrad.devices.base import Device, draw
from ohmgrad.pulses import op
from ohmgrad.pulses.forms import Update

Step = float | Tensor  # one for all replicas, or (*replica, 1, 1): one for each

TensorGuards: Any = None
try:  # tells in one call what public names tell in ten: 0.2 us instead of 0.9, of 6 for a pulse on a small crossbar
    from torch._C._dynamo.guards import TensorGuards  # type: ignore[reportMissingImports]
except ImportError:
    pass

MAY_BE_INFINITE = ("device_w_min", "device_w_max", "device_lifetime")

# What a device that lacks an effect has in its place.
NEUTRAL = {"lifetime": float("inf"), "diffusion": 0.0, "reset": 0.0}


# Whether x and d are like those before in all but their numbers; the state that these changed; what sends such.
Known = tuple[Callable[[Tensor, Tensor], bool], Tensor | None, Any]


def never(x: Tensor, d: Tensor) -> bool:
    """Of no two."""
    return False


UNKNOWN: Known = never, None, None


@dataclass(frozen=True)
class Counters:
    """What a crossbar has done so far, per replica.

    cycles: rank-1 write cycles. pulses: pulses that reached devices (in the expected update: their mean number).
    reads: vectors read, forward and transposed. digital_memory: most numbers that a write kept outside the array.
    pulses_per_crosspoint: the pulses at each, (*replica, out, in), int64 (in the expected update: float64), if kept.
    """

    cycles: int
    pulses: Tensor
    reads: int
    digital_memory: int
    pulses_per_crosspoint: Tensor | None = None


def device_list(device: Device | Sequence[Device]) -> list[Device]:
    """One device, or one for each replica. Raises TypeError where they are something else, such as unit cells."""
    devices = list(device) if isinstance(device, Sequence) else [device]
    if strangers := [type(d).__name__ for d in devices if not isinstance(d, Device)]:
        raise TypeError(f"Crossbar needs single devices, got {strangers[0]}; make_crossbar makes unit cells")
    return devices


def draw_all(devices: Sequence[Device], seeds: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> dict[str, Any]:
    """Parameters of one device, or of one device for each replica, stacked over the replicas."""
    if len(devices) == 1:
        return draw(devices[0], seeds, shape, dtype)
    if len(devices) != seeds.numel() or len({type(d) for d in devices}) != 1:
        raise ValueError(
            f"device needs one device, or one of the same family for each of the {seeds.numel()} replicas, "
            f"got {[type(d).__name__ for d in devices]}"
        )
    shared = (*devices[0].shared, *devices[0].tables)
    if len({(d.granularity, *(getattr(d, name) for name in shared)) for d in devices}) != 1:
        raise ValueError(
            f"devices of one crossbar need equal granularity, {', '.join(shared)}; they may differ in all else"
        )
    drawn = [draw(d, s, shape, dtype) for d, s in zip(devices, seeds.flatten(), strict=True)]
    planes: dict[str, Any] = {name: getattr(devices[0], name) for name in devices[0].tables}
    for name in dict.fromkeys(name for p in drawn for name in p if name not in planes):
        values = [torch.as_tensor(p.get(name, NEUTRAL.get(name)), dtype=dtype).expand(shape) for p in drawn]
        planes[name] = torch.stack(values).reshape(*seeds.shape, *shape)
    return planes


def step_for_all(update: Update, lr: Step) -> tuple[Update, float]:
    """The update and its step, where each replica has a step of its own with that in the update. Raises ValueError."""
    if (own := own_steps("lr", lr)) is not None:
        return update.scaled(own[..., 0]), 1.0
    return update, op.finite(lr)  # type: ignore[arg-type]  # a tensor without dimensions is a number


def values_for_all(values: Tensor, lr: Step) -> tuple[Tensor, float]:
    """As `step_for_all`, of the values of columns, (*replica, n, out)."""
    if (own := own_steps("lr", lr)) is not None:
        return values * own, 1.0
    return values, op.finite(lr)  # type: ignore[arg-type]  # as above


def own_steps(name: str, step: Step) -> Tensor | None:
    """The step if it is one for each replica, None if it is one for all. Raises ValueError where it is neither."""
    if not isinstance(step, Tensor) or step.numel() == 1:
        return None
    if step.shape[-2:] != (1, 1):
        raise ValueError(f"{name} needs a number, or a tensor (*replica, 1, 1), got the shape {tuple(step.shape)}")
    return step


def column_numbers(columns: Tensor, n: int, what: str = "columns", replicas: tuple[int, ...] = ()) -> Tensor:
    """Numbers of columns, or of `what`, (n,) int64, from a user; with replicas also (*replica, n).

    Raises:
        ValueError: one is not in 0 ... n - 1, or the shape is another.
    """
    is_shaped = columns.dim() > 0 and columns.shape[:-1] in ((), replicas)
    if not is_shaped or columns.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"{what} needs whole numbers, (n,) of int64 or int32, got {tuple(columns.shape)} of {columns.dtype}"
        )
    if torch.compiler.is_compiling():  # a graph cannot look at them
        return columns.to(torch.int64)
    if columns.numel() and not 0 <= int(columns.min()) <= int(columns.max()) < n:
        raise ValueError(f"{what} needs numbers from 0 to {n - 1}, got {int(columns.min())} to {int(columns.max())}")
    return columns.to(torch.int64)


def of_columns(plane: Tensor, columns: Tensor) -> Tensor:
    """Columns (n,) or (*replica, n) of a plane (*replica, out, in), as rows, (*replica, n, out)."""
    if columns.dim() == 1:
        return plane[..., columns].mT
    return torch.take_along_dim(plane, columns[..., None, :].to(plane.device), -1).mT


def lay_out(buffers: dict[str, Any]) -> None:
    """Make the tensors of a crossbar contiguous, in place: kernels find a crosspoint by counting rows and columns."""
    for value in buffers.values():
        if isinstance(value, Tensor) and not value.is_contiguous():
            value.data = value.contiguous()


def alike(x: Tensor, d: Tensor) -> Callable[[Tensor, Tensor], bool]:
    """Whether others are like x and d in shape, dtype, device and strides; never, where they are not contiguous."""
    if TensorGuards is None or not all(t.dim() > 1 and t.is_contiguous() and not t.is_neg() for t in (x, d)):
        return never
    sizes, strides = ([list(getattr(t, kind)()) for t in (x, d)] for kind in ("size", "stride"))
    return TensorGuards(x, d, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides).check


def need_tensor(
    name: str,
    tensor: Tensor,
    own: Tensor,
    replicas: tuple[int, ...],
    shape: tuple[int, ...],
    *,
    is_read_later: bool,
    owner: str = "crossbar",
) -> None:
    """Door for every tensor that comes to a crossbar from outside.

    Args:
        own: the crossbar's weight. shape: without replicas. is_read_later: somebody else looks for NaN.
        owner: whose dtype and device the message names.

    Raises:
        ValueError, TypeError: a shape, dtype, device or value breaks its rule.
    """
    if tensor.dtype != own.dtype:
        raise TypeError(f"{name} needs the {owner}'s dtype {own.dtype}, got {tensor.dtype}")
    if tensor.device != own.device:
        raise ValueError(f"{name} needs the {owner}'s device {own.device}, got {tensor.device}")
    if tensor.shape != shape and tensor.shape != (*replicas, *shape):
        raise ValueError(
            f"{name} needs the shape {shape}"
            + (f" with replicas {replicas} in front" if replicas else "")
            + f", got {tuple(tensor.shape)}"
        )
    if not is_read_later and not torch.isfinite(tensor).all():
        n = int((~torch.isfinite(tensor)).sum())
        raise ValueError(f"{name} needs finite numbers, got NaN or infinity in {n} of {tensor.numel()} places")


def check_state(bar: Any, state_dict: Mapping[str, Any], prefix: str) -> None:
    """Raise ValueError where a state dict has for a crossbar what no crossbar can hold.

    Numbers are finite, and the devices' states lie within their bounds, up to rounding: within those of the same state
    dict, where devices differ. A weight that write noise is drawn around may show more.
    """
    for name, own in bar.named_buffers(recurse=False):
        value = state_dict.get(prefix + name)
        if not isinstance(value, Tensor):
            continue
        is_bad = torch.isnan(value) if name in MAY_BE_INFINITE else ~torch.isfinite(value)
        if is_bad.any():
            raise ValueError(f"{prefix}{name} of the state dict needs finite numbers, got NaN or infinity")
        if name == ("persistent" if bar.device_model.write_noise else "weight") and value.shape == own.shape:
            _check_bounds(bar, state_dict, prefix, name, value)


def _check_bounds(bar: Any, state_dict: Mapping[str, Any], prefix: str, name: str, value: Tensor) -> None:
    for which, sign in (("w_min", -1.0), ("w_max", 1.0)):
        bound = torch.as_tensor(state_dict.get(f"{prefix}device_{which}", bar.params[which]))
        if bound.dim() and bound.shape != value.shape:
            return  # torch's own error is on its way
        bound = bound.to(device=value.device, dtype=torch.float64)
        rounding = 4.0 * max(torch.finfo(value.dtype).eps, torch.finfo(bar.weight.dtype).eps)
        beyond = sign * (value.double() - bound) > rounding * bound.abs().nan_to_num(posinf=0.0)
        if beyond.any():
            k = int(beyond.flatten().nonzero()[0])
            raise ValueError(
                f"{prefix}{name} of the state dict needs states within the devices' bounds, got "
                f"{float(value.flatten()[k]):g} where {which} is {float(bound.expand(value.shape).flatten()[k]):g}; "
                f"`set_weight` clips what it programs"
            )
