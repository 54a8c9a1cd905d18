"""Laws of the compiled pulsed update that hold whatever is drawn: bounds, splitting, replicas, transposing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chance import assert_correlation, assert_mean, assert_same_law
from ohmgrad import Crossbar, PulsedUpdate
from ohmgrad.devices import DEVICES, ConstantStep, Device, SoftBounds, SoftBoundsReference

SPREADS = ("w_max_dtod", "w_min_dtod", "dw_min_dtod", "up_down_dtod", "dw_min_ctoc")
NOISES, TRAINS = ("multiplicative", "additive"), ("stochastic", "mean-count", "deterministic")


@st.composite
def devices(draw) -> Device:
    """Any family, with steps from a thousandth of the range to all of it, and spreads up to 1."""
    family = draw(st.sampled_from(DEVICES))
    fields = {name: draw(st.sampled_from([0.0, 0.1, 1.0])) for name in SPREADS}
    fields["dw_min"] = draw(st.sampled_from([1e-3, 0.01, 0.1, 0.5, 1.0]))
    fields["ctoc"] = draw(st.sampled_from(NOISES))
    if family is SoftBoundsReference:
        fields["reference_std"] = draw(st.sampled_from([0.0, 0.2]))
        fields["subtract_symmetry_point"] = draw(st.booleans())
        fields["slope_up_dtod"] = draw(st.sampled_from([0.0, 0.3]))
    return family(w_min=-0.5, w_max=1.0, up_down=draw(st.sampled_from([0.0, 0.3, -1.0])), **fields)


@st.composite
def updates(draw) -> PulsedUpdate:
    return PulsedUpdate(
        bit_length=draw(st.sampled_from([1, 7, 31, 40])),
        bit_length_management=draw(st.booleans()),
        train=draw(st.sampled_from(TRAINS)),
        resolution=draw(st.sampled_from([0.0, 0.05])),
        stochastic_rounding=draw(st.booleans()),
        merge=draw(st.booleans()),
    )


@st.composite
def batches(draw) -> tuple[Tensor, Tensor]:
    """x and d of up to 6 samples and 40 lines, some lines silent, some sides one-sided."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    batch, made = draw(st.integers(2, 6)), []
    for _ in range(2):
        t = torch.randn(batch, draw(st.integers(1, 40)), generator=generator)
        t[torch.rand(t.shape, generator=generator) < draw(st.sampled_from([0.0, 0.5, 0.9]))] = 0.0
        made.append(t.abs() if draw(st.booleans()) else t)
    return made[0], made[1]


def crossbar(model: Device, update: PulsedUpdate, x: Tensor, d: Tensor, seed: int = 0) -> Crossbar:
    return Crossbar((d.shape[-1], x.shape[-1]), device=model, update=update, seed=seed, count_pulses=True)


@settings(max_examples=150)
@given(devices(), updates(), batches(), st.floats(-3.0, 3.0), st.integers(0, 2**40))
def test_bounds_hold_whatever_the_pulses(model, update, batch, size, seed):
    bar = crossbar(model, update, *batch, seed)
    for lr in (10.0**size, -(10.0**size)):
        bar.pulse(*batch, lr)
        assert (bar.weight <= bar.params["w_max"]).all() and (bar.weight >= bar.params["w_min"]).all()


@settings(max_examples=150)
@given(devices(), updates(), batches(), st.data())
def test_splitting_a_batch_changes_nothing(model, update, batch, data):
    # Also where the parts go by rows and the whole by columns; the second part on a crossbar that took over the state.
    x, d = batch
    whole, first, second = (crossbar(model, update, x, d, seed) for seed in (3, 3, 8))
    k, lr = data.draw(st.integers(1, len(x) - 1)), data.draw(st.sampled_from([1e-3, -0.03, 1.0]))
    whole.pulse(x, d, lr)
    first.pulse(x[:k], d[:k], lr)
    second.load_state_dict(first.state_dict())
    for split in (first, second):
        split.pulse(x[k:], d[k:], lr)
        for name, value in whole.state_dict().items():
            assert torch.equal(value, split.state_dict()[name]), name


@pytest.mark.parametrize("family", DEVICES)
@pytest.mark.parametrize("sparse", [False, True])
def test_splitting_a_large_batch_changes_nothing(family, sparse):
    # Into 16 of one sample each, on tiles and strips of which not all are full.
    generator = torch.Generator().manual_seed(0)
    x, d = torch.randn(16, 1100, generator=generator), torch.randn(16, 40, generator=generator)
    if sparse:
        x[torch.rand(x.shape, generator=generator) < 0.995] = 0.0
    model = family(w_min=-0.6, w_max=0.6, dw_min=0.01, w_max_dtod=0.3, dw_min_ctoc=0.5, write_noise=2.0)
    whole, split = (crossbar(model, PulsedUpdate(), x, d) for _ in range(2))
    whole.pulse(x, d, 0.02)
    for i in range(16):
        split.pulse(x[i], d[i], 0.02)
    for name in ("persistent", "pulse_counts", "pulses", "cycles"):
        assert torch.equal(getattr(whole, name), getattr(split, name)), name
    assert whole.pulses > 1000


def test_replicas_equal_crossbars_alone():
    options = {"device": SoftBounds(dw_min_ctoc=0.3, w_max_dtod=0.1), "update": PulsedUpdate()}
    generator = torch.Generator().manual_seed(0)
    x, d = torch.randn(2, 3, 5, generator=generator), torch.randn(2, 3, 4, generator=generator)
    both = Crossbar((4, 5), seed=[7, 9], replicas=(2,), **options)
    both.pulse(x, d, 0.1)
    for r, seed in enumerate((7, 9)):
        alone = Crossbar((4, 5), seed=seed, **options)
        alone.pulse(x[r], d[r], 0.1)
        assert torch.equal(both.weight[r], alone.weight) and torch.equal(both.pulses[r], alone.pulses)


class TestTransposed:
    """x and d swapped on a transposed crossbar of equal devices: the same law, while no train is cut short.

    Random numbers go by rows and columns, so that the weights differ. 4,000 independent crossbars see two laws that are
    4 % apart: a line of x that is treated otherwise than one of d, slots that only one side takes part in.
    """

    X = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.0, 0.9]])
    D = torch.tensor([[0.4, 1.0, 0.0, 0.7, -0.2], [-0.6, 0.1, 0.5, 0.9, 0.3]])

    def weights(self, x: Tensor, d: Tensor, seed: int, merge: bool, ctoc: str = "multiplicative") -> Tensor:
        device = SoftBounds(w_min=-0.5, dw_min=0.01, dw_min_ctoc=0.3, ctoc=ctoc)
        options = {"seed": seed, "replicas": (4000,), "weight": torch.full((d.shape[1], x.shape[1]), 0.2)}
        bar = Crossbar((d.shape[1], x.shape[1]), device=device, update=PulsedUpdate(merge=merge), **options)
        bar.pulse(x, d, 0.08)
        return bar.weight

    @pytest.mark.parametrize("merge", [True, False])
    @pytest.mark.parametrize("ctoc", NOISES)
    def test_the_law_is_the_same(self, seed, merge, ctoc):
        a = self.weights(self.X, self.D, 10_000 * seed, merge, ctoc)
        b = self.weights(self.D, self.X, 10_000 * seed + 5_000, merge, ctoc).mT
        for part in ((0, 0), (1, 2), (4, 1), (3, 0)):
            assert_same_law(a[:, *part], b[:, *part])
        # Sums along a row and along a column see what its crosspoints have in common.
        assert_same_law(a[:, 3].sum(-1), b[:, 3].sum(-1))
        assert_same_law(a[..., 0].sum(-1), b[..., 0].sum(-1))
        assert_same_law(a.sum((-2, -1)), b.sum((-2, -1)))


class TestIndependence:
    """n = 10,000 see a correlation of 5 %."""

    @staticmethod
    def changes(seed: int, merge: bool, lr: float, batch: int) -> Tensor:
        """Of a crossbar whose lines are certain, so that all noise is the pulses' own: 4 mini-batches."""
        device = ConstantStep(w_min=-50.0, w_max=50.0, dw_min=2.0**-10, dw_min_ctoc=0.5)
        bar = Crossbar((100, 100), device=device, update=PulsedUpdate(merge=merge), seed=seed)
        weights = [bar.weight.clone()]
        for _ in range(4):
            bar.pulse(torch.ones(batch, 100), torch.ones(batch, 100), lr)
            weights.append(bar.weight.clone())
        return torch.stack(weights).diff(dim=0)

    @pytest.mark.parametrize("merge", [True, False])
    @pytest.mark.parametrize("pulses", [1, 4])
    def test_of_noise(self, seed, merge, pulses):
        # From cycle to cycle, along rows and along columns; a key that leaves out the cycle, or half of the place.
        moved = self.changes(seed, merge, pulses * 2.0**-10, batch=1)
        assert_mean(moved, -pulses * 2.0**-10, std=0.5 * pulses**0.5 * 2.0**-10)
        assert_correlation(moved[0], moved[1])
        assert_correlation(moved[2, 1:], moved[2, :-1])
        assert_correlation(moved[2, :, 1:], moved[2, :, :-1])

    @pytest.mark.parametrize("merge", [True, False])
    def test_of_samples(self, seed, merge):
        # The first sample's noise is that of the first cycle; the second's adds to it: 1/sqrt(2).
        one, two = (self.changes(seed, merge, 2.0**-10, batch)[0] for batch in (1, 2))
        assert_correlation(one, two, rho=0.5**0.5)
