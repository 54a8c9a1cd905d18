"""The compiled kernel against the eager reference: the same numbers of pulses, and weights within rounding."""

import copy
import pickle

import pytest
import torch

from ohmgrad import Crossbar, Dense, PulsedUpdate
from ohmgrad.devices import DEVICES, Device, SoftBounds

AFFINE = [family for family in DEVICES if family.is_affine]
# Normals differ by 6e-6 between the two (fused products), steps by rounding; over some hundred pulses on |w| < 1.
ROUNDING = {torch.float32: 5e-7, torch.float64: 5e-8}


def device(family: type[Device], **fields) -> Device:
    spread = {"w_max_dtod": 0.3, "w_min_dtod": 0.3, "dw_min_dtod": 0.3, "up_down_dtod": 0.05}
    return family(w_min=-0.6, w_max=0.6, dw_min=5e-3, dw_min_ctoc=0.3, **spread, **fields)


def both(model: Device, x: torch.Tensor, d: torch.Tensor, **settings) -> list[Crossbar]:
    """Two mini-batches on the compiled and on the eager crossbar."""
    bars = []
    for eager in (False, True):
        update = PulsedUpdate(eager=eager, **settings)
        shape = (d.shape[-1], x.shape[-1])
        bar = Crossbar(shape, device=model, update=update, seed=4, dtype=x.dtype, replicas=x.shape[:-2])
        bar.pulse(x, d, 0.02)
        bar.pulse(x.flip(-1), d, -0.1)
        bars.append(bar)
    return bars


def assert_agree(bars: list[Crossbar]) -> None:
    assert torch.equal(bars[0].pulses, bars[1].pulses) and bars[0].pulses.min() > 100
    error = (bars[0].weight - bars[1].weight).abs().max()
    assert error <= ROUNDING[bars[0].weight.dtype]


@pytest.mark.parametrize("family", AFFINE)
@pytest.mark.parametrize("ctoc", ["multiplicative", "additive"])
@pytest.mark.parametrize("sparsity", [0.0, 0.8])
@pytest.mark.parametrize("merge", [True, False])
def test_kernel_equals_eager(family, ctoc, sparsity, merge):
    generator = torch.Generator().manual_seed(1)
    x, d = torch.randn(5, 37, generator=generator), torch.randn(5, 21, generator=generator)
    x[torch.rand(x.shape, generator=generator) < sparsity] = 0.0
    assert_agree(both(device(family, ctoc=ctoc), x, d, merge=merge))


@pytest.mark.parametrize(
    "settings", [{"bit_length": 100}, {"bit_length_management": False, "update_management": False}]
)
def test_long_trains_and_unmanaged_ones(settings):
    x, d = torch.randn(2, 4, 9).double(), torch.randn(2, 4, 6).double()
    assert_agree(both(device(SoftBounds), x, d, **settings))


def test_positive_inputs_and_spoilt_memory_layouts():
    x, d = torch.rand(17, 6).T, torch.randn(6, 40)[:, ::2]
    assert_agree(both(device(SoftBounds), x, d))


def test_threads_give_the_same_weights():
    x, d, before = torch.randn(16, 200), torch.randn(16, 150), torch.get_num_threads()
    weights = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            bar = Crossbar((150, 200), device=device(SoftBounds), update=PulsedUpdate())
            bar.pulse(x, d, 0.01)
            weights.append(bar.weight)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes(shape):
    bar = Crossbar(shape, device=SoftBounds(), update=PulsedUpdate())
    bar.pulse(torch.ones(1, shape[1]), torch.ones(1, shape[0]), 0.01)
    torch.testing.assert_close(bar.weight, torch.full(shape, -0.01), rtol=0.01, atol=0.0)


def test_loading_a_state_takes_its_devices_along():
    first, second = (Crossbar((4, 5), device=device(SoftBounds), update=PulsedUpdate(), seed=s) for s in (1, 2))
    x, d = torch.randn(3, 5), torch.randn(3, 4)
    for bar in (first, second):
        bar.pulse(x, d, 0.1)
    second.load_state_dict(first.state_dict())
    for bar in (first, second):
        bar.pulse(x, d, 0.1)
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("update", [PulsedUpdate(), PulsedUpdate(eager=True)])
def test_nan_is_refused_in_a_weight_and_in_columns(update):
    bar, spoilt = Crossbar((2, 3), device=SoftBounds(), update=update), torch.zeros(2, 3)
    spoilt[0, 1] = torch.nan
    with pytest.raises(ValueError, match="weight needs finite numbers"):
        bar.set_weight(spoilt)
    with pytest.raises(ValueError, match="values needs finite numbers"):
        bar.write_columns(torch.tensor([0, 1]), spoilt[:, :2], 0.1)
    with pytest.raises(ValueError, match="dW needs finite numbers"):
        bar.write(Dense(spoilt), 0.1)
    assert not bar.weight.any()


def test_a_copy_keeps_its_devices_when_the_original_loads_others():
    original, other = (Crossbar((4, 5), device=device(SoftBounds), update=PulsedUpdate(), seed=s) for s in (1, 2))
    x, d = torch.randn(3, 5), torch.randn(3, 4)
    original.pulse(x, d, 0.1)
    twins = [copy.deepcopy(original), pickle.loads(pickle.dumps(original))]
    expected = copy.deepcopy(original)
    expected.pulse(x, d, 5.0)
    original.load_state_dict(other.state_dict())
    for twin in twins:
        twin.pulse(x, d, 5.0)  # long enough trains to meet the bounds
        assert torch.equal(twin.weight, expected.weight)
