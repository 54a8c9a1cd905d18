"""What a layer does beyond torch's own of its kind: a tile that took its place would not do it.

A layer is understood where its class and the instance change nothing that torch's layer computes with, and where its
weights are the parameters that torch's layer has. Whatever else it holds or computes stays digital.
"""

from __future__ import annotations

import functools
import inspect

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import is_lazy

# Names of which a class or an instance may have its own: how a layer is made, printed, compared, copied, written to
# files, compiled, or packed for a kernel that tiles do not use. Nothing here says what a layer computes.
FREE = {
    "__init__", "__init_subclass__", "__class_getitem__", "__subclasshook__", "__repr__", "__str__", "__eq__",
    "__hash__", "__dir__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__", "__deepcopy__", "_get_name",
    "extra_repr", "reset_parameters", "_reset_parameters", "flatten_parameters", "state_dict", "load_state_dict",
    "_save_to_state_dict", "_load_from_state_dict", "_replicate_for_data_parallel",
}  # fmt: skip

READ_OUTSIDE = "the attention around it reads its weight"

# torch's names of a layer's parameters, where they are not weight and bias.
PARAMETERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.RNNCellBase: ("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
    nn.MultiheadAttention: (
        "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "bias_k", "bias_v",
    ),
}  # fmt: skip


def difference(module: nn.Module, kind: type[nn.Module]) -> str | None:
    """Say in a few words what a layer does that torch's layer does not; None where there is nothing.

    Args:
        module: an instance of `kind`.
        kind: torch's class.

    >>> layer = nn.Linear(3, 2)
    >>> difference(layer, nn.Linear)
    >>> layer.forward = lambda x: x
    >>> difference(layer, nn.Linear)
    'its forward is replaced'
    """
    return _own_code(module, kind) or _own_weights(module) or _own_parts(module)


def patched(module: nn.Module, kind: type) -> str | None:
    """Say which method the class or the instance has of its own where `kind` has another; None for none."""
    for name in _methods(kind):
        if name in vars(module):
            return f"its {name} is replaced"
        of_kind = inspect.getattr_static(kind, name)
        if type(module) is not kind and inspect.getattr_static(type(module), name) is not of_kind:
            return f"{type(module).__name__} has a {name} of its own"
    return None


@functools.cache
def _methods(kind: type) -> tuple[str, ...]:
    """Names of all code of a class that may say what a layer computes."""
    code = {name: inspect.getattr_static(kind, name) for name in dir(kind) if name not in FREE}
    return tuple(n for n, v in code.items() if callable(v) or isinstance(v, property | classmethod | staticmethod))


def _own_code(module: nn.Module, kind: type[nn.Module]) -> str | None:
    if isinstance(module, NonDynamicallyQuantizableLinear):
        return READ_OUTSIDE
    for name in ("forward", "__call__", "_conv_forward", "_call_impl"):
        # A library may have put its own into torch's class.
        code = getattr(kind, name, None)
        if code is not None and not getattr(code, "__module__", "").startswith("torch."):
            return f"torch's {kind.__name__}.{name} is replaced"
    return patched(module, kind)


def _own_weights(module: nn.Module) -> str | None:
    """Say which weight is no parameter, or one that torch's layer has not."""
    own, names = dict(module._parameters), _parameter_names(module)
    for name in names:
        value = own.pop(name, None)
        if value is None:
            is_needed = isinstance(module, nn.RNNBase) or name.startswith("weight")
            if is_needed or inspect.getattr_static(module, name, None) is not None:
                return f"its {name} is computed"
        elif hasattr(type(module), name) or name in vars(module):
            return f"its {name} is computed"
        elif type(value) is not nn.Parameter and not is_lazy(value):
            return f"its {name} is a {type(value).__name__}"
    extra = [name for name, value in own.items() if value is not None]
    return f"it has a parameter {extra[0]}" if extra else None


def _parameter_names(module: nn.Module) -> tuple[str, ...]:
    if isinstance(module, nn.RNNBase):
        return tuple(module._flat_weights_names)
    found = [names for kind, names in PARAMETERS.items() if isinstance(module, kind)]
    return found[0] if found else ("weight", "bias")


def _own_parts(module: nn.Module) -> str | None:
    """Say which buffer or module the layer holds that torch's has not."""
    parts = dict(module._modules)
    if isinstance(module, nn.MultiheadAttention):
        out = parts.pop("out_proj", None)
        if out is None or type(out) not in (NonDynamicallyQuantizableLinear, nn.Linear):
            return f"its out_proj is a {type(out).__name__}"
        inside = patched(out, type(out)) or _own_weights(out) or _own_parts(out)
        if inside is not None:
            return f"in its out_proj, {inside}"
    for what, found in (("module", parts), ("buffer", module._buffers)):
        for name, value in found.items():
            if value is not None:
                return f"it has a {what} {name}"
    return None
