"""torch's transformer encoders may not take their fused kernels where a tile lies inside.

In evaluation `nn.TransformerEncoderLayer` hands the weights of its layers to one kernel, and `nn.TransformerEncoder`
drops padding from its input before. Neither calls the layers inside, so that no tile would be read.
"""

from __future__ import annotations

from torch import nn

from ohmgrad.crossbar.tile import Tile

# The attribute that allows each, and its value that does not.
SWITCHES: dict[type[nn.Module], tuple[str, object]] = {
    nn.TransformerEncoder: ("use_nested_tensor", False),
    nn.TransformerEncoderLayer: ("activation_relu_or_gelu", 0),
}
KEPT = "_before_tiles"


def switch_off(model: nn.Module) -> None:
    """Let every encoder that has a tile call its layers; what it would do otherwise is kept for `restore`."""
    for module, name, off in _encoders(model):
        if any(isinstance(m, Tile) for m in module.modules()) and KEPT not in module.__dict__:
            setattr(module, KEPT, getattr(module, name))
            setattr(module, name, off)


def restore(model: nn.Module) -> None:
    """Undo `switch_off` where no tile is left."""
    for module, name, _ in _encoders(model):
        if KEPT in module.__dict__ and not any(isinstance(m, Tile) for m in module.modules()):
            setattr(module, name, module.__dict__.pop(KEPT))


def _encoders(model: nn.Module) -> list[tuple[nn.Module, str, object]]:
    return [(m, *switch) for m in model.modules() for kind, switch in SWITCHES.items() if isinstance(m, kind)]
