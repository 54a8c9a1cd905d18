"""What an algorithm costs: arrays and memory that it holds, and what one sample's update takes.

Time adds up what one update does on a tile, one thing after the other: slots of pulse trains at 5 ns, reads at 40 ns,
digital operations at 0.175 TFLOPS. With trains of 5 slots and a transfer every 2 samples that gives, for 512 x 512, the
published 30.9 ns of Analog SGD, 56.3 of Tiki-Taka v2, 62.1 of AGAD (Rasch et al. 2024, Nat. Commun. 15:7133, table 1)
and the bound 95.9 of multi-tile residual learning (arXiv 2510.02516, table 5); the rate of the digital unit is chosen
so that it does. Energy is a straight line through what the latter paper gives for 512 x 512, 12.82 + 9.44 nJ for each
array, and 83.2 nJ of mixed precision with its 2 N^2 operations; no source has it by operation, so read it as an order.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOT_NS, READ_NS, FLOPS_PER_NS = 5.0, 40.0, 175.0
BASE_NJ, ARRAY_NJ = 12.82, 9.44
FLOP_NJ = (83.2 - BASE_NJ - ARRAY_NJ) / (2 * 512**2)
AREA = 512**2  # crosspoints that the energy of an array was given for
SLOTS = 5  # mean length of a pulse train in that table


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one tile; per sample, the two passes aside.

    arrays: analog arrays. digital: numbers held outside of them. reads: vectors read for transfers. slots: of pulse
    trains. transfers: lines written by transfers. flops: digital operations. crosspoints: of one array.
    """

    arrays: int
    digital: int
    reads: float
    slots: float
    transfers: float
    flops: float
    crosspoints: int

    @property
    def time_ns(self) -> float:
        """Of one sample's update, in ns."""
        return self.slots * SLOT_NS + self.reads * READ_NS + self.flops / FLOPS_PER_NS

    @property
    def energy_nj(self) -> float:
        """Of one sample's update, in nJ; an order of magnitude."""
        return (BASE_NJ + ARRAY_NJ * self.arrays) * self.crosspoints / AREA + FLOP_NJ * self.flops


def cost(
    shape: tuple[int, int],
    *,
    arrays: int = 1,
    digital: int = 0,
    transfers: float = 0.0,
    reads: float | None = None,
    slots_per_transfer: float = SLOTS,
    flops_per_transfer: float = 0.0,
    flops: float | None = None,
    slots: float = SLOTS,
) -> Cost:
    """The cost of an algorithm that sends each sample's outer product to one array, and transfers lines.

    Args:
        shape: (out, in). arrays, digital: held. transfers: lines written per sample.
        reads: lines read per sample, as many as are written by default.
        slots_per_transfer, flops_per_transfer: of each line.
        flops: of each sample beside the transfers; out + in by default, to find the largest |x| and |d|.
        slots: of each sample's train.
    """
    reads = transfers if reads is None else reads
    return Cost(
        arrays=arrays,
        digital=digital,
        reads=reads,
        slots=slots + transfers * slots_per_transfer,
        transfers=transfers,
        flops=(shape[0] + shape[1] if flops is None else flops) + reads * flops_per_transfer,
        crosspoints=shape[0] * shape[1],
    )


def lines_per_sample(every: int, n_reads: int, *, batch_size: int | None) -> float:
    """Lines of a transfer over the samples between two; batch_size where `every` counts mini-batches."""
    return n_reads / (every * (batch_size or 1))
