"""Dynamics against pulses: does the paper's equation follow Analog SGD pulse by pulse? (Wu et al. 2024, Fig. 3)

One linear neuron learns a least-squares problem that it can solve exactly, f(w) = ||A w - y||^2 / (2 n), from w = 0.
Each step takes the gradient of all samples plus Gaussian noise. On devices with soft bounds at +-tau,

    digital    w <- w - lr g
    expected   w <- w - lr g - |lr g| w / tau                       the paper's dynamics, eq. 8
    matched    the same plus noise of the variance that pulse trains have (`ExpectedUpdate(noise=True)`)
    pulsed     every pulse of dw_min
    samples    every pulse, sample by sample, where the noise is that of reading the outputs

**Which pulses the equation describes.** Its |lr g| is the increment that a device is sent. The gradient of one neuron
is of rank 1, whatever the batch, so "pulsed" writes it in one cycle (x = g, d = 1): there the equation applies. The
authors' script has aihwkit write the n samples one by one ("samples" here); then the pull to 0 sees the sum over
samples of |d_i x_i| / n instead of |g|, and the noise, which enters through the read, is another one.

Source: the authors' repository Zhaoxian-Wu/analog-training, NeurIPS-2024/S2-dynamic-verification.py, whose numbers are
the defaults. The paper's appendix has others: bit length 300, variances .3 and .1 where the script has deviations, and
300 states where the script's dw_min = tau / 300 makes 600. We leave out the neuron's bias (the truth has none).

**Measured** at the defaults (`benchmarks/dynamics.py`; last 500 steps, ten seeds, errors below 5 %, "samples" 10 %):

    loss / 1e-4 at tau =      1     1.5     2     2.5
    digital                 0.75   0.75   0.75   0.75     lr noise^2 / 4 = 0.75
    expected                9.77   5.72   3.92   2.95
    matched                10.15   6.31   4.72   3.89
    pulsed                 10.07   6.20   4.63   3.93
    samples                12.90   3.62   2.08   1.80

Pulses follow the dynamics, with their noise within 2 % (1 to 5 % standard error). Without it the equation ends 3, 8, 18
and 33 % of itself below, by the noise of steps of dw_min; with 6000 states by 0.5 to 2.4 %. Sample by sample, the loss
is 1.3 to 0.5 times that of the equation: the script's read noise is no substitute for noise on the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.devices import Device, Ideal, SoftBounds
from ohmgrad.pulses.settings import ExpectedUpdate, PulsedUpdate

METHODS = ("digital", "expected", "matched", "pulsed", "samples")
OnRun = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class DynamicsSettings:
    """One reproduction of Fig. 3. Raises ValueError, naming field, value and rule, when a value breaks its rule.

    size, n_samples: weights D and samples n. input_std, target_std: of the entries of A and of the solution.
    n_states: 2 tau / dw_min. bit_length: longest train of one write.
    noise: standard deviation of each coordinate of the gradient; for "samples", the read noise is this over the mean
        singular value of A, times the norm of the sample, at each output, as in the script.
    data_seed: of A and the solution, drawn in the script's order. seeds: of the noises, one replica each.
    """

    methods: tuple[str, ...] = METHODS
    size: int = 40
    n_samples: int = 100
    input_std: float = 0.5
    target_std: float = 0.3
    lr: float = 3e-2
    steps: int = 2500
    taus: tuple[float, ...] = (1.0, 1.5, 2.0, 2.5)
    n_states: float = 600.0
    bit_length: int = 5000
    noise: float = 0.1
    data_seed: int = 42
    seeds: tuple[int, ...] = tuple(range(618, 628))

    def __post_init__(self) -> None:
        if not self.methods or any(m not in METHODS for m in self.methods):
            raise ValueError(f"methods needs some of {', '.join(METHODS)}, got {', '.join(self.methods) or 'none'}")
        for name in ("size", "n_samples", "steps", "bit_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} needs a whole number >= 1, got {getattr(self, name)}")
        for name in ("input_std", "target_std", "lr", "n_states"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} needs a finite number > 0, got {getattr(self, name)}")
        if not 0.0 <= self.noise < math.inf:
            raise ValueError(f"noise needs a finite number >= 0, got {self.noise}")
        if not self.taus or any(not 0.0 < tau < math.inf for tau in self.taus):
            raise ValueError(f"taus needs at least one, each finite and > 0, got {self.taus}")
        if not self.seeds or any(not 0 <= s < 2**63 for s in self.seeds):
            raise ValueError(f"seeds needs at least one, each in [0, 2**63), got {self.seeds}")


@dataclass(frozen=True)
class Problem:
    """The data: inputs (n, D), targets (n,)."""

    inputs: Tensor
    targets: Tensor


def problem(settings: DynamicsSettings) -> Problem:
    """The data, as the script draws it: first the solution, then the inputs."""
    generator = torch.Generator().manual_seed(settings.data_seed)
    solution = settings.target_std * torch.randn(settings.size, generator=generator)
    inputs = settings.input_std * torch.randn(settings.n_samples, settings.size, generator=generator)
    return Problem(inputs, inputs @ solution)


def run(settings: DynamicsSettings, on_run: OnRun = lambda method, tau: None) -> dict[str, Tensor]:
    """Curves of the loss above the optimum for each method, (tau, seed, step), steps 0 ... settings.steps.

    The loss is divided by D, as in the figure. All methods but "samples" see the same gradient noise; digital SGD
    knows no tau, and its curves stand for all of them. `on_run(method, tau)` is called before each.
    """
    data, curves = problem(settings), {}
    for method in settings.methods:
        taus = settings.taus[:1] if method == "digital" else settings.taus
        losses = []
        for tau in taus:
            on_run(method, tau)
            losses.append(_train(method, tau, data, settings))
        curves[method] = torch.stack(losses).expand(len(settings.taus), -1, -1)
    return curves


def ratio(above: Tensor, below: Tensor, n_windows: int = 10) -> tuple[Tensor, Tensor]:
    """Ratio of two methods' mean losses in each window of steps, and its standard error; each (tau, window).

    Args:
        above, below: curves of `run`, (tau, seed, step); the error is that of pairs, seed by seed. One seed gives NaN.
    """
    means = []
    for curve in (above, below):
        windows = curve.double()[..., 1:].tensor_split(n_windows, dim=-1)
        means.append(torch.stack([w.mean(-1) for w in windows], -1))  # (tau, seed, window)
    a, b = means
    quotient = a.mean(1) / b.mean(1)
    rest = (a - quotient[:, None] * b) / b.mean(1)[:, None]
    return quotient, rest.std(1) / math.sqrt(rest.shape[1])


def _train(method: str, tau: float, data: Problem, settings: DynamicsSettings) -> Tensor:
    """The loss of every seed before each step and after the last, (seed, step)."""
    device, update = _hardware(method, tau, settings)
    n_seeds = len(settings.seeds)
    bar = Crossbar((1, settings.size), device=device, update=update, seed=settings.seeds, replicas=(n_seeds,))
    is_by_sample = method == "samples"
    inputs = data.inputs.expand(n_seeds, -1, -1)
    noise = _read_noise(data, settings) if is_by_sample else _gradient_noise(settings)
    one, losses = torch.ones(n_seeds, 1, 1), []
    for k in range(settings.steps + 1):
        residual = bar.weight @ data.inputs.mT - data.targets  # (seed, 1, n)
        losses.append(residual.square().mean((-2, -1)) / (2 * settings.size))
        if k == settings.steps:
            break
        if is_by_sample:
            bar.pulse(inputs, (residual + noise[:, k, None]).mT / settings.n_samples, settings.lr)
        else:
            gradient = residual @ data.inputs / settings.n_samples + noise[:, k, None]
            bar.pulse(gradient, one, settings.lr)
    return torch.stack(losses, -1)


def _hardware(method: str, tau: float, settings: DynamicsSettings) -> tuple[Device, ExpectedUpdate | PulsedUpdate]:
    if method == "digital":
        return Ideal(), ExpectedUpdate()
    device = SoftBounds(w_max=tau, w_min=-tau, dw_min=2.0 * tau / settings.n_states)
    if method in ("expected", "matched"):
        return device, ExpectedUpdate(noise=method == "matched", bit_length=settings.bit_length)
    return device, PulsedUpdate(bit_length=settings.bit_length)


def _gradient_noise(settings: DynamicsSettings) -> Tensor:
    """(seed, step, D)."""
    return settings.noise * _normals(settings, settings.size)


def _read_noise(data: Problem, settings: DynamicsSettings) -> Tensor:
    """(seed, step, n): noise on the weights, independent at each read, as it arrives at the outputs."""
    w_noise = settings.noise / torch.linalg.svdvals(data.inputs).mean()
    return w_noise * data.inputs.norm(dim=-1) * _normals(settings, settings.n_samples)


def _normals(settings: DynamicsSettings, n: int) -> Tensor:
    draws = [torch.randn(settings.steps, n, generator=torch.Generator().manual_seed(s)) for s in settings.seeds]
    return torch.stack(draws)
