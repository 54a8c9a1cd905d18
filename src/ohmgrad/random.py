"""Counter-based random numbers: pure functions of where and when, never of who asks.

A key is a pair of 32-bit words, folded from (seed, stream, cycle, row, ...); `bits(k0, k1, counter)` is one
32-bit random word. Nothing is carried from draw to draw, so the same numbers come out on any number of
threads, in any order, for replicas side by side or alone, and after a resume: the state is the seed and the cycle.

The functions from `mix` to `quick_normal` are written once on scalars, with the names of `vocabulary`: here they run
on Python integers and int64 tensors, and the update kernels are compiled from the same source. Each step is cut to
32 bits, which is what lets compilers keep to narrow registers. The finaliser is Wellons' lowbias32 (hash-prospector,
public domain): xor-shifts and odd multiplications modulo 2**32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum

import torch
from torch import Tensor

from ohmgrad.vocabulary import as_float, as_word, maximum, popcount, signed, sqrt, to_float, u32

Words = Tensor | int
Key = tuple[Words, Words]

GOLDEN = 0x9E3779B9  # 2**32 / golden ratio, odd: steps of it visit every word
SECOND = 0x85EBCA6B
FIRST_MIX, SECOND_MIX = 0x7FEB352D, 0x846CA68B

# Numbers of a plane made at once: their words fit a processor's cache, or keep a GPU busy.
CACHED, LAUNCHED = 1 << 15, 1 << 24


class Stream(IntEnum):
    """What a number is drawn for; different streams of one seed are independent."""

    DEVICE = 1  # device-to-device variation, drawn at construction
    X_BITS = 2  # bits of the input lines
    D_BITS = 3  # bits of the error lines
    PULSE = 4  # cycle-to-cycle noise
    WRITE = 5  # write noise
    READ = 6  # noise of a read
    RELAX = 7  # decay's, diffusion's and reset's noise
    COUNT = 8  # rounding of pulse counts
    ORDER = 9  # order of the samples
    LINES = 10  # spread of a crossbar's lines and converters, drawn at construction
    TRANSFER = 11  # which lines a transfer takes and resets
    CHOP = 12  # flips of choppers
    ROUND = 13  # rounding of inputs and errors in a digital unit
    CELL = 14  # which device of a unit cell takes a mini-batch


def mix(h):
    """A bijection of 32-bit words in which each input bit flips each output bit with probability about 1/2."""
    h = u32(u32(h ^ (h >> 16)) * FIRST_MIX)
    h = u32(u32(h ^ (h >> 15)) * SECOND_MIX)
    return u32(h ^ (h >> 16))


def fold0(k0, word):
    """First word of the key of place `word` under a key."""
    return mix(u32(k0 ^ word))


def fold1(k1, word):
    """Second word: a chain of its own, so that two places share a key with odds 2**-64."""
    return mix(u32(k1 + u32(word * SECOND) + GOLDEN))


def bits(k0, k1, counter):
    """32 random bits for each counter (a 32-bit word) under a key."""
    h = u32(_half_way(k0, k1, counter) * SECOND_MIX)
    return u32(h ^ (h >> 16))


def _half_way(k0, k1, counter):
    h = u32(k0 + u32(counter * GOLDEN))
    h = u32(u32(h ^ (h >> 16)) * FIRST_MIX)
    return u32(u32(h ^ (h >> 15)) + k1)


def normal_pair(k0, k1, counter):
    """Two independent standard normals, float32, for each counter: Box and Muller (1958) on half a circle.

    The logarithm is that of the float's exponent plus a polynomial of its mantissa (error 2e-5 in the square of the
    radius), sine and cosine are polynomials (error 6e-7 and 8e-6). The top bit of the first word is the sign.
    """
    word = bits(k0, k1, counter)
    angle = u32(u32(word ^ (word >> 15)) * 0x2C1B3C6D)
    angle = u32(angle ^ (angle >> 16) ^ k1)
    f = as_word(to_float(word & 0x7FFFFFFF) + 0.5)
    m = as_float((f & 0x007FFFFF) | 0x3F800000) - 1.0
    p = (((-0.06430341 * m + 0.2720867) * m - 0.57891) * m + 0.9838014) * m - 1.9989887
    r = sqrt(maximum(to_float(u32(158 - (f >> 23))) * 1.3862944 + p * m, 0.0))
    z = signed(angle) * 4.656612873077393e-10
    q = z * z
    sine = (((-0.0043331 * q + 0.0794343) * q - 0.6458929) * q + 1.570791) * z
    cosine = ((-0.019164 * q + 0.2526979) * q - 1.2335417) * q + 1.0
    return as_float(as_word(r) ^ (word & 0x80000000)) * cosine, r * sine


def quick_normal(k0, k1, counter):
    """A standard normal, float32, for each counter, at half the cost: a random word's set bits and a triangular dither.

    32 fair bits make a binomial law, two uniform halves of the word half way to it (together over -1 ... 1) fill its
    gaps, and a cubic sets variance and kurtosis to 1 and 3. Its distribution function is within 3e-4 of the normal's,
    its sixth moment 14.98 of 15; it never goes beyond 6.47.
    """
    half = _half_way(k0, k1, counter)
    dither = u32(u32(half & 0xFFFF) + u32(half >> 16))
    r = to_float(u32(u32(popcount(u32(half * SECOND_MIX)) << 16) + dither)) - 1114111.0
    return r * (5.2970911e-6 + 4.099023e-19 * r * r)


def fold(key: Key, word: Words) -> Key:
    """The key of place `word` (its low 32 bits) under `key`."""
    return fold0(key[0], u32(word)), fold1(key[1], u32(word))


def root(seed: Words, *words: Words) -> Key:
    """The key of a seed (up to 64 bits) and any number of further words (each up to 64 bits)."""
    key: Key = (GOLDEN, SECOND)
    for word in (seed, *words):
        key = fold(fold(key, word), word >> 32)
    return key


def uniform(word: Words, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform on the open interval (0, 1), exact in float32: the mid-points of 2**23 cells."""
    return (torch.as_tensor(word >> 9).to(dtype) + 0.5) * 2.0**-23


def normal(key: Key, counter: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal, one for each counter (a 32-bit word): counters 2m and 2m + 1 share a pair."""
    even, odd = normal_pair(*key, counter >> 1)
    return torch.where(counter & 1 == 1, odd, even).to(dtype)


def fresh_seed() -> int:
    """A seed from torch's default generator on the CPU, in [0, 2**62), so that seed + replica stays below 2**63.

    >>> _ = torch.manual_seed(0)
    >>> first, second = fresh_seed(), fresh_seed()
    >>> _ = torch.manual_seed(0)
    >>> first != second, first == fresh_seed()
    (True, True)
    """
    return int(torch.randint(2**62, (), dtype=torch.int64, device="cpu"))  # whatever torch's default device is


def seed_tensor(
    seed: int | Sequence[int] | None, replicas: Sequence[int], device: torch.device | None = None
) -> Tensor:
    """Seeds as an int64 tensor of the replica shape; one integer s becomes s, s + 1, ... over the replicas.

    seed: None draws s from torch's default generator, once, however many replicas there are.
    """
    n = math.prod(replicas)
    seed = fresh_seed() if seed is None else seed
    seeds = list(range(seed, seed + n)) if isinstance(seed, int) else [int(s) for s in seed]
    if len(seeds) != n:
        raise ValueError(f"seed needs one integer or one for each of the {n} replicas, got {len(seeds)}")
    if any(not 0 <= s < 2**63 for s in seeds):
        raise ValueError(f"seed needs integers in [0, 2**63), got {seeds}")
    return torch.tensor(seeds, dtype=torch.int64, device=device).reshape(tuple(replicas))


def plane_key(seed: Tensor, words: Iterable[Words], rows: int) -> Key:
    """Keys of every row of a plane: tensors (*replica, rows, 1), to broadcast against columns."""
    key = root(seed.reshape(*seed.shape, 1, 1), *words)
    return fold(key, torch.arange(rows, device=seed.device).reshape(rows, 1))


def normal_plane(seed: Tensor, words: Iterable[Words], rows: int | range, columns: int, dtype: torch.dtype) -> Tensor:
    """Standard normals, (*replica, rows, columns), a function of (seed, words, row, column)."""
    pairs = torch.arange(-(-columns // 2), device=seed.device)

    def fill(part: Tensor, key: Key) -> None:
        part[..., 0::2], odd = normal_pair(*key, pairs)
        part[..., 1::2] = odd[..., : columns // 2]

    return _plane(seed, words, rows, columns, dtype, fill)


def uniform_plane(seed: Tensor, words: Iterable[Words], rows: int | range, columns: int, dtype: torch.dtype) -> Tensor:
    """Uniforms on (0, 1), (*replica, rows, columns), a function of (seed, words, row, column)."""
    counter = torch.arange(columns, device=seed.device)

    def fill(part: Tensor, key: Key) -> None:
        part.copy_(uniform(bits(*key, counter), dtype))

    return _plane(seed, words, rows, columns, dtype, fill)


def blocks(rows: int, columns: int, size: int) -> Iterable[range]:
    """The rows of a plane in blocks of about `size` numbers, at least a row each.

    >>> list(blocks(5, 10, 20))
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    step = max(1, size // max(1, columns))
    return (range(rows)[first : first + step] for first in range(0, rows, step))


def _plane(
    seed: Tensor,
    words: Iterable[Words],
    rows: int | range,
    columns: int,
    dtype: torch.dtype,
    fill: Callable[[Tensor, Key], None],
) -> Tensor:
    """A plane from the keys of its rows, some rows at a time: the words on the way are wider than the numbers."""
    rows = range(rows) if isinstance(rows, int) else rows
    plane = torch.empty((*seed.shape, len(rows), columns), dtype=dtype, device=seed.device)
    is_alone = seed.numel() == 1 and seed.device.type == "cpu"  # plain integers are faster than small tensors
    key = root(int(seed) if is_alone else seed.reshape(*seed.shape, 1, 1), *words)
    for part in blocks(len(rows), columns * seed.numel(), CACHED if seed.device.type == "cpu" else LAUNCHED):
        numbers = torch.arange(rows.start + part.start, rows.start + part.stop, device=seed.device)
        fill(plane[..., part.start : part.stop, :], fold(key, numbers.reshape(-1, 1)))
    return plane


def derive(seed: Tensor, number: int) -> Tensor:
    """A new seed for child `number` of each seed, in [0, 2**62)."""
    k0, k1 = root(seed, number)
    return torch.as_tensor(k0 & 0x3FFFFFFF) << 32 | torch.as_tensor(k1)
