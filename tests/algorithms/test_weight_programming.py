"""E17: programming a matrix by gradients, and what an offset of the fast crossbars' reference does to it.

The experiment of Rasch et al. 2024, fig. 4, at 12 x 12: targets N(0, 0.3^2), x ~ N(0, 1), 20 states, spreads of 30 %,
every pulse simulated, samples one after the other.
"""

import pytest
import torch

from ohmgrad import AnalogSGD, Outer, PulsedUpdate, Tile
from ohmgrad.algorithms import AGAD, ChoppedTikiTakaV2, TikiTakaV2
from ohmgrad.devices import SoftBoundsReference

N, SAMPLES, SEEDS = 12, 6000, 4
SLOW = {
    "w_max": 1.0, "w_min": -1.0, "dw_min": 0.1, "dw_min_dtod": 0.3, "dw_min_ctoc": 0.3, "w_max_dtod": 0.3,
    "w_min_dtod": 0.3, "up_down_dtod": 0.01, "subtract_symmetry_point": True,
}  # fmt: skip


def error(kind, offset: float) -> float:
    """Root mean square error of the programmed weights, over the last third of the samples and all seeds."""
    fast = SoftBoundsReference(**SLOW, reference_std=offset)
    slow = SoftBoundsReference(**SLOW)
    algorithm = AnalogSGD()
    if kind is not AnalogSGD:
        chopping = {} if kind is TikiTakaV2 else {"in_chop_prob": 0.1, "auto_scale": True}
        rates = {"fast_lr": 0.1 if chopping else 0.05, "transfer_lr": 0.1, "auto_granularity": 200.0}
        algorithm = kind(fast_device=fast, transfer_every=5, scale_transfer_lr=False, **rates, **chopping)
    generator = torch.Generator().manual_seed(0)
    target = 0.3 * torch.randn(N, N, generator=generator)
    options = {"device": slow, "update": PulsedUpdate(bit_length=5)}
    tile = Tile(torch.zeros(SEEDS, N, N), algorithm=algorithm, crossbar=options, seed=list(range(SEEDS)))
    errors = []
    for k in range(SAMPLES // 5):
        x = torch.randn(SEEDS, 5, N, generator=generator)
        algorithm.update(tile.state, Outer(x @ (tile.weight - target).mT, x), 0.1)
        if k > SAMPLES // 5 * 2 // 3:
            errors.append((tile.weight - target).square().mean().sqrt())
    return float(torch.stack(errors).mean())


@pytest.mark.slow
def test_offsets_spoil_what_has_no_chopper():
    # Measured, in weights of deviation 0.3: Analog SGD 0.248; without and with an offset of 0.3, Tiki-Taka v2 0.074 and
    # 0.164, chopped Tiki-Taka v2 0.078 and 0.097, AGAD 0.075 and 0.078. The paper's figure has the chopped form flat; a
    # quarter more remains here.
    table = {kind: [error(kind, offset) for offset in (0.0, 0.3)] for kind in (TikiTakaV2, ChoppedTikiTakaV2, AGAD)}
    sgd = error(AnalogSGD, 0.0)
    assert all(sgd > 2.0 * errors[0] for errors in table.values())
    growth = {kind: with_offset / without for kind, (without, with_offset) in table.items()}
    assert growth[TikiTakaV2] > 1.8
    assert growth[ChoppedTikiTakaV2] < 1.4
    assert growth[AGAD] < 1.1
