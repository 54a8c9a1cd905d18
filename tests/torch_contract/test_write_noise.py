"""Write noise: what no pulse has reached shows it as after `set_weight`; and what was measured stays as it is."""

import pytest
import torch
from torch import nn

from chance import assert_correlation, assert_variance
from exact import assert_bits
from ohmgrad import Crossbar, ExpectedUpdate, PulsedUpdate, Tile, convert
from ohmgrad.algorithms import ALGORITHMS
from ohmgrad.crossbar import make_crossbar
from ohmgrad.devices import SoftBounds, VectorCell, catalog, presets

SIDE = 100
NOISY = SoftBounds(dw_min=0.01, write_noise=2.0)
START = torch.full((SIDE, SIDE), 0.3)


def noise(bar: Crossbar) -> torch.Tensor:
    """What a crossbar shows beside its state, in deviations."""
    return (bar.weight - bar.persistent) / (bar.device_model.write_noise * bar.device_model.dw_min)


class TestConstruction:
    # n = 10,000 sees a deviation that is off by 3.5 %.
    @pytest.mark.parametrize("update", [ExpectedUpdate(), PulsedUpdate()])
    def test_with_a_weight_without_one_and_later(self, seed, update):
        given, zero, later = (
            Crossbar((SIDE, SIDE), device=NOISY, update=update, seed=seed, weight=w) for w in (START, None, None)
        )
        later.set_weight(START)
        for bar in (given, zero, later):
            assert_variance(noise(bar), 1.0, kurtosis=3.0)
        assert_bits(given.persistent, later.persistent)
        assert not zero.persistent.any()
        assert_correlation(noise(later), noise(zero))  # programmed anew, drawn anew

    @pytest.mark.parametrize("algorithm", ALGORITHMS, ids=[family.__name__ for family in ALGORITHMS])
    def test_every_crossbar_of_every_algorithm(self, seed, algorithm):
        tile = Tile(START, algorithm=algorithm(), crossbar={"device": NOISY}, seed=seed)
        noisy = [bar for bar in tile.crossbars if bar.device_model.write_noise]
        for bar in noisy:
            assert_variance(noise(bar), 1.0, kurtosis=3.0)
        for bar in noisy[1:]:
            assert_correlation(noise(bar), noise(noisy[0]))

    def test_convert_and_cells(self, seed):
        model = convert(nn.Linear(SIDE, SIDE, bias=False), device=NOISY, seed=seed)
        (bar,) = (m for m in model.modules() if isinstance(m, Crossbar))
        assert_variance(noise(bar), 1.0, kurtosis=3.0)
        cells = make_crossbar((SIDE, SIDE), device=VectorCell(devices=(NOISY, NOISY), gains=(1.0, 1.0)), seed=seed)
        assert_variance(cells.weight, 2 * 0.02**2, kurtosis=3.0)

    @pytest.mark.parametrize("preset", [presets.reram_array_om, presets.reram_array_hfo2])
    def test_devices_that_no_pulse_reaches_look_as_after_programming(self, seed, preset):
        # Half of the columns get no pulses.
        bar = Crossbar((SIDE, SIDE), device=preset(), update=PulsedUpdate(), seed=seed)
        x = torch.ones(1, SIDE)
        x[:, SIDE // 2 :] = 0.0
        for _ in range(4):
            bar.pulse(x, -torch.ones(1, SIDE), bar.granularity)
        shown = bar.weight[:, SIDE // 2 :] - bar.persistent[:, SIDE // 2 :]
        assert_variance(shown / (preset().write_noise * preset().dw_min), 1.0, kurtosis=3.0)

    def test_a_replica_shows_what_a_crossbar_of_its_own_shows(self):
        many = Crossbar((3, 4), device=NOISY, seed=[5, 9], replicas=(2,))
        for r, seed in enumerate((5, 9)):
            assert_bits(many.weight[r], Crossbar((3, 4), device=NOISY, seed=seed).weight)


class TestStates:
    def test_few_states_keep_the_measured_noise(self, seed):
        # 75 steps of 0.00135 are 0.101 of a range of 2, also where a step is 0.5.
        device = catalog.find("reram-es", n_states=4)
        assert device.write_noise * device.dw_min == pytest.approx(75.0 * 0.00135)
        assert device.n_states == pytest.approx(4.0)
        bar = Crossbar((SIDE, SIDE), device=device, seed=seed)
        assert_variance(bar.weight, (75.0 * 0.00135) ** 2, kurtosis=3.0)
        assert float(bar.weight.abs().max()) < 1.0

    @pytest.mark.parametrize("name", sorted(presets.PRESETS))
    @pytest.mark.parametrize("n", [4, 64, 5000])
    def test_every_preset(self, name, n):
        if name in ("multi_level", "log_domain_cell"):  # its own parameter; no bounds
            return
        measured, device = catalog.find(name), catalog.find(name, n_states=n)
        assert device.write_noise * device.dw_min == pytest.approx(measured.write_noise * measured.dw_min)

    def test_noise_that_is_given_too_is_what_it_says(self):
        assert catalog.find("reram-es", n_states=4, write_noise=0.5).write_noise == 0.5
