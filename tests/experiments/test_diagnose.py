"""`diagnose` on networks that are made bad on purpose: it finds the tile and the effect, and harms nothing."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import ohmgrad as og
from exact import assert_bits
from ohmgrad.devices import Ideal
from ohmgrad.experiments.data import load
from ohmgrad.experiments.diagnosis import Diagnosis, Gain, tiles_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench():
    """The script that plants ten faults."""
    spec = importlib.util.spec_from_file_location("benchmark_of_diagnose", ROOT / "benchmarks/diagnose.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # its dataclass looks itself up there
        spec.loader.exec_module(module)
        yield module


def small(bench, fault, tile, seed=11):
    """One of its networks with the paper's dynamics, which need no kernel, trained for a short while."""
    data = load("digits")
    model = bench.network(fault, tile, seed, og.ExpectedUpdate())
    bench.train(model, data, seed, epochs=4)
    return model, bench.mini_batches(data, torch.Generator().manual_seed(0))


def test_a_noisy_tile_is_found_and_mended_and_the_model_stays_as_it_is(bench):
    """Fails if noise is switched off on another tile, if gains change sign, or if the user's model is trained on."""
    model, loader = small(bench, "read noise", "4")
    model.zero_grad()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    found = og.diagnose(model, loader, lr=0.1, steps=60, repeats=3)
    for name, value in model.state_dict().items():
        assert_bits(value, before[name])
    assert torch.equal(random_state, torch.get_rng_state())
    assert not any(tile.waiting for tile in tiles_of(model).values())
    assert (found.culprit, found.effect) == ("4", "read noise")
    assert "Tile 4 (24 to 10) dominates" in str(found) and "read noise" in str(found)
    tile = next(t for t in found.tiles if t.name == "4")
    assert tile.forward.noise > 0.9 and tile.forward.relative > max(t.forward.relative for t in found.tiles[:2])
    mended = found.mend(model)
    assert_bits(mended[0].weight, model[0].weight)
    again = og.diagnose(mended, loader, lr=0.1, steps=60, repeats=3)
    assert again.loss == pytest.approx(found.loss - found.mends[found.recommendation].mean)  # the same runs
    assert again.loss < found.loss


def test_nothing_is_named_where_nothing_is_wrong(bench):
    model, loader = small(bench, "none", "0")
    found = og.diagnose(model, loader, lr=0.1, steps=30, repeats=2)
    assert found.culprit is None and "No tile dominates" in str(found)


def test_ideal_tiles_cost_nothing():
    """On ideal hardware, whatever is switched off, the very same losses come again."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 3))
    model = og.convert(net, device=Ideal())
    loader = [(torch.randn(8, 6), torch.randint(3, (8,))) for _ in range(5)]
    found = og.diagnose(model, loader, lr=0.2, steps=10, repeats=2)
    assert all(gain == Gain(0.0, 0.0) for gain in (*found.costs.values(), found.together))
    assert (found.where, found.effects, found.recommendation) == ((), {}, None)
    with pytest.raises(ValueError, match="nothing is recommended: No tile dominates"):
        found.mend(model)


def test_any_layer_and_algorithm():
    """Convolutions, recurrent layers, grids and replicas of algorithms; figures are finite."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    device = og.devices.SoftBounds(w_max=0.5, w_min=-0.5, dw_min=0.01)
    loader = [(torch.randn(4, 1, 4, 4), torch.randint(3, (4,))) for _ in range(3)]
    for algorithm in (og.algorithms.AGAD(), og.algorithms.MixedPrecision(), og.algorithms.MultiTile()):
        model = og.convert(
            net, device=device, algorithm=algorithm, periphery=og.Periphery(), mapping=og.Mapping(max_input_size=5)
        )
        found = og.diagnose(model, loader, lr=0.1, steps=4, repeats=2)
        assert len(found.tiles) == len(found.costs) == 4  # both matrices are wider than 5
        assert all(t.gradient > 0.0 and 0.0 <= t.saturated <= 1.0 for t in found.tiles)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "diagnose needs a finite lr > 0, got 0.0"),
        ({"steps": 1}, "diagnose needs steps as a whole number >= 2, got 1"),
        ({"repeats": 1}, "diagnose needs repeats as a whole number >= 2, got 1"),
        ({"loader": []}, "diagnose needs a loader with at least one mini-batch, got none"),
        ({"model": nn.Linear(2, 2)}, "diagnose needs a model with tiles"),
        ({"lr": 1e30, "loss": lambda y, target: (y - 1.0).square().sum()}, "comes to no finite loss"),
    ],
)
def test_wrong_values(options, message):
    model = og.convert(nn.Sequential(nn.Linear(2, 2)), device=Ideal())
    given = {"model": model, "loader": [(torch.ones(1, 2), torch.zeros(1).long())], "lr": 0.1, "steps": 4} | options
    with pytest.raises(ValueError, match=message):
        og.diagnose(given.pop("model"), given.pop("loader"), **given)


def test_words_say_what_was_found():
    found = Diagnosis((), 1.0, {"a": Gain(0.2, 0.01), "b": Gain(0.1, 0.01)}, Gain(0.5, 0.01))
    assert found.culprit is None and found.effect is None
    assert not Gain(0.2, 0.1).is_sure and Gain(0.31, 0.1).is_sure and not Gain(float("-inf"), float("inf")).is_sure


def test_the_committed_figures():
    """What README says of the planted faults."""
    results = json.loads((ROOT / "benchmarks/results/diagnose.json").read_text())
    counts = results["summary"]
    said = (
        f"the tile and the effect in {counts['found']} of {counts['faulty']} networks, its mend raised the accuracy in "
        f"{counts['mended']}, and in {counts['nothing_named']} sound networks it named nothing"
    )
    assert said in (ROOT / "README.md").read_text() and counts["good"] == counts["nothing_named"]


@pytest.mark.slow
def test_planted_faults_are_found_and_mended(bench):
    data = load("digits")
    cases = [bench.case(fault, tile, seed, data) for seed, (fault, tile) in enumerate(bench.PLANTED, 301)]
    counts = bench.summary(cases)
    assert counts["found"] >= 9 and counts["mended"] >= 8 and counts["nothing_named"] == counts["good"]
