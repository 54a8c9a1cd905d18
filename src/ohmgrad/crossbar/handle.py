"""What stands for a tile's matrix among parameters: one number, which holds nothing of the matrix.

It makes graphs of autograd reach the tile, and its gradient holds the updates that wait. Whoever writes into it means
the matrix, and would change nothing: averages of models, initialisations of `model.parameters()`, torch's optimizers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ohmgrad.crossbar.represented import represent

WRITTEN = (
    "somebody wrote into the handle of a tile, which stands for the tile's matrix and holds none of its numbers: an "
    "average of models, an initialisation of parameters, or an optimizer of torch. set_weight writes a matrix; average "
    "digital copies, AveragedModel(ohmgrad.to_digital(model)) and averaged.update_parameters(ohmgrad.to_digital(model))"
)

READ = (
    "the handle of a tile was read as if it were the tile's matrix, by a penalty on model.parameters(), weight decay "
    "by hand or the like: layer.weight is the matrix, and a penalty on it trains the tile; "
    "AnalogOptimizer(weight_decay=...) decays it"
)


class Handle(nn.Parameter):
    """A parameter, (), of NaN, so that no loss and no edit takes it for the matrix and stays finite.

    Writes to it are found when the tile is next used, by torch's count of them; `data`, whose writes torch does not
    count, gives a copy that refuses them, and is set by `Tile.to` and its like alone.
    """

    # Torch's own functions see a plain parameter.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # as nn.Parameter has it
    moves = False  # while the tile moves to another device or dtype

    @property
    def data(self) -> Tensor:  # type: ignore[override]  # torch's is an attribute
        """The number, to be read."""
        return represent(Tensor.data.__get__(self).clone())  # type: ignore[attr-defined]  # a property of C

    @data.setter
    def data(self, value: Tensor) -> None:
        if not self.moves:
            raise RuntimeError(WRITTEN)
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]  # as above

    @property
    def writes(self) -> int:
        """How often somebody wrote into it."""
        return -1 if self.is_inference() else self._version

    def like(self, other: Tensor) -> Handle:
        """This handle with the dtype and device of another, or a new one where it has no memory (meta)."""
        if self.is_meta != other.is_meta:
            return Handle(other.detach().clone(), self.requires_grad)
        self.moves = True
        try:
            self.data = other.detach().clone()
        finally:
            self.moves = False
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """For pickles, which make another one."""
        return Handle, (torch.full((), torch.nan, dtype=self.dtype, device=self.device), self.requires_grad)
