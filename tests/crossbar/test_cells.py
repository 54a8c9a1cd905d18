"""Unit cells: which members take which pulses, what they add up to, and the refresh of pairs."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import ohmgrad as og
from chance import assert_counts
from exact import assert_within_ulps
from ohmgrad import Dense, ExpectedUpdate, PulsedUpdate
from ohmgrad.crossbar import make_crossbar
from ohmgrad.crossbar.one_sided_cells import OneSidedCells
from ohmgrad.crossbar.vector_cells import VectorCells
from ohmgrad.devices import (
    ConstantStep,
    Ideal,
    LogDomain,
    OneSidedCell,
    SoftBounds,
    VectorCell,
    catalog,
    reference_cell,
)

UPDATES = [ExpectedUpdate(), ExpectedUpdate(per_sample=True), PulsedUpdate()]
ONE = torch.ones(1, 1)


def step(bar, by: float = -0.1) -> None:
    """One sample that asks for a change of -by."""
    bar.pulse(ONE, by * ONE, 1.0)


def two(**fields) -> VectorCells:
    return make_crossbar((1, 1), device=VectorCell(devices=(Ideal(dw_min=0.1), Ideal(dw_min=0.1)), **fields))


class TestVector:
    def test_all_share_and_add_up(self):
        bar = two(gains=(0.5, 2.0))
        step(bar)
        assert [b.weight.item() for b in bar.bars] == [pytest.approx(0.1)] * 2
        assert bar.weight.item() == pytest.approx(0.25)

    @pytest.mark.parametrize(("policy", "first", "order"), [
        ("fixed", 0, [0, 0, 0, 0]), ("fixed", 1, [1, 1, 1, 1]), ("sequential", 0, [0, 1, 0, 1]),
        ("sequential", 1, [1, 0, 1, 0]),
    ])  # fmt: skip
    def test_one_takes_a_mini_batch(self, policy, first, order):
        bar = two(policy=policy, first=first)
        for n, k in enumerate(order):
            before = [b.cycles.item() for b in bar.bars]
            if n % 2:
                bar.write_columns(torch.tensor([0]), ONE, 0.1)
            else:
                step(bar)
            after = [b.cycles.item() for b in bar.bars]
            assert [a - b for a, b in zip(after, before, strict=True)] == [int(k == 0), int(k == 1)]
        # Gains of a half: each step moves the weight by half of it.
        assert bar.weight.item() == pytest.approx(0.2)

    def test_random_ones(self, seed):
        # n = 2000 sees odds of 44 instead of 50 in 100; and a place that is never chosen.
        bar = make_crossbar((1, 1), device=VectorCell(devices=(Ideal(),) * 2, policy="random"), seed=seed)
        for _ in range(2000):
            step(bar)
        assert_counts(bar.bars[0].cycles, 2000, 0.5)
        assert bar.bars[0].cycles + bar.bars[1].cycles == 2000

    def test_members_differ(self):
        device = SoftBounds(w_max_dtod=0.3, dw_min_ctoc=0.3)
        bar = make_crossbar((3, 4), device=VectorCell(devices=(device, device)), update=PulsedUpdate())
        assert not torch.equal(bar.bars[0].params["w_max"], bar.bars[1].params["w_max"])

    @pytest.mark.parametrize("fields", [{}, {"gains": (0.5, 2.0)}, {"gains": (1.0, -1.0)}, {"policy": "fixed"}])
    def test_a_weight_is_programmed(self, fields):
        weight = torch.tensor([[0.3]])
        bar = two(**fields)
        bar.set_weight(weight)
        torch.testing.assert_close(bar.weight, weight)
        torch.testing.assert_close(bar.read(torch.tensor([[2.0]])), 2.0 * weight)
        torch.testing.assert_close(bar.read_columns(torch.tensor([0])), weight)

    def test_a_differential_pair_of_currents_conserves_their_product(self):
        # Opposite pulses multiply one current by e^eps and divide the other: w = 2 sqrt(P) sinh(n eps).
        device = LogDomain(dw_min=0.01, w_max=50.0)
        cell = VectorCell(devices=(device, device), gains=(1.0, -1.0), by_gain=True)
        bar = make_crossbar((1, 1), device=cell, update=PulsedUpdate(eager=True), dtype=torch.float64)
        for n in range(1, 101):
            bar.pulse(ONE.double(), -ONE.double(), 0.01)
            plus, minus = (1.0 + b.weight for b in bar.bars)
            assert_within_ulps(plus * minus, torch.ones_like(plus), ulps=8 * n)
        assert bar.weight.item() == pytest.approx(2.0 * torch.tensor(1.0, dtype=torch.float64).sinh().item(), rel=1e-12)

    def test_a_reference_stands_still(self):
        bar = make_crossbar((1, 1), device=reference_cell(ConstantStep(dw_min=0.1)))
        bar.bars[1].set_weight(torch.tensor([[0.25]]))
        bar.set_weight(torch.tensor([[0.5]]))
        step(bar)
        assert [b.weight.item() for b in bar.bars] == [pytest.approx(0.85), 0.25]
        assert bar.weight.item() == pytest.approx(0.6)


class TestOneSided:
    @pytest.mark.parametrize("update", UPDATES)
    @pytest.mark.parametrize("lr", [0.5, -0.5])
    def test_each_takes_its_sign_as_up_pulses(self, update, lr):
        x = torch.tensor([[0.5, -1.0, 0.0], [-0.25, 0.5, 1.0]])
        d = torch.tensor([[0.5, -0.25], [1.0, 0.5]])
        bar = make_crossbar((2, 3), device=OneSidedCell(device=Ideal(dw_min=1e-4)), update=replace_length(update))
        bar.pulse(x, d, lr)
        wanted = -lr * d[:, :, None] * x[:, None, :]
        parts = [wanted.relu().sum(0), (-wanted).relu().sum(0)]
        if not update.per_sample:
            parts = [wanted.sum(0).relu(), (-wanted.sum(0)).relu()]
        for member, part in zip(bar.bars, parts, strict=True):
            # Of up to 5,000 pulses five deviations are 2 %, 0.007.
            torch.testing.assert_close(member.weight, part, rtol=0.0, atol=0.01 if update == UPDATES[2] else 1e-6)
        torch.testing.assert_close(bar.weight, parts[0] - parts[1], rtol=0.0, atol=0.02)

    def test_columns(self):
        bar = make_crossbar((2, 3), device=OneSidedCell(device=Ideal()))
        bar.write_columns(torch.tensor([2, 0]), torch.tensor([[0.1, -0.2], [0.3, 0.0]]), -1.0)
        torch.testing.assert_close(bar.weight, torch.tensor([[-0.3, 0.0, -0.1], [0.0, 0.0, 0.2]]))
        assert all((b.weight >= 0.0).all() for b in bar.bars)

    def cells(self, **fields) -> OneSidedCells:
        # The expected update: a whole increment at the slope where it starts.
        device = SoftBounds(w_min=-0.5, w_max=2.0, reset=0.1, reset_std=0.0, dw_min=1e-3)
        bar = make_crossbar((1, 4), device=OneSidedCell(device=device, **fields), dtype=torch.float64)
        for member, states in zip(bar.bars, ([1.6, 1.6, 0.2, 1.0], [0.6, 0.4, 1.8, 1.0]), strict=True):
            member.set_weight(torch.tensor([states], dtype=torch.float64))
        return bar

    def test_refresh_by_hand(self):
        # Thresholds 1.5 and 0.5: the first pair alone. Reset to 0.1; then plus goes up by 1 at a slope of 1 - w / 2.
        bar = self.cells()
        due = bar.refresh()
        assert due.tolist() == [[True, False, False, False]]
        expected = torch.tensor([[0.1 + 0.95, 1.6, 0.2, 1.0]], dtype=torch.float64)
        assert_within_ulps(bar.bars[0].weight, expected, ulps=4)
        expected = torch.tensor([[0.1, 0.4, 1.8, 1.0]], dtype=torch.float64)
        assert_within_ulps(bar.bars[1].weight, expected, ulps=4)

    @pytest.mark.parametrize("every", [0, 1, 3])
    def test_refresh_is_due_every_so_many_mini_batches(self, every):
        bar, seen = self.cells(refresh_every=every), []
        for _ in range(6):
            bar.write(Dense(torch.zeros(1, 4, dtype=torch.float64)), 1.0)
            seen.append(bool(bar.bars[1].weight[0, 0] == 0.1))
        assert seen.index(True) == every - 1 if every else not any(seen)


def replace_length(update):
    return replace(update, bit_length=5000) if isinstance(update, PulsedUpdate) else update


UP_ONLY = SoftBounds(w_max=1.0, dw_min=2e-3, dw_min_ctoc=0.3, reset_std=0.02)


@pytest.mark.parametrize("cell", [
    OneSidedCell(device=UP_ONLY, refresh_every=2, refresh_upper=0.3, refresh_lower=0.1), catalog.find_cell("ecram-2"),
])  # fmt: skip
def test_training_and_a_state_dict(cell):
    # A network of cells trains, through refreshes too, and a loaded copy goes on to the bit.
    torch.manual_seed(0)
    model = og.convert(nn.Linear(4, 3), device=cell, update=PulsedUpdate(), seed=1)
    x, y = torch.randn(8, 4), torch.randn(8, 3)
    optimizer = og.AnalogOptimizer(model, lr=0.1)

    def train(net, steps, opt):
        for _ in range(steps):
            opt.zero_grad()
            loss = (net(x) - y).square().mean()
            loss.backward()
            opt.step()
        return loss.item()

    first = train(model, 1, optimizer)
    assert train(model, 40, optimizer) < first / 1.5
    twin = copy.deepcopy(model)
    other = og.convert(nn.Linear(4, 3), device=cell, update=PulsedUpdate(), seed=2)
    other.load_state_dict(model.state_dict())
    losses = [train(net, 5, og.AnalogOptimizer(net, lr=0.1)) for net in (model, twin, other)]
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize(("make", "message"), [
    (lambda: VectorCell(devices=()), "VectorCell needs at least one device"),
    (lambda: VectorCell(devices=(Ideal(),), gains=(1.0, 2.0)), "a finite gain for each of its 1 devices"),
    (lambda: VectorCell(devices=(Ideal(),), gains=(0.0,)), "a gain that is not 0, got"),
    (lambda: VectorCell(devices=(Ideal(),), policy="some"), "policy of all, fixed, sequential, random, got 'some'"),
    (lambda: VectorCell(devices=(Ideal(),), first=1), "first in 0 ... 0, got 1"),
    (lambda: OneSidedCell(device=Ideal(), refresh_every=-1), "refresh_every >= 0, got -1"),
    (lambda: catalog.find_cell("ecram"), "no unit cell is named 'ecram'; there are ecram-2, ecram-4"),
])  # fmt: skip
def test_wrong_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()
