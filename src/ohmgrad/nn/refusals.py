"""What a read of a tile refuses: graphs on file, derivatives by other ways than backward, inputs that are not dense.

A graph on file would name a tile of this process, or hold its matrix of this moment; and what a tile does at a read and
at an update (noise, counters, pulses) is no function that can be differentiated twice, forward, or over a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ohmgrad.crossbar.once import TRANSFORM, peek_interpreter_stack

try:
    from torch._C import _get_dispatch_mode, _get_tracing_state, _TorchDispatchModeKey

    PROXY = _TorchDispatchModeKey.PROXY
except ImportError:  # another torch, which gives its own words
    PROXY = None

    def _get_tracing_state() -> Any:
        return None

    def _get_dispatch_mode(mode_key: Any) -> Any:
        return None


STRIDED = torch.strided
# Not in torch 2.6.
is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)

GRAPH = (
    "a tile cannot be part of an exported or traced graph, which has neither its devices nor its noise: export or "
    "trace ohmgrad.to_digital(model), which computes with the weights that the tiles represent now"
)
FORWARD = (
    "a tile has no forward-mode derivative: use backward, or ohmgrad.to_digital(model), which has the weights that the "
    "tiles represent now"
)


def check_input(x: Any, name: str = "x") -> bool:
    """Refuse inputs that are no dense tensors, and reads inside graphs and transforms that have no place for a tile.

    Args:
        x: what a layer was given.
        name: of it, for the message.

    Returns:
        Whether torch.compile looks on, which tiles work with.

    Raises:
        RuntimeError: inside of torch.export, torch.jit.trace, torch.fx, make_fx or a transform of torch.func.
        TypeError: x is no tensor. ValueError: x is sparse or nested.
    """
    if torch.compiler.is_compiling():
        if is_exporting():
            raise RuntimeError(GRAPH)
        return True
    if peek_interpreter_stack() is not None:
        raise RuntimeError(TRANSFORM)
    if _get_tracing_state() is not None or _get_dispatch_mode(PROXY) is not None:
        raise RuntimeError(GRAPH)
    if type(x) is not Tensor and not isinstance(x, Tensor):
        if isinstance(x, torch.fx.Proxy):
            raise RuntimeError(GRAPH)
        raise TypeError(f"{name} needs a tensor, got {type(x).__name__}; torch.as_tensor makes one")
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None:
        raise RuntimeError(FORWARD)
    if x.layout is not STRIDED or x.is_nested:
        kind = "a nested one" if x.is_nested else f"one of layout {x.layout}"
        way = "torch.nested.to_padded_tensor" if x.is_nested else f"{name}.to_dense()"
        raise ValueError(f"{name} needs to be a dense tensor, got {kind}; {way} makes one")
    return False
