"""How tiles hang in autograd's graphs: by their handles, and by the updates that backward passes leave on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ohmgrad.crossbar.grid import Grid
from ohmgrad.crossbar.tile import Tile
from ohmgrad.pulses.forms import Update


def handles(tile: Tile | Grid) -> list[nn.Parameter]:
    """What stands for the matrix in graphs: the handle of each tile.

    Raises:
        RuntimeError: somebody wrote into one.
    """
    tiles = tile.members
    is_wrapped = DistributedDataParallel._active_ddp_module is not None
    for one in tiles:
        if is_wrapped:
            one.wrap()
        one.look()
    return [one.handle for one in tiles]


def keep(tile: Tile | Grid, update: Update, nodes: Sequence[tuple[Any, int]]) -> list[Tensor | None]:
    """Leave an update on its tiles, or return it as gradients of their handles where autograd has to see them.

    Args:
        tile: the tile or grid. update: of the whole matrix; its memory is the tile's from now on.
        nodes: `ctx.next_functions`, of which the last are the handles'.
    """
    parts = tile.parts(update)
    return [_keep(one, part, node) for (one, part), (node, _) in zip(parts, nodes[-len(parts) :], strict=True)]


def _keep(tile: Tile, update: Update, node: Any) -> Tensor | None:
    if node is None:
        return None  # frozen
    try:
        if not torch._C._will_engine_execute_node(node):
            return None  # autograd.grad(loss, x) asks for no parameter's gradient
    except RuntimeError:
        return tile.gradient(update)  # autograd.grad(loss, parameters) asks for it
    if tile.handle._backward_hooks or tile.handle._post_accumulate_grad_hooks:
        return tile.gradient(update)
    tile.record(update)  # a tenth of the time that autograd takes to do the same
    return None
