"""Every algorithm with pulses, in layers that are split over crossbars, through checkpoints; and its bad settings."""

import copy
import math
from dataclasses import replace

import pytest
import torch

import ohmgrad
from chance import assert_mean
from contracts.algorithm import batches
from exact import assert_bits
from ohmgrad import AnalogOptimizer, ExpectedUpdate, Mapping, Outer, Periphery, PulsedUpdate, Tile, convert
from ohmgrad.algorithms import (
    AGAD,
    AnalogSGD,
    ChoppedTikiTakaV2,
    MixedPrecision,
    MultiTile,
    ResidualLearning,
    Rider,
    Stale,
    TikiTaka,
    TikiTakaV2,
)
from ohmgrad.devices.presets import aihwkit_soft_bounds, asymmetric_linear

# Each with what it draws at random, and rows where it can.
EVERY = [
    AnalogSGD(),
    TikiTaka(gamma=0.2, n_reads=2, reset_prob=0.5, random_selection=True, units_in_mbatch=False),
    TikiTakaV2(transfer_columns=False),
    ChoppedTikiTakaV2(out_chop_prob=0.3, in_chop_prob=0.3, auto_scale=True, gamma=0.1),
    AGAD(in_chop_prob=0.4, in_chop_random=True, transfer_columns=False),
    MixedPrecision(x_bins=8, d_bins=8, momentum=0.5, weight_decay=0.01),
    ResidualLearning(n_reads=2),
    MultiTile(n_tiles=3),
    Rider(chop_prob=0.3),
    Stale(algorithm=TikiTaka(n_reads=2), delay=2),
]
NAMES = [type(algorithm).__name__ for algorithm in EVERY]


def run(algorithm, *, steps: int, path=None, model=None, optimizer=None):
    """A few steps of a small network on grids of crossbars; from a checkpoint if one is given."""
    if model is None:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
        model = convert(
            net,
            device=aihwkit_soft_bounds(),
            algorithm=algorithm,
            update=PulsedUpdate(),
            periphery=Periphery(),
            mapping=Mapping(max_input_size=3, max_output_size=4, weight_scaling_omega=0.3),
            seed=5,
        )
        optimizer = AnalogOptimizer(model, lr=0.1)
    if path is not None:
        ohmgrad.load(path, model, optimizer)
    for k in range(steps):
        optimizer.zero_grad()
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(k))
        model(x).square().sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("algorithm", EVERY, ids=NAMES)
def test_layers_grids_checkpoints_and_copies(algorithm, tmp_path):
    # A run of 6 steps, saved: loading it and going on, going on without a break, and a copy that goes on, agree in
    # every tensor.
    model, optimizer = run(algorithm, steps=6)
    before = copy.deepcopy(model.state_dict())
    ohmgrad.save(tmp_path / "run", model, optimizer)
    resumed, _ = run(algorithm, steps=4, path=tmp_path / "run")
    twin = copy.deepcopy(model)
    twin, _ = run(algorithm, steps=4, model=twin, optimizer=AnalogOptimizer(twin, lr=0.1))
    whole, _ = run(algorithm, steps=4, model=model, optimizer=optimizer)
    state = whole.state_dict()
    assert any(not torch.equal(state[name], value) for name, value in before.items() if "weight" in name)
    for other in (resumed, twin):
        assert other.state_dict().keys() == state.keys()
        for name, value in other.state_dict().items():
            if isinstance(value, torch.Tensor):
                assert_bits(value, state[name])


@pytest.mark.parametrize("algorithm", EVERY, ids=NAMES)
def test_pulses_do_in_the_mean_what_the_expected_update_does(algorithm):
    # All crossbars of 400 tiles, whose pulse trains differ, against the matched noise: means are equal to 5 standard
    # errors, a quarter of the spread. Steps are small, so that no train is longer than allowed.
    n = 400
    if "scale_fast_lr" in vars(algorithm):
        algorithm = replace(algorithm, scale_fast_lr=False, fast_lr=0.2 if vars(algorithm).get("auto_scale") else 0.01)
    samples = [Outer(u.d.float(), u.x.float()) for u in batches(6)]
    means = []
    for update in (PulsedUpdate(), ExpectedUpdate(per_sample=True, noise=True)):
        options = {"device": asymmetric_linear(dw_min=5e-3), "update": update}
        tile = Tile(torch.full((n, 4, 5), 0.2), algorithm=algorithm, crossbar=options, seed=list(range(n)))
        for sample in samples:
            tile.record(sample)
            tile.step(0.01)
            tile.handle.grad = None
        means.append(torch.stack([bar.weight.double().mean((-2, -1)) for bar in tile.crossbars]))
    for ours, expected in zip(*means, strict=True):
        if ours.std() > 1e-12:
            assert_mean(ours - expected, 0.0)
        else:
            assert torch.equal(ours, expected)


@pytest.mark.parametrize("algorithm", EVERY, ids=NAMES)
def test_replicas_with_steps_of_their_own_are_runs_of_their_own(algorithm):
    # To the bit, for all steps are powers of two, and lines are multiples of 1/16: libraries add up the products of a
    # batch of matrices in another order than those of one. A step that reached all replicas makes the second wrong.
    names = [n for n in ("fast_lr", "transfer_lr", "buffer_rate") if hasattr(algorithm, n)]

    def run_of(steps, lr, replicas, seed):
        tuned = replace(algorithm, **dict(zip(names, steps, strict=True)))
        options = {"device": aihwkit_soft_bounds(), "update": ExpectedUpdate(noise=True)}
        tile = Tile(torch.full((*replicas, 4, 5), 0.2), algorithm=tuned, crossbar=options, seed=seed)
        for u in batches(8):
            tile.record(Outer(*((16.0 * t.float()).round().expand(*replicas, -1, -1) / 16.0 for t in (u.d, u.x))))
            tile.step(lr)
            tile.handle.grad = None
        return tile

    own = [([0.5, 0.25, 0.5][: len(names)], 0.25), ([0.125, 1.0, 0.5][: len(names)], 0.5)]
    together = [torch.tensor(values)[:, None, None] for values in zip(*(steps for steps, _ in own), strict=True)]
    both = run_of(together, torch.tensor([0.25, 0.5])[:, None, None], (2,), [3, 4])
    for k, (steps, lr) in enumerate(own):
        alone = run_of(steps, lr, (), 3 + k)
        for bar, other in zip(both.crossbars, alone.crossbars, strict=True):
            assert_bits(bar.weight[k], other.weight)


@pytest.mark.parametrize("algorithm", EVERY, ids=NAMES)
@pytest.mark.parametrize("update", [ExpectedUpdate(per_sample=True, noise=True), PulsedUpdate()])
def test_empty_mini_batches_and_steps_of_zero_go_through(algorithm, update):
    options = {"device": asymmetric_linear(), "update": update}
    tile = Tile(torch.full((3, 4), 0.2), algorithm=algorithm, crossbar=options)
    algorithm.update(tile.state, Outer(torch.zeros(0, 3), torch.zeros(0, 4)), 0.1)
    assert torch.equal(tile.weight, torch.full((3, 4), 0.2))
    for n in (0, 2, 5):  # and sizes that change
        algorithm.update(tile.state, Outer(torch.ones(n, 3), torch.ones(n, 4)), 0.0)
    assert torch.isfinite(tile.weight).all()


NEW = (TikiTakaV2, ChoppedTikiTakaV2, AGAD, ResidualLearning, MultiTile, Rider)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        *((kind, {"fast_lr": -1.0}, "fast_lr > 0, got -1.0") for kind in NEW),
        *((kind, {"transfer_every": 0}, "a whole transfer_every >= 1, got 0") for kind in (*NEW, MixedPrecision)),
        *(
            (kind, {"transfer_lr": math.nan}, "transfer_lr > 0, got nan")
            for kind in NEW
            if kind is not ResidualLearning
        ),
        *((kind, {"gamma": -0.1}, r"gamma .*got -0.1") for kind in NEW if kind is not AGAD),
        *((kind, {"max_pulses": 0}, "a whole max_pulses >= 1, got 0") for kind in NEW[:3]),
        *((kind, {"momentum": 1.1}, r"momentum in \[0, 1\], got 1.1") for kind in (*NEW[:3], MixedPrecision)),
        *((kind, {"buffer_granularity": 0.0}, "buffer_granularity > 0, got 0.0") for kind in NEW[:3]),
        *((kind, {"in_chop_prob": 2.0}, r"in_chop_prob in \[0, 1\], got 2.0") for kind in NEW[1:3]),
        (AGAD, {"in_chop_prob": 0.0}, "in_chop_prob > 0, got 0.0"),
        (AGAD, {"tail_weightening": 0.0}, "tail_weightening > 0, got 0.0"),
        (ResidualLearning, {"gamma": 0.0}, "gamma > 0, got 0.0"),
        (ResidualLearning, {"buffer_rate": 1.5}, r"buffer_rate in \[0, 1\], got 1.5"),
        (MultiTile, {"n_tiles": 0}, "a whole n_tiles >= 1, got 0"),
        (MultiTile, {"n_tiles": 1}, "n_tiles >= 2, got 1"),
        (MultiTile, {"gamma": 1.0}, r"gamma in \(0, 1\), got 1.0"),
        (Rider, {"tracking_rate": 0.0}, "tracking_rate > 0, got 0.0"),
        (MixedPrecision, {"x_bins": 1}, "2 whole bins or more, or 0 for none, got 1 and 0"),
        (MixedPrecision, {"d_bins": 2.5}, "2 whole bins or more, or 0 for none, got 0 and 2.5"),
        (Rider, {"gamma": "0.1"}, "a number as gamma, got '0.1'"),
        (AGAD, {"n_reads": True}, "a whole n_reads >= 1, got True"),
        (MultiTile, {"transfer_lr": torch.tensor([[[0.1]], [[-0.1]]])}, "transfer_lr > 0, got -0.1"),
        (TikiTakaV2, {"gamma": torch.ones(2, 1, 1)}, "a number as gamma, got tensor"),
        (MixedPrecision, {"granularity": -1e-3}, "granularity > 0, got -0.001"),
        (Stale, {"delay": 0}, "a whole delay >= 1, got 0"),
    ],
)
def test_wrong_values(kind, options, message):
    with pytest.raises(ValueError, match=f"{kind.__name__} needs {message}"):
        kind(**options)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (TikiTaka, {"fast_device": "ecram"}, "a device or None as fast_device, got 'ecram'"),
        (Rider, {"scale_fast_lr": "no"}, "True or False as scale_fast_lr, got 'no'"),
        (Stale, {"algorithm": TikiTaka}, "an algorithm to delay, such as .* got <class"),
    ],
)
def test_wrong_kinds(kind, options, message):
    with pytest.raises(TypeError, match=f"{kind.__name__} needs {message}"):
        kind(**options)


def test_steps_of_a_wrong_shape():
    message = r"lr needs a number, or a tensor \(\*replica, 1, 1\), got the shape \(2,\)"
    with pytest.raises(ValueError, match=f"TikiTaka's fast_{message}"):
        TikiTaka(fast_lr=torch.ones(2))
    tile = Tile(torch.zeros(2, 3, 3), algorithm=AnalogSGD(), crossbar={"device": asymmetric_linear()}, seed=[0, 1])
    with pytest.raises(ValueError, match=message):
        tile.algorithm.update(tile.state, Outer(torch.ones(2, 1, 3), torch.ones(2, 1, 3)), torch.ones(2))


@pytest.mark.parametrize(
    "algorithm", [TikiTaka(n_reads=4), *(kind(n_reads=4) for kind in NEW), MixedPrecision(n_rows=4)]
)
def test_a_transfer_larger_than_the_matrix(algorithm):
    with pytest.raises(ValueError, match=f"{type(algorithm).__name__} needs n_(reads|rows) <= 3, .* got 4"):
        Tile(torch.zeros(3, 3), algorithm=algorithm, crossbar={"device": asymmetric_linear()})
