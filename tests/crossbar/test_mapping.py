"""Digital scales and grids of tiles: W on crossbars, whatever stands between."""

from dataclasses import replace

import pytest
import torch

from ohmgrad import AnalogSGD, ExpectedUpdate, TikiTaka
from ohmgrad.crossbar import Grid, Mapping, Tile, place
from ohmgrad.devices import Ideal, SoftBounds
from ohmgrad.nn.function import read
from ohmgrad.periphery import DEFAULT, PERFECT, Periphery, weight_noise
from ohmgrad.pulses.forms import Dense, LowRank, Outer


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(w: torch.Tensor, mapping: Mapping, **crossbar) -> Tile | Grid:
    return place(w, algorithm=AnalogSGD(), crossbar={"device": Ideal(), **crossbar}, seed=1, mapping=mapping)


W, X, D = numbers(7, 11), numbers(5, 11, seed=1), numbers(5, 7, seed=2)
MAPPINGS = [
    Mapping(),
    Mapping(weight_scaling_omega=0.6),
    Mapping(weight_scaling_omega=0.6, weight_scaling_columnwise=True),
    Mapping(weight_scaling_omega=0.3, weight_scaling_lr_compensation=True),
    Mapping(max_input_size=4),
    Mapping(max_input_size=5, max_output_size=3, weight_scaling_omega=0.5, weight_scaling_columnwise=True),
]


@pytest.mark.parametrize("mapping", MAPPINGS, ids=str)
class TestIdeal:
    """On ideal devices every mapping is the matrix itself: in reads, and in SGD's updates of all three forms."""

    def test_reads(self, mapping):
        tile = make(W, mapping)
        torch.testing.assert_close(tile.weight, W)
        torch.testing.assert_close(tile.read(X), X @ W.mT)
        torch.testing.assert_close(tile.read_transposed(D), D @ W)
        u, v = numbers(7, 2, seed=3), numbers(11, 2, seed=4)
        with tile.offset(u, v):
            torch.testing.assert_close(tile.read(X), X @ (W + u @ v.mT).mT)
            torch.testing.assert_close(tile.read_transposed(D), D @ (W + u @ v.mT))
        torch.testing.assert_close(tile.read(X), X @ W.mT)

    def test_updates(self, mapping):
        u, v = numbers(7, 2, seed=3), numbers(11, 2, seed=4)
        for update in (Outer(D, X), LowRank(u, v), Dense(numbers(7, 11, seed=5))):
            tile = make(W, mapping)
            tile.record(update)
            for t in tile.modules():
                if isinstance(t, Tile):
                    t.step(0.1)
            torch.testing.assert_close(tile.weight, W - 0.1 * update.as_dense())


def test_the_largest_weight_is_at_omega():
    tile = make(W, Mapping(weight_scaling_omega=0.6))
    assert tile.crossbars[0].weight.abs().max() == pytest.approx(0.6)
    columnwise = make(W, Mapping(weight_scaling_omega=0.6, weight_scaling_columnwise=True))
    torch.testing.assert_close(columnwise.crossbars[0].weight.abs().amax(-1), torch.full((7,), 0.6).double())
    assert (make(torch.zeros(2, 3), Mapping(weight_scaling_omega=0.6)).scale == 1.0).all()


@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize("columnwise", [False, True])
def test_learned_scales_are_digital_parameters(size, columnwise):
    mapping = Mapping(learn_out_scaling=True, out_scaling_columnwise=columnwise, max_input_size=size)
    tile = make(W, mapping)
    assert tile.out_scale.shape == ((7,) if columnwise else (1,))
    with torch.no_grad():
        tile.out_scale.mul_(3.0)
    x = X.clone().requires_grad_()
    y = read(tile, x)
    y.backward(D)
    torch.testing.assert_close(y, 3.0 * X @ W.mT)
    torch.testing.assert_close(tile.weight, 3.0 * W)
    torch.testing.assert_close(x.grad, 3.0 * D @ W)
    expected = (D * (X @ W.mT)).sum(0)
    torch.testing.assert_close(tile.out_scale.grad, expected if columnwise else expected.sum(0, keepdim=True))


def test_a_grid_has_crossbars_of_the_allowed_size():
    grid = make(W, Mapping(max_input_size=4, max_output_size=5))
    assert [bar.shape for bar in grid.crossbars] == [(4, 4), (4, 4), (4, 3), (3, 4), (3, 4), (3, 3)]
    assert len({int(bar.seed) for bar in grid.crossbars}) == 6
    assert isinstance(make(W, Mapping(max_input_size=11, max_output_size=7)), Tile)


def test_replicas_in_a_grid():
    w, x = numbers(2, 4, 6), numbers(2, 5, 6, seed=1)
    grid = place(w, algorithm=AnalogSGD(), crossbar={"device": Ideal()}, seed=[3, 4], mapping=Mapping(max_input_size=4))
    torch.testing.assert_close(grid.read(x), x @ w.mT)


@pytest.mark.parametrize(("field", "value"), [("weight_scaling_omega", -1.0), ("max_input_size", 0)])
def test_the_door(field, value):
    with pytest.raises(ValueError, match=field):
        Mapping(**{field: value})


class TestPeriphery:
    def test_perfect_converters_change_nothing(self):
        tile = make(W, Mapping(weight_scaling_omega=0.6), periphery=Periphery(forward=PERFECT, backward=PERFECT))
        torch.testing.assert_close(tile.read(X), X @ W.mT)
        torch.testing.assert_close(tile.read_transposed(D), D @ W)

    def test_each_direction_has_settings_and_noise_of_its_own(self):
        quiet = weight_noise(0.0)
        tile = make(W, Mapping(), periphery=Periphery(forward=weight_noise(0.1), backward=quiet))
        assert not torch.allclose(tile.read(X), X @ W.mT)
        torch.testing.assert_close(tile.read_transposed(D), D @ W)

    def test_a_transfer_reads_through_converters(self):
        io = replace(DEFAULT, out_noise=0.0)
        tile = make(W, Mapping(), periphery=Periphery(transfer=io))
        (bar,) = tile.crossbars
        got = bar.read_columns(torch.tensor([2, 5]))
        step = io.out_step
        torch.testing.assert_close(got, torch.round(W[:, [2, 5]].mT / step) * step)

    def test_crossbars_that_share_lines_are_read_at_once(self):
        crossbar = {"device": SoftBounds(w_max=2.0, w_min=-2.0), "periphery": Periphery(forward=weight_noise(0.1))}
        tile = place(W.clamp(-1, 1), algorithm=TikiTaka(gamma=0.5), crossbar=crossbar, seed=1)
        tile.state.fast.set_weight(torch.full_like(W, 0.2))
        noise = tile.read(X) - X @ (W.clamp(-1, 1) + 0.1).mT
        assert 0.1 < (noise / (0.1 * X.norm(dim=-1, keepdim=True))).std() < 3.0
        assert all(int(bar.reads) == 5 for bar in tile.crossbars)

    def test_reading_resumes_from_a_state_dict(self):
        settings = {"device": Ideal(), "update": ExpectedUpdate(), "periphery": Periphery()}
        one, two = (place(W, algorithm=AnalogSGD(), crossbar=settings, seed=1) for _ in range(2))
        one.read(X)
        two.load_state_dict(one.state_dict())
        assert torch.equal(one.read(X), two.read(X))
