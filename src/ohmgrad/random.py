"""Counter-based random numbers: pure functions of where and when, never of who asks.

A key is a pair of 32-bit words, folded from (seed, stream, cycle, row, ...); `bits(key, counter)` is one
32-bit random word. Nothing is carried from draw to draw, so the same numbers come out on any number of
threads, in any order, for replicas side by side or alone, and after a resume: the state is the seed and the cycle.

All functions take Python ints or int64 tensors that hold values in [0, 2**32) and broadcast. The finaliser is
Wellons' lowbias32 (hash-prospector, public domain): xor-shifts and odd multiplications modulo 2**32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import IntEnum

import torch
from torch import Tensor

Words = Tensor | int
Key = tuple[Words, Words]

MASK = 0xFFFFFFFF
GOLDEN = 0x9E3779B9  # 2**32 / golden ratio, odd: steps of it visit every word
SECOND = 0x85EBCA6B


class Stream(IntEnum):
    """What a number is drawn for; different streams of one seed are independent."""

    DEVICE = 1  # device-to-device variation, drawn at construction
    X_BITS = 2  # bits of the input lines
    D_BITS = 3  # bits of the error lines
    PULSE = 4  # cycle-to-cycle noise
    WRITE = 5  # write noise
    READ = 6  # noise of a read
    RELAX = 7  # diffusion and reset
    ROUND = 8  # stochastic rounding
    WEIGHT = 9  # initial weights
    ORDER = 10  # order of the samples


def mix(h: Words) -> Words:
    """A bijection of 32-bit words in which each input bit flips each output bit with probability about 1/2."""
    h = ((h ^ (h >> 16)) * 0x7FEB352D) & MASK
    h = ((h ^ (h >> 15)) * 0x846CA68B) & MASK
    return h ^ (h >> 16)


def fold(key: Key, word: Words) -> Key:
    """The key of place `word` under `key`: two independent chains, so that keys collide with odds 2**-64."""
    k0, k1 = key
    return mix(k0 ^ (word & MASK)), mix((k1 + ((word & MASK) * SECOND & MASK) + GOLDEN) & MASK)


def root(seed: Words, *words: Words) -> Key:
    """The key of a seed (up to 64 bits) and any number of further words (each up to 64 bits)."""
    key: Key = (GOLDEN, SECOND)
    for word in (seed, *words):
        key = fold(fold(key, word), word >> 32)
    return key


def bits(key: Key, counter: Words) -> Words:
    """32 random bits for each counter under a key."""
    k0, k1 = key
    h = (k0 + ((counter & MASK) * GOLDEN & MASK)) & MASK
    h = ((h ^ (h >> 16)) * 0x7FEB352D) & MASK
    h = (((h ^ (h >> 15)) + k1 & MASK) * 0x846CA68B) & MASK
    return h ^ (h >> 16)


def uniform(word: Words, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform on the open interval (0, 1), exact in float32: the mid-points of 2**23 cells."""
    return (torch.as_tensor(word >> 9).to(dtype) + 0.5) * 2.0**-23


def normal(key: Key, counter: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal (Box and Muller 1958), one for each counter."""
    radius = torch.sqrt(-2.0 * torch.log((torch.as_tensor(bits(key, 2 * counter)).double() + 0.5) * 2.0**-32))
    angle = 2.0 * math.pi * uniform(bits(key, 2 * counter + 1), torch.float64)
    return (radius * torch.cos(angle)).to(dtype)


def seed_tensor(seed: int | Sequence[int], replicas: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Seeds as an int64 tensor of the replica shape; one integer s becomes s, s + 1, ... over the replicas."""
    n = math.prod(replicas)
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


def normal_plane(seed: Tensor, words: Iterable[Words], rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Standard normals, (*replica, rows, columns), a function of (seed, words, row, column)."""
    return normal(plane_key(seed, words, rows), torch.arange(columns, device=seed.device), dtype)


def uniform_plane(seed: Tensor, words: Iterable[Words], rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Uniforms on (0, 1), (*replica, rows, columns), a function of (seed, words, row, column)."""
    return uniform(bits(plane_key(seed, words, rows), torch.arange(columns, device=seed.device)), dtype)


def derive(seed: Tensor, number: int) -> Tensor:
    """A new seed for child `number` of each seed, in [0, 2**62)."""
    k0, k1 = root(seed, number)
    return torch.as_tensor(k0 & 0x3FFFFFFF) << 32 | torch.as_tensor(k1)
