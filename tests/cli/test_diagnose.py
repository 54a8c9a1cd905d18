"""`ohmgrad diagnose` as its user meets it: files, words, and bad input in one line."""

import json
import shlex
import sys

import pytest
import torch

import ohmgrad as og
from ohmgrad.cli import main

CONFIG = """
[data]
name = "digits"
[model]
kind = "mlp"
hidden = [6]
dropout = 0.1
[device]
name = "soft-bounds"
w_max = 0.3
w_min = -0.3
[algorithm]
name = "tiki-taka"
n_reads = "none"
fast_lr = 0.5
[periphery]
name = "default"
[mapping]
max_input_size = 40
[mapping.input_range]
init_value = 2.0
[optimizer]
digital = "adam"
lr = 0.05
betas = [0.8, 0.9]
[schedule]
kind = "multi-step"
milestones = [1]
[train]
epochs = 1
batch_size = 200
seed = 3
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of a short run with settings of every kind."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "run.toml").write_text(CONFIG)
    call("train", str(folder / "run.toml"), "--out", str(folder / "run"))
    return folder / "run/checkpoint.safetensors"


def call(*words: str) -> int:
    """The program, run in this process: its exit code."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ohmgrad", *words])
        patch.setenv("COLUMNS", "120")
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)  # absent, whether installed or not
        with pytest.raises(SystemExit) as end:
            main()
    torch.set_num_threads(threads)
    return end.value.code


def test_files_and_words(checkpoint, tmp_path, capsys):
    options = shlex.split("--data digits --steps 6 --repeats 2")
    before = checkpoint.read_bytes()
    assert call("diagnose", str(checkpoint), *options, "--out", str(tmp_path / "a")) == 0
    out = " ".join(capsys.readouterr().out.split())
    content = json.loads((tmp_path / "a/results.json").read_text())
    assert content["words"] in out and "made ideal, the loss falls by" in out
    assert {t["name"] for t in content["tiles"]} == set(content["costs"]) and len(content["tiles"]) == 3
    training = content["settings"]["training"]
    assert training["optimizer"]["betas"] == [0.8, 0.9] and training["mapping"]["input_range"]["init_value"] == 2.0
    assert content["settings"]["lr"] == 0.05 and content["versions"]["ohmgrad"] == og.__version__
    assert (tmp_path / "a/diagnosis.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["diagnosis.png", "results.json"]
    # The same seed gives the same figures; the checkpoint stays.
    assert call("diagnose", str(checkpoint), *options, "--out", str(tmp_path / "b")) == 0
    assert json.loads((tmp_path / "b/results.json").read_text())["costs"] == content["costs"]
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--data mnist", "mnist needs --data-dir or OHMGRAD_DATA"),
        ("--data cifar", "name needs one of digits, mnist, fashion-mnist, got 'cifar'"),
        ("--steps 1", "diagnose needs steps as a whole number >= 2, got 1"),
        ("--lr nan", "diagnose needs a finite lr > 0, got nan"),
        ("--threads 0", "--threads needs 1 ... 1024, got 0"),
        ("--seed -1", "--seed needs a whole number"),
        ("--device tpu", "--device needs cpu or cuda, got 'tpu'"),
    ],
)
def test_bad_input_is_one_line(checkpoint, words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OHMGRAD_DATA", raising=False)
    assert call("diagnose", str(checkpoint), *words.split(), "--out", str(tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out/results.json").exists()


def test_files_that_are_no_run_are_refused(tmp_path, capsys):
    og.save(tmp_path / "own.safetensors", torch.nn.Linear(1, 1), epoch=3)
    strange = {key: {"name": "Quux"} for key in KEYS} | {"data": {"name": "digits"}}
    og.save(tmp_path / "strange.safetensors", torch.nn.Linear(1, 1), settings=strange)
    for name, message in (
        ("none.safetensors", "No such file"),
        ("own.safetensors", "is a checkpoint, but not of `ohmgrad train`"),
        ("strange.safetensors", "holds settings that this ohmgrad does not know"),
    ):
        assert call("diagnose", str(tmp_path / name), "--out", str(tmp_path / "out")) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


KEYS = ("data", "model", "device", "algorithm", "periphery", "mapping", "update", "optimizer", "schedule", "train")
