"""The generator: numbers are uniform, uncorrelated from place to place, Gaussian to five sigma, and tied to places.

The comments `Planted:` name bugs that were put in once, and that the test caught.
"""

import numpy as np
import pytest
import torch
from scipy import stats

from chance import assert_correlation, assert_counts, assert_mean, assert_same_law, assert_variance
from ohmgrad import random
from ohmgrad.random import Stream, bits, normal, normal_plane, plane_key, uniform_plane

CYCLE = 77
SIDE = 1000  # planes of a million words
ABOVE = tuple(torch.triu_indices(SIDE, SIDE, 1))


def words(seed: int, stream: int = Stream.PULSE, cycle: int = CYCLE, first: int = 0) -> torch.Tensor:
    """A plane of words, columns first ... first + SIDE - 1."""
    return bits(*plane_key(torch.tensor(seed), (stream, cycle), SIDE), torch.arange(first, first + SIDE))


def popcount(word: torch.Tensor) -> np.ndarray:
    """How many of the words have each of the 32 bits set."""
    return np.array([int(((word >> b) & 1).sum()) for b in range(32)])


def test_words_are_uniform(seed):
    # n = 1e6 in 256 cells: sees a cell that is off by 10 %. Planted: words whose last 8 bits are 0.
    word = words(seed)
    assert word.dtype == torch.int64 and 0 <= int(word.min()) and int(word.max()) < 2**32
    for shift in (24, 16, 8, 0):
        cells = np.bincount(((word >> shift) & 255).flatten().numpy(), minlength=256)
        assert_counts(cells, word.numel(), 1.0 / 256.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniforms_fill_the_open_interval(seed, dtype):
    # n = 1e6 sees a distance of 0.3 %.
    u = uniform_plane(torch.tensor(seed), (Stream.READ, CYCLE), SIDE, SIDE, dtype)
    assert u.dtype == dtype
    assert_same_law(u, stats.uniform())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniforms_at_the_ends(dtype):
    ends = random.uniform(torch.tensor([0, 2**32 - 1]), dtype).double()
    # Exact, so never 0 and never 1: the middles of the first and of the last of 2^23 cells.
    assert ends.tolist() == [2.0**-24, 1.0 - 2.0**-24]


NEIGHBOURS = {
    "columns": lambda seed: (words(seed), words(seed, first=1)),
    "columns, 2 apart": lambda seed: (words(seed), words(seed, first=2)),
    "columns, a row's length apart": lambda seed: (words(seed), words(seed, first=SIDE)),
    "rows": lambda seed: (words(seed)[1:], words(seed)[:-1]),
    "transposed places": lambda seed: (words(seed)[ABOVE], words(seed).T[ABOVE]),
    "row of one cycle, next row of the cycle before": lambda seed: (words(seed, cycle=CYCLE + 1)[:-1], words(seed)[1:]),
    "cycles": lambda seed: (words(seed), words(seed, cycle=CYCLE + 1)),
    "cycles, 2^32 apart": lambda seed: (words(seed), words(seed, cycle=CYCLE + 2**32)),
    "seeds": lambda seed: (words(seed), words(seed + 1)),
    "seeds, 2^32 apart": lambda seed: (words(seed), words(seed + 2**32)),
    "streams": lambda seed: (words(seed), words(seed, stream=Stream.WRITE)),
    "seed and cycle swapped": lambda seed: (words(seed, cycle=seed + 9), words(seed + 9, cycle=seed)),
    "stream and cycle swapped": lambda seed: (words(seed, stream=2, cycle=3), words(seed, stream=3, cycle=2)),
    "a child of the seed": lambda seed: (words(seed), words(int(random.derive(torch.tensor(seed), 0)))),
    "two children": lambda seed: tuple(words(int(random.derive(torch.tensor(seed), k))) for k in (0, 1)),
}


@pytest.mark.parametrize("pair", NEIGHBOURS)
def test_neighbours_are_uncorrelated(seed, pair):
    # n = 1e6 sees a correlation of 1 %, and a bit that agrees in 50.5 % of places. Planted: a key that adds the row to
    # the counter (every pair of rows fails), one that adds the seed to the cycle ("swapped"), one that drops the upper
    # half of a word ("2^32 apart"), children that are one child.
    a, b = NEIGHBOURS[pair](seed)
    assert_correlation(a, b)
    assert_counts(popcount(a ^ b), a.numel(), 0.5)


@pytest.mark.parametrize("lag", [1, 2, 16, 1000])
def test_one_row_has_no_serial_correlation(seed, lag):
    word = bits(*random.root(seed, Stream.PULSE, CYCLE, 3), torch.arange(SIDE * SIDE))
    assert_correlation(word[lag:], word[:-lag])
    assert_counts(popcount(word[lag:] ^ word[:-lag]), len(word) - lag, 0.5)


def output(seed, cycle, row, counter):
    return bits(*random.fold(random.root(seed, Stream.PULSE, cycle), row), counter)


# Words up to their real sizes: seeds of 63 bits, cycles beyond 32 bits, rows and counters of 24 bits (a normal doubles
# its counter, and an array has at most some 10^4 lines).
AVALANCHE = {"seed": 63, "cycle": 40, "row": 24, "counter": 24}


@pytest.mark.parametrize("word", AVALANCHE)
def test_each_input_bit_flips_each_output_bit_half_the_time(rng, word):
    # n = 40,000 sees a probability that is off by 0.02. Planted: words without their last multiplication.
    n = 40_000
    ranges = {"seed": 2**62, "cycle": 2**40, "row": 2**14, "counter": 2**15}
    inputs = {name: torch.as_tensor(rng.integers(0, high, n)) for name, high in ranges.items()}
    before = output(**inputs)
    flips = [popcount(output(**inputs | {word: inputs[word] ^ (1 << b)}) ^ before) for b in range(AVALANCHE[word])]
    assert_counts(np.array(flips), n, 0.5)


@pytest.fixture(scope="module")
def gaussian(seed) -> np.ndarray:
    """3e7 normals: 10 planes of 1000 x 3000, of ten cycles."""
    planes = [normal_plane(torch.tensor(seed), (Stream.PULSE, k), 1000, 3000, torch.float32) for k in range(10)]
    return torch.stack(planes).numpy().ravel()


def test_gaussian_moments(gaussian):
    # n = 1e7 sees 0.3 % of a standard deviation in the mean, 0.5 % in the variance, 0.012 in the third moment and 0.03
    # of 3 in the fourth. Planted: a logarithm that is off by 0.02, an angle
    # that is the word of the radius. A radius of 16 bits passes here.
    z = gaussian[:10_000_000].astype(np.float64)
    power = np.ones_like(z)
    for mean, variance in ((0.0, 1.0), (1.0, 2.0), (0.0, 15.0), (3.0, 96.0)):
        power *= z
        assert_mean(power, mean, std=variance**0.5)


def test_gaussian_law(gaussian):
    # n = 1e6 sees a distance of 0.3 %.
    assert_same_law(gaussian[:1_000_000], stats.norm())


def test_gaussian_tails(gaussian):
    # 3e7 normals have 40,500 on each side of 3 sigma, 950 of 4, 8.6 of 5: no tail at all beyond 5 is seen (both sides
    # together 17.2, none has odds 3e-8), and a tenth too many beyond 3. Planted: a radius of 16 bits.
    n = gaussian.size
    for sigma in (3.0, 4.0, 5.0):
        above, below = int((gaussian > sigma).sum()), int((gaussian < -sigma).sum())
        assert_counts([above, below], n, stats.norm.sf(sigma))
        assert_counts(above + below, n, 2.0 * stats.norm.sf(sigma))


def test_neighbouring_gaussians_are_uncorrelated(gaussian):
    # Counters 2 m and 2 m + 1 share a pair of one radius. n = 2e6 sees a correlation of 0.7 %. Planted: a pair of
    # twice the same number, and one of plus or minus the same, which only the squares tell.
    z = gaussian[:2_000_000].astype(np.float64)
    assert_correlation(z[1:], z[:-1])
    assert_correlation(z[1:] ** 2, z[:-1] ** 2)


def quick(seed: int, cycle: int = CYCLE, first: int = 0, n: int = SIDE * SIDE) -> np.ndarray:
    """Quick normals of counters first ... first + n - 1 under the key of a cycle."""
    key = random.root(seed, Stream.PULSE, cycle)
    return random.quick_normal(*key, torch.arange(first, first + n)).numpy().astype(np.float64)


def test_quick_normals_have_the_moments_of_a_normal(seed):
    # n = 1e6 sees 0.5 % of a standard deviation in the mean, 0.7 % in the variance, 0.02 in the third moment, 0.05 of 3
    # in the fourth and 0.6 of 15 in the sixth. Planted: a dither of one half word, no
    # cubic, no dither.
    z = quick(seed)
    assert_variance(z, 1.0, kurtosis=3.0)
    for power, mean, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0), (6, 15.0, 10_170.0)):
        assert_mean(z**power, mean, std=variance**0.5)


def test_quick_normals_have_the_law_of_a_normal(seed):
    # n = 1e6 sees a distance of 0.3 %; it is 0.03 %. Planted: no dither at all (steps of a third).
    assert_same_law(quick(seed), stats.norm())


@pytest.mark.parametrize("lag", [1, 2, 784])
def test_quick_normals_of_neighbouring_crosspoints_are_uncorrelated(seed, lag):
    # n = 1e6 sees a correlation of 1 %, of the numbers and of their squares. Planted: counters without their lowest
    # bit.
    z, other = quick(seed), quick(seed, first=lag)
    assert_correlation(z, other)
    assert_correlation(z**2, other**2)


@pytest.mark.parametrize("step", [1, 2**32])
def test_quick_normals_of_neighbouring_keys_are_uncorrelated(seed, step):
    # Cycles are keys of their own, and so are the pulses of one cycle. Planted: pulses
    # under the key of their cycle.
    z = quick(seed)
    assert_correlation(z, quick(seed, cycle=CYCLE + step))
    key = random.root(seed, Stream.PULSE, CYCLE)
    for k in (1, 2):
        pulse = random.quick_normal(*random.fold(key, k), torch.arange(SIDE * SIDE)).numpy().astype(np.float64)
        assert_correlation(z, pulse)
        assert_correlation(z**2, pulse**2)


def test_a_quick_normal_has_bounds():
    # 0 or 32 set bits and the dither's ends: `merge.REACH` rests on it.
    ends = [float(r * (5.2970911e-6 + 4.099023e-19 * r * r)) for r in (-1114111.0, (32 << 16) + 2 * 65535 - 1114111.0)]
    assert max(map(abs, ends)) < 6.5


def test_numbers_do_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    planes = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            # Large enough that torch shares the work out.
            planes.append(normal_plane(torch.tensor(3), (Stream.PULSE, 1), 500, 500, torch.float32))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*planes)


def test_numbers_do_not_depend_on_shape_or_order():
    key = random.root(8, Stream.READ, 4)
    counter = torch.arange(1000)
    z = normal(key, counter)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(normal(key, counter[order]), z[order])
    assert torch.equal(normal(key, counter.reshape(10, 100)).flatten(), z)
    assert torch.equal(normal(key, counter[417:418]), z[417:418])
    large = normal_plane(torch.tensor(8), (Stream.READ, 4), 30, 50, torch.float64)
    assert torch.equal(normal_plane(torch.tensor(8), (Stream.READ, 4), 7, 9, torch.float64), large[:7, :9])


def test_plain_integers_and_tensors_agree():
    # The kernels that come with pulses will compute on integers of their own.
    seed, cycle, row, column = 2**40 + 3, 2**33 + 1, 5, 9
    alone = bits(*random.fold(random.root(seed, Stream.PULSE, cycle), row), column)
    plane = bits(*plane_key(torch.tensor(seed), (Stream.PULSE, torch.tensor(cycle)), 6), torch.arange(10))
    assert isinstance(alone, int) and plane[row, column] == alone


def test_replicas_draw_what_each_draws_alone():
    seeds = [4, 2**40, 9]
    together = normal_plane(torch.tensor(seeds), (Stream.DEVICE, 1), 5, 6, torch.float32)
    assert together.shape == (3, 5, 6)
    for replica, alone in zip(together, seeds, strict=True):
        assert torch.equal(replica, normal_plane(torch.tensor(alone), (Stream.DEVICE, 1), 5, 6, torch.float32))
    nested = normal_plane(torch.tensor(seeds).reshape(3, 1), (Stream.DEVICE, 1), 5, 6, torch.float32)
    assert torch.equal(nested[:, 0], together)


@pytest.mark.parametrize("columns", [1, 6, 7])
@pytest.mark.parametrize("replicas", [(), (2, 1)])
def test_blocks_of_rows_change_nothing(monkeypatch, columns, replicas):
    # Planted: rows of each block counted from 0.
    seeds = random.seed_tensor(3, replicas)
    for plane in (normal_plane, uniform_plane):
        whole = plane(seeds, (Stream.WRITE, 9), 11, columns, torch.float32)
        with monkeypatch.context() as patch:
            patch.setattr(random, "CACHED", 2 * columns * seeds.numel())
            assert torch.equal(plane(seeds, (Stream.WRITE, 9), 11, columns, torch.float32), whole)
        assert torch.equal(plane(seeds, (Stream.WRITE, 9), range(4, 9), columns, torch.float32), whole[..., 4:9, :])


def test_a_plane_has_the_numbers_of_its_places():
    # The plane makes its numbers by pairs; `normal` is asked for each. Planted: pairs in the other order.
    key = plane_key(torch.tensor(8), (Stream.READ, 4), 3)
    plane = normal_plane(torch.tensor(8), (Stream.READ, 4), 3, 7, torch.float32)
    assert torch.equal(plane, normal(key, torch.arange(7)))


def test_derived_seeds_differ():
    seeds = torch.cat([random.derive(torch.arange(1000), k) for k in range(20)])
    assert len(set(seeds.tolist())) == 20_000
    assert 0 <= int(seeds.min()) and int(seeds.max()) < 2**62


def test_seeds_of_replicas():
    assert random.seed_tensor(7, (2, 3)).tolist() == [[7, 8, 9], [10, 11, 12]]
    assert random.seed_tensor([5, 1], (2,)).tolist() == [5, 1]
    assert random.seed_tensor(7, ()).shape == ()


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        ([1, 2, 3], r"each of the 2 replicas, got 3"),
        (-1, r"\[0, 2\*\*63\), got \[-1, 0\]"),
        ([2**63, 0], r"\[0, 2\*\*63\)"),
    ],
)
def test_wrong_seeds(seed, message):
    with pytest.raises(ValueError, match=f"seed needs .*{message}"):
        random.seed_tensor(seed, (2,))
