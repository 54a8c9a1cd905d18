"""What is measured on a model, against torch's autograd and closed forms in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from chance import assert_mean
from exact import assert_bits, assert_within_ulps
from ohmgrad import AnalogSGD, TikiTaka, convert
from ohmgrad.devices import Ideal, SoftBounds
from ohmgrad.experiments.measure import (
    Gradients,
    floor,
    loss_and_accuracy,
    mean_saturation,
    replica_loss,
    tile_gradients,
)

LAYERS = ("0", "2")


def digital(n: int) -> list[nn.Sequential]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double() for _ in range(n)]


def samples(n: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 5, generator=g, dtype=torch.float64), torch.randint(3, (n,), generator=g)


def replicated(x: Tensor, y: Tensor, n_replicas: int, size: int):
    """Mini-batches as training sees them, the same for every replica."""
    for i in range(0, len(x), size):
        yield x[i : i + size].expand(n_replicas, -1, -1), y[i : i + size].expand(n_replicas, -1)


def gradient(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    net.zero_grad()
    cross_entropy(net(x), y).backward()
    return {name: net.get_submodule(name).weight.grad.clone() for name in LAYERS}


def test_loss_and_accuracy_of_replicas():
    nets, (x, y) = digital(2), samples(4100)  # more than two parts of 2,000
    losses, accuracies = loss_and_accuracy(convert(nets, device=Ideal()), x, y, 2)
    for net, loss, accuracy in zip(nets, losses, accuracies, strict=True):
        assert_within_ulps(loss, cross_entropy(net(x), y).detach(), ulps=100)
        assert float(accuracy) == pytest.approx(100.0 * float((net(x).argmax(-1) == y).double().mean()))
    logits = torch.stack([net(x) for net in nets])
    assert_within_ulps(replica_loss(logits, y.expand(2, -1)).detach(), losses, ulps=100)


def test_tile_gradients_equal_autograd():
    nets, (x, y) = digital(2), samples(60)
    model = convert(nets, device=Ideal())
    before = [tile.weight for tile in (model[0].tile, model[2].tile)]
    got = tile_gradients(model, replicated(x, y, 2, 10))
    assert set(got) == {f"{name}.tile" for name in LAYERS}
    for r, net in enumerate(nets):
        for name in LAYERS:
            g = torch.stack([gradient(net, x[i : i + 10], y[i : i + 10])[name] for i in range(0, 60, 10)])
            found = got[f"{name}.tile"]
            assert_within_ulps(found.mean[r], g.mean(0), ulps=50)
            assert_within_ulps(found.mean_abs[r], g.abs().mean(0), ulps=50)
            assert_within_ulps(found.variance[r], g.var(0), ulps=50)
    # Nothing was updated, and nothing waits to be.
    for tile, weight in zip((model[0].tile, model[2].tile), before, strict=True):
        tile.step(1.0)
        assert_bits(tile.weight, weight)


def test_measured_floor_of_a_whole_epoch_is_the_gradient_of_the_whole_set():
    nets, (x, y) = digital(2), samples(60)
    model = convert(nets, device=Ideal())
    found = floor(model, tile_gradients(model, replicated(x, y, 2, 10)), n_batches=6, n_all=6)
    exact = torch.stack([sum(g.square().sum() for g in gradient(net, x, y).values()) for net in nets])
    assert_within_ulps(found.measured, exact, ulps=50)
    assert found.predicted.tolist() == [0.0, 0.0] and found.bound.tolist() == [0.0, 0.0]


def test_measured_floor_of_a_part_of_the_epoch_is_unbiased(seed):
    """n=4,000 sees 0.08 standard deviations; without the correction the mean is off by more than that, and fails."""
    n_replicas, n_all, n, size = 4000, 12, 4, 2
    x, y = samples(n_all * size)
    (net,) = digital(1)
    model = convert([net] * n_replicas, device=Ideal())
    order = torch.rand(n_replicas, n_all * size, generator=torch.Generator().manual_seed(seed)).argsort(-1)
    parts = (order[:, i * size : (i + 1) * size] for i in range(n))
    gradients = tile_gradients(model, ((x[p], y[p]) for p in parts))
    exact = float(sum(g.square().sum() for g in gradient(net, x, y).values()))
    measured = floor(model, gradients, n, n_all).measured
    assert (measured < 0).any()  # which no one may clip before taking means
    assert_mean(measured, exact)
    with pytest.raises(AssertionError, match="mean"):  # planted: clipped at 0
        assert_mean(measured.clamp(min=0.0), exact)
    with pytest.raises(AssertionError, match="mean"):  # planted: no correction
        assert_mean(floor(model, gradients, n, n).measured, exact)
    with pytest.raises(AssertionError, match="mean"):  # planted: as if batches were drawn with replacement
        assert_mean(floor(model, gradients, n, 10**9).measured, exact)


def two_tiles(algorithm, **device: float) -> tuple[nn.Module, dict[str, Gradients]]:
    """Soft bounds of tau = 0.5 and a weight known at every place, with gradients made up."""
    nets = digital(2)
    model = convert(nets, device=SoftBounds(w_min=-0.5, w_max=0.5, **device), algorithm=algorithm)
    g = {name: torch.rand_like(model.get_submodule(name).weight) for name in LAYERS}
    return model, {f"{k}.tile": Gradients(v, mean_abs=2.0 * v, variance=3.0 * v) for k, v in g.items()}


def test_predicted_floor_and_bound_of_analog_sgd():
    """F = 1, G = w / tau: pulses balance at g = -E|g| w / tau; S = r^2 / (1 - r^2) with r = max |w| / tau."""
    model, gradients = two_tiles(AnalogSGD())
    predicted, bound = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for name in LAYERS:
        g, share = gradients[f"{name}.tile"], model.get_submodule(name).weight / 0.5
        predicted += (g.mean_abs * share).square().sum((-2, -1))
        worst = share.abs().amax((-2, -1)).square()
        bound += g.variance.sum((-2, -1)) * worst / (1.0 - worst)
    found = floor(model, gradients, 1, 1)
    assert_within_ulps(found.predicted, predicted, ulps=100)
    assert_within_ulps(found.bound, bound, ulps=1000)


def test_predicted_floor_of_tiki_taka_is_that_of_its_fast_crossbar_at_0():
    assert floor(*two_tiles(TikiTaka()), 1, 1).predicted.tolist() == [0.0, 0.0]
    # A device that pulls at 0 leaves a floor: up steps halved give G / F = 0.25 / 0.75 there.
    model, gradients = two_tiles(TikiTaka(), up_down=-0.5)
    expected = sum((g.mean_abs / 3.0).square().sum((-2, -1)) for g in gradients.values())
    assert_within_ulps(floor(model, gradients, 1, 1).predicted, expected, ulps=100)


@pytest.mark.parametrize("algorithm", [AnalogSGD(), TikiTaka(gamma=0.5)])
def test_saturation_is_that_of_the_devices_that_hold_the_weight(algorithm):
    model, _ = two_tiles(algorithm)
    weights = torch.cat([model.get_submodule(name).weight.flatten(-2) for name in LAYERS], -1)
    assert_within_ulps(mean_saturation(model), (weights.abs() / 0.5).mean(-1), ulps=50)


def test_a_per_sample_update_counts_each_samples_modulus():
    # Two samples with opposite errors: the batch's gradient is 0, and yet pulses go both ways.
    from ohmgrad import PulsedUpdate
    from ohmgrad.experiments.measure import _modulus
    from ohmgrad.pulses.forms import Outer

    update = Outer(torch.tensor([[1.0], [-1.0]]), torch.ones(2, 1))
    assert PulsedUpdate.per_sample and float(update.as_dense()) == 0.0 and float(_modulus(update)) == 2.0
