"""The solvable problems against autograd, scipy's laws and quadrature; runs of them against recursions by hand."""

import math

import pytest
import torch
from scipy import integrate, stats

from chance import assert_mean
from exact import assert_within_ulps
from ohmgrad import ExpectedUpdate, PulsedUpdate, TikiTaka
from ohmgrad.devices.presets import asymmetric_linear
from ohmgrad.theory import Noise, descend, estimate
from ohmgrad.theory.instances import LeastSquares, LogisticRegression, LowerBound, Quadratic, WeightProgramming
from ohmgrad.theory.noise import LAWS


def data(n_out: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(30, n_out, generator=generator, dtype=torch.float64)
    return inputs, inputs @ torch.tensor([[0.2, -0.1, 0.3, 0.0]] * n_out, dtype=torch.float64).mT + 0.3 * noise


X, Y = data()
LABELS = Y[:, :1].sign()
INSTANCES = {
    "lower bound": LowerBound(size=3, L=2.0, tau=0.8, w_star=0.15, sigma=0.2),
    "quadratic": Quadratic(target=Y[:2], h=torch.tensor([1.0, 2.5]), noise=Noise(std=0.3, law="laplace")),
    "least squares": LeastSquares(inputs=X, targets=Y, noise=Noise(std=0.3, law="uniform")),
    "least squares by samples": LeastSquares(inputs=X, targets=Y, noise=None),
    "logistic": LogisticRegression(inputs=X, labels=LABELS, ridge=0.1, noise=Noise(std=0.2)),
    "logistic by samples": LogisticRegression(inputs=X, labels=LABELS, ridge=0.1, noise=None),
    "programming": WeightProgramming(target=Y[:3], noise=0.2),
}
each = pytest.mark.parametrize("instance", INSTANCES.values(), ids=INSTANCES.keys())


@each
def test_gradient_is_that_of_the_loss_and_vanishes_at_the_optimum(instance):
    shift = torch.linspace(-0.03, 0.05, instance.optimum.numel(), dtype=torch.float64).reshape(instance.optimum.shape)
    w = torch.stack([instance.optimum, instance.optimum + shift])
    (by_autograd,) = torch.autograd.grad(instance.loss(w.requires_grad_()).sum(), w)
    torch.testing.assert_close(instance.gradient(w.detach()), by_autograd, rtol=1e-10, atol=1e-13)
    assert instance.gradient(instance.optimum).abs().max() < 1e-13
    assert float(instance.loss(instance.optimum)) == instance.f_star
    assert (instance.loss(w)[1] > instance.f_star) and instance.loss(w).shape == (2,)


@each
def test_curvature_lies_between_the_constants(instance):
    n = instance.optimum.numel()
    hessian = torch.autograd.functional.hessian(instance.loss, instance.optimum)
    smallest, largest = torch.linalg.eigvalsh(hessian.reshape(n, n))[[0, -1]].tolist()
    is_bound = isinstance(instance, LogisticRegression)
    for value, exact, sign in ((instance.convexity, smallest, 1.0), (instance.smoothness, largest, -1.0)):
        assert value == pytest.approx(exact, rel=1e-9) or (is_bound and sign * value < sign * exact)


@each
def test_moments_of_the_stochastic_gradient(instance, seed):
    # n = 40,000: sees 2.5 % of a standard deviation in each mean, and of E|g|; half the noise moves E|g| by a third.
    w = (instance.optimum + 0.04).expand(40_000, -1, -1)
    generator = torch.Generator().manual_seed(seed)
    g = instance.noisy_gradient(w, generator)
    gradient, modulus = instance.gradient(w[0]), instance.mean_modulus(w[0])
    for i, j in ((0, 0), (-1, -1)):
        assert_mean(g[:, i, j], float(gradient[i, j]))
        assert_mean(g[:, i, j].abs(), float(modulus[i, j]))
    at_optimum = instance.noisy_gradient(instance.optimum.expand(40_000, -1, -1), generator)
    assert_mean(at_optimum.square().sum((-2, -1)), instance.sigma_squared)


@pytest.mark.parametrize("law", LAWS)
def test_mean_modulus_of_each_law(law, seed):
    noise, s = Noise(std=0.4, law=law), 0.4
    known = {
        "gaussian": stats.norm(0.0, s),
        "laplace": stats.laplace(0.0, s / math.sqrt(2)),
        "uniform": stats.uniform(-s * math.sqrt(3), 2 * s * math.sqrt(3)),
    }
    for mean in (0.0, 0.15, -0.5, 2.0):
        if law == "two-point":
            expected = (abs(mean + s) + abs(mean - s)) / 2.0
        else:
            pdf = known[law].pdf
            expected, _ = integrate.quad(
                lambda e, m, pdf: abs(m + e) * pdf(e), -8, 8, (mean, pdf), points=[-mean, 0.0], limit=500
            )
        assert float(noise.mean_modulus(torch.tensor(mean, dtype=torch.float64))) == pytest.approx(expected, rel=1e-5)
    # n = 100,000 sees 1 % of the mean modulus; noise of half the size would be 50 % off.
    drawn = noise.draw(torch.Size((100_000,)), torch.Generator().manual_seed(seed))
    assert_mean(drawn, 0.0)
    if law == "two-point":
        assert drawn.abs().unique().tolist() == [s]
    else:
        assert_mean(drawn.square(), s**2)
        assert_mean(drawn.abs(), float(noise.mean_modulus(torch.tensor(0.0))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LowerBound(w_star=0.3), r"\|w_star\| <= tau / 4 = 0.25, got 0.3"),
        (lambda: LowerBound(sigma=0.2), r"sigma <= tau L sqrt\(D\) / \(4 sqrt 3\) = 0.144338, got 0.2"),
        (lambda: LowerBound(size=0), "size >= 1, got 0"),
        (lambda: LowerBound(tau=-1.0), "finite tau > 0, got -1.0"),
        (lambda: Quadratic(target=X, h=-1.0), "finite h >= 0, got -1.0"),
        (lambda: Quadratic(target=X[0]), r"matrix of finite numbers as target, got shape \(4,\)"),
        (lambda: LeastSquares(inputs=X, targets=Y[1:]), "as many inputs as targets, got 30 and 29"),
        (lambda: LogisticRegression(inputs=X, labels=Y), r"labels \(n, 1\) of 1 and -1"),
        (lambda: LogisticRegression(inputs=X, labels=LABELS, ridge=0.0), "finite ridge > 0, got 0.0"),
        (lambda: WeightProgramming(target=X, noise=-0.1), "finite noise >= 0, got -0.1"),
        (lambda: Noise(std=math.inf), "finite std >= 0, got inf"),
        (lambda: Noise(std=1.0, law="cauchy"), "got 'cauchy'"),
    ],
)
def test_bad_input_names_value_and_rule(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_descent_by_hand():
    # w <- w - lr g - lr |g| w with g = w - 0.5, from 0.1 and from 0.2; looks at steps 0, 2, 4, averages from step 2 on.
    states = {}
    for start in (0.1, 0.2):
        w, states[start] = start, []
        for _ in range(6):
            states[start].append(w)
            w = w - 0.1 * (w - 0.5) - 0.1 * abs(w - 0.5) * w
    start = torch.tensor([0.1, 0.2], dtype=torch.float64).reshape(2, 1, 1)
    instance = Quadratic(target=torch.tensor([[0.5]]))
    seen = []
    runs = descend(
        instance, device=asymmetric_linear(), lr=0.1, settle=2, steps=4, replicas=2, start=start, every=2,
        on_look=lambda k, tile: seen.append(k),
    )  # fmt: skip
    assert runs.step.tolist() == seen == [0, 2, 4]
    for r, own in enumerate(states.values()):
        looks = torch.tensor([own[2], own[4]], dtype=torch.float64)
        assert_within_ulps(runs.weight[r, 0, 0], looks.mean(), ulps=20)
        assert_within_ulps(runs.gradient[r, 0, 0], (looks - 0.5).mean(), ulps=20)
        assert_within_ulps(runs.mean_squared[r], (looks - 0.5).square().mean(), ulps=20)
        assert_within_ulps(runs.mean_loss[r], (looks - 0.5).square().mean() / 2.0, ulps=20)
        assert_within_ulps(runs.mean_asymmetry[r], (looks**2 / (1.0 - looks**2)).mean(), ulps=40)
    assert float(runs.loss[0]) == pytest.approx((0.4**2 + 0.3**2) / 4.0)
    assert estimate(runs.mean_loss).value == pytest.approx(float(runs.mean_loss.mean()))


@pytest.mark.parametrize("algorithm", [None, TikiTaka(n_reads=None)], ids=["sgd", "tiki-taka"])
def test_descent_pulse_by_pulse_does_as_the_dynamics(algorithm, seed):
    # Programming, bounds far off, pulses of 1e-4: n = 40 runs see a tenth of the loss that is left.
    common = {
        "device": asymmetric_linear(50.0, dw_min=1e-4),
        "algorithm": algorithm,
        "lr": 0.1,
        "steps": 30,
        "replicas": 40,
    }
    target = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    runs = [
        descend(WeightProgramming(target=target), start=0.0, update=update, seed=seed, **common).mean_loss
        for update in (ExpectedUpdate(), PulsedUpdate(bit_length=5000))
    ]
    assert_mean(runs[0] - runs[1], 0.0)
    assert runs[0].mean() > 10.0 * (runs[0] - runs[1]).std()


def test_descent_is_a_function_of_the_seed():
    common = {"device": asymmetric_linear(), "lr": 0.1, "steps": 5, "replicas": 3, "update": ExpectedUpdate(noise=True)}
    instance = INSTANCES["least squares"]
    first, again, other = (descend(instance, seed=s, **common).weight for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    for bad, message in (
        ({"steps": 0}, "steps >= 1"),
        ({"replicas": 0}, "replicas >= 1"),
        ({"every": 6}, "steps >= 6"),
    ):
        with pytest.raises(ValueError, match=message):
            descend(instance, **{**common, **bad})
