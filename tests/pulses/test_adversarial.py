"""What a crossbar makes of inputs that nobody should give it: refused by name with nothing changed, or harmless."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ohmgrad import Crossbar, PulsedUpdate
from ohmgrad.devices import ConstantStep, Device, SoftBounds
from ohmgrad.pulses import cpu, cpu_sharing

PULSED, EAGER = PulsedUpdate(), PulsedUpdate(eager=True)
BOTH = pytest.mark.parametrize("update", [PULSED, EAGER], ids=["compiled", "eager"])
NOISY = SoftBounds(dw_min=0.01, dw_min_ctoc=0.3, w_max_dtod=0.2, write_noise=1.0)


def crossbar(out: int, in_: int, device: Device = NOISY, update: PulsedUpdate = PULSED, **options) -> Crossbar:
    return Crossbar((out, in_), device=device, update=update, **{"count_pulses": True, "seed": 0, **options})


def inputs(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def state(bar: Crossbar) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in bar.state_dict().items()}


def changed(bar: Crossbar, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in bar.state_dict().items() if not torch.equal(value, before[name])}


def peak() -> int:
    """Most memory of this process since the last call, in bytes; Linux only."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def refuse(bar: Crossbar, error: type[Exception], message: str, write: Callable[[], None]) -> None:
    """That error, and every weight, counter and cycle as before; the next pulse comes as if nothing had been."""
    before = state(bar)
    with pytest.raises(error, match=message):
        write()
    assert not changed(bar, before)


class TestNotFinite:
    BAD = pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])

    @staticmethod
    def spoilt(tensor: Tensor, bad: float) -> Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[-1] = bad
        return tensor

    @BOTH
    @BAD
    @pytest.mark.parametrize("replicas", [(), (2,)])
    @pytest.mark.parametrize("batch", [1, 5])
    def test_x_and_d(self, update, bad, replicas, batch):
        # The very last number: of the last line, sample and replica.
        x, d = inputs(*replicas, batch, 7), inputs(*replicas, batch, 6, seed=1)
        bar, fresh = (crossbar(6, 7, update=update, replicas=replicas) for _ in range(2))
        for each in (bar, fresh):
            each.pulse(x, d, 0.05)
        message = "needs finite numbers, got NaN or infinity"
        refuse(bar, ValueError, f"x {message}", lambda: bar.pulse(self.spoilt(x, bad), d, 0.05))
        refuse(bar, ValueError, f"d {message}", lambda: bar.pulse(x, self.spoilt(d, bad), 0.05))
        refuse(bar, ValueError, f"[xd] {message}", lambda: bar.pulse(self.spoilt(x, bad), self.spoilt(d, bad), 0.0))
        for each in (bar, fresh):
            each.pulse(x, d, 0.05)
        assert not changed(bar, state(fresh)) and bar.pulses.min() > 0

    @BAD
    @pytest.mark.parametrize("merge", [True, False])
    def test_in_a_later_part_of_the_batch(self, bad, merge, monkeypatch):
        monkeypatch.setattr(cpu, "SLAB", 1)
        x, d = inputs(9, 7), inputs(9, 6, seed=1)
        bar = crossbar(6, 7, update=PulsedUpdate(merge=merge))
        refuse(bar, ValueError, "x needs finite", lambda: bar.pulse(self.spoilt(x, bad), d, 0.05))
        refuse(bar, ValueError, "d needs finite", lambda: bar.pulse(x, self.spoilt(d, bad), 0.05))

    @BAD
    def test_in_any_thread(self, bad, monkeypatch):
        for seconds in ("TINY", "SMALL", "LARGE"):
            monkeypatch.setattr(cpu_sharing, seconds, 0.0)
        x, d, before = inputs(8, 300), inputs(8, 200), torch.get_num_threads()
        bar = crossbar(200, 300)
        try:
            torch.set_num_threads(4)
            for sample in (0, 3, 7):
                for name, good in (("x", x), ("d", d)):
                    spoilt = good.clone()
                    spoilt[sample:, 11] = bad  # in several threads at once
                    given = (spoilt, d) if name == "x" else (x, spoilt)
                    refuse(bar, ValueError, f"{name} needs finite", lambda given=given: bar.pulse(*given, 0.05))
        finally:
            torch.set_num_threads(before)

    @BOTH
    @BAD
    def test_where_the_other_side_is_silent(self, update, bad):
        bar = crossbar(2, 3, update=update)
        refuse(bar, ValueError, "x needs", lambda: bar.pulse(torch.full((1, 3), bad), torch.zeros(1, 2), 0.05))
        refuse(bar, ValueError, "d needs", lambda: bar.pulse(torch.zeros(1, 3), torch.full((1, 2), bad), 0.05))

    @BOTH
    @BAD
    def test_lr(self, update, bad):
        bar = crossbar(2, 3, update=update)
        for lr in (bad, torch.tensor(bad)):
            refuse(bar, ValueError, "lr needs a finite number", lambda lr=lr: bar.pulse(inputs(1, 3), inputs(1, 2), lr))
            refuse(
                bar,
                ValueError,
                "lr needs a finite number",
                lambda lr=lr: bar.write_columns(torch.tensor([0]), inputs(1, 2), lr),
            )


class TestWrongKinds:
    @BOTH
    @pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
    def test_dtypes(self, update, kind):
        bar, x, d = crossbar(2, 3, update=update), torch.ones(1, 3), torch.ones(1, 2)
        refuse(bar, TypeError, f"x needs the crossbar's dtype torch.float32, got {kind}",
               lambda: bar.pulse(x.to(kind), d, 0.1))  # fmt: skip
        refuse(bar, TypeError, f"d needs the crossbar's dtype torch.float32, got {kind}",
               lambda: bar.pulse(x, d.to(kind), 0.1))  # fmt: skip

    @BOTH
    def test_shapes(self, update):
        bar, x, d = crossbar(2, 3, update=update), torch.ones(4, 3), torch.ones(4, 2)
        refuse(bar, ValueError, r"x needs the shape \(4, 3\), got \(4, 2\)", lambda: bar.pulse(d, d, 0.1))
        refuse(bar, ValueError, r"d needs the shape \(4, 2\), got \(3, 2\)", lambda: bar.pulse(x, d[1:], 0.1))
        refuse(bar, ValueError, r"d needs the shape \(4, 2\), got \(1, 2\)", lambda: bar.pulse(x, d[0], 0.1))
        refuse(bar, ValueError, r"x needs the shape .*, got \(2, 4, 3\)", lambda: bar.pulse(x.expand(2, 4, 3), d, 0.1))
        both = crossbar(2, 3, update=update, replicas=(2,))
        message = r"x needs the shape \(4, 3\) with replicas \(2,\) in front, got \(3, 4, 3\)"
        refuse(both, ValueError, message, lambda: both.pulse(x.expand(3, 4, 3), d, 0.1))

    def test_more_crosspoints_than_32_bits_can_tell_apart(self):
        with pytest.raises(ValueError, match=r"at most 2\*\*32 crosspoints.*got \(65537, 65536\)"):
            Crossbar((65537, 65536), device=SoftBounds(), update=PulsedUpdate())


class TestNothingToDo:
    @BOTH
    @pytest.mark.parametrize("case", ["x", "d", "lr", "bit_length", "batch"])
    def test_no_weight_moves(self, update, case):
        settings = PulsedUpdate(eager=update.eager, bit_length=0 if case == "bit_length" else 31)
        bar, x, d = crossbar(5, 4, update=settings), inputs(3, 4), inputs(3, 5)
        bar._state.copy_(inputs(5, 4, seed=2).clamp(-0.1, 0.1))
        x, d = x * (case != "x"), d * (case != "d")  # of either sign of zero
        x, d = (t[:0] if case == "batch" else t for t in (x, d))
        before = state(bar)
        bar.pulse(x, d, 0.0 if case == "lr" else 0.1)
        assert changed(bar, before) == (set() if case == "batch" else {"cycles"})
        assert int(bar.cycles) == len(x)


class TestNumbers:
    """Extreme sizes of lr, x and d, and of their product."""

    SIZES = pytest.mark.parametrize(("lr", "x", "d", "is_saturated"), [
        (1e30, 1.0, 1.0, True), (-1e30, 1.0, 1.0, True), (1e300, 1e30, 1e30, True), (1e300, 1e30, 1e-30, True),
        (1e300, 1e-30, 1e30, True), (1.7e308, 3e38, 3e38, True), (1.0, 3e38, 3e38, True),
        (1.0, 1e-40, 1e38, False), (1e38, 1e-40, 1.0, False), (1e-300, 1.0, 1.0, False), (5e-324, 3e38, 3e38, False),
        (1.0, 1e-45, 1e-45, False), (1e-300, 1e-45, 1e-45, False), (1e290, 1e-45, 1e-45, True),
    ])  # fmt: skip

    @BOTH
    @SIZES
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("train", ["stochastic", "mean-count", "deterministic"])
    def test_trains_saturate_and_vanish(self, update, lr, x, d, is_saturated, dtype, train):
        # A saturated train gives p = 1 to the largest x and to all d that are not 0, and to x / 2 half of that.
        settings = PulsedUpdate(eager=update.eager, bit_length=200, train=train)
        bar = crossbar(3, 3, update=settings, dtype=dtype)
        asked = torch.tensor([[x, 0.0, x / 2]], dtype=dtype), torch.tensor([[d, -d, 0.0]], dtype=dtype)
        bar.pulse(*asked, lr)
        n, w = bar.pulse_counts, bar._state
        assert not n[2].any() and not n[:, 1].any()
        if is_saturated:
            half = float(asked[0][0, 2] / asked[0][0, 0])
            assert n[:2, 0].tolist() == [200, 200] and (n[:2, 2] - 200 * half).abs().max() <= 70  # 4.9 sigma: 35
            sign = torch.tensor([-1.0, 1.0], dtype=dtype) * math.copysign(1.0, lr)
            assert torch.equal(torch.sign(w[:2, 0]), sign) and w[:2, 0].abs().min() > 0.5
        else:
            assert n.max() <= 2
        assert w.isfinite().all() and (w >= bar.params["w_min"]).all() and (w <= bar.params["w_max"]).all()

    @BOTH
    @SIZES
    def test_without_management(self, update, lr, x, d, is_saturated):
        settings = PulsedUpdate(eager=update.eager, update_management=False, bit_length_management=False)
        bar = crossbar(2, 3, update=settings)
        bar.pulse(torch.tensor([[x, 0.0, -x]]), torch.tensor([[d, -d]]), lr)
        w = bar.weight
        assert w.isfinite().all() and not bar.pulse_counts[:, 1].any()
        assert (bar._state >= bar.params["w_min"]).all() and (bar._state <= bar.params["w_max"]).all()

    def test_both_agree_where_they_overflow(self):
        x, d = inputs(5, 9, dtype=torch.float64), inputs(5, 8, dtype=torch.float64)
        for size in (1e-310, 1e-160, 1e-20, 1e99, 1e101, 1e160, 1e300):
            bars = [crossbar(8, 9, ConstantStep(), update, dtype=torch.float64) for update in (PULSED, EAGER)]
            for bar in bars:
                bar.pulse(x * size, d, 0.1)
                bar.pulse(x, d * size, 0.1)
                bar.pulse(x, d, 0.1 * size)
            assert torch.equal(bars[0].pulse_counts, bars[1].pulse_counts)
            assert (bars[0].weight - bars[1].weight).abs().max() < 1e-12


class TestLayouts:
    """Other strides, and tensors with a history, give the bits of plain ones."""

    @BOTH
    @pytest.mark.parametrize("how", [
        lambda t: t.mT.contiguous().mT,
        lambda t: torch.stack([t, t], -1)[..., 0],
        lambda t: torch.cat([t, t])[: len(t)],
        lambda t: t.flip(0).clone().flip(0),
        lambda t: t.clone().requires_grad_(),
        lambda t: torch.nn.Parameter(t.clone()) * 1.0,
        lambda t: torch.complex(t, -t).conj().imag,
    ], ids=["transposed", "strided", "sliced", "flipped", "leaf", "with history", "negative view"])  # fmt: skip
    def test_of_x_and_d(self, update, how):
        x, d = inputs(4, 6), inputs(4, 5, seed=1)
        plain, other = (crossbar(5, 6, update=update) for _ in range(2))
        plain.pulse(x, d, 0.05)
        other.pulse(how(x), how(d), 0.05)
        assert not changed(other, state(plain)) and plain.pulses > 0 and not other.weight.requires_grad

    @BOTH
    def test_expanded(self, update):
        x, d = inputs(1, 6), inputs(1, 5, seed=1)
        plain, other = (crossbar(5, 6, update=update) for _ in range(2))
        plain.pulse(x.repeat(3, 1), d.repeat(3, 1), 0.05)
        other.pulse(x.expand(3, 6), d.expand(3, 5), 0.05)
        assert not changed(other, state(plain)) and plain.pulses > 0
        # One sample for all replicas.
        plain, other = (crossbar(5, 6, update=update, replicas=(2, 2)) for _ in range(2))
        plain.pulse(x.repeat(2, 2, 1, 1), d, 0.05)
        other.pulse(x.expand(2, 2, 1, 6), d.expand(2, 2, 1, 5), 0.05)
        assert not changed(other, state(plain)) and plain.pulses.min() > 0

    def test_lr_as_a_tensor(self):
        plain, other = crossbar(5, 6), crossbar(5, 6)
        plain.pulse(inputs(2, 6), inputs(2, 5), 0.5)
        other.pulse(inputs(2, 6), inputs(2, 5), torch.tensor([0.5]))
        assert not changed(other, state(plain))

    def test_lr_of_each_replica_after_a_pulse_of_the_same_shape(self):
        pair, x, d = crossbar(5, 6, replicas=(2,)), inputs(2, 2, 6), inputs(2, 2, 5)
        pair.pulse(x, d, 0.5)
        before = state(pair)
        pair.pulse(x, d, torch.tensor([0.0, 0.5]).view(2, 1, 1))
        moved = (pair.weight != before["weight"]).flatten(1).any(1)
        assert moved.tolist() == [False, True]

    def test_a_given_weight_is_left_alone(self):
        weight = inputs(5, 6).clamp(-0.5, 0.5)
        given = weight.mT.contiguous().mT
        bar = crossbar(5, 6, SoftBounds(), weight=given)
        bar.pulse(inputs(2, 6), inputs(2, 5), 0.5)
        assert torch.equal(given, weight) and not torch.equal(bar.weight, weight)


class TestSizes:
    @BOTH
    @pytest.mark.parametrize("shape", [(1, 1), (1, 100_000), (100_000, 1)])
    @pytest.mark.parametrize("merge", [True, False])
    def test_long_and_thin(self, update, shape, merge):
        settings = PulsedUpdate(eager=update.eager, merge=merge)
        bar = crossbar(*shape, SoftBounds(dw_min=2.0**-7), settings)
        bar.pulse(torch.ones(1, shape[1]), torch.ones(1, shape[0]), 2.0**-7)
        bar.pulse(torch.ones(1, shape[1]), -torch.ones(1, shape[0]), 2.0**-6)
        # One pulse down to -d, two up: 1 - (1 + d)(1 - d)^2.
        expected = 1.0 - (1.0 + 2.0**-7) * (1.0 - 2.0**-7) ** 2
        torch.testing.assert_close(bar.weight, torch.full(shape, expected), rtol=0.0, atol=1e-6)
        assert (bar.pulse_counts == 3).all() and bar.pulses == 3 * bar.weight.numel()

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for its memory")
    @pytest.mark.parametrize("by_column", [False, True])
    def test_two_gigabytes(self, by_column):
        # 2**29 crosspoints of 4 bytes: offsets go up to 2**31 bytes. Beside the weight next to nothing is needed.
        out, in_ = 16384, 32768
        peak()
        empty = peak()
        bar = Crossbar((out, in_), device=SoftBounds(dw_min=2.0**-7), update=PulsedUpdate())
        x, d = torch.zeros(1, in_), torch.zeros(1, out)
        columns, rows = torch.tensor([0, 5, 20_000, in_ - 1]), torch.tensor([0, 3, 9_000, out - 2, out - 1])
        x[0, columns], d[0, rows] = 1.0, -1.0
        if by_column:  # all rows, so that columns are fewer
            rows = torch.arange(out)
            d[:] = -1.0
        bar.pulse(x, d, 2.0**-7)
        bar.pulse(x, d, 2.0**-7)
        needed = peak() - empty
        expected = 1.0 - (1.0 - 2.0**-7) ** 2
        got = bar.weight[rows[:, None], columns]
        torch.testing.assert_close(got, torch.full_like(got, expected), rtol=0.0, atol=1e-6)
        assert bar.pulses == 2 * len(rows) * len(columns) == 2 * int(bar.weight.count_nonzero())
        assert (
            2**31 <= needed < 2**31 + 2**27
        )  # a good part of that are kernels and libraries, loaded at the first call


@BOTH
def test_what_torch_has_not_negated_yet(update):
    bar = Crossbar((1, 2), device=ConstantStep(), update=update)
    bar.pulse(torch._neg_view(torch.ones(1, 2)), torch.ones(1, 1), 0.01)
    assert (bar.weight > 0.0).all()


@BOTH
def test_half_precision_is_refused(update):
    bar = Crossbar((1, 2), device=ConstantStep(), update=update).half()
    with pytest.raises(TypeError, match="needs a crossbar of float32 or float64, got torch"):
        bar.pulse(torch.ones(1, 2).half(), torch.ones(1, 1).half(), 0.01)
