"""Configuration files: what they say is what is built, and every mistake is one line that names section.key."""

import copy
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ohmgrad import IO, AnalogSGD, ExpectedUpdate, InputRange, Mapping, PulsedUpdate, TikiTaka
from ohmgrad.devices import DEVICES, SoftBounds, catalog
from ohmgrad.devices.presets import aihwkit_soft_bounds
from ohmgrad.experiments import train_settings as settings
from ohmgrad.experiments.networks import MLP, LeNet5
from ohmgrad.experiments.tables import build
from ohmgrad.experiments.train_settings import from_tables, read

MINIMAL = """
[data]
name = "digits"
[model]
kind = "mlp"
[device]
name = "ideal"
[algorithm]
name = "analog-sgd"
[optimizer]
lr = 0.1
[train]
epochs = 2
batch_size = 10
"""
FULL = """
[data]
name = "mnist"
dir = "somewhere"

[model]
kind = "mlp"
hidden = [16, 8]
activation = "relu"
dropout = 0.5

[device]
name = "aihwkit-soft-bounds"
w_max = 1                       # a whole number will do
write_noise = 0.5
ctoc = "additive"
dw_min_log_normal = true

[algorithm]
name = "tiki-taka"
transfer_every = 2
n_reads = "none"

[update]
kind = "pulsed"
bit_length = 7
train = "mean-count"

[optimizer]
lr = 0.05
digital = "adamw"
betas = [0.8, 0.9]

[schedule]
kind = "multi-step"
milestones = [3, 5]

[train]
epochs = 6
batch_size = 10
seed = 7
checkpoint_every_minutes = inf
checkpoint_every_epochs = "none"
threads = 2
"""


def tables(text: str = FULL) -> dict[str, Any]:
    return settings.tomllib.loads(text)


def test_a_minimal_file():
    ours = from_tables(tables(MINIMAL))
    assert (ours.data.name, ours.model, ours.algorithm, ours.update) == ("digits", MLP(), AnalogSGD(), ExpectedUpdate())
    assert (ours.optimizer, ours.schedule) == (settings.SGD(lr=0.1), settings.Constant())
    assert ours.train == settings.LoopSettings(epochs=2, batch_size=10)


def test_a_full_file(tmp_path):
    (tmp_path / "run.toml").write_text(FULL)
    ours = read(tmp_path / "run.toml")
    assert ours.data == settings.DataSettings(name="mnist", dir="somewhere")
    assert ours.model == MLP(hidden=(16, 8), activation="relu", dropout=0.5)
    device = catalog.find("aihwkit-soft-bounds", w_max=1.0, write_noise=0.5, ctoc="additive", dw_min_log_normal=True)
    assert (
        ours.device == device
        and isinstance(device, SoftBounds)
        and device.w_max_dtod == aihwkit_soft_bounds().w_max_dtod
    )
    assert ours.algorithm == TikiTaka(transfer_every=2, n_reads=None)
    assert ours.update == PulsedUpdate(bit_length=7, train="mean-count")
    assert ours.optimizer == settings.AdamW(lr=0.05, betas=(0.8, 0.9))
    assert ours.schedule == settings.MultiStep(milestones=(3, 5))
    assert ours.train == settings.LoopSettings(
        epochs=6,
        batch_size=10,
        seed=7,
        checkpoint_every_minutes=math.inf,
        checkpoint_every_epochs=None,
        threads=2,
    )


def test_a_file_with_a_byte_order_mark(tmp_path):
    (tmp_path / "run.toml").write_text(MINIMAL, encoding="utf-8-sig")
    assert read(tmp_path / "run.toml") == from_tables(tables(MINIMAL))


def test_converters_that_would_do_nothing_are_told():
    with pytest.raises(ValueError, match=r"periphery\.out_noise does nothing where reads are ideal"):
        from_tables(tables(MINIMAL) | {"periphery": {"out_noise": 0.1}})
    assert from_tables(tables(MINIMAL) | {"periphery": {"is_perfect": False}}).periphery == IO()


def test_a_section_in_a_section():
    content = tables(FULL) | {"mapping": {"digital_bias": False, "input_range": {"decay": 0, "learn": False}}}
    assert from_tables(content).mapping == Mapping(digital_bias=False, input_range=InputRange(decay=0.0, learn=False))
    for value, message in (
        ({"decay": -1}, "mapping.input_range.decay: InputRange needs a finite decay >= 0, got -1"),
        ({"width": 1}, "mapping.input_range.width is unknown"),
        (3, r"mapping.input_range needs a section, \[mapping.input_range\] with keys below, got 3"),
    ):
        content["mapping"]["input_range"] = value
        with pytest.raises(ValueError, match=message):
            from_tables(content)
    content["mapping"]["input_range"] = "none"
    assert from_tables(content).mapping.input_range is None


def test_devices_of_a_fast_crossbar():
    inner = {"name": "aihwkit-soft-bounds", "dw_min": 0.01}
    content = tables() | {"algorithm": {"name": "tiki-taka", "fast_device": inner}}
    assert from_tables(content).algorithm == TikiTaka(fast_device=catalog.find("aihwkit-soft-bounds", dw_min=0.01))
    for wrong, says in (
        ({"name": "tiki-taka", "fast_device": {"name": "foo"}}, "fast_device.name needs one of"),
        ({"name": "tiki-taka", "fast_device": {**inner, "x": 1}}, "fast_device.x is unknown"),
        ({"name": "analog-sgd", "fast_device": inner}, "fast_device is unknown"),
    ):
        with pytest.raises(ValueError, match=rf"^algorithm\.{says}"):
            from_tables(content | {"algorithm": wrong})


def test_every_device_is_there_with_every_field():
    for name in catalog.names():
        device = catalog.find(name)
        given = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(device).items()}
        assert build(device, given, "device") == device
    assert len(settings.PICKS["device"][1]) >= len(DEVICES)


def course(text: str, epochs: int = 8) -> list[float]:
    ours = from_tables(tables(MINIMAL + text))
    optimizer = settings.optimizer_of(torch.nn.Linear(2, 2), ours.optimizer)
    scheduler, lrs = ours.schedule.make(optimizer, epochs), []
    for _ in range(epochs):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if scheduler:
            scheduler.step()
    return lrs


def test_schedules():
    assert course("") == [0.1] * 8
    assert course('[schedule]\nkind = "none"') == [0.1] * 8
    assert course('[schedule]\nkind = "step"\nevery = 3') == pytest.approx([0.1] * 3 + [0.01] * 3 + [0.001] * 2)
    assert course('[schedule]\nkind = "multi-step"\nmilestones = [1, 4]\ngamma = 0.5') == pytest.approx(
        [0.1] + [0.05] * 3 + [0.025] * 4
    )
    cosine = [0.02 + 0.04 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert course('[schedule]\nkind = "cosine"\nlr_min = 0.02') == pytest.approx(cosine)


@pytest.mark.parametrize("name", settings.OPTIMIZERS)
def test_optimizers(name):
    ours = from_tables(tables(MINIMAL.replace("lr = 0.1", f'lr = 0.1\ndigital = "{name}"\nweight_decay = 0.5')))
    digital = settings.optimizer_of(torch.nn.Linear(2, 2), ours.optimizer).digital
    assert type(digital).__name__.lower() == name
    assert (digital.param_groups[0]["lr"], digital.param_groups[0]["weight_decay"]) == (0.1, 0.5)


def test_networks():
    assert MLP(hidden=()).build(64, 10)(torch.zeros(2, 64)).shape == (2, 10)
    network = MLP(hidden=(4, 5), dropout=0.1).build(64, 10)
    assert [type(m).__name__ for m in network] == ["Linear", "Tanh", "Dropout"] * 2 + ["Linear"]
    assert LeNet5().build(784, 10)(torch.zeros(2, 784)).shape == (2, 10)
    with pytest.raises(ValueError, match=r"model\.kind lenet5 needs images of 28 x 28 pixels, got 8 squared"):
        LeNet5().build(64, 10)


EDITS: dict[str, tuple[str, Any, str]] = {
    "unknown section": ("foo", {}, r"section \[foo\] is unknown; there are data, model"),
    "key outside sections": ("lr", 0.1, r"section \[lr\] is unknown"),
    "no section": ("data", None, r"section \[data\] is missing"),
    "a key for a section": ("data", 3, r"data needs to be a section"),
    "unknown data": ("data.name", "foo", r"data\.name needs one of digits, mnist, fashion-mnist, got 'foo'"),
    "no name of data": ("data.name", None, r"data\.name is missing"),
    "data of another type": ("data.name", 3, r"data\.name needs a string, got 3"),
    "unknown key": ("data.foo", 3, r"data\.foo is unknown; data has name, dir"),
    "unknown network": ("model.kind", "foo", r"model\.kind needs one of mlp, lenet5, got 'foo'"),
    "no network": ("model.kind", None, r"model\.kind is missing; it needs one of mlp, lenet5"),
    "network of another type": ("model.kind", [1], r"model\.kind needs one of mlp, lenet5, got \[1\]"),
    "hidden no list": ("model.hidden", 16, r"model\.hidden needs a list, got 16"),
    "hidden no number": ("model.hidden", [16, "x"], r"model\.hidden needs a whole number, got 'x'"),
    "hidden true": ("model.hidden", [True], r"model\.hidden needs a whole number, got True"),
    "hidden empty layer": ("model.hidden", [0], r"model\.hidden needs sizes in 1 ... 1000000, got \(0,\)"),
    "unknown activation": ("model.activation", "foo", r"model\.activation needs one of tanh, sigmoid, relu, got 'foo'"),
    "dropout": ("model.dropout", 1.0, r"model\.dropout needs a share in \[0, 1\), got 1"),
    "dropout NaN": ("model.dropout", math.nan, r"model\.dropout needs a share in \[0, 1\), got nan"),
    "key of another network": ("model.depth", 3, r"model\.depth is unknown; model has hidden, activation, dropout"),
    "unknown device": ("device.name", "foo", r"device\.name needs one of ideal, .*, got 'foo'"),
    "unknown field of a device": ("device.gamma_up", 1.0, r"device\.gamma_up is unknown; device has w_min, "),
    "field of another type": ("device.w_max", "1", r"device\.w_max needs a number, got '1'"),
    "flag of another type": ("device.dw_min_log_normal", 1, r"device\.dw_min_log_normal needs true or false, got 1"),
    "no such noise": ("device.ctoc", "foo", r"device\.ctoc needs one of multiplicative, additive, own, got 'foo'"),
    "rule of a device": ("device.w_max", -1.0, r"device\.w_max: SoftBounds needs w_min <= 0 <= w_max"),
    "unknown algorithm": ("algorithm.name", "foo", r"algorithm\.name needs one of analog-sgd, tiki-taka.*, got 'foo'"),
    "rule of an algorithm": ("algorithm.gamma", -1.0, r"algorithm\.gamma: TikiTaka needs gamma >= 0, got -1"),
    "devices of an algorithm": (
        "algorithm.fast_device",
        "ideal",
        r"algorithm\.fast_device needs a section, \[algorithm\.fast_device\] with keys below, got 'ideal'",
    ),
    "unknown update": ("update.kind", "foo", r"update\.kind needs one of expected, pulsed, got 'foo'"),
    "rule of an update": ("update.bit_length", -1, r"update\.bit_length: PulsedUpdate needs bit_length in 0 "),
    "train of pulses": ("update.train", "foo", r"update\.train needs one of stochastic, mean-count, deterministic"),
    "a number too long": ("update.bit_length", 2**64, r"update\.bit_length needs a number of at most 63 bits"),
    "beyond float32": ("optimizer.lr", 1e39, r"optimizer\.lr needs a number of at most 3\.4e\+38 in size"),
    "no learning rate": ("optimizer.lr", None, r"optimizer\.lr is missing"),
    "learning rate 0": ("optimizer.lr", 0, r"optimizer\.lr needs a finite number > 0, got 0"),
    "learning rate NaN": ("optimizer.lr", math.nan, r"optimizer\.lr needs a finite number > 0, got nan"),
    "learning rate infinite": ("optimizer.lr", math.inf, r"optimizer\.lr needs a finite number > 0, got inf"),
    "unknown optimizer": ("optimizer.digital", "foo", r"optimizer\.digital needs one of sgd, adam, adamw, got 'foo'"),
    "key of another optimizer": ("optimizer.momentum", 0.9, r"optimizer\.momentum is unknown; optimizer has lr, betas"),
    "betas": ("optimizer.betas", [0.9, 1.0], r"optimizer\.betas needs two numbers in \[0, 1\), got \(0\.9, 1\.0\)"),
    "one beta": ("optimizer.betas", [0.9], r"optimizer\.betas needs a list of 2, got \[0\.9\]"),
    "weight decay": ("optimizer.weight_decay", -1.0, r"optimizer\.weight_decay needs a finite number >= 0, got -1"),
    "unknown schedule": ("schedule.kind", "foo", r"schedule\.kind needs one of none, step, multi-step, cosine"),
    "no milestones": ("schedule.milestones", [], r"schedule\.milestones needs at least one epoch, each >= 1"),
    "gamma": ("schedule.gamma", 0.0, r"schedule\.gamma needs a finite number > 0, got 0"),
    "no epochs": ("train.epochs", 0, r"train\.epochs needs a whole number >= 1, got 0"),
    "half an epoch": ("train.epochs", 0.5, r"train\.epochs needs a whole number, got 0\.5"),
    "batch": ("train.batch_size", 0, r"train\.batch_size needs a whole number >= 1, got 0"),
    "seed": ("train.seed", -1, r"train\.seed needs a whole number in 0 ... 2\*\*63 - 1, got -1"),
    "minutes": ("train.checkpoint_every_minutes", 0, r"train\.checkpoint_every_minutes needs a number > 0, got 0"),
    "minutes NaN": (
        "train.checkpoint_every_minutes",
        math.nan,
        r"checkpoint_every_minutes needs a number > 0, got nan",
    ),
    "checkpoints": (
        "train.checkpoint_every_epochs",
        0,
        r"train\.checkpoint_every_epochs needs a whole number >= 1, or",
    ),
    "threads": ("train.threads", 0, r"train\.threads needs 1 ... 1024, got 0"),
}


@pytest.mark.parametrize("case", EDITS)
def test_every_mistake_is_told_by_section_and_key(case):
    place, value, says = EDITS[case]
    edited = tables()
    section, _, key = place.partition(".")
    table = edited[section] if key else edited
    table[key or section] = value
    if value is None:
        del table[key or section]
    with pytest.raises(ValueError, match=says) as error:
        from_tables(edited)
    assert "\n" not in str(error.value)


def test_nesterov():
    text = MINIMAL.replace("lr = 0.1", "lr = 0.1\nnesterov = true")
    with pytest.raises(ValueError, match=r"optimizer\.nesterov needs a momentum > 0 and no dampening"):
        from_tables(tables(text))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[data", r"run\.toml: "),
        (b"\xff", r"run\.toml: 'utf-8' codec"),
        (b"a = " + b"[" * 100_000, r"run\.toml: lists or tables lie too deep"),
        (b"[data]\nname = 1\nname = 2", r"run\.toml: "),
        (b"", r"run\.toml: section \[data\] is missing"),
        (b"a = " + b"1" * 10_000, r"run\.toml: "),
    ],
)
def test_a_file_that_is_no_toml_is_refused_by_name(content, says, tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere")


STRANGE: list[Any] = [
    *(0, -1, 1, 2**63, -(2**80), 0.5, -0.5, math.nan, math.inf, -math.inf, 1e308, True, False),
    *("", "none", "foo", "ideal", "a\nb", "\x00", [], [1], [[1]], [0.5, "x"], {}, {"a": 1}, {"name": "ideal"}),
    settings.tomllib.loads("a = 1979-05-27T07:32:00Z")["a"],
]
KEYS = ["name", "kind", "lr", "epochs", "gamma", "w_max", "dir", "self", "__init__", "response", "", "a b", "ä"]


def mutate_tables(edited: dict[str, Any], rng: np.random.Generator) -> None:
    """One section, key or value changed."""
    section = list(edited)[rng.integers(len(edited))]
    table, kind = edited[section], rng.integers(7)
    if kind == 0 or not isinstance(table, dict) or not table:
        edited[section] = STRANGE[rng.integers(len(STRANGE))]
        return
    key = list(table)[rng.integers(len(table))]
    if kind == 1:
        del table[key]
    elif kind == 2:
        table[KEYS[rng.integers(len(KEYS))]] = table.pop(key)
    elif kind == 3:
        table[KEYS[rng.integers(len(KEYS))]] = STRANGE[rng.integers(len(STRANGE))]
    elif kind == 4:
        edited[KEYS[rng.integers(len(KEYS))]] = edited.pop(section)
    else:
        table[key] = STRANGE[rng.integers(len(STRANGE))]


def mutate_bytes(raw: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped, taken out, repeated or put in."""
    out = bytearray(raw)
    for _ in range(rng.integers(1, 4)):
        at, n = int(rng.integers(len(out))), int(rng.integers(1, 12))
        kind = rng.integers(5)
        if kind == 4:  # another number
            digits = [i for i, byte in enumerate(out) if chr(byte) in "0123456789"]
            out[digits[rng.integers(len(digits))]] = ord("0") + int(rng.integers(10))
        elif kind == 0:
            out[at] = int(rng.integers(256))
        elif kind == 1:
            del out[at : at + n]
        elif kind == 2:
            out[at:at] = out[at : at + n]
        else:
            out[at:at] = bytes(rng.choice(list(b"[]{}\"'=.,#\n0123456789eE+-_x"), size=n).astype(np.uint8))
    return bytes(out)


def ends(path_or_tables: Any) -> str:
    """How the check ends; one line or none, and nothing but ValueError."""
    try:
        read(path_or_tables) if isinstance(path_or_tables, Path) else from_tables(path_or_tables)
    except ValueError as error:
        assert str(error)
        return "refused"
    return "taken"


def test_2000_mutated_files_are_taken_or_refused_in_one_line(rng, tmp_path):
    path, count = tmp_path / "run.toml", Counter[str]()
    for i in range(2000):
        text = (MINIMAL, FULL)[i // 2 % 2]
        if i % 2:
            path.write_bytes(mutate_bytes(text.encode(), rng))
            count[ends(path)] += 1
        else:
            edited = copy.deepcopy(tables(text))
            for _ in range(rng.integers(1, 3)):
                mutate_tables(edited, rng)
            count[ends(edited)] += 1
    assert min(count["taken"], count["refused"]) > 100  # both ways are tried
