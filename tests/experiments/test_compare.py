"""The main job: its claim, replicas against single runs, and its measurements against autograd."""

import pytest
import torch
from torch import nn

from ohmgrad import convert
from ohmgrad.devices import Ideal
from ohmgrad.experiments.compare import METHODS, CompareSettings, Curves, run
from ohmgrad.experiments.data import load
from ohmgrad.experiments.measure import floor, tile_gradients
from ohmgrad.report import compare as report
from ohmgrad.report.files import write, write_json


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def last(curves: Curves, name: str) -> torch.Tensor:
    return getattr(curves, name)[-1]


def test_analog_sgd_stalls_and_tiki_taka_does_not():
    curves = run(CompareSettings(methods=METHODS[1:], epochs=4, seeds=(0,)), load("digits"))
    assert last(curves["analog-sgd"], "train_loss") > 2.0 * last(curves["tiki-taka"], "train_loss")


def test_replicas_give_the_curves_of_single_runs():
    # The random numbers are the same; batched and single matrix products round differently: 1e-7 of the largest
    # weight in each of 70 steps. An order of samples or a device of another seed would differ by 1e-1.
    settings = {"epochs": 2, "hidden": (4,), "batch_size": 40}
    data = load("digits")
    together = run(CompareSettings(seeds=(0, 1, 2), **settings), data)
    for i in range(3):
        alone = run(CompareSettings(seeds=(i,), **settings), data)
        for method in METHODS:
            for name in ("train_loss", "saturation"):
                a = torch.stack(getattr(together[method], name))[:, i]
                b = torch.stack(getattr(alone[method], name))[:, 0]
                torch.testing.assert_close(a.double(), b.double(), rtol=1e-4, atol=1e-6)


def test_threads_change_rounding_alone():
    data, settings = load("digits"), CompareSettings(epochs=1, hidden=(4,), batch_size=40, seeds=(0,))
    curves = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        curves.append(run(settings, data))
    for method in METHODS:
        a, b = (last(c[method], "train_loss") for c in curves)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=0.0)


def test_gradients_and_floor_equal_autograd():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, y = torch.randn(12, 5, dtype=torch.float64), torch.randint(3, (12,))
    model = convert([net], device=Ideal(), replicas=True)
    batches = [(x[None, i : i + 4], y[None, i : i + 4]) for i in (0, 4, 8)]
    gradients = tile_gradients(model, iter(batches))
    nn.functional.cross_entropy(net(x), y).backward()
    for name, layer in (("0.tile", net[0]), ("2.tile", net[2])):
        torch.testing.assert_close(gradients[name].mean[0], layer.weight.grad)
    squared = sum(layer.weight.grad.square().sum() for layer in (net[0], net[2]))
    torch.testing.assert_close(floor(model, gradients, 3, 3).measured, squared[None])


def figures(accuracy: float, loss: float) -> dict:
    return {
        "test_accuracy": {"mean": accuracy},
        "train_loss": {"mean": loss},
        "floor_measured": 1e-2,
        "floor_predicted": 1e-2,
    }


def test_the_conclusion_follows_the_figures():
    good, bad = figures(97.0, 0.05), figures(90.0, 0.5)
    said = report.conclusion({"digital": good, "analog-sgd": bad, "tiki-taka": good}, "x")
    assert "Analog SGD stalls" in said and "closes the gap" in said
    said = report.conclusion({"digital": good, "analog-sgd": good, "tiki-taka": bad}, "x")
    assert "does not stall" in said and "falls behind" in said


def test_files_are_whole_or_not_there(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"a": float("inf"), "b": [1.5]})
    old = path.read_text()
    assert "null" in old

    def fail(temporary) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(path, fail)
    assert path.read_text() == old and [p.name for p in tmp_path.iterdir()] == ["results.json"]
