"""Hooks of a layer go with it when another takes its place: they see the module, its inputs and outputs, as before."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

# Where torch keeps hooks that run at each call, and how each is to be called. Those of state dicts know torch's names
# of parameters, which a tile has not.
KEPT_IN = (
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_backward_pre_hooks", "_backward_hooks", "_is_full_backward_hook",
)  # fmt: skip


def carry(before: nn.Module, after: nn.Module, memo: dict[int, Any]) -> None:
    """Give the second module the hooks of the first.

    memo: of the deepcopy of the whole model, so that a hook which is a method of the model becomes the copy's.
    """
    for name in KEPT_IN:
        if (hooks := getattr(before, name, None)) is not None:
            setattr(after, name, copy.deepcopy(hooks, memo))
