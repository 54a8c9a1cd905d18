"""`ohmgrad train` as its user meets it: files, messages, and runs that are killed for good."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ohmgrad.cli import main
from ohmgrad.cli import train as command

CONFIG = """
[data]
name = "digits"
[model]
kind = "mlp"
hidden = [6]
dropout = 0.1
[device]
name = "soft-bounds"
w_max = 0.8
[algorithm]
name = "tiki-taka"
[optimizer]
lr = 0.1
digital = "sgd"
momentum = 0.5
[schedule]
kind = "step"
every = 1
gamma = 0.9
[train]
epochs = 2
batch_size = 100
seed = 3
"""


@pytest.fixture
def ohmgrad_(monkeypatch, capsys, tmp_path) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """The program, run in this process and in an empty directory: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # absent, whether installed or not
    threads = torch.get_num_threads()
    (tmp_path / "run.toml").write_text(CONFIG)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ohmgrad", "train", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    yield call
    torch.set_num_threads(threads)


def test_what_it_writes_and_prints(ohmgrad_, tmp_path):
    code, out, err = ohmgrad_("run.toml", "--out", "run")
    assert (code, err) == (0, "")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "checkpoint.safetensors",
        "metrics.csv",
        "results.json",
    ]
    assert out.count("No TensorBoard log") == 1
    rows = list(csv.DictReader((tmp_path / "run/metrics.csv").read_text().splitlines()))
    assert list(rows[0]) == ["epoch", "loss", "accuracy", "lr", "seconds"]
    assert [(row["epoch"], float(row["lr"])) for row in rows] == [("1", 0.1), ("2", pytest.approx(0.09))]
    results = json.loads((tmp_path / "run/results.json").read_text(), parse_constant=pytest.fail)
    assert results["figures"]["loss"] == float(rows[1]["loss"])
    assert results["figures"]["accuracy"] == float(rows[1]["accuracy"])
    assert results["figures"]["cycles"] > 0 and results["figures"]["pulses"] > 0
    assert results["seed"] == 3 and results["versions"]["torch"] == torch.__version__
    assert results["settings"]["device"]["name"] == "SoftBounds" and results["settings"]["device"]["w_max"] == 0.8
    assert results["settings"]["model"]["hidden"] == [6] and results["settings"]["train"]["epochs"] == 2
    assert results["settings"]["processor"] == "cpu"


def test_resume_without_a_checkpoint_starts(ohmgrad_, tmp_path):
    assert ohmgrad_("run.toml", "--out", "run", "--resume")[0] == 0
    assert (tmp_path / "run/results.json").exists()


def edited(old: str, new: str) -> str:
    assert old in CONFIG
    return CONFIG.replace(old, new)


BAD = {
    "no file": (None, [], "nowhere.toml: No such file"),
    "no TOML": ("[", [], "run.toml: "),
    "unknown key": (edited("epochs", "epoch"), [], "run.toml: train.epoch is unknown"),
    "a rule": (edited("w_max = 0.8", "w_max = -1"), [], "run.toml: device.w_max: SoftBounds needs w_min <= 0"),
    "processor": (CONFIG, ["--device", "foo"], "--device needs cpu or cuda, got 'foo'"),
    "batch too large": (edited("batch_size = 100", "batch_size = 2000"), [], "train.batch_size needs at most the 1437"),
    "data without files": (edited('"digits"', '"mnist"'), ["--data-dir", "."], "train-images-idx3-ubyte"),
    "network for other images": (
        edited('"mlp"\nhidden = [6]\ndropout = 0.1', '"lenet5"'),
        [],
        "model.kind lenet5 needs images of 28 x 28",
    ),
    "out is a file": (CONFIG, ["--out", "run.toml"], "run.toml"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line_and_writes_nothing(case, ohmgrad_, tmp_path, monkeypatch):
    monkeypatch.delenv("OHMGRAD_DATA", raising=False)
    config, words, says = BAD[case]
    (tmp_path / "run.toml").write_text(config or CONFIG)
    code, out, err = ohmgrad_("run.toml" if config else "nowhere.toml", *words)
    assert (code, out) == (2, "") and err.startswith("ohmgrad: ") and err.count("\n") == 1
    assert says in err
    assert [p.name for p in tmp_path.iterdir()] == ["run.toml"]


def test_a_checkpoint_is_neither_written_over_nor_taken_for_another(ohmgrad_, tmp_path):
    assert ohmgrad_("run.toml", "--out", "run")[0] == 0
    code, _, err = ohmgrad_("run.toml", "--out", "run")
    assert code == 2 and "exists: --resume goes on from it" in err
    (tmp_path / "run.toml").write_text(edited("seed = 3", "seed = 4"))
    code, _, err = ohmgrad_("run.toml", "--out", "run", "--resume")
    assert code == 2 and "another configuration: train.seed is 3 there and 4 here" in err


class Writer:
    """Stands for TensorBoard's."""

    made: list["Writer"]

    def __init__(self, folder: Path, purge_step: int) -> None:
        self.folder, self.purge_step, self.scalars, self.is_closed = folder, purge_step, [], False
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, step))

    def close(self) -> None:
        self.is_closed = True


def test_tensorboard(ohmgrad_, monkeypatch, tmp_path):
    fake: Any = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter, Writer.made = Writer, []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    _, out, _ = ohmgrad_("run.toml", "--out", "run")
    assert "TensorBoard" not in out
    (log,) = Writer.made
    assert log.scalars == [(name, epoch) for epoch in (1, 2) for name in ("loss", "accuracy", "lr", "seconds")]
    assert log.is_closed and log.purge_step == 1 and log.folder == Path("run/tensorboard")
    _, out, _ = ohmgrad_("run.toml", "--out", "run", "--resume")
    assert "nothing is left to train" in out
    assert Writer.made[1].purge_step == 3


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(ohmgrad_, tmp_path, monkeypatch):
    step = command._Show.step

    def interrupted(show, steps_done):
        step(show, steps_done)
        if steps_done == 20:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(command._Show, "step", interrupted)
    code, _, err = ohmgrad_("run.toml", "--out", "run")
    assert (code, err) == (130, "ohmgrad: interrupted\n")
    monkeypatch.setattr(command._Show, "step", step)
    code, out, _ = ohmgrad_("run.toml", "--out", "run", "--resume")
    assert code == 0 and "Goes on in epoch 2, after 0 of its mini-batches" in out


LONG = edited("epochs = 2\nbatch_size = 100", "epochs = 3\nbatch_size = 20\ncheckpoint_every_minutes = 1e-9").replace(
    "[optimizer]", '[update]\nkind = "expected"\nnoise = true\n[optimizer]'
)


def start(folder: Path) -> subprocess.Popen:
    words = ["-m", "ohmgrad", "train", "run.toml", "--out", "run", "--resume"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, *words], cwd=folder, **quiet)


def ended(folder: Path) -> tuple[dict[str, list], list[str]]:
    """All tensors of the checkpoint, and metrics but for the seconds."""
    tensors = {k: v.flatten().tolist() for k, v in load_file(folder / "run/checkpoint.safetensors").items()}
    return tensors, [line.rsplit(",", 1)[0] for line in (folder / "run/metrics.csv").read_text().splitlines()]


def assert_survives_kills(folder: Path, rng: np.random.Generator, n: int) -> None:
    """n kills at random moments, each some time after the first checkpoint of its process."""
    for name in ("whole", "killed"):
        (folder / name).mkdir()
        (folder / name / "run.toml").write_text(LONG)
    started = time.monotonic()
    assert start(folder / "whole").wait() == 0
    seconds = sum(float(line.rsplit(",", 1)[1]) for line in (folder / "whole/run/metrics.csv").read_text().split()[1:])
    assert seconds < time.monotonic() - started
    checkpoint, n_killed = folder / "killed/run/checkpoint.safetensors", 0
    for _ in range(n):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        process = start(folder / "killed")
        while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.8 * seconds / n))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            n_killed += 1
        process.wait()
    assert n_killed > n / 2
    assert start(folder / "killed").wait() == 0
    assert ended(folder / "killed") == ended(folder / "whole")


def test_three_kills_at_random_moments_change_nothing(tmp_path, rng):
    assert_survives_kills(tmp_path, rng, 3)


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(tmp_path, rng):
    assert_survives_kills(tmp_path, rng, 10)
