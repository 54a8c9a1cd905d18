"""`ohmgrad` as its user meets it: bad input ends in one line and exit code 2, an interrupt in 130; files are whole."""

import signal
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import ohmgrad.experiments.compare as experiment
from ohmgrad import __version__
from ohmgrad.cli import compare as command
from ohmgrad.cli import main
from ohmgrad.report import compare as report

TINY = ("compare", "--epochs", "1", "--hidden", "4", "--batch-size", "200", "--seeds", "1", "--methods", "digital")


@dataclass(frozen=True)
class End:
    """How the program ended."""

    code: int
    out: str
    err: str

    def refusal(self, *, is_before_training: bool = True) -> str:
        """The one line with which bad input ends; before training, nothing else is printed."""
        assert self.code == 2
        assert not (self.out and is_before_training)
        assert self.err.startswith("ohmgrad: ") and self.err.count("\n") == 1 and self.err.endswith("\n")
        return self.err


@pytest.fixture
def ohmgrad_(monkeypatch, capsys, tmp_path) -> Iterator[Callable[..., End]]:
    """The program, run in this process and in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OHMGRAD_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    threads = torch.get_num_threads()

    def call(*words: str) -> End:
        monkeypatch.setattr(sys, "argv", ["ohmgrad", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return End(end.value.code, *capsys.readouterr())

    yield call
    torch.set_num_threads(threads)


def tree(folder: Path) -> dict[str, bytes]:
    """Everything below a directory."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


BAD = {
    "unknown command": (["foo"], "'foo'"),
    "unknown option": (["compare", "--foo"], "--foo"),
    "stray word": (["compare", "foo"], "foo"),
    "unknown device": (["compare", "--device-model", "foo"], "'foo'; there are ideal,"),
    "negative bound": (["compare", "--w-max", "-1"], "w_max=-1.0"),
    "no bound": (["compare", "--tau", "0"], "w_max=0.0"),
    "NaN bound": (["compare", "--tau", "nan"], "finite number for w_min, got nan"),
    "no step": (["compare", "--dw-min", "0"], "dw_min > 0, got 0.0"),
    "no epochs": (["compare", "--epochs", "0"], "epochs needs a whole number >= 1, got 0"),
    "epochs no number": (["compare", "--epochs", "x"], "'--epochs'"),
    "no seeds": (["compare", "--seeds", "0"], "--seeds"),
    "negative seed": (["compare", "--seed", "-1"], "--seed"),
    "seed too large": (["compare", "--seed", str(2**63 - 1), "--seeds", "2"], "seeds needs"),
    "unknown data": (["compare", "--data", "foo"], "digits, mnist, fashion-mnist, got 'foo'"),
    "no data directory": (["compare", "--data", "mnist"], "--data-dir"),
    "missing data directory": (["compare", "--data", "mnist", "--data-dir", "nowhere"], "nowhere"),
    "data directory without data": (["compare", "--data", "mnist", "--data-dir", "."], "train-images-idx3-ubyte"),
    "unknown method": (["compare", "--methods", "digital,foo"], "methods needs some of digital,"),
    "no method": (["compare", "--methods", ","], "got none"),
    "method twice": (["compare", "--methods", "digital,digital"], "once"),
    "unknown parameter": (["compare", "--parameter", "foo=1"], "no parameter 'foo'; it has w_min,"),
    "parameter without =": (["compare", "--parameter", "w_max"], "NAME=VALUE, got 'w_max'"),
    "parameter without value": (["compare", "--parameter", "w_max="], "w_max, got ''"),
    "parameter of another kind": (["compare", "--parameter", "dw_min_log_normal=1"], "a bool for dw_min_log_normal"),
    "negative spread": (["compare", "--parameter", "w_max_dtod=-1"], "w_max_dtod >= 0, got -1.0"),
    "no such noise": (["compare", "--parameter", "ctoc=foo"], "ctoc 'multiplicative' or 'additive', got 'foo'"),
    "NaN learning rate": (["compare", "--lr", "nan"], "lr needs a finite number > 0, got nan"),
    "NaN fast step": (["compare", "--fast-lr", "nan"], "fast_lr"),
    "negative gamma": (["compare", "--gamma", "-1"], "gamma >= 0, got -1.0"),
    "hidden no number": (["compare", "--hidden", "8,x"], "--hidden needs whole numbers with commas between, got 'x'"),
    "hidden empty layer": (["compare", "--hidden", "0"], "hidden needs sizes"),
    "hidden beyond memory": (["compare", "--hidden", "999999999999"], "hidden needs sizes"),
    "batch too large": (["compare", "--batch-size", "2000"], "at most the 1437 training samples, got 2000"),
    "batch empty": (["compare", "--batch-size", "0"], "batch_size needs a whole number >= 1, got 0"),
    "unknown activation": (["compare", "--activation", "foo"], "tanh, sigmoid, relu, got 'foo'"),
    "unknown processor": (["compare", "--device", "foo"], "cpu or cuda, got 'foo'"),
    "no threads": (["compare", "--threads", "0"], "--threads needs 1 ... 1024, got 0"),
    "out is a file": (["compare", "--out", "taken"], "taken: File exists"),
    "out below a file": (["compare", "--out", "taken/deeper"], "taken/deeper: Not a directory"),
    "out nowhere": (["compare", "--out", "/proc/nowhere"], "/proc/nowhere: "),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line_and_writes_nothing(case, ohmgrad_, tmp_path):
    (tmp_path / "taken").write_text("mine")
    before = tree(tmp_path)
    words, says = BAD[case]
    assert says in ohmgrad_(*words).refusal()
    assert tree(tmp_path) == before


def test_truncated_idx_file_is_refused_by_name(ohmgrad_, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    images = np.zeros((300, 28, 28), np.uint8)
    for split in ("train", "t10k"):
        for stem, array in (("images-idx3", images), ("labels-idx1", images[:, 0, 0])):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (data / f"{split}-{stem}-ubyte").write_bytes((header + array.tobytes())[:-1])
    line = ohmgrad_("compare", "--data", "mnist", "--data-dir", str(data), "--out", "results").refusal()
    assert "train-images-idx3-ubyte is truncated" in line
    assert not (tmp_path / "results").exists()


def test_cuda_without_a_gpu_is_refused(ohmgrad_, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device cuda needs a GPU" in ohmgrad_("compare", "--device", "cuda").refusal()


@pytest.mark.parametrize("method", ["digital", "analog-sgd"])
def test_divergence_is_told_as_such(method, ohmgrad_):
    line = ohmgrad_(*TINY, "--methods", method, "--device-model", "ideal", "--lr", "1e38").refusal(
        is_before_training=False
    )
    assert f"{method} diverged in epoch 1" in line and "smaller lr" in line


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_told_in_one_line(error, ohmgrad_, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(command, "run", fail)
    assert "out of memory" in ohmgrad_(*TINY).refusal(is_before_training=False)


def test_a_bug_of_ours_is_not_dressed_up_as_bad_input(monkeypatch):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(command, "load", fail)
    monkeypatch.setattr(sys, "argv", ["ohmgrad", "compare"])
    with pytest.raises(RuntimeError, match="a bug"):
        main()


def interrupt_at_loss(n: int, monkeypatch) -> None:
    """A real SIGINT when training asks for its loss for the n-th time."""
    loss, count = experiment.replica_loss, iter(range(1, 1_000_000))

    def interrupted(*arguments):
        if next(count) == n:
            signal.raise_signal(signal.SIGINT)
        return loss(*arguments)

    monkeypatch.setattr(experiment, "replica_loss", interrupted)


def test_ctrl_c_while_training_leaves_the_last_run_whole(ohmgrad_, tmp_path, monkeypatch):
    assert ohmgrad_(*TINY, "--out", "results").code == 0
    before = tree(tmp_path)
    interrupt_at_loss(3, monkeypatch)
    end = ohmgrad_(*TINY, "--seed", "7", "--out", "results")
    assert (end.code, end.err) == (130, "ohmgrad: interrupted\n")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("at", ["write_curves", "draw"])
def test_ctrl_c_while_writing_leaves_whole_files_only(at, ohmgrad_, tmp_path, monkeypatch):
    words = (*TINY, "--out", "results")
    assert ohmgrad_(*words).code == 0
    old = tree(tmp_path / "results")
    whole = report.write

    def interrupted(path, save):
        def save_half(temporary):
            save(temporary)
            signal.raise_signal(signal.SIGINT)

        whole(path, save_half if path.name == {"write_curves": "curves.csv", "draw": "compare.png"}[at] else save)

    monkeypatch.setattr(report, "write", interrupted)
    end = ohmgrad_(*words, "--seed", "7")
    assert (end.code, end.err) == (130, "ohmgrad: interrupted\n")
    new = tree(tmp_path / "results")
    assert set(new) == {"results.json", "curves.csv", "compare.png"}
    # results.json comes last: what it says of a run, the other files say too.
    assert new["results.json"] == old["results.json"] and new["compare.png"] == old["compare.png"]
    assert (new["curves.csv"] == old["curves.csv"]) == (at == "write_curves")


def test_version(ohmgrad_):
    assert ohmgrad_("--version") == End(0, f"ohmgrad {__version__}\n", "")


@pytest.mark.parametrize("words", [(), ("--help",), ("compare", "--help")])
def test_help_fits_80_columns(words, ohmgrad_):
    end = ohmgrad_(*words)
    assert (end.code, end.err) == (0, "")
    assert max(map(len, end.out.splitlines())) <= 80
    assert "compare" in end.out
