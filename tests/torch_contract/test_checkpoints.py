"""Checkpoints of other hardware are refused, naming the first field that differs; or the states are taken alone."""

import copy
import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ohmgrad
from exact import assert_bits
from ohmgrad import IO, AnalogSGD, ExpectedUpdate, InputRange, Mapping, Periphery, PulsedUpdate, TikiTaka, convert
from ohmgrad.algorithms import ALGORITHMS, MultiTile, Stale
from ohmgrad.crossbar import Crossbar, Tile
from ohmgrad.crossbar.described import differences, hardware
from ohmgrad.devices import ConstantStep, Device, LinearStep, LookUpTable, OneSidedCell, SoftBounds, VectorCell
from ohmgrad.nn.convert import LAYERS
from ohmgrad.periphery import DEFAULT

DEVICE = SoftBounds(dw_min=0.001, write_noise=0.5, dw_min_ctoc=0.3)
TABLE = LookUpTable(step_up=(2.0, 1.5, 0.5), step_down=(1.0,) * 3, noise_up=(1.0,) * 3, noise_down=(1.0,) * 3)
CELL = VectorCell(devices=(DEVICE, DEVICE))
RANGE = InputRange(init_from_data=0)


def model(seed: int = 0, replicas: int = 1, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    nets = [nn.Sequential(nn.Linear(6, 4), nn.Tanh()) for _ in range(replicas)]
    return convert(nets, **{"device": DEVICE, "seed": seed, **options})


def steps(*values: float) -> Tensor:
    return torch.tensor(values).reshape(-1, 1, 1)


# Of each: the options of the model that was saved, what the other model has in their place, and what is said.
BAR = r"of 0\.tile\.state\.bar is"
OTHERS: dict[str, tuple[dict, dict, str]] = {
    "dw_min": ({}, {"device": replace(DEVICE, dw_min=0.01)}, rf"device\.dw_min {BAR} 0\.001 in the file and 0\.01 in"),
    "write noise": (
        {},
        {"device": replace(DEVICE, write_noise=0.6)},
        rf"device\.write_noise {BAR} 0\.5 in .* and 0\.6",
    ),
    "kind of noise": ({}, {"device": replace(DEVICE, ctoc="additive")}, rf"device\.ctoc {BAR} 'multiplicative' in"),
    "bounds": ({}, {"device": replace(DEVICE, w_max=2.0)}, rf"device\.w_max {BAR} 1\.0 in the file and 2\.0"),
    "family": ({}, {"device": LinearStep()}, rf"device {BAR} SoftBounds in the file and LinearStep in the model"),
    "table": (
        {"device": TABLE},
        {"device": replace(TABLE, step_up=(2.0, 1.4, 0.5))},
        rf"device\.step_up\.1 {BAR} 1\.5 in the file and 1\.4",
    ),
    "longer table": (
        {"device": LookUpTable(step_up=(1.0,) * 2)},
        {"device": TABLE},
        rf"device\.step_up {BAR} \(1\.0, 1\.0\) in the file and \(2\.0, 1\.5, 0\.5\)",
    ),
    "a device of a cell": (
        {"device": CELL},
        {"device": replace(CELL, devices=(DEVICE, replace(DEVICE, reset=0.5)))},
        rf"device\.devices\.1\.reset {BAR} 0\.0 in the file and 0\.5",
    ),
    "gains of a cell": (
        {"device": CELL},
        {"device": replace(CELL, gains=(1.0, -1.0))},
        rf"device\.gains\.0 {BAR} 0\.5 in the file and 1\.0",
    ),
    "policy of a cell": (
        {"device": CELL},
        {"device": replace(CELL, policy="random")},
        rf"device\.policy {BAR} 'all' in",
    ),
    "refresh of a cell": (
        {"device": OneSidedCell(device=DEVICE, refresh_every=3)},
        {"device": OneSidedCell(device=DEVICE, refresh_every=4)},
        rf"device\.refresh_every {BAR} 3 in the file and 4",
    ),
    "devices of replicas": (
        {"replicas": 2, "device": [DEVICE, DEVICE]},
        {"replicas": 2, "device": [DEVICE, replace(DEVICE, up_down=0.1)]},
        rf"device\.1\.up_down {BAR} 0\.0 in the file and 0\.1",
    ),
    "kind of update": ({}, {"update": PulsedUpdate()}, rf"update {BAR} ExpectedUpdate in the file and PulsedUpdate"),
    "noise of updates": (
        {},
        {"update": ExpectedUpdate(noise=True)},
        rf"update\.noise {BAR} False in the file and True",
    ),
    "bit length": (
        {"update": PulsedUpdate()},
        {"update": PulsedUpdate(bit_length=5)},
        rf"update\.bit_length {BAR} 31 in the file and 5",
    ),
    "no update of samples": ({}, {"update": ExpectedUpdate(per_sample=True)}, rf"update\.per_sample {BAR} False in"),
    "converters": (
        {"periphery": Periphery()},
        {"periphery": Periphery(forward=replace(DEFAULT, out_noise=0.5))},
        rf"periphery\.forward\.out_noise {BAR} 0\.06 in the file and 0\.5",
    ),
    "converters of backward passes": (
        {"periphery": Periphery()},
        {"periphery": Periphery(backward=replace(DEFAULT, inp_bound=1.0, w_noise=0.1))},
        rf"periphery\.backward\.w_noise {BAR} 0\.0 in the file and 0\.1",
    ),
    "converters of transfers": (
        {"periphery": Periphery()},
        {"periphery": Periphery(transfer=IO(out_res=0.0))},
        rf"periphery\.transfer\.out_res {BAR} 0\.00\d+ in the file and 0\.0",
    ),
    "ideal reads": (
        {"periphery": Periphery()},
        {"periphery": None},
        rf"periphery {BAR} Periphery in the file and None",
    ),
    "scale": (
        {"mapping": Mapping(weight_scaling_omega=0.4)},
        {"mapping": Mapping(weight_scaling_omega=0.5)},
        r"mapping\.weight_scaling_omega of 0\.tile is 0\.4 in the file and 0\.5",
    ),
    "a grid": (
        {},
        {"mapping": Mapping(max_input_size=3)},
        r"0\.tile is Tile in the file and Grid in the model",
    ),
    "another grid": (
        {"mapping": Mapping(max_input_size=3)},
        {"mapping": Mapping(max_input_size=2)},
        r"columns of 0\.tile is 2 in the file and 3",
    ),
    "input range": (
        {"mapping": Mapping(input_range=RANGE)},
        {"mapping": Mapping(input_range=replace(RANGE, decay=0.1))},
        r"mapping\.input_range\.decay of 0\.tile is 0\.001 in the file and 0\.1",
    ),
    "input range of a grid": (
        {"mapping": Mapping(input_range=RANGE, max_input_size=3)},
        {"mapping": Mapping(input_range=replace(RANGE, decay=0.1), max_input_size=3)},
        r"settings\.decay of 0\.tile\.in_range is 0\.001 in the file and 0\.1",
    ),
    "algorithm": (
        {"algorithm": TikiTaka()},
        {"algorithm": AnalogSGD()},
        r"algorithm of 0\.tile is TikiTaka in the file and AnalogSGD in the model",
    ),
    "algorithm's number": (
        {"algorithm": TikiTaka()},
        {"algorithm": TikiTaka(gamma=0.1)},
        r"algorithm\.gamma of 0\.tile is 0\.0 in the file and 0\.1",
    ),
    "algorithm's None": (
        {"algorithm": TikiTaka(n_reads=None)},
        {"algorithm": TikiTaka(n_reads=2)},
        r"algorithm\.n_reads of 0\.tile is None in the file and 2",
    ),
    "algorithm's steps of replicas": (
        {"replicas": 2, "algorithm": TikiTaka(fast_lr=steps(1.0, 2.0))},
        {"replicas": 2, "algorithm": TikiTaka(fast_lr=steps(1.0, 3.0))},
        r"algorithm\.fast_lr\[1, 0, 0\] of 0\.tile is 2\.0 in the file and 3\.0",
    ),
    "one step and one for each replica": (
        {"replicas": 2, "algorithm": TikiTaka(fast_lr=steps(1.0, 2.0))},
        {"replicas": 2, "algorithm": TikiTaka(fast_lr=1.0)},
        r"algorithm\.fast_lr of 0\.tile is a tensor of shape \(2, 1, 1\) in the file and 1\.0",
    ),
    "algorithm inside an algorithm": (
        {"algorithm": Stale(algorithm=TikiTaka(), delay=2)},
        {"algorithm": Stale(algorithm=TikiTaka(transfer_lr=0.5), delay=2)},
        r"algorithm\.algorithm\.transfer_lr of 0\.tile is 1\.0 in the file and 0\.5",
    ),
    "algorithm's device": (
        {"algorithm": TikiTaka(fast_device=ConstantStep())},
        {"algorithm": TikiTaka(fast_device=ConstantStep(dw_min=0.1))},
        r"algorithm\.fast_device\.dw_min of 0\.tile is 0\.001 in the file and 0\.1",
    ),
}


def states(a: nn.Module) -> dict[str, Any]:
    return copy.deepcopy(dict(a.state_dict()))


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, Tensor):
            assert_bits(value, b[key])


@pytest.mark.parametrize("case", OTHERS)
def test_other_hardware_is_refused_by_the_first_field_that_differs(case, tmp_path):
    own, other, says = OTHERS[case]
    path, fresh = tmp_path / "run.safetensors", model(2, **{**own, **other})
    saved = model(1, **own)
    ohmgrad.save(path, saved)
    before = states(fresh)
    with pytest.raises(ValueError, match=rf"run\.safetensors is of another model: .*{says}.*other_hardware=True"):
        ohmgrad.load(path, fresh)
    assert_same(states(fresh), before)
    ohmgrad.load(path, again := model(2, **own))
    assert_same(states(again), states(saved))


@pytest.mark.parametrize("case", ["dw_min", "noise of updates", "algorithm's number", "scale", "input range"])
def test_states_alone_are_taken_where_the_caller_says_so(case, tmp_path):
    own, other, _ = OTHERS[case]
    saved, fresh = model(1, **own), model(2, **{**own, **other})
    ohmgrad.save(tmp_path / "run", saved, epoch=3)
    assert ohmgrad.load(tmp_path / "run", fresh, other_hardware=True) == {"epoch": 3}
    assert_same(states(fresh), states(saved))
    assert next(differences(hardware(saved), hardware(fresh)))  # the settings stay the model's own


def test_states_of_another_form_are_refused_all_the_same(tmp_path):
    ohmgrad.save(tmp_path / "run", model())
    with pytest.raises(ValueError, match=r"run is of another model: it lacks 0\.tile\.state\.fast"):
        ohmgrad.load(tmp_path / "run", model(algorithm=TikiTaka()), other_hardware=True)


def other_values(settings: Any) -> dict[str, Any]:
    """Each setting changed alone, by field; without those that allow none of some values."""
    changed = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        options = (
            [not value] if isinstance(value, bool) else [0.25, 0.5, 2, 3] if isinstance(value, int | float) else []
        )
        for option in [o for o in options if o != value]:
            try:
                changed[field.name] = replace(settings, **{field.name: option})
            except (ValueError, TypeError):
                continue
            break
    return changed


CHANGED = [
    pytest.param(option, settings, name, other, id=f"{type(settings).__name__}.{name}")
    for option, all_settings in (
        ("device", [SoftBounds()]),
        ("algorithm", [kind() for kind in ALGORITHMS]),
        ("update", [ExpectedUpdate(), PulsedUpdate()]),
        ("mapping", [Mapping()]),
    )
    for settings in all_settings
    for name, other in other_values(settings).items()
]


@pytest.mark.parametrize(("option", "settings", "name", "other"), CHANGED)
def test_every_setting_counts(option, settings, name, other):
    def described(value: Any) -> dict[str, Any]:
        crossbar = {"device": DEVICE} | ({option: value} if option in ("device", "update") else {})
        own = {"algorithm": AnalogSGD()} | ({option: value} if option in ("algorithm", "mapping") else {})
        return hardware(nn.Sequential(Tile(torch.zeros(4, 4), crossbar=crossbar, seed=0, **own)))

    place, *_ = next(differences(described(settings), described(other)))
    assert place.endswith(f"{option}.{name}")
    assert not [*differences(described(settings), described(settings))]


def test_most_settings_are_among_them():
    assert len(CHANGED) > 100


LAYERS_MADE: dict[type[nn.Module], Callable[[], nn.Module]] = {
    nn.Linear: lambda: nn.Linear(3, 4),
    nn.Conv1d: lambda: nn.Conv1d(2, 4, 3, groups=2),
    nn.Conv2d: lambda: nn.Conv2d(2, 4, 3),
    nn.Conv3d: lambda: nn.Conv3d(2, 4, 2),
    nn.ConvTranspose1d: lambda: nn.ConvTranspose1d(2, 4, 3, groups=2),
    nn.ConvTranspose2d: lambda: nn.ConvTranspose2d(2, 4, 3),
    nn.ConvTranspose3d: lambda: nn.ConvTranspose3d(2, 4, 2),
    nn.Embedding: lambda: nn.Embedding(5, 3),
    nn.EmbeddingBag: lambda: nn.EmbeddingBag(5, 3),
    nn.RNN: lambda: nn.RNN(3, 4),
    nn.GRU: lambda: nn.GRU(3, 4, bidirectional=True),
    nn.LSTM: lambda: nn.LSTM(3, 4, proj_size=2),
    nn.RNNCell: lambda: nn.RNNCell(3, 4),
    nn.GRUCell: lambda: nn.GRUCell(3, 4),
    nn.LSTMCell: lambda: nn.LSTMCell(3, 4),
    nn.MultiheadAttention: lambda: nn.MultiheadAttention(4, 2),
}


@pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)
def test_in_every_layer(kind, tmp_path):
    def made(device: Device, seed: int) -> nn.Module:
        return convert(nn.Sequential(LAYERS_MADE[kind]()), device=device, algorithm=MultiTile(), seed=seed)

    saved = made(DEVICE, 1)
    ohmgrad.save(tmp_path / "run", saved)
    ohmgrad.load(tmp_path / "run", same := made(DEVICE, 2))
    assert_same(states(same), states(saved))
    with pytest.raises(ValueError, match=r"device\.lifetime of 0\.\S+ is 0\.0 in the file and 9\.0 in the model"):
        ohmgrad.load(tmp_path / "run", made(replace(DEVICE, lifetime=9.0), 2))


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def rule(x: float) -> float:
    return x


@dataclass(frozen=True, kw_only=True)
class Own(AnalogSGD):
    """A user's algorithm, with settings of all kinds."""

    table: Any = None
    colour: Colour = Colour.RED
    names: frozenset[str] = frozenset()
    rules: Any = ()
    bound: float = math.nan


class Attributed(AnalogSGD):
    """A user's algorithm that inherits a frozen dataclass's fields, and has an attribute that is none of them."""

    def __init__(self, rate: float) -> None:
        object.__setattr__(self, "rate", rate)


class Plain:
    """A user's algorithm that is no dataclass at all, and counts as it works."""

    def __init__(self, rate: float) -> None:
        self.rate, self.n = rate, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(AnalogSGD(), name)

    def init(self, new_crossbar: Any, weight: Tensor) -> Any:
        self.n += 1
        return AnalogSGD().init(new_crossbar, weight)


OWN: dict[str, tuple[Any, Any, str]] = {
    "an array": (Own(table=np.arange(3.0)), Own(table=np.array([0, 1, 3])), r"table\.2 of 0\.tile is 2\.0 in .* and 3"),
    "a number of NumPy's": (
        Own(table=np.float32(0.5)),
        Own(table=np.float32(0.25)),
        r"table of 0\.tile is 0\.5 in the file and 0\.25",
    ),
    "a tensor without dimensions": (
        Own(table=torch.tensor(0.5)),
        Own(table=0.25),
        r"table of 0\.tile is 0\.5 in the file and 0\.25",
    ),
    "a tensor": (Own(table=torch.ones(2, 2)), Own(table=torch.eye(2)), r"table\[0, 1\] of 0\.tile is 1\.0 .* and 0\.0"),
    "an enumeration": (Own(), Own(colour=Colour.BLUE), r"colour of 0\.tile is 'Colour\.RED' in .* 'Colour\.BLUE'"),
    "a set": (Own(names=frozenset("ab")), Own(names=frozenset("ac")), r"names\.1 of 0\.tile is \"'b'\" in the file"),
    "a dict": (Own(rules={"a": (1, 2)}), Own(rules={"a": (1, 3)}), r"rules\.a\.1 of 0\.tile is 2 in the file and 3"),
    "a key more": (Own(rules={}), Own(rules={"a": 1}), r"rules\.a of 0\.tile is absent in the file and 1"),
    "a function": (Own(rules=rule), Own(rules=len), r"rules of 0\.tile is rule in the file and len in the model"),
    "a class": (Own(rules=int), Own(rules=float), r"rules of 0\.tile is int in the file and float"),
    "a dtype": (Own(rules=torch.half), Own(rules=torch.int8), r"rules of 0\.tile is 'torch\.float16' in the file"),
}


@pytest.mark.parametrize("case", OWN)
def test_settings_of_a_users_own(case, tmp_path):
    first, second, says = OWN[case]
    ohmgrad.save(tmp_path / "run", model(1, algorithm=first))
    ohmgrad.load(tmp_path / "run", model(2, algorithm=copy.deepcopy(first)))
    with pytest.raises(ValueError, match=rf"run is of another model: algorithm\.{says}"):
        ohmgrad.load(tmp_path / "run", model(2, algorithm=second))


def test_of_what_is_no_frozen_dataclass_the_class_alone_is_compared(tmp_path):
    """Its attributes may change as it works."""
    ohmgrad.save(tmp_path / "run", model(1, algorithm=Plain(0.1)))
    ohmgrad.load(tmp_path / "run", model(2, algorithm=Plain(0.2)))
    with pytest.raises(ValueError, match=r"algorithm of 0\.tile is Plain in the file and AnalogSGD in the model"):
        ohmgrad.load(tmp_path / "run", model(2))
    with pytest.raises(ValueError, match=r"algorithm of 0\.tile is Plain in the file and Attributed in the model"):
        ohmgrad.load(tmp_path / "run", model(2, algorithm=Attributed(0.1)))


class Bare(nn.Module):
    """A user's module with a crossbar of its own."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.bar = Crossbar((2, 3), device=device)


def test_a_crossbar_without_a_tile(tmp_path):
    ohmgrad.save(tmp_path / "run", Bare(DEVICE))
    ohmgrad.load(tmp_path / "run", Bare(DEVICE))
    with pytest.raises(ValueError, match=r"device\.reset of bar is 0\.0 in the file and 0\.1 in the model"):
        ohmgrad.load(tmp_path / "run", Bare(replace(DEVICE, reset=0.1)))
    ohmgrad.save(tmp_path / "bar", Crossbar((2, 3), device=DEVICE))
    with pytest.raises(ValueError, match=r"another model: device\.reset is 0\.0 in the file and 0\.1 in the model"):
        ohmgrad.load(tmp_path / "bar", Crossbar((2, 3), device=replace(DEVICE, reset=0.1)))
