"""AnalogLinear: torch.nn.Linear on ideal devices, and a well-behaved torch module on all."""

import copy

import pytest
import torch
from torch import nn

from exact import assert_bits, assert_within_ulps
from ohmgrad import AnalogLinear, AnalogOptimizer, TikiTaka, convert
from ohmgrad.devices import Ideal
from ohmgrad.devices.presets import aihwkit_soft_bounds


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(*, bias: bool = True, algorithm=None, device=None) -> tuple[nn.Linear, AnalogLinear]:
    """A digital layer and its analog twin."""
    torch.manual_seed(0)
    digital = nn.Linear(5, 4, bias, dtype=torch.float64)
    return digital, convert(digital, device=device or Ideal(), algorithm=algorithm)


class TestAgainstTorch:
    """On ideal devices, with torch.optim.SGD beside."""

    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("lead", [(7,), (2, 3), (2, 1, 3), ()], ids=str)
    def test_forward_and_backward(self, bias, lead):
        digital, analog = pair(bias=bias)
        x, d = gaussian(*lead, 5), gaussian(*lead, 4, seed=1)
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, expected = analog(ours), digital(theirs)
        assert_within_ulps(y.detach(), expected.detach(), ulps=8)
        y.backward(d)
        expected.backward(d)
        assert_within_ulps(ours.grad, theirs.grad, ulps=8)
        (update,) = analog.tile.waiting
        assert_within_ulps(update.as_dense(), digital.weight.grad, ulps=8)
        if bias:
            assert_within_ulps(analog.bias.grad, digital.bias.grad, ulps=8)

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_steps_of_a_network(self, momentum):
        # Momentum acts on the digital half alone; so it is zero on the weights of the reference.
        torch.manual_seed(0)
        digital = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).double()
        analog = convert(digital, device=Ideal())
        weights = [p for p in digital.parameters() if p.dim() == 2]
        biases = [{"params": [p for p in digital.parameters() if p.dim() == 1], "momentum": momentum}]
        theirs = torch.optim.SGD([{"params": weights}, *biases], lr=0.2)
        ours = AnalogOptimizer(analog, lr=0.2, momentum=momentum)
        for k in range(5):
            x, y = gaussian(8, 5, seed=k), gaussian(8, 3, seed=k + 50)
            losses = []
            for model, optimizer in ((digital, theirs), (analog, ours)):
                optimizer.zero_grad()
                loss = (model(x) - y).square().mean()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            assert_within_ulps(losses[1], losses[0], ulps=8 * (k + 1))
        for i in (0, 2, 4):
            assert_within_ulps(analog[i].weight.detach(), digital[i].weight.detach(), ulps=32)
            assert_within_ulps(analog[i].bias.detach(), digital[i].bias.detach(), ulps=64)

    def test_initialisation_is_torchs(self):
        torch.manual_seed(5)
        digital = nn.Linear(5, 4)
        torch.manual_seed(5)
        analog = AnalogLinear(5, 4, device=Ideal())
        assert_bits(analog.weight, digital.weight.detach())
        assert_bits(analog.bias.detach(), digital.bias.detach())

    def test_settings_of_the_hardware(self):
        layer = AnalogLinear(5, 4, device=Ideal(), algorithm=TikiTaka(), count_pulses=True)
        slow, fast = layer.tile.crossbars
        assert slow.counters.pulses_per_crosspoint.shape == fast.counters.pulses_per_crosspoint.shape == (4, 5)
        with pytest.raises(TypeError, match="AnalogLinear has no option 'devise', did you mean 'device'"):
            AnalogLinear(5, 4, devise=Ideal())

    def test_gradients_of_an_input_are_right(self):
        _, analog = pair(device=aihwkit_soft_bounds())
        assert torch.autograd.gradcheck(analog, gaussian(3, 5).requires_grad_())


class TestAsAModule:
    """What torch users do to modules."""

    def test_a_layer_used_twice_gathers_both_updates(self):
        digital, _ = pair()
        square = nn.Linear(5, 5, dtype=torch.float64)
        digital = nn.Sequential(square, nn.Tanh(), square)
        analog = convert(digital, device=Ideal())
        assert analog[0] is analog[2]
        x = gaussian(3, 5)
        for model in (digital, analog):
            model(x).square().sum().backward()
        total = sum(u.as_dense() for u in analog[0].tile.waiting)
        assert_within_ulps(total, square.weight.grad, ulps=16)
        AnalogOptimizer(analog, lr=0.1).step()
        torch.optim.SGD(digital.parameters(), lr=0.1).step()
        assert_within_ulps(analog[0].weight, square.weight.detach(), ulps=16)

    def test_a_frozen_tile_stays_and_still_passes_gradients_on(self):
        digital, analog = pair()
        analog.tile.handle.requires_grad_(False)
        x = gaussian(3, 5).requires_grad_()
        analog(x).sum().backward()
        before = analog.weight
        AnalogOptimizer(analog, lr=0.1).step()
        assert_bits(analog.weight, before)
        assert_within_ulps(x.grad, digital.weight.detach().sum(0).expand(3, 5), ulps=8)
        assert (analog.bias != digital.bias).all()

    def test_no_grad_and_eval_leave_nothing_behind(self):
        _, analog = pair()
        with torch.no_grad():
            assert not analog(gaussian(3, 5)).requires_grad
        analog.eval()
        assert_bits(analog(gaussian(3, 5)).detach(), analog.train()(gaussian(3, 5)).detach())
        assert analog.tile.waiting == [] and analog.tile.handle.grad is None

    @pytest.mark.parametrize("ask", ["autograd.grad", "backward of inputs"])
    def test_a_gradient_for_inputs_alone_trains_nothing(self, ask):
        # A saliency map between two training steps, which torch's layers would not notice either.
        _, analog = pair()
        x = gaussian(3, 5).requires_grad_()
        loss = analog(x).sum()
        if ask == "autograd.grad":
            torch.autograd.grad(loss, x)
        else:
            loss.backward(inputs=[x])
        before = analog.weight
        AnalogOptimizer(analog, lr=0.1).step()
        assert_bits(analog.weight, before)

    def test_two_backward_passes_through_one_graph_count_twice(self):
        digital, analog = pair()
        for model in (digital, analog):
            loss = model(gaussian(3, 5)).sum()
            loss.backward(retain_graph=True)
            loss.backward()
        assert_within_ulps(sum(u.as_dense() for u in analog.tile.waiting), digital.weight.grad, ulps=8)

    def test_hooks_run(self):
        _, analog = pair()
        seen = []
        analog.register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape)))
        analog.register_full_backward_hook(lambda module, given, got: seen.append(tuple(got[0].shape)))
        analog(gaussian(3, 5).requires_grad_()).sum().backward()
        assert seen == [(3, 4), (3, 4)]
        assert len(analog.tile.waiting) == 1

    def test_a_deepcopy_trains_on_its_own(self):
        _, analog = pair(device=aihwkit_soft_bounds(), algorithm=TikiTaka(n_reads=None))
        twin, before = copy.deepcopy(analog), analog.weight
        for layer in (twin, analog):
            layer(gaussian(3, 5)).sum().backward()
            AnalogOptimizer(layer, lr=0.1).step()
            if layer is twin:
                assert_bits(analog.weight, before)
                assert (twin.weight != before).any()
        assert_bits(analog.weight, twin.weight)

    def test_a_deepcopy_has_no_gradients_as_in_torch(self):
        # What waits refers to a graph, which cannot be copied; it did, once.
        model = nn.Sequential(nn.Linear(5, 5, dtype=torch.float64), pair()[1])
        model(gaussian(3, 5)).sum().backward()
        twin, before = copy.deepcopy(model), model[1].weight
        AnalogOptimizer(twin, lr=0.1).step()
        assert_bits(twin[1].weight, before)
        assert twin[0].weight.grad is None
        AnalogOptimizer(model, lr=0.1).step()
        assert (model[1].weight != before).all()

    def test_state_dict_round_trip(self, tmp_path):
        _, analog = pair(device=aihwkit_soft_bounds())
        torch.save(analog.state_dict(), tmp_path / "layer.pt")
        other = AnalogLinear(5, 4, device=aihwkit_soft_bounds(), seed=8, dtype=torch.float64)
        other.load_state_dict(torch.load(tmp_path / "layer.pt"))
        assert_bits(other(gaussian(3, 5)).detach(), analog(gaussian(3, 5)).detach())

    def test_double(self):
        analog = AnalogLinear(5, 4, device=aihwkit_soft_bounds()).double()
        optimizer = AnalogOptimizer(analog, lr=0.1)
        analog(gaussian(3, 5)).sum().backward()
        optimizer.step()
        assert analog.weight.dtype == torch.float64

    def test_an_empty_batch(self):
        _, analog = pair()
        before = analog.weight
        y = analog(gaussian(0, 5))
        y.sum().backward()
        AnalogOptimizer(analog, lr=0.1).step()
        assert y.shape == (0, 4)
        assert_bits(analog.weight, before)

    def test_the_gradient_of_a_handle_has_the_norm_of_the_matrixs(self):
        digital, analog = pair()
        for model in (digital, analog):
            model(gaussian(3, 5)).square().sum().backward()
        norms = [nn.utils.get_total_norm([p.grad for p in m.parameters()]) for m in (analog, digital)]
        assert_within_ulps(*norms, ulps=8)


class TestReplicas:
    """Leading dimensions: several layers in one."""

    def test_each_is_a_layer_of_its_own(self):
        torch.manual_seed(0)
        models = [nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double() for _ in range(3)]
        together = convert(models, device=aihwkit_soft_bounds(), seed=10)
        alone = [convert(m, device=aihwkit_soft_bounds(), seed=10 + r) for r, m in enumerate(models)]
        x = gaussian(3, 7, 5)
        optimizers = [AnalogOptimizer(m, lr=0.05) for m in (together, *alone)]
        for _ in range(3):
            for optimizer in optimizers:
                optimizer.zero_grad()
            together(x).square().sum().backward()
            for r, model in enumerate(alone):
                model(x[r]).square().sum().backward()
            for optimizer in optimizers:
                optimizer.step()
        for r, model in enumerate(alone):
            for i in (0, 2):
                # Products of batches are summed in another order when they are stacked.
                assert_within_ulps(together[i].weight[r], model[i].weight, ulps=64)
                assert_within_ulps(together[i].bias[r].detach(), model[i].bias.detach(), ulps=64)

    def test_shapes(self):
        layer = AnalogLinear(5, 4, device=Ideal(), replicas=(3, 2), dtype=torch.float64)
        assert layer.weight.shape == (3, 2, 4, 5) and layer.bias.shape == (3, 2, 4)
        x = gaussian(3, 2, 6, 7, 5)
        y = layer(x)
        expected = torch.einsum("rsoi,rsabi->rsabo", layer.weight, x) + layer.bias[:, :, None, None]
        assert_within_ulps(y.detach(), expected.detach(), ulps=8)
        assert len({tuple(w.flatten().tolist()) for w in layer.weight.flatten(0, 1)}) == 6


class TestRefusals:
    """Errors name the tensor."""

    @pytest.mark.parametrize(
        ("x", "error", "message"),
        [
            (torch.zeros(3, 5), TypeError, "x needs the tile's dtype torch.float64, got torch.float32"),
            (gaussian(3, 4), ValueError, r"x needs the shape \('...', 5\), got \(3, 4\)"),
            (torch.tensor(1.0, dtype=torch.float64), ValueError, r"x needs the shape .*, got \(\)"),
        ],
    )
    def test_inputs(self, x, error, message):
        _, analog = pair()
        with pytest.raises(error, match=message):
            analog(x)

    def test_inputs_of_replicas(self):
        layer = AnalogLinear(5, 4, device=Ideal(), replicas=(3,))
        for shape in ((5,), (2, 7, 5), (3,)):
            with pytest.raises(ValueError, match=r"x needs the shape \(3, '...', 5\), got"):
                layer(torch.zeros(shape))

    @pytest.mark.parametrize("spoilt", ["x", "d"])
    def test_nan_is_named_before_anything_moves(self, spoilt):
        _, analog = pair()
        x, d = gaussian(3, 5), gaussian(3, 4)
        (x if spoilt == "x" else d)[1, 2] = torch.nan
        before = analog.weight
        analog(x).backward(d)
        with pytest.raises(ValueError, match=f"{spoilt} needs finite numbers, got NaN or infinity in 1 of"):
            AnalogOptimizer(analog, lr=0.1).step()
        assert_bits(analog.weight, before)

    def test_nan_in_an_initial_weight(self):
        digital, _ = pair()
        digital.weight.data[0, 0] = torch.nan
        with pytest.raises(ValueError, match="weight needs finite numbers, got NaN or infinity in 1 of 20"):
            convert(digital, device=Ideal())
