"""One source, two targets: a response compiled by Numba gives what it gives on torch tensors, in float32."""

import math

import numba
import numpy as np
import pytest
import torch

from ohmgrad import random, vocabulary
from ohmgrad.devices import DEVICES
from ohmgrad.devices.base import step
from ohmgrad.pulses import cpu, numba_target
from ohmgrad.vocabulary import (
    Target,
    absolute,
    exp,
    interpolate,
    log,
    maximum,
    minimum,
    power,
    retarget,
    sqrt,
    where,
)


@numba.njit
def choose(condition, a, b):
    return a if condition else b


NUMBA = {
    "where": choose,
    "minimum": numba.njit(lambda a, b: min(a, b)),
    "maximum": numba.njit(lambda a, b: max(a, b)),
    "absolute": numba.njit(lambda a: abs(a)),
    "exp": numba.njit(lambda a: math.exp(a)),
    "log": numba.njit(lambda a: math.log(a)),
    "sqrt": numba.njit(lambda a: math.sqrt(a)),
    "power": numba.njit(lambda a, b: math.pow(a, b)),
    "interpolate": numba_target.NUMBA.namespace["interpolate"],
}
SCALE = 0.75


def helper(w):
    return SCALE * absolute(w) + 0.1


def every_name(w, up, dw_min):
    """Uses all of the vocabulary, a helper, a number of its module, and literals that float32 cannot hold."""
    z = where(up, maximum(w, 0.1), minimum(w, -0.1))
    return dw_min * (exp(-z / 3.3) + log(1.1 + z * z) - sqrt(helper(w)) + power(absolute(z), 1.7))


def of_a_table(w, table):
    return 0.1 * interpolate(table, 0.5 + w)


def compiled(function):
    return retarget(function, Target(NUMBA, number=np.float32, word=np.uint32, compile=numba.njit))


def test_the_namespace_is_whole():
    assert set(NUMBA) == set(vocabulary.NAMES)


@pytest.mark.parametrize("family", DEVICES)
def test_a_response_is_the_same_float32_on_both_targets(family):
    device = family(dw_min=0.007, up_down=0.3)
    if family.__name__ == "LinearStep":
        device = family(dw_min=0.007, up_down=0.3, gamma_up=0.4, gamma_down=0.7)
    if family.tables:
        device = family(dw_min=0.007, **dict.fromkeys(family.tables, (1.5, 1.0, 0.3, 0.2)))
    kernel = compiled(family.response)
    params = device.nominal()
    w = torch.linspace(-0.9, 0.9, 101)
    for up in (True, False):
        given = {"dw_min": params["dw_up" if up else "dw_down"], **params}
        names = family.response.__code__.co_varnames[2 : family.response.__code__.co_argcount]
        scalars = [as_rows(given[name]) if name in family.tables else np.float32(given[name]) for name in names]
        got = np.array([kernel(np.float32(v), up, *scalars) for v in w.numpy()])
        # The planes of params are float32, as the kernel's arguments are.
        planes = {k: v if isinstance(v, tuple) else torch.full_like(w, float(v)) for k, v in params.items()}
        expected = step(family, w, torch.full(w.shape, up), planes).numpy()
        # Numba fuses no multiplication with an addition here: equal to the last bit, but for exp and power, of which
        # either side's are right to an ulp or two, and the lines of a table, which it does fuse.
        is_exact = not {"exp", "power", "interpolate"} & set(family.response.__code__.co_names)
        np.testing.assert_allclose(got, expected, rtol=0.0, atol=0.0 if is_exact else 4 * 2.0**-23 * 0.007 * 8.0)
    assert [signature.return_type for signature in kernel.nopython_signatures] == [numba.float32]


LONG = tuple(math.sin(k) for k in range(cpu.SHORT + 4))


def as_rows(table: tuple[float, ...]) -> tuple[np.ndarray, int, int]:
    """A table as kernels for CPUs take it."""
    n = len(table)
    return np.array([(n - 1, *table, table[-1])], np.float32), 0, n if n <= cpu.SHORT else 0


@pytest.mark.parametrize("table", [(0.3,), (0.3, -1.0), (1.0, 2.0, 0.5, 0.5, 3.0), LONG])
def test_tables_on_both_targets(table):
    # numpy's interpolation, level beyond the ends; nodes themselves are met.
    x = torch.cat([torch.linspace(-1.0, 1.0, 201), torch.linspace(-0.5, 0.5, len(table))])
    kernel = compiled(of_a_table)
    got = np.array([kernel(np.float32(v), as_rows(table)) for v in x.numpy()])
    nodes = np.linspace(0.0, 1.0, len(table)) if len(table) > 1 else [0.5]
    expected = 0.1 * np.interp(0.5 + x.double().numpy(), nodes, table)
    np.testing.assert_allclose(got, expected, rtol=0.0, atol=2e-7)
    np.testing.assert_allclose(of_a_table(x, table).numpy(), expected, rtol=0.0, atol=2e-7)
    assert [signature.return_type for signature in kernel.nopython_signatures] == [numba.float32]


@pytest.mark.parametrize(("name", "points", "tolerance"), [
    ("exp", np.linspace(-80.0, 80.0, 100_001), 3e-7),
    ("log", np.exp(np.linspace(-80.0, 80.0, 100_001)), 3e-7),
    ("power", np.linspace(0.0, 3.0, 100_001), 2e-6),
])  # fmt: skip
def test_quick_functions(name, points, tolerance):
    # Planted: a last coefficient of 1/700, 1/8.
    quick = numba_target.NUMBA.namespace[name]
    second = (2.5,) if name == "power" else ()
    exact = {"exp": np.exp, "log": np.log, "power": lambda a: a**2.5}[name]

    @numba.njit(**numba_target.FAST)
    def run(x, y, *second):
        for i in range(x.size):
            y[i] = quick(x[i], *second)

    for dtype, allowed in ((np.float32, tolerance), (np.float64, 1e-14)):
        x = points.astype(dtype)
        y = np.empty_like(x)
        run(x, y, *(dtype(b) for b in second))
        expected = exact(x.astype(np.float64))
        scale = np.maximum(np.abs(expected), 0.5 if name == "log" else 1e-30)
        assert np.max(np.abs(y - expected) / scale) < allowed


def test_powers():
    # To the stated error, and exact at their ends. Planted: a coefficient of the logarithm off by 1e-6.
    quick = numba_target.NUMBA.namespace["power"]

    @numba.njit(**numba_target.FAST)
    def run(a, b, y):
        for i in range(a.size):
            y[i] = quick(a[i], b[i])

    rng = np.random.default_rng(1)
    a, b = (v.astype(np.float32) for v in (rng.uniform(0.3, 3.0, 100_000), rng.uniform(-70.0, 70.0, 100_000)))
    y, exponent = np.empty_like(a), b.astype(float) * np.log(a.astype(float))
    run(a, b, y)
    assert np.all(np.abs(y / np.exp(exponent) - 1.0) <= (2.0 + 2.0 * np.abs(exponent)) * 1e-7)
    ends = np.array([(0, 0, 1), (0, 2, 0), (0, -1, np.inf), (1, 77, 1), (2, 200, np.inf), (0.5, 200, 0)], np.float32)
    run(ends[:, 0], ends[:, 1], y[:6])
    assert y[:6].tolist() == ends[:, 2].tolist()


def test_all_of_the_vocabulary_stays_in_float32():
    kernel = compiled(every_name)
    w = torch.linspace(-2.0, 2.0, 41)
    got = np.array([kernel(np.float32(v), up, np.float32(0.01)) for up in (True, False) for v in w.numpy()])
    assert [s.return_type for s in kernel.nopython_signatures] == [numba.float32]
    expected = torch.cat([every_name(w, torch.full(w.shape, up), 0.01) for up in (True, False)])
    assert expected.dtype == torch.float32
    # Each function is right to an ulp or two on either target, of terms up to 3.3 * dw_min.
    np.testing.assert_allclose(got, expected.numpy(), rtol=0.0, atol=8 * 2.0**-23 * 0.033)


def test_literals_alone_keep_float64():
    # torch.where(condition, 0.3, -0.1) is float32 by itself, which once made a float64 device answer 0.30000001.
    condition = torch.tensor([True, False])
    assert where(condition, 0.3, -0.1).tolist() == [0.3, -0.1]
    assert exp(0.5).item() == math.exp(0.5)
    assert (torch.ones(2) * exp(0.5)).dtype == torch.float32


def test_literals_are_narrowed_and_the_source_is_left_alone():
    seen = []
    before = every_name.__code__.co_consts
    record = Target(NUMBA, number=lambda c: seen.append(c) or np.float32(c), word=np.uint32, compile=lambda f: f)
    retarget(every_name, record)
    assert sorted(seen) == [-0.1, 0.1, 0.1, 0.75, 1.1, 1.7, 3.3]
    assert every_name.__code__.co_consts == before


def no_import(w, up):
    return math.tanh(w)


def no_builtin(w, up):
    return max(w, 0.0)


def test_a_whole_number_widens_nothing():
    # Numba's float32 * int64 is float64; torch's is float32.
    def with_integers(w, up):
        return (1 - w) * 2

    kernel = compiled(with_integers)
    assert kernel(np.float32(0.3), True) == ((1 - torch.tensor(0.3)) * 2).item()
    assert [s.return_type for s in kernel.nopython_signatures] == [numba.float32]


def test_a_closure_is_refused():
    width = 0.1

    def dead_zone(w, up):
        return where(absolute(w) < width, 0.0, w)

    with pytest.raises(NameError, match="dead_zone uses 'width' of an enclosing function"):
        compiled(dead_zone)


@pytest.mark.parametrize(("function", "name"), [(no_import, "math"), (no_builtin, "max")])
def test_a_forbidden_name_is_refused(function, name):
    with pytest.raises(NameError, match=f"{function.__name__} uses '{name}': a response may call only where, minimum"):
        compiled(function)


def test_population_counts():
    words = [0, 1, 0x80000000, 0xFFFFFFFF, 0x12345678, 0xFFFF0000]
    rng = np.random.default_rng(0)
    words += rng.integers(0, 2**32, 1000).tolist()
    expected = [word.bit_count() for word in words]
    assert [vocabulary.popcount(word) for word in words] == expected
    assert vocabulary.popcount(torch.tensor(words)).tolist() == expected
    kernel = numba.njit(lambda words: [numba_target.popcount(np.uint32(word)) for word in words])
    assert list(kernel(np.array(words, np.uint32))) == expected


@pytest.mark.parametrize("key", [(0, 0), (0x9E3779B9, 0xFFFFFFFF), (0xFFFFFFFF, 0x85EBCA6B)])
def test_quick_normals_are_the_same_in_numba(key):
    # Neighbouring words give numbers 5e-6 apart, over four times the tolerance: so the words are equal bit for bit.
    counters = np.arange(2**32 - 5000, 2**32 + 5000) & 0xFFFFFFFF
    source = retarget(random.quick_normal, numba_target.NUMBA, words=True)

    @numba.njit
    def kernel(k0, k1, counters):
        return np.array([source(k0, k1, counter) for counter in counters])

    got = kernel(np.uint32(key[0]), np.uint32(key[1]), counters.astype(np.uint32))
    assert got.dtype == np.float32
    expected = random.quick_normal(*key, torch.from_numpy(counters))
    np.testing.assert_allclose(got, expected.numpy(), rtol=3 * 2.0**-24, atol=0.0)
