"""Seeds: what is made without one differs from all else, repeats after `torch.manual_seed`, and draws once.

An explicit seed stays what it is: a function of nothing but itself, which leaves torch's generator alone.
"""

import ast
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chance import assert_correlation
from exact import assert_bits
from ohmgrad import IO, Mapping, Periphery, PulsedUpdate, TikiTaka, convert, random
from ohmgrad.crossbar import Crossbar, Grid, Tile, make_crossbar, zero_shift
from ohmgrad.crossbar.grid import place
from ohmgrad.devices import Ideal, OneSidedCell, SoftBounds, VectorCell
from ohmgrad.devices.base import draw
from ohmgrad.nn import Hardware
from ohmgrad.nn.convert import LAYERS

DEVICE = SoftBounds(dw_min=0.01, dw_min_dtod=0.3, dw_min_ctoc=0.3)
SIZES: dict[type[nn.Module], tuple] = {
    nn.Linear: (40, 30),
    nn.Conv1d: (10, 30, 4),
    nn.Conv2d: (10, 30, 2),
    nn.Conv3d: (5, 30, 2),
    nn.ConvTranspose1d: (40, 30, 3),
    nn.ConvTranspose2d: (40, 30, 2),
    nn.ConvTranspose3d: (40, 30, 1),
    nn.Embedding: (40, 30),
    nn.EmbeddingBag: (40, 30),
    nn.RNN: (40, 30),
    nn.GRU: (40, 20, 2),
    nn.LSTM: (40, 20),
    nn.RNNCell: (40, 30),
    nn.GRUCell: (40, 20),
    nn.LSTMCell: (40, 20),
    nn.MultiheadAttention: (40, 2),
}
WEIGHT = torch.zeros(30, 40)
MLP = nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 40))
TILE: dict[str, Any] = {"algorithm": TikiTaka(), "crossbar": {"device": DEVICE}}

Make = Callable[..., nn.Module]  # of seed=..., or of nothing
WAYS: dict[str, Make] = {
    "convert": lambda **seed: convert(MLP, device=DEVICE, **seed),
    "convert, replicas": lambda **seed: convert([MLP, MLP], device=DEVICE, **seed),
    "convert, cells": lambda **seed: convert(MLP, device=VectorCell(devices=(DEVICE, DEVICE)), **seed),
    "convert, a grid": lambda **seed: convert(MLP, device=DEVICE, mapping=Mapping(max_input_size=20), **seed),
    "from_digital": lambda **seed: LAYERS[nn.Linear].from_digital(
        [MLP[0]], hardware=Hardware(device=DEVICE), **{"replicas": (), **seed}
    ),
    "Crossbar": lambda **seed: Crossbar((30, 40), device=DEVICE, **seed),
    "Crossbar, replicas": lambda **seed: Crossbar((30, 40), device=DEVICE, replicas=(2, 3), **seed),
    "make_crossbar": lambda **seed: make_crossbar((30, 40), device=DEVICE, **seed),
    "VectorCells": lambda **seed: make_crossbar((30, 40), device=VectorCell(devices=(DEVICE, DEVICE)), **seed),
    "OneSidedCells": lambda **seed: make_crossbar((30, 40), device=OneSidedCell(device=DEVICE), **seed),
    "Tile": lambda **seed: Tile(WEIGHT, **TILE, **seed),
    "Tile, replicas": lambda **seed: Tile(WEIGHT.expand(3, -1, -1), **TILE, **seed),
    "place, a tile": lambda **seed: place(WEIGHT, **TILE, **seed),
    "place, a grid": lambda **seed: place(WEIGHT, mapping=Mapping(max_output_size=15), **TILE, **seed),
    "Hardware.tile": lambda **seed: Hardware(device=DEVICE).tile(WEIGHT, **seed),
    "Hardware.affine": lambda **seed: Hardware(device=DEVICE).affine(WEIGHT, None, is_trained=True, **seed)[0],
}
DIGITAL: dict[str, Callable[[], Any]] = {}  # what draws from torch's generator the weights that those draw
for kind, sizes in SIZES.items():
    for options in ({}, {"replicas": (2,)}, *[{"groups": 5}] * ("Conv" in kind.__name__)):
        name = " ".join([kind.__name__, *options])
        WAYS[name] = lambda kind=kind, sizes=sizes, options=options, **seed: LAYERS[kind](
            *sizes, device=DEVICE, **options, **seed
        )
        own = {k: v for k, v in options.items() if k == "groups"}
        DIGITAL[name] = lambda kind=kind, sizes=sizes, own=own, n=math.prod(options.get("replicas", ())): [
            kind(*sizes, **own) for _ in range(n)
        ]


def bars(model: nn.Module) -> list[Crossbar]:
    """All crossbars, members of cells included."""
    return [m for m in model.modules() if isinstance(m, Crossbar)]


def spreads(model: nn.Module) -> Tensor:
    """The spread of the step of every device."""
    return torch.cat([bar.params["dw_up"].flatten() for bar in bars(model)])


def digital(name: str) -> None:
    DIGITAL.get(name, lambda: None)()


def test_every_layer_is_here():
    assert SIZES.keys() == LAYERS.keys()


@pytest.mark.parametrize("name", WAYS)
def test_two_that_are_made_without_a_seed_are_made_of_other_devices(name):
    """n >= 1,200 devices see a correlation of 0.15; with one seed for both it is 1."""
    assert_correlation(spreads(WAYS[name]()), spreads(WAYS[name]()))


@pytest.mark.parametrize("name", WAYS)
def test_torch_manual_seed_repeats_it(name):
    torch.manual_seed(3)
    first, second = WAYS[name](), WAYS[name]()
    torch.manual_seed(3)
    for one in (first, second):
        assert_same(one, WAYS[name]())


def assert_same(a: nn.Module, b: nn.Module) -> None:
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys() and any("device_" in key for key in a)
    for key in a:
        assert_bits(a[key], b[key])


@pytest.mark.parametrize("name", WAYS)
def test_a_default_seed_is_one_number_of_torch_and_an_explicit_one_is_none(name):
    """Of the layer as a whole, however many tiles and replicas it has: they derive theirs from it."""
    torch.manual_seed(4)
    digital(name)
    untouched = torch.get_rng_state()
    seed = random.fresh_seed()
    after_one = torch.get_rng_state()

    torch.manual_seed(4)
    default = WAYS[name]()
    assert torch.equal(torch.get_rng_state(), after_one)
    torch.manual_seed(4)
    explicit = WAYS[name](seed=seed)
    assert torch.equal(torch.get_rng_state(), untouched)
    assert_same(default, explicit)


def test_noise_of_two_layers_is_uncorrelated():
    """n = 1,500 outputs see a correlation of 0.13; with one seed for both it is 0.999."""
    io = Periphery(forward=IO(out_noise=0.1, inp_res=0.0, out_res=0.0))
    layers = {
        "AnalogLinear": lambda: LAYERS[nn.Linear](40, 30, bias=False, device=Ideal(), periphery=io),
        "convert": lambda: convert(nn.Linear(40, 30, bias=False), device=Ideal(), periphery=io),
    }

    @torch.no_grad()
    def noise(layer: Any) -> Tensor:
        x = torch.ones(50, 40)
        return layer(x) - x @ layer.weight.mT

    for make in layers.values():
        assert_correlation(noise(make()), noise(make()))


@pytest.mark.parametrize("name", ["Crossbar", "Crossbar, replicas", "VectorCells", "OneSidedCells"])
def test_pulses_of_two_crossbars_are_uncorrelated(name):
    """Cycle-to-cycle noise and pulse trains, n >= 1,200: a correlation of 0.15 is seen."""
    moved = []
    for _ in "ab":
        bar: Any = WAYS[name](update=PulsedUpdate())
        bar.pulse(*(torch.full((*bar.replicas, 1, n), 0.5) for n in (40, 30)), lr=0.1)
        moved.append(bar.weight - bar.weight.mean())
    assert_correlation(*moved)


def test_random_signs_of_zero_shifting_differ_from_call_to_call_and_repeat():
    def shifted(**seed: int) -> Tensor:
        bar = Crossbar((30, 40), device=SoftBounds(dw_min=0.1), seed=0)
        return zero_shift(bar, 20, order="random", **seed)

    torch.manual_seed(2)
    first, second = shifted(), shifted()
    # Signs are products of a row's and a column's: 1,200 pairs of them see a correlation of 0.3 at least.
    assert not torch.equal(first, second)
    torch.manual_seed(2)
    assert_bits(shifted(), first)
    before = torch.get_rng_state()
    assert_bits(shifted(seed=5), shifted(seed=5))
    zero_shift(Crossbar((2, 2), device=DEVICE, seed=0), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fresh_seed_leaves_room_for_replicas_and_comes_from_the_cpu():
    torch.manual_seed(0)
    seeds = random.seed_tensor(None, (2, 3))
    torch.manual_seed(0)
    with torch.device("meta"):
        first = random.fresh_seed()
    assert seeds.flatten().tolist() == list(range(first, first + 6))
    many = [random.fresh_seed() for _ in range(1000)]
    assert len(set(many)) == 1000 and max(many) < 2**62 and max(many) > 2**61


def derived(seed: int | Tensor, *numbers: int) -> Tensor:
    seed = torch.as_tensor(seed)
    for number in numbers:
        seed = random.derive(seed, number)
    return seed


def test_explicit_seeds_of_crossbars_are_what_they_were():
    bar = Crossbar((3, 4), device=DEVICE, seed=7, replicas=(2,))
    assert bar.seed.tolist() == [7, 8]
    for k, value in draw(DEVICE, torch.tensor([7, 8]), (3, 4), torch.float32).items():
        if isinstance(value, Tensor):
            assert_bits(bar.params[k], value)
    assert Crossbar((3, 4), device=DEVICE, seed=[5, 1], replicas=(2,)).seed.tolist() == [5, 1]
    cells = make_crossbar((3, 4), device=VectorCell(devices=(DEVICE, DEVICE)), seed=7)
    assert [bar.seed for bar in bars(cells)] == [derived(7, 0), derived(7, 1)]


def test_explicit_seeds_of_tiles_and_layers_are_what_they_were():
    tile = Tile(WEIGHT, **TILE, seed=7)
    assert [bar.seed for bar in tile.crossbars] == [derived(7, 0), derived(7, 1)]
    grid = place(WEIGHT, **TILE, mapping=Mapping(max_output_size=15), seed=7)
    assert isinstance(grid, Grid)
    assert [bar.seed for bar in grid.crossbars] == [derived(7, t, k) for t in range(2) for k in range(2)]
    net = convert(MLP, device=DEVICE, seed=7)
    assert [bar.seed for bar in bars(net)] == [derived(7, 0, 0), derived(7, 1, 0)]
    attention = LAYERS[nn.MultiheadAttention](40, 2, device=DEVICE, seed=7)
    assert [bar.seed for bar in bars(attention)] == [derived(7, k, 0) for k in range(4)]
    grouped = LAYERS[nn.Conv1d](4, 6, 3, groups=2, replicas=(2,), device=DEVICE, seed=7)
    (bar,) = bars(grouped)
    assert bar.seed.tolist() == [[derived(7 + r, g, 0) for g in range(2)] for r in range(2)]


SEEDED = {
    "convert",
    "Crossbar",
    "make_crossbar",
    "VectorCells",
    "OneSidedCells",
    "Tile",
    *(c.__name__ for c in LAYERS.values()),
}
ROOT = Path(__file__).parents[2]
PUBLISHED = [
    ROOT / "benchmarks",
    *(ROOT / "src/ohmgrad" / floor for floor in ("cli", "experiments", "report", "theory")),
]


def test_commands_and_experiments_name_their_seeds():
    """So that no figure of theirs depends on torch's generator."""
    n, without = 0, []
    for file in (file for folder in PUBLISHED for file in folder.rglob("*.py") if "peer" not in file.name):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in SEEDED:
                n += 1
                if "seed" not in {keyword.arg for keyword in node.keywords}:
                    without.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert n > 30 and not without
