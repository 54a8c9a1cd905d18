"""What stands for a tile's matrix among parameters: one number, which is 0 and holds nothing of the matrix.

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


class Handle(nn.Parameter):
    """A parameter, (), of 0.

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

    def become(self, other: Tensor) -> None:
        """Take over the dtype and device of another, which `load_state_dict(assign=True)` gives."""
        self.moves = True
        try:
            self.data = other.detach().clone()
        finally:
            self.moves = False

    def __reduce_ex__(self, protocol: Any) -> Any:
        """For pickles, which make another one."""
        return Handle, (torch.zeros((), dtype=self.dtype, device=self.device), self.requires_grad)
