"""Training with checkpoints: wherever it is stopped, it ends as the run that was not."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ohmgrad import AnalogSGD, TikiTaka, Tile, save
from ohmgrad.algorithms import MultiTile
from ohmgrad.devices import catalog
from ohmgrad.experiments import train as module
from ohmgrad.experiments.data import Dataset, load
from ohmgrad.experiments.networks import MLP, LeNet5
from ohmgrad.experiments.train import Run, checkpoint_path, train
from ohmgrad.experiments.train_settings import SGD, Adam, Cosine, DataSettings, LoopSettings, TrainSettings
from ohmgrad.pulses.settings import ExpectedUpdate

SETTINGS = TrainSettings(
    data=DataSettings(name="digits"),
    model=MLP(hidden=(8,), dropout=0.2),
    device=catalog.find("aihwkit-soft-bounds", write_noise=0.3),
    algorithm=TikiTaka(),
    update=ExpectedUpdate(noise=True),
    optimizer=Adam(lr=0.05),
    schedule=Cosine(),
    train=LoopSettings(epochs=3, batch_size=100, seed=5, checkpoint_every_minutes=1e-9),
)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def varied(**loop: Any) -> TrainSettings:
    return dataclasses.replace(SETTINGS, train=dataclasses.replace(SETTINGS.train, **loop))


class Stopped(Exception):
    """Stands for a kill."""


def stop_at(step: int):
    def on_step(steps_done: int) -> None:
        if steps_done == step:
            raise Stopped

    return on_step


def outcome(run: Run) -> tuple[Any, ...]:
    """Weights and all other state, and the lines of metrics.csv but for the seconds."""
    state = {k: v.tolist() for k, v in run.model.state_dict().items()}
    lines = [line.rsplit(",", 1)[0] for line in (run.out / "metrics.csv").read_text().splitlines()]
    figures = {k: v for k, v in run.figures().items() if k != "seconds"}
    return state, repr(run.optimizer.state_dict()), lines, figures


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory) -> tuple[Any, ...]:
    return outcome(train(SETTINGS, digits, tmp_path_factory.mktemp("whole")))


# Mini-batches 1 ... 14 are the first epoch. A checkpoint is written after each but the one where the run is stopped.
@pytest.mark.parametrize("step", [1, 2, 14, 15, 20, 28, 29, 42])
@pytest.mark.parametrize("often", [True, False])
def test_a_stopped_run_ends_as_the_one_that_was_not(step, often, digits, whole, tmp_path):
    settings = SETTINGS if often else varied(checkpoint_every_minutes=math.inf)
    with pytest.raises(Stopped):
        train(settings, digits, tmp_path, on_step=stop_at(step))
    torch.manual_seed(99)
    assert outcome(train(settings, digits, tmp_path, resume=True)) == whole


def test_a_run_stopped_three_times(digits, whole, tmp_path):
    for step in (5, 16, 17):
        with pytest.raises(Stopped):
            train(SETTINGS, digits, tmp_path, resume=True, on_step=stop_at(step))
    assert outcome(train(SETTINGS, digits, tmp_path, resume=True)) == whole


def test_a_finished_run_that_is_resumed_is_left_as_it_is(digits, whole, tmp_path):
    train(SETTINGS, digits, tmp_path)
    metrics = (tmp_path / "metrics.csv").read_bytes()
    assert outcome(train(SETTINGS, digits, tmp_path, resume=True, on_step=stop_at(1))) == whole
    assert (tmp_path / "metrics.csv").read_bytes() == metrics


def test_lines_after_the_checkpoint_are_dropped(digits, whole, tmp_path):
    settings, metrics = varied(checkpoint_every_minutes=math.inf, checkpoint_every_epochs=2), tmp_path / "metrics.csv"
    for steps, n_lines in ((20, 1), (1, 0), (35, 2)):  # before, and after, the one checkpoint on the way
        with pytest.raises(Stopped):
            train(settings, digits, tmp_path, resume=True, on_step=stop_at(steps))
        assert len(metrics.read_text().splitlines()) == 1 + n_lines
    assert outcome(train(settings, digits, tmp_path, resume=True)) == whole


def test_what_killed_writers_left_is_swept(digits, tmp_path):
    left = [tmp_path / ".checkpoint-abc.safetensors", tmp_path / ".metrics-abc.csv"]
    for path in left:
        path.write_text("half")
    train(varied(epochs=1), digits, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.safetensors", "metrics.csv"]


def test_a_warm_start_is_told_each_epochs_loss(digits, tmp_path):
    settings = dataclasses.replace(SETTINGS, algorithm=MultiTile(n_tiles=3, warm_start=True))
    run = train(settings, digits, tmp_path)
    for tile in (m for m in run.model.modules() if isinstance(m, Tile)):
        told = [loss for loss in tile.state.losses.tolist() if math.isfinite(loss)]
        assert int(tile.state.phase) > 0 or told == [epoch.loss for epoch in run.epochs]


def test_torchs_own_generator_is_left_alone(digits, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train(varied(epochs=1), digits, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_differ(digits, whole, tmp_path):
    assert outcome(train(varied(seed=6), digits, tmp_path))[0] != whole[0]


def test_the_order_is_a_permutation_of_its_own_for_each_seed_and_epoch():
    orders = [module.order(seed, epoch, 1000) for seed in (0, 1) for epoch in (1, 2)]
    assert all(sorted(order.tolist()) == list(range(1000)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_it_learns(digits, tmp_path):
    settings = TrainSettings(
        data=DataSettings(name="digits"),
        model=MLP(),
        device=catalog.find("ideal"),
        algorithm=AnalogSGD(),
        optimizer=SGD(lr=0.2),
        train=LoopSettings(epochs=5, batch_size=10),
    )
    run = train(settings, digits, tmp_path)
    assert run.epochs[-1].accuracy > 85 and run.epochs[-1].loss < run.epochs[0].loss
    assert [e.lr for e in run.epochs] == [0.2] * 5


def test_a_checkpoint_is_not_written_over(digits, tmp_path):
    train(varied(epochs=1), digits, tmp_path)
    before = checkpoint_path(tmp_path).read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors exists: --resume goes on from it"):
        train(varied(epochs=1), digits, tmp_path)
    assert checkpoint_path(tmp_path).read_bytes() == before


OTHERS = {
    "seed": (varied(seed=6), r"train\.seed is 5 there and 6 here"),
    "epochs": (varied(epochs=4), r"train\.epochs is 3 there and 4 here"),
    "device": (
        dataclasses.replace(SETTINGS, device=catalog.find("aihwkit-soft-bounds", write_noise=0.4)),
        r"device\.write_noise is 0\.3 there and 0\.4 here",
    ),
    "optimizer": (dataclasses.replace(SETTINGS, optimizer=SGD(lr=0.05)), r"optimizer\.name is Adam there and SGD here"),
    "model": (dataclasses.replace(SETTINGS, model=MLP(hidden=(9,))), r"model\.hidden is \(8,\) there and \(9,\) here"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_checkpoint_of_another_configuration_is_refused(case, digits, tmp_path):
    with pytest.raises(Stopped):
        train(SETTINGS, digits, tmp_path, on_step=stop_at(3))
    settings, says = OTHERS[case]
    with pytest.raises(ValueError, match=rf"checkpoint\.safetensors is of another configuration: {says}"):
        train(settings, digits, tmp_path, resume=True)


def test_what_does_not_change_the_run_may_change(digits, whole, tmp_path):
    with pytest.raises(Stopped):
        train(SETTINGS, digits, tmp_path, on_step=stop_at(20))
    settings = dataclasses.replace(
        varied(checkpoint_every_minutes=3.0, checkpoint_every_epochs=None), data=DataSettings(name="digits", dir="x")
    )
    assert outcome(train(settings, digits, tmp_path, resume=True)) == whole


def test_a_checkpoint_of_something_else_is_refused(digits, tmp_path):
    save(checkpoint_path(tmp_path), torch.nn.Linear(2, 2), epoch=1)
    with pytest.raises(ValueError, match="is a checkpoint, but not of `ohmgrad train`"):
        train(SETTINGS, digits, tmp_path, resume=True)


def test_settings_that_do_not_fit_the_data_write_nothing(digits, tmp_path):
    for settings, says in (
        (varied(batch_size=2000), r"train\.batch_size needs at most the 1437 training samples, got 2000"),
        (dataclasses.replace(SETTINGS, model=LeNet5()), r"model\.kind lenet5 needs images of 28 x 28"),
    ):
        with pytest.raises(ValueError, match=says):
            train(settings, digits, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_divergence_is_told_as_such(digits, tmp_path):
    for lr in (1e38, 1e300):  # 1e300: as a schedule that grows may make it; no float32 holds it
        settings = dataclasses.replace(SETTINGS, device=catalog.find("ideal"), optimizer=SGD(lr=lr))
        with pytest.raises(ValueError, match=r"training diverged in epoch 1.*smaller optimizer\.lr"):
            train(settings, digits, tmp_path)


def images(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(n)
    return torch.rand(n, 784, generator=g), torch.randint(10, (n,), generator=g)


def test_lenet5(tmp_path: Path):
    (x, y), (x_test, y_test) = images(20), images(10)
    data = Dataset(name="mnist", x_train=x, y_train=y, x_test=x_test, y_test=y_test, n_classes=10)
    settings = dataclasses.replace(varied(epochs=1, batch_size=10), model=LeNet5())
    run = train(settings, data, tmp_path)
    assert len(run.epochs) == 1
    assert [type(m).__name__ for m in run.model if list(m.parameters())] == ["AnalogConv2d"] * 2 + ["AnalogLinear"] * 2


def test_a_test_leaves_nothing_out_and_training_goes_on_with_dropout():
    x, y = images(200)
    model = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.Linear(784, 10))
    hits = {module._accuracy(model, x, y) for _ in range(5)}
    assert len(hits) == 1 and model.training
