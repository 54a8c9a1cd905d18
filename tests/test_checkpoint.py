"""Checkpoints: a resumed run is the run that was not stopped, bit by bit, and nothing is ever half-loaded."""

import copy
import dataclasses
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers

import ohmgrad
from ohmgrad import (
    IO,
    AnalogOptimizer,
    AnalogSGD,
    ExpectedUpdate,
    InputRange,
    Mapping,
    Periphery,
    PulsedUpdate,
    TikiTaka,
    checkpoint,
    convert,
)
from ohmgrad.devices.presets import aihwkit_soft_bounds
from ohmgrad.packing import pack, unpack

DEVICE = dataclasses.replace(aihwkit_soft_bounds(), write_noise=0.5, lifetime=1e4, diffusion=1e-4)
ALGORITHMS = {"Analog SGD": AnalogSGD(), "Tiki-Taka": TikiTaka(n_reads=3, gamma=0.1, transfer_every=2)}
UPDATES = {"expected": ExpectedUpdate(noise=True), "pulsed": PulsedUpdate()}
DIGITAL: dict[str, dict[str, Any]] = {
    "Adam": {"digital": torch.optim.Adam, "amsgrad": True},
    "AdamW": {"digital": torch.optim.AdamW},
    "momentum": {"momentum": 0.9},
    "plain": {},
}
SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "StepLR": lambda o: schedulers.StepLR(o, 3, gamma=0.5),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [3, 3, 7]),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 12),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=12, cycle_momentum=False),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 0.01, 0.1, step_size_up=3, cycle_momentum=False),
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda k: 0.9**k),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.1, total_iters=4), schedulers.ExponentialLR(o, 0.9)], [4]
    ),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=0, threshold=0.5),
}


@dataclasses.dataclass
class Run:
    """What is trained together."""

    model: nn.Module
    optimizer: torch.optim.Optimizer | None
    scheduler: Any = None

    def __iter__(self):
        return iter((self.model, self.optimizer, self.scheduler))

    def state(self) -> list[Any]:
        """All that a checkpoint may change, copied."""
        return copy.deepcopy([*(part.state_dict() for part in self if part is not None), torch.get_rng_state()])


def start(
    seed: int = 0,
    algorithm: str = "Tiki-Taka",
    update: str = "expected",
    digital: str = "Adam",
    schedule: str = "StepLR",
) -> Run:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))
    model = convert(net, device=DEVICE, algorithm=ALGORITHMS[algorithm], update=UPDATES[update], seed=seed)
    groups = [{"params": model[4].parameters(), "lr": 0.02}]
    optimizer = AnalogOptimizer(model, lr=0.05, groups=groups, **DIGITAL[digital])
    return Run(model, optimizer, SCHEDULERS[schedule](optimizer))


def train(run: Run, steps: range) -> None:
    for k in steps:
        data = torch.Generator().manual_seed(k)
        x, y = torch.randn(5, 6, generator=data), torch.randn(5, 3, generator=data)
        run.optimizer.zero_grad()
        loss = (run.model(x) - y).square().mean()
        loss.backward()
        run.optimizer.step()
        is_plateau = isinstance(run.scheduler, schedulers.ReduceLROnPlateau)
        run.scheduler.step(*[loss.detach()] * is_plateau)


def assert_same(a: Any, b: Any, place: str = "") -> None:
    """Equal to the type and the bit, NaN equal to NaN."""
    assert type(a) is type(b), place
    if isinstance(a, Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), place
        assert torch.equal(a.flatten().view(torch.uint8), b.flatten().view(torch.uint8)), place
    elif isinstance(a, dict):
        assert list(a) == list(b), place
        for key in a:
            assert_same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), place
        for i, (u, v) in enumerate(zip(a, b, strict=True)):
            assert_same(u, v, f"{place}.{i}")
    else:
        assert repr(a) == repr(b), place


def assert_resumes(tmp_path: Path, make: Callable[..., Run] = start, **options: str) -> None:
    whole = make(1, **options)
    train(whole, range(10))
    first = make(1, **options)
    train(first, range(5))
    ohmgrad.save(tmp_path / "run.safetensors", *first)
    second = make(99, **options)
    train(second, range(2))
    ohmgrad.load(tmp_path / "run.safetensors", *second)
    train(second, range(5, 10))
    assert_same(second.state(), whole.state())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("update", UPDATES)
def test_a_resumed_run_is_the_run_that_was_not_stopped(algorithm, update, tmp_path):
    assert_resumes(tmp_path, algorithm=algorithm, update=update)


@pytest.mark.parametrize("digital", DIGITAL)
def test_with_every_digital_optimizer(digital, tmp_path):
    assert_resumes(tmp_path, digital=digital)


@pytest.mark.parametrize("schedule", SCHEDULERS)
def test_with_every_scheduler(schedule, tmp_path):
    assert_resumes(tmp_path, schedule=schedule, digital="momentum")


class Mixed(nn.Module):
    """Convolutions of both kinds, a recurrent layer, a linear one and a bag of embeddings."""

    def __init__(self):
        super().__init__()
        self.conv, self.lstm, self.linear = nn.Conv1d(2, 4, 3, padding=1), nn.LSTM(3, 5), nn.Linear(5, 3)
        self.up, self.bag = nn.ConvTranspose1d(4, 4, 3, padding=1), nn.EmbeddingBag(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(self.conv(x.view(-1, 2, 3))).transpose(0, 1)
        return self.linear(self.lstm(h)[0][-1]) + self.bag((x > 0).long())


@pytest.mark.parametrize("update", UPDATES)
def test_with_every_kind_of_layer_and_with_converters(update, tmp_path):
    """Their noise is a function of counters; noise management keeps a mean of what it has seen."""
    io = IO(noise_management="average-abs-max", w_noise=0.01, out_noise=0.1, inp_sto_round=True)
    options: dict[str, Any] = {
        "device": DEVICE,
        "algorithm": TikiTaka(),
        "update": UPDATES[update],
        # Backward only: forward it would lag behind the input range and clip the bias.
        "periphery": Periphery(forward=dataclasses.replace(io, noise_management="abs-max"), backward=io),
        "mapping": Mapping(
            weight_scaling_omega=0.4,
            learn_out_scaling=True,
            max_input_size=3,
            digital_bias=False,
            input_range=InputRange(init_from_data=2),
        ),
    }

    def fresh(seed: int) -> Run:
        torch.manual_seed(seed)
        model = convert(Mixed(), seed=seed, **options)
        optimizer = AnalogOptimizer(model, lr=0.05, **DIGITAL["Adam"])
        return Run(model, optimizer, SCHEDULERS["StepLR"](optimizer))

    assert_resumes(tmp_path, fresh)


def test_counters_are_those_of_the_run_that_was_not_stopped(tmp_path):
    run, fresh = start(1, update="pulsed"), start(2, update="pulsed")
    train(run, range(3))
    ohmgrad.save(tmp_path / "run", *run)
    ohmgrad.load(tmp_path / "run", *fresh)
    for a, b in zip(run.model[0].tile.crossbars, fresh.model[0].tile.crossbars, strict=True):
        assert a.counters == b.counters and a.counters.cycles > 0


def test_a_digital_model_with_any_optimizer(tmp_path):
    def run(steps: range, part: Run) -> Run:
        for k in steps:
            x = torch.randn(9, 6, generator=torch.Generator().manual_seed(k))

            def closure(x=x):
                part.optimizer.zero_grad()
                loss = part.model(x).square().sum()
                loss.backward()
                return loss

            part.optimizer.step(closure)
        return part

    def fresh(seed: int) -> Run:
        torch.manual_seed(seed)
        model = nn.Linear(6, 3)
        return Run(model, torch.optim.LBFGS(model.parameters(), lr=0.01, max_iter=3))

    whole, first, second = run(range(4), fresh(0)), run(range(2), fresh(0)), fresh(5)
    ohmgrad.save(tmp_path / "run", *first)
    ohmgrad.load(tmp_path / "run", *second)
    run(range(2, 4), second)
    assert_same(second.state()[:2], whole.state()[:2])


EXTRA = {"epoch": 3, "best": 0.91, "name": "ä\n", "worst": math.inf, "by_class": {1: (0.5, None)}, "is_done": False}


def test_extra_comes_back(tmp_path):
    run = start()
    ohmgrad.save(tmp_path / "run", *run, **EXTRA)
    assert_same(ohmgrad.load(str(tmp_path / "run"), *run), EXTRA)
    assert_same(checkpoint.peek(tmp_path / "run"), EXTRA)


def test_a_model_alone_from_a_whole_run(tmp_path):
    run, fresh = start(1), start(2)
    train(run, range(2))
    ohmgrad.save(tmp_path / "run", *run)
    before = fresh.state()
    ohmgrad.load(tmp_path / "run", fresh.model)
    assert_same(fresh.state()[0], run.state()[0])
    assert_same(fresh.state()[1:3], before[1:3])


class Tied(nn.Module):
    """Two names of one tensor, a view of it, a transposed one, and an entry that is no tensor."""

    def __init__(self, fill: float):
        super().__init__()
        self.a = nn.Parameter(torch.full((3, 3), fill))
        self.b = self.a
        self.register_buffer("part", self.a.detach()[1])
        self.register_buffer("turned", torch.full((2, 3), fill).T)
        self.note = str(fill)

    def get_extra_state(self):
        return {"note": self.note}

    def set_extra_state(self, state):
        if state["note"] == "bad":
            raise RuntimeError("a bad note")
        self.note = state["note"]


def test_tied_and_turned_tensors(tmp_path):
    old, new = Tied(1.0), Tied(2.0)
    ohmgrad.save(tmp_path / "run", old)
    ohmgrad.load(tmp_path / "run", new)
    assert_same(new.state_dict(), old.state_dict())
    assert new.a is new.b and new.note == "1.0" and new.turned.stride() == (1, 3)


def test_a_module_that_fails_late_leaves_everything_as_it_was(tmp_path):
    bad, model = Tied(1.0), Tied(2.0)
    bad.note = "bad"
    ohmgrad.save(tmp_path / "run", bad)
    before = Run(model, None).state()
    with pytest.raises(ValueError, match="run does not fit: a bad note"):
        ohmgrad.load(tmp_path / "run", model)
    assert_same(Run(model, None).state(), before)


@pytest.mark.parametrize("at", ["optimizer", "scheduler"])
def test_an_optimizer_or_scheduler_that_fails_late_leaves_everything_as_it_was(at, tmp_path, monkeypatch):
    run, fresh = start(1), start(2)
    for part, steps in ((run, 3), (fresh, 2)):
        train(part, range(steps))
    ohmgrad.save(tmp_path / "run", *run)
    before, kind = fresh.state(), type(getattr(fresh, at))
    load = kind.load_state_dict

    def fail(part, state):
        monkeypatch.setattr(kind, "load_state_dict", load)
        load(part, state)
        raise RuntimeError("late")

    monkeypatch.setattr(kind, "load_state_dict", fail)
    with pytest.raises(ValueError, match="does not fit: late"):
        ohmgrad.load(tmp_path / "run", *fresh)
    assert_same(fresh.state(), before)


def rewrite(path: Path, change: Callable[[dict[str, str], dict[str, Tensor]], None], *, is_signed: bool = True) -> None:
    """Change a checkpoint; with a digest that fits again, if signed."""
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {k: file.get_tensor(k).clone() for k in file.keys()}
    change(metadata, tensors)
    if is_signed:
        metadata["digest"] = checkpoint._digest(metadata["content"], tensors)
    save_file(tensors, path, metadata)


def edit(**sections: Any) -> Callable[[Path], None]:
    """Replace sections of a checkpoint, or take them out (None)."""

    def change(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
        content = json.loads(metadata["content"]) | {k: pack(v, f"new {k}", tensors) for k, v in sections.items() if v}
        metadata["content"] = json.dumps({k: v for k, v in content.items() if sections.get(k, k) is not None})

    return lambda path: rewrite(path, change)


def edit_model(**entries: Any) -> Callable[[Path], None]:
    """Replace entries of the model's state, or take them out (None)."""

    def change(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
        content = json.loads(metadata["content"])
        state = unpack(content["model"], tensors)
        state.update(entries)
        content["model"] = pack(type(state)((k, v) for k, v in state.items() if v is not None), "new", tensors)
        metadata["content"] = json.dumps(content)

    return lambda path: rewrite(path, change)


def set_metadata(is_signed: bool = True, **entries: str) -> Callable[[Path], None]:
    return lambda path: rewrite(path, lambda metadata, _: metadata.update(entries), is_signed=is_signed)


def spoil_tensor(path: Path) -> None:
    rewrite(path, lambda _, tensors: tensors["model.0.bias"].add_(1), is_signed=False)


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "is not a whole safetensors file"),
    "text": (lambda p: p.write_text("lr = 0.1\n" * 100), "is not a whole safetensors file"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-1]), "is not a whole safetensors file"),
    "header alone": (lambda p: p.write_bytes(p.read_bytes()[:3000]), "is not a whole safetensors file"),
    "longer": (lambda p: p.write_bytes(p.read_bytes() + b"x"), "is not a whole safetensors file"),
    # A header's length, 640, that starts as some pickles do.
    "header of 640": (lambda p: p.write_bytes(b"\x80\x02" + bytes(6) + b"{"), "is not a whole safetensors file"),
    "torch.save": (lambda p: torch.save({"a": torch.zeros(2)}, p), "is a pickle, as torch.save writes it"),
    "a plain pickle": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "is a pickle, as torch.save writes it"),
    "other safetensors": (lambda p: save_file({"a": torch.zeros(2)}, p), "no ohmgrad checkpoint"),
    "other format": (set_metadata(format="other"), "no ohmgrad checkpoint"),
    "newer version": (set_metadata(version="3"), "needs a newer ohmgrad: its version is '3', this one reads 2"),
    "older version": (set_metadata(version="1"), "is of an older ohmgrad: its version is '1', this one reads 2"),
    "no version": (set_metadata(version="x" * 1000), "needs a newer ohmgrad: its version is 'xxxxxxxxxxxxxxxxxxxx'"),
    "wrong digest": (set_metadata(is_signed=False, digest="0" * 64), "is damaged: its content"),
    "a number that changed": (spoil_tensor, "is damaged: its content does not have the digest"),
    "content no JSON": (set_metadata(content="{"), "is damaged: "),
    "content a list": (set_metadata(content="[]"), "is damaged: "),
    "content deep": (set_metadata(content="[" * 100_000), "is damaged: "),
    "content of unknown kind": (set_metadata(content='{"model": {"set": []}}'), "is damaged: 'set'"),
    "content without its tensor": (set_metadata(content='{"model": {"tensor": "x"}}'), "is damaged: 'x'"),
    "no model": (edit(model=None), "is damaged: it needs the sections model, versions, hardware, random, extra"),
    "no hardware": (edit(hardware=None), "is damaged: it needs the sections"),
    "hardware that is none": (edit(hardware=[1]), "is damaged: it needs the sections"),
    "hardware of something else": (
        edit(hardware={"0.tile": [torch.ones(2)]}),
        r"is of another model: 0\.tile is \[tensor\(.* in the file and Tile in the model",
    ),
    "no random state": (edit(random=None), "is damaged: it needs the sections"),
    "a model that is none": (edit(model=[1]), "is damaged: it needs the sections"),
    "a random state that is none": (edit(random={"cpu": torch.zeros(3), "cuda": []}), "does not fit: "),
    "no optimizer": (edit(optimizer=None), "holds no state of an optimizer"),
    "no scheduler": (edit(scheduler=None), "holds no state of a scheduler"),
    "an optimizer that is none": (edit(optimizer=[1]), "is damaged"),
    "missing name": (edit_model(**{"0.bias": None}), r"is of another model: it lacks 0\.bias"),
    "missing names": (
        edit_model(**{"0.bias": None, "4.bias": None}),
        r"is of another model: it lacks 0\.bias and 1 more",
    ),
    "unexpected name": (edit_model(new=torch.zeros(1)), "is of another model: it has an unexpected new"),
    "other shape": (
        edit_model(**{"0.bias": torch.zeros(9)}),
        r"0\.bias is torch\.float32 \(9,\), and the model's torch\.float32 \(8,\)",
    ),
    "other dtype": (
        edit_model(**{"0.bias": torch.zeros(8).double()}),
        r"0\.bias is torch\.float64 \(8,\), and the model's torch\.float32 \(8,\)",
    ),
    "no tensor": (edit_model(**{"0.bias": 3}), r"0\.bias is int, and the model's torch\.float32 \(8,\)"),
    # Comes after other crossbars have taken their state.
    "NaN in the last crossbar": (
        edit_model(**{"4.tile.state.fast.weight": torch.full((3, 8), math.nan)}),
        r"does not fit: 4\.tile\.state\.fast\.weight of the state dict needs finite numbers",
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> bytes:
    """A checkpoint of a run after three steps."""
    run, path = start(1), tmp_path_factory.mktemp("saved") / "run.safetensors"
    train(run, range(3))
    ohmgrad.save(path, *run, epoch=3)
    return path.read_bytes()


@pytest.fixture
def path(saved, tmp_path) -> Path:
    """A copy of that checkpoint."""
    path = tmp_path / "run.safetensors"
    path.write_bytes(saved)
    return path


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_by_name_and_changes_nothing(case, path):
    spoil, says = BAD_FILES[case]
    spoil(path)
    run = start(2)
    train(run, range(2))
    before = run.state()
    with pytest.raises(ValueError, match=rf"run\.safetensors.*{says}"):
        ohmgrad.load(path, *run)
    assert_same(run.state(), before)


def regrouped(run: Run) -> Run:
    optimizer = AnalogOptimizer(
        run.model, lr=0.05, groups=[{"params": run.model[0].parameters(), "lr": 0.02}], **DIGITAL["Adam"]
    )
    return Run(run.model, optimizer)


OTHERS: dict[str, tuple[Callable[[], Run], str]] = {
    "other inside": (
        lambda: start(digital="momentum"),
        "the state of AnalogOptimizer around Adam, but the optimizer is AnalogOptimizer around SGD",
    ),
    "other optimizer": (
        lambda: Run((m := start().model), torch.optim.Adam(m.parameters())),
        "the state of AnalogOptimizer around Adam, but the optimizer is Adam",
    ),
    "other groups": (lambda: regrouped(start()), "other parameter groups"),
    "other scheduler": (
        lambda: start(schedule="MultiStepLR"),
        "the state of StepLR, but the scheduler is MultiStepLR",
    ),
    "other algorithm": (
        lambda: start(algorithm="Analog SGD"),
        r"algorithm of 0\.tile is TikiTaka in the file and AnalogSGD in the model; load\(\.\.\., other_hardware=True\)",
    ),
    "other update": (
        lambda: start(update="pulsed"),
        r"update of 0\.tile\.state\.slow is ExpectedUpdate in the file and PulsedUpdate in the model",
    ),
    "other network": (lambda: Run(nn.Linear(2, 2), None), "it lacks bias and 1 more"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_checkpoint_of_something_else_is_refused(case, path):
    make, says = OTHERS[case]
    run = make()
    before = run.state()
    with pytest.raises(ValueError, match=rf"run\.safetensors.*{says}"):
        ohmgrad.load(path, *run)
    assert_same(run.state(), before)


def test_no_file(tmp_path):
    run = start()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ohmgrad.load(tmp_path / "nowhere", *run)
    with pytest.raises(ValueError, match="got a directory"):
        ohmgrad.load(tmp_path, *run)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ohmgrad.save(tmp_path / "nowhere" / "run", *run)


def test_what_cannot_be_kept_is_refused_by_name_and_leaves_the_old_file(path, saved):
    run = start()
    run.optimizer.digital.state[run.model[0].bias]["buffer"] = {1}
    with pytest.raises(TypeError, match=r"optimizer\.state\.state\.\d\.buffer needs .*, got set"):
        ohmgrad.save(path, *run)
    with pytest.raises(TypeError, match=r"extra\.when needs .*, got object"):
        ohmgrad.save(path, run.model, when=object())
    assert path.read_bytes() == saved
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def mutated(raw: bytes, rng: np.random.Generator) -> bytes:
    """Flipped bits, cut or repeated or strange bytes, and edits of the header's text."""
    out, n_header = bytearray(raw), int.from_bytes(raw[:8], "little")
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(out))) if rng.random() < 0.5 else int(rng.integers(min(n_header + 8, len(out))))
        kind = rng.integers(7)
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            out[at:at] = rng.bytes(int(rng.integers(1, 20)))
        elif kind == 3:
            del out[at : at + int(rng.integers(1, 20))]
        elif kind == 4:
            out[at:at] = out[at : at + int(rng.integers(1, 200))]
        elif kind == 5:
            out[:8] = int(rng.integers(2**63)).to_bytes(8, "little") if rng.random() < 0.5 else rng.bytes(8)
        else:  # an edit that keeps the header's length
            text = out[8 : 8 + n_header]
            words = [b"F32", b"I64", b"F64", b"model", b"digest", b"0", b"1", b"[", b'"', b"data_offsets"]
            old, new = (words[i] for i in rng.integers(len(words), size=2))
            changed = text.replace(old, new, int(rng.integers(1, 4)))
            out[:8] = len(changed).to_bytes(8, "little")
            out[8 : 8 + n_header] = changed
            n_header = len(changed)
        if not out:
            break
    return bytes(out)


def load_or_refuse(path: Path, run: Run, before: list[Any], whole: list[Any] | None) -> bool:
    """Whether the file was taken; it is taken wholly or not at all."""
    try:
        ohmgrad.load(path, *run)
    except (ValueError, OSError):
        assert_same(run.state(), before)
        return False
    if whole is not None:
        assert_same(run.state(), whole)
    return True


def test_500_mutated_files_never_crash_and_never_half_load(path, saved, rng):
    run, whole = start(2), start(1)
    ohmgrad.load(path, *whole)
    goal, before = whole.state(), run.state()
    n_taken = 0
    for _ in range(500):
        path.write_bytes(mutated(saved, rng))
        if load_or_refuse(path, run, before, goal):
            n_taken += 1
            run, before = (fresh := start(2)), fresh.state()
    assert n_taken < 50  # most mutations are seen


def mutated_json(value: Any, rng: np.random.Generator) -> Any:
    """One place of nested JSON changed."""
    strange: list[Any] = [None, True, 0, -1, 2**70, 1.5, "", "x", [], {}, {"tensor": "x"}, {"float": 10**400}, [[1, 2]]]
    if isinstance(value, list | dict) and value and rng.random() < 0.9:
        out = copy.copy(value)
        key = list(value)[rng.integers(len(value))] if isinstance(value, dict) else int(rng.integers(len(value)))
        if rng.random() < 0.05:
            del out[key]
        elif isinstance(out, dict) and rng.random() < 0.05:
            out[f"{key}_"] = out.pop(key)
        else:
            out[key] = mutated_json(value[key], rng)
        return out
    return strange[rng.integers(len(strange))]


def test_files_that_lie_with_a_right_digest_never_crash_and_never_half_load(path, saved, rng):
    """As a file from elsewhere may; what is taken may be wrong, but is taken without a crash."""
    run = start(2)
    before = run.state()
    for _ in range(300):
        path.write_bytes(saved)

        def change(metadata, tensors):
            metadata["content"] = json.dumps(mutated_json(json.loads(metadata["content"]), rng))

        rewrite(path, change)
        if load_or_refuse(path, run, before, None):
            run, before = (fresh := start(2)), fresh.state()


SAVING = """
import sys, torch, ohmgrad
model = torch.nn.Linear(500, 2000)
while True:
    torch.nn.init.constant_(model.weight, torch.rand(()).item())
    ohmgrad.save(sys.argv[1], model)
    print("saved", flush=True)
"""


def assert_survives_kills(path: Path, rng: np.random.Generator, n: int) -> None:
    model = nn.Linear(500, 2000)
    for _ in range(n):
        process = subprocess.Popen([sys.executable, "-c", SAVING, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"saved\n"
        time.sleep(rng.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        ohmgrad.load(path, model)
        assert len(model.weight.unique()) == 1


def test_a_kill_while_saving_leaves_a_whole_file(tmp_path, rng):
    assert_survives_kills(tmp_path / "run.safetensors", rng, 1)


@pytest.mark.slow
def test_20_kills_while_saving_leave_a_whole_file(tmp_path, rng):
    assert_survives_kills(tmp_path / "run.safetensors", rng, 20)
