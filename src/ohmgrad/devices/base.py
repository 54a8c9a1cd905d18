"""What a device is: how far one resistive element moves when one pulse arrives at state w.

A family is a frozen dataclass with one pure function, its `response`. Everything else follows from it: the
dimensionless response factors q_up and q_down, their symmetric and asymmetric parts

    F = (q_down + q_up) / 2,    G = (q_down - q_up) / 2

(Wu et al. 2024, arXiv 2406.12774, eq. 6-7), the symmetric point G(w) = 0, the number of states, and the kernels.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ohmgrad import random
from ohmgrad.devices.values import check_number, check_table, kinds

Value = Tensor | float
Params = Mapping[str, Any]  # by name a Value of every element, or numbers on a grid of states

# Noise of a pulse: in units of its step, of dw_min, or of the family's own `noise`.
CTOC = ("multiplicative", "additive", "own")


@dataclass(frozen=True, kw_only=True)
class Device:
    """One resistive element, and how elements of the same make differ. Weights are dimensionless conductances.

    A family defines `response` and its own fields. A field `NAME_dtod` beside a field `NAME` that the response
    takes is the relative spread between devices. Everything defaults to no variation and no noise.

    Args:
        w_min, w_max: hard bounds of the state; w_min <= 0 <= w_max.
        dw_min: mean change by one pulse where the response factor is 1, > 0.
        up_down: imbalance in [-1, 1]: a positive value shrinks the down step, a negative one the up step.
        w_min_dtod, w_max_dtod, dw_min_dtod: relative standard deviations between devices.
        up_down_dtod: standard deviation between devices of the imbalance.
        dw_min_log_normal: the steps of devices follow a log-normal law instead of a normal one.
        dw_min_ctoc: standard deviation of one pulse's step from pulse to pulse, relative to the step.
        ctoc: "multiplicative" noise scales with the response at w; "additive" noise with dw_min alone; "own" noise as
            the family says, where it does.
        write_noise: standard deviation, in units of dw_min, of the visible weight around the persistent one. Where
            dw_min is replaced, it goes along; `devices.find(name, n_states=...)` keeps it in units of the weight.
        lifetime: mini-batches in which a state decays to 1/e of its distance from its reset state; 0 for no decay.
        diffusion: standard deviation of the random walk of a state in one mini-batch.
        lifetime_dtod, diffusion_dtod: their relative standard deviations between devices.
        reset: mean state after a reset. reset_dtod: its standard deviation between devices, not relative.
        reset_std: standard deviation of a device's state from reset to reset.
        corrupt: share of devices, in [0, 1], that are stuck at a state within +-`corrupt_range` and their bounds.

    Raises:
        ValueError: a value breaks its rule; the message names the field, the value and the rule.
    """

    w_min: float = -1.0
    w_max: float = 1.0
    dw_min: float = 1e-3
    up_down: float = 0.0
    w_min_dtod: float = 0.0
    w_max_dtod: float = 0.0
    dw_min_dtod: float = 0.0
    up_down_dtod: float = 0.0
    dw_min_log_normal: bool = False
    dw_min_ctoc: float = 0.0
    ctoc: Literal["multiplicative", "additive", "own"] = "multiplicative"
    write_noise: float = 0.0
    lifetime: float = 0.0
    lifetime_dtod: float = 0.0
    diffusion: float = 0.0
    diffusion_dtod: float = 0.0
    reset: float = 0.0
    reset_dtod: float = 0.0
    reset_std: float = 0.01
    corrupt: float = 0.0
    corrupt_range: float = 0.1

    # response(w, up, dw_min, ...) -> signed change of w by one noise-free pulse. w: the state. up: the pulse's
    # direction. dw_min: this element's step in this direction, imbalance included. Further arguments by field name.
    # Tables come last.
    response: ClassVar[Callable[..., Any]]
    # noise(w, up, change, ...) -> standard deviation of that pulse, in units of dw_min_ctoc; after the noise-free
    # change the same arguments as the response's, in their order.
    noise: ClassVar[Callable[..., Any] | None] = None
    # Fields that hold numbers on a grid of states, the same for all elements, for `vocabulary.interpolate`.
    tables: ClassVar[tuple[str, ...]] = ()
    # Whether the response is affine in w; then the pulses of a train compose in closed form (ohmgrad.pulses.merge).
    is_affine: ClassVar[bool] = False
    # Own numbers that a fit to measurements may change (ohmgrad.fitting), with their ranges; None: all, without limits.
    fitted: ClassVar[Mapping[str, tuple[float, float]] | None] = None
    # Fields in which the devices of one crossbar, one for each replica, may not differ.
    shared: ClassVar[tuple[str, ...]] = ("dw_min_ctoc", "ctoc", "write_noise", "reset_std")

    def __post_init__(self) -> None:
        family = type(self).__name__
        for name, kind in kinds(type(self), self.tables):
            value = getattr(self, name)
            if kind is tuple:
                object.__setattr__(self, name, check_table(family, name, value))
            elif kind is float:
                check_number(family, name, value)
            elif not isinstance(value, kind):
                raise ValueError(f"{family} needs a {kind.__name__} for {name}, got {value!r}")
        if not self.w_min <= 0 <= self.w_max or self.w_min == self.w_max:
            raise ValueError(
                f"{family} needs w_min <= 0 <= w_max and w_min < w_max, got w_min={self.w_min}, w_max={self.w_max}"
            )
        if self.dw_min <= 0:
            raise ValueError(f"{family} needs dw_min > 0, got {self.dw_min}")
        if not 0 <= self.corrupt <= 1:
            raise ValueError(f"{family} needs 0 <= corrupt <= 1, got {self.corrupt}")
        if abs(self.up_down) > 1:
            raise ValueError(f"{family} needs -1 <= up_down <= 1, got {self.up_down}")
        self._check_response()

    def _check_response(self) -> None:
        """Rules that tie values to the family's functions."""
        family, known = type(self).__name__, CTOC if self.noise else CTOC[:2]
        if self.ctoc not in known:
            raise ValueError(f"{family} needs ctoc {' or '.join(map(repr, known))}, got {self.ctoc!r}")
        if len({len(getattr(self, name)) for name in self.tables}) > 1:
            raise ValueError(f"{family} needs {' and '.join(self.tables)} of equal length")
        for name in self.own_parameters():
            if not hasattr(self, name) and type(self).extra is Device.extra:
                raise ValueError(f"{family}.response takes {name!r}, which is no field of {family}")

    def need_bounds_on_both_sides(self) -> None:
        """For families whose response divides by its bounds."""
        if not self.w_min < 0 < self.w_max:
            raise ValueError(
                f"{type(self).__name__} needs w_min < 0 < w_max, got w_min={self.w_min}, w_max={self.w_max}"
            )

    def need_finite_bounds(self) -> None:
        """For families whose response needs a range."""
        for name in ("w_min", "w_max"):
            if math.isinf(getattr(self, name)):
                raise ValueError(f"{type(self).__name__} needs a finite number for {name}, got {getattr(self, name)}")

    @classmethod
    def own_parameters(cls) -> tuple[str, ...]:
        """Names of what the response takes of every element beside w, up, dw_min and the bounds."""
        return tuple(n for n in response_arguments(cls) if n not in ("dw_min", "w_min", "w_max", *cls.tables))

    @property
    def granularity(self) -> float:
        """The step that pulse counts are reckoned in: an increment of n granularities asks for n pulses."""
        return self.dw_min

    @property
    def n_states(self) -> float:
        """(w_max - w_min) / granularity."""
        return (self.w_max - self.w_min) / self.granularity

    def extra(self, params: Params, normal: Callable[[], Tensor]) -> dict[str, Value]:
        """The response's own parameters for every element.

        Args:
            params: the shared ones, already drawn.
            normal: each call gives a fresh plane of standard normals, (*replica, out, in), or, for a large array, some
                of its rows: what an element gets may depend on its own numbers alone.
        """
        values: dict[str, Value] = {}
        for name in self.own_parameters():
            spread = getattr(self, f"{name}_dtod", 0.0)
            values[name] = getattr(self, name) * (1.0 + spread * normal()) if spread else getattr(self, name)
        return values

    def sample(self, normal: Callable[[], Tensor]) -> dict[str, Any]:
        """Every element's parameters: a number where devices do not differ, else a plane (*replica, out, in); tables.

        Negative draws are folded back (aihwkit's `enforce_consistency`): steps and bounds keep their signs.
        """
        spread = self.dw_min_dtod
        gain: Value = 1.0
        if spread:
            gain = torch.exp(spread * normal()) if self.dw_min_log_normal else 1.0 + spread * normal()
        shift: Value = self.up_down_dtod * normal() if self.up_down_dtod else 0.0
        w_max = self.w_max * (1.0 + self.w_max_dtod * normal()) if self.w_max_dtod else self.w_max
        w_min = self.w_min * (1.0 + self.w_min_dtod * normal()) if self.w_min_dtod else self.w_min
        params = {
            "w_min": -abs(w_min),
            "w_max": abs(w_max),
            "dw_up": abs(self.dw_min * (gain + min(self.up_down, 0.0) + shift)),
            "dw_down": abs(self.dw_min * (gain - max(self.up_down, 0.0) - shift)),
        }
        if self.corrupt:
            params = self._with_corrupt(params, normal)
        params = params | self.extra(params, normal) | {name: getattr(self, name) for name in self.tables}
        return params | self.relaxation(normal)

    def _with_corrupt(self, params: Params, normal: Callable[[], Tensor]) -> dict[str, Value]:
        """Some elements stuck: both bounds at one state, uniform in what the range and the bounds allow, no steps."""
        is_stuck, place = torch.special.ndtr(normal()) < self.corrupt, torch.special.ndtr(normal())
        given = {k: torch.as_tensor(v, dtype=place.dtype) for k, v in params.items()}
        low, high = given["w_min"].clamp(min=-self.corrupt_range), given["w_max"].clamp(max=self.corrupt_range)
        state = low + (high - low) * place
        stuck = {"w_min": state, "w_max": state, "dw_up": torch.zeros(()), "dw_down": torch.zeros(())}
        return {k: torch.where(is_stuck, stuck[k].to(place.dtype), v) for k, v in given.items()}

    def relaxation(self, normal: Callable[[], Tensor]) -> dict[str, Value]:
        """What decay, diffusion and reset need of every element; no entry for what is off.

        Source: aihwkit, `PulsedDevice`: a lifetime <= 1, drawn negative ones among them, forgets all at once.
        """
        values: dict[str, Value] = {}
        if self.lifetime:
            spread = self.lifetime_dtod
            values["lifetime"] = self.lifetime * (1.0 + spread * normal()) if spread else self.lifetime
        if self.diffusion:
            spread = self.diffusion_dtod
            values["diffusion"] = abs(self.diffusion * (1.0 + spread * normal())) if spread else self.diffusion
        if self.reset or self.reset_dtod:
            values["reset"] = self.reset + self.reset_dtod * normal() if self.reset_dtod else self.reset
        return values

    def starts(self) -> Iterable[dict[str, Any]]:
        """Own numbers that a fit to measurements may start from, beside defaults: one for each shape of the response.

        For families whose numbers make so different shapes that a climb from one does not come to another.
        """
        return ()

    def reset_state(self, params: Params) -> Value:
        """The state that decay and reset lead to, of every element."""
        return params.get("reset", 0.0)

    def nominal(self) -> dict[str, Any]:
        """The parameters of the mean device."""
        spreads = {name: 0.0 for name in _spreads(type(self)) if getattr(self, name)}
        mean = dataclasses.replace(self, **spreads) if spreads else self
        return mean.sample(lambda: torch.zeros(()))

    def step(self, w: Tensor, up: Tensor | bool, params: Params | None = None) -> Tensor:
        """Signed change of w by one noise-free pulse; w and the planes of params broadcast."""
        return step(type(self), w, up, self.nominal() if params is None else params)

    def q_up(self, w: Tensor, params: Params | None = None) -> Tensor:
        """Response factor of an up pulse, dimensionless; 1 is ideal."""
        return self.step(w, True, params) / self.granularity

    def q_down(self, w: Tensor, params: Params | None = None) -> Tensor:
        """Response factor of a down pulse, dimensionless; 1 is ideal."""
        return -self.step(w, False, params) / self.granularity

    def F(self, w: Tensor, params: Params | None = None) -> Tensor:
        """Symmetric part of the response (Wu et al. 2024, eq. 7).

        >>> from ohmgrad.devices import SoftBounds
        >>> SoftBounds(w_max=0.5, w_min=-0.5).F(torch.tensor([0.0, 0.25]))
        tensor([1., 1.])
        """
        return (self.q_down(w, params) + self.q_up(w, params)) / 2.0

    def G(self, w: Tensor, params: Params | None = None) -> Tensor:
        """Asymmetric part of the response (Wu et al. 2024, eq. 7); 0 at the symmetric point.

        >>> from ohmgrad.devices import SoftBounds
        >>> SoftBounds(w_max=0.5, w_min=-0.5).G(torch.tensor([0.0, 0.25]))
        tensor([0.0000, 0.5000])
        """
        return (self.q_down(w, params) - self.q_up(w, params)) / 2.0

    def symmetric_point(self, params: Params | None = None) -> Tensor:
        """State at which up and down pulses cancel, G(w) = 0, in float64; the middle where G vanishes on an interval.

        Raises:
            ValueError: an element's response has no crossing inside [w_min, w_max].

        Cost: 120 bisections of two responses each.

        >>> from ohmgrad.devices import SoftBounds
        >>> SoftBounds(w_max=1.0, w_min=-0.5, up_down=0.2).symmetric_point()
        tensor(0.0769, dtype=torch.float64)
        """
        given = (params or self.nominal()).items()
        params = {k: v if k in self.tables else torch.as_tensor(v, dtype=torch.float64) for k, v in given}
        shape = torch.broadcast_shapes(*(v.shape for v in params.values() if isinstance(v, Tensor)))
        # Beyond 1e6 an unbounded device is as symmetric as it will ever be.
        low = torch.as_tensor(params["w_min"]).clamp(min=-1e6).expand(shape)
        high = torch.as_tensor(params["w_max"]).clamp(max=1e6).expand(shape)
        g_low, g_high = self.G(low, params), self.G(high, params)
        is_symmetric = (g_low.abs() < 1e-12) & (g_high.abs() < 1e-12)
        n_without = int((~is_symmetric & (torch.sign(g_low) * torch.sign(g_high) > 0)).sum())
        if n_without:
            raise ValueError(
                f"{type(self).__name__} has no symmetric point inside [w_min, w_max] in {n_without} of "
                f"{is_symmetric.numel()} elements: up and down steps differ everywhere"
            )

        def edge(is_above: Callable[[Tensor], Tensor]) -> Tensor:
            below, above = low, high
            for _ in range(60):
                middle = (below + above) / 2.0
                up = is_above(torch.sign(self.G(middle, params)))
                below, above = torch.where(up, below, middle), torch.where(up, middle, above)
            return (below + above) / 2.0

        first, last = edge(lambda sign: sign != torch.sign(g_low)), edge(lambda sign: sign == torch.sign(g_high))
        return torch.where(is_symmetric, torch.zeros_like(first), (first + last) / 2.0)


@cache
def response_arguments(family: type[Device]) -> tuple[str, ...]:
    """What a family's response takes beside w and up, in its order."""
    names = tuple(inspect.signature(family.response).parameters)
    if names[:2] != ("w", "up") or set(names[len(names) - len(family.tables) :]) != set(family.tables):
        tables = "".join(f", {name}" for name in family.tables)
        raise ValueError(f"{family.__name__}.response needs the arguments (w, up, ...{tables}), got {names}")
    if family.noise and tuple(inspect.signature(family.noise).parameters) != ("w", "up", "change", *names[2:]):
        raise ValueError(f"{family.__name__}.noise needs the arguments {('w', 'up', 'change', *names[2:])}")
    return names[2:]


def step(family: type[Device], w: Tensor, up: Tensor | bool, params: Params) -> Tensor:
    """Signed change of w by one noise-free pulse on elements with these parameters."""
    return _expanded(family.response(w, up, *_given(family, w, up, params)), w, params)


def noise(device: Device, w: Tensor, up: Tensor, change: Tensor, params: Params) -> Tensor:
    """Standard deviation of such a pulse, up to its sign, in units of dw_min_ctoc; change: its `step`."""
    if device.ctoc == "multiplicative":
        return change
    if device.ctoc == "additive":
        return torch.where(up, *_pair(params, w))
    assert device.noise is not None  # __post_init__ saw to it; said for the type checker
    return _expanded(device.noise(w, up, change, *_given(type(device), w, up, params)), w, params)


def _given(family: type[Device], w: Tensor, up: Tensor | bool, params: Params) -> list[Any]:
    """What the response takes after w and up."""
    dw = torch.where(up, *_pair(params, w)) if isinstance(up, Tensor) else params["dw_up" if up else "dw_down"]
    return [dw if name == "dw_min" else params[name] for name in response_arguments(family)]


def _expanded(change: Value, w: Tensor, params: Params) -> Tensor:
    planes = [v for v in params.values() if isinstance(v, Tensor)]
    # Literals alone have a dtype of their own, and a response need not depend on w.
    dtype = functools.reduce(torch.promote_types, (v.dtype for v in planes), w.dtype)
    change = torch.as_tensor(change, dtype=dtype, device=w.device)
    return change.expand(torch.broadcast_shapes(w.shape, *(v.shape for v in planes)))


@cache
def _spreads(family: type[Device]) -> tuple[str, ...]:
    """Fields that say how devices differ."""
    names = [f.name for f in dataclasses.fields(family)]
    return tuple(n for n in names if n.endswith(("_dtod", "_std", "corrupt")) and n != "reset_std")


def _pair(params: Params, like: Tensor) -> tuple[Tensor, Tensor]:
    up, down = (torch.as_tensor(params[k], dtype=like.dtype, device=like.device) for k in ("dw_up", "dw_down"))
    return up, down


def draw(device: Device, seed: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> dict[str, Any]:
    """`device.sample` for an array: planes (*replica, out, in) that are functions of (seed, row, column).

    Rows are drawn a block at a time, so that beside the planes themselves hardly any memory is needed.
    """
    n_out, n_in = shape
    values: dict[str, Any] = {}
    for rows in random.blocks(n_out, n_in * seed.numel(), random.CACHED):
        for name, value in device.sample(_normals(seed, rows, n_in, dtype)).items():
            if isinstance(value, Tensor):
                if not rows.start:
                    values[name] = torch.empty((*seed.shape, *shape), dtype=value.dtype, device=value.device)
                torch.as_tensor(values[name])[..., rows.start : rows.stop, :] = value
            else:
                values[name] = value
    return values


def _normals(seed: Tensor, rows: range, n_in: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    """Calls give one plane after the other, (*replica, rows, in)."""
    numbers = itertools.count(1)
    return lambda: random.normal_plane(seed, (random.Stream.DEVICE, next(numbers)), rows, n_in, dtype)
