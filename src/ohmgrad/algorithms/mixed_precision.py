"""Mixed precision: a digital unit sums gradients at full precision, and sends whole pulses now and then.

    chi <- chi + lr (g + weight_decay W),  g the gradient, or its running sum with momentum
    every `transfer_every` mini-batches, for the next rows:
        n = trunc(chi / dw_min);  chi <- chi - n dw_min;  W <- W - n dw_min, by pulses

Small gradients are never lost and noise averages out in chi, but it takes as many digital operations as a digital
update: only the two passes are analog. Source: Nandakumar et al. 2020 (Front. Neurosci. 14:406), as aihwkit runs it
(`MixedPrecisionCompound`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.algorithms import transfer
from ohmgrad.algorithms.rules import need
from ohmgrad.crossbar.algorithm import NewCrossbar, State
from ohmgrad.crossbar.cost import Cost, cost
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.crossbar.elements import Step
from ohmgrad.pulses.forms import Outer, Update


@dataclass(frozen=True, kw_only=True)
class MixedPrecision:
    """Mixed precision.

    Args:
        transfer_every: mini-batches between transfers, >= 1.
        n_rows: rows written per transfer, cyclically; None means all (`n_rows_per_transfer`).
        granularity: change of the weight that one pulse is taken for; the devices' own by default.
        x_bins, d_bins: levels that inputs and errors of each sample are rounded to, at random, between -max and max;
            0 for no rounding.
        momentum: of the digital gradient, as `torch.optim.SGD` has it; takes a second digital matrix.
        weight_decay: share of W in the gradient, after momentum; of rows read when they are written, for all the
            mini-batches since they last were.

    Raises:
        ValueError: a value breaks its rule; in `init`, if n_rows is more than the matrix has.
    """

    transfer_every: int = 1
    n_rows: int | None = None
    granularity: float | None = None
    x_bins: int = 0
    d_bins: int = 0
    momentum: float = 0.0
    weight_decay: float = 0.0

    takes_any_gradient = True  # digital numbers, so that a gradient that was changed number by number is as good

    def __post_init__(self) -> None:
        need(
            self,
            not_negative=("momentum", "weight_decay", "x_bins", "d_bins"),
            share=("momentum",),
            counts=("transfer_every", "n_rows"),
        )
        if self.granularity is not None:
            need(self, positive=("granularity",))
        if any(n == 1 or n != int(n) for n in (self.x_bins, self.d_bins)):
            raise ValueError(
                f"MixedPrecision needs 2 whole bins or more, or 0 for none, got {self.x_bins} and {self.d_bins}"
            )

    def init(self, new_crossbar: NewCrossbar, weight: Tensor) -> State:
        """One crossbar, which holds the weight, and the digital sums."""
        bar = new_crossbar(weight)
        if (self.n_rows or 1) > bar.shape[0]:
            raise ValueError(f"MixedPrecision needs n_rows <= {bar.shape[0]}, the matrix's rows, got {self.n_rows}")
        velocity = {"velocity": torch.zeros_like(bar.weight)} if self.momentum else {}
        zero = torch.zeros((), dtype=torch.int64)
        return State(bar=bar, chi=torch.zeros_like(bar.weight), step=zero, samples=zero.clone(), **velocity)

    def mixture(self, state: State) -> list[tuple[float, Crossbar]]:
        """Both passes read that crossbar."""
        return [(1.0, state.bar)]

    def update(self, state: State, update: Update, lr: Step) -> None:
        """chi <- chi + lr g; every `transfer_every` mini-batches, whole steps of it go to the crossbar, by rows."""
        g = self.rounded(state, update).as_dense()
        if self.momentum:
            g = state.velocity.mul_(self.momentum).add_(g)
        state.chi += lr * g
        state.step += 1
        if int(state.step) % self.transfer_every == 0:
            n_rows, dw = state.bar.shape[0], self.granularity or state.bar.device_model.granularity
            rows = transfer.places(state.step, self.transfer_every, self.n_rows, n_rows) % n_rows
            if self.weight_decay:
                w = transfer.read_lines(state.bar, rows, columns=False)
                steps = self.transfer_every * n_rows / len(rows)  # mini-batches between two reads of a row
                state.chi[..., rows, :] += lr * self.weight_decay * steps * w
            n = (state.chi[..., rows, :] / dw).trunc()
            state.chi[..., rows, :] -= n * dw
            transfer.write_lines(state.bar, rows, n, -dw, columns=False)

    def rounded(self, state: State, update: Update) -> Update:
        """The update with inputs and errors in bins."""
        if not (self.x_bins or self.d_bins):
            return update
        outer = update.as_outer()
        x = _in_bins(outer.x, self.x_bins, state.bar.seed, state.samples, 0)
        d = _in_bins(outer.d, self.d_bins, state.bar.seed, state.samples, 1)
        state.samples += outer.x.shape[-2]
        return Outer(d, x)

    def at_rest(self, state: State) -> tuple[Crossbar, Tensor]:
        """Pulses balance at the weight itself."""
        return state.bar, state.bar.weight

    def cost(self, shape: tuple[int, int], batch_size: int = 1) -> Cost:
        """One array; a multiplication and an addition at each crosspoint for each sample; rows once a mini-batch."""
        n_out, n_in = shape
        rows = (self.n_rows or n_out) / (self.transfer_every * batch_size)
        return cost(
            shape,
            digital=n_out * n_in * (2 if self.momentum else 1),
            transfers=rows,
            reads=rows if self.weight_decay else 0.0,
            slots_per_transfer=1.0,
            flops=2.0 * n_out * n_in,
            slots=0.0,
        )


def _in_bins(v: Tensor, n_bins: int, seed: Tensor, samples: Tensor, what: int) -> Tensor:
    """Vectors (*replica, batch, n) rounded at random to n_bins levels between -max|v| and max|v|."""
    if not n_bins:
        return v
    width = v.abs().amax(-1, keepdim=True) / (n_bins // 2)
    key = (random.Stream.ROUND, int(samples), what)
    u = random.uniform_plane(seed, key, v.shape[-2], v.shape[-1], v.dtype) - 0.5
    level = (v / width.where(width > 0, 1.0) + u).round().clamp(-(n_bins // 2), n_bins // 2)
    return level * width
