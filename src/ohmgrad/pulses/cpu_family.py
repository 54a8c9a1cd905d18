"""What a device family brings to the kernel of `cpu`: small functions with its response inside.

The kernel itself is the same for all families and calls these by their addresses, for many elements at a time. So a new
family takes a second or two to compile, not the half minute of the kernel. Templates, see `specialised`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ohmgrad import random
from ohmgrad.pulses import merge
from ohmgrad.pulses.cpu_trains import fold0, fold1, u32
from ohmgrad.pulses.numba_target import NUMBA, apart, matrix_at, vector_at
from ohmgrad.vocabulary import retarget

quick_normal = retarget(random.quick_normal, NUMBA, words=True)
move = retarget(merge.move, NUMBA)
where = NUMBA.namespace["where"]
WORDS = np.empty(0, np.uint32)
# Rows of `own`, over the lanes. Of up and, in the next row, of down pulses: C and S, mean step, `merge.parts`. Then a
# sample's pulses, and those that are left. Of lanes that take theirs one by one: weight, pulses, whether these go up.
# FEW, while all lanes take theirs, and LEFT, while some do, hold the steps.
C, S, DW, H, Y, V, K, MOST, N, LEFT, FEW, SORTED, UP, N_OWN = 0, 2, 4, 6, 8, 10, 12, 14, 16, 17, 18, 19, 20, 21
ADDITIVE, OWN = 1, 2  # kinds of noise, by their places in CTOC
BOTH = 2  # the side of lanes that go up and down; 0 is up, 1 is down

# The family's own. step(w, up, params, t, tables): the signed change by one noise-free pulse of the element at lane t;
# noise(w, up, change, params, t, tables): its deviation. How many planes and tables there are; the weight's dtype.
step: Any = None
noise: Any = None
N_PLANES: Any = None
N_TABLES: Any = None
LIKE: Any = None


def parts(side, m, params_at, size, own_at, tables_at, n_nodes):
    """C, S and the mean step of up (side 0) or down pulses at m lanes, for steps that are affine in w."""
    params, own = matrix_at(params_at, N_PLANES, size, LIKE), matrix_at(own_at, N_OWN, size, LIKE)
    tables, up = matrix_at(tables_at, N_TABLES, n_nodes, LIKE), side == 0
    _ends(m, up, own[C + side], own[S + side], own[DW + side], params, tables)


@apart
def _ends(m, up, c, s, dw, params, tables):
    """From steps at w = 0 and w = 1."""
    zero, one = c.dtype.type(0.0), c.dtype.type(1.0)
    for t in range(m):
        c[t] = step(zero, up, params, t, tables)
        s[t], dw[t] = step(one, up, params, t, tables) - c[t], where(up, params[2, t], params[3, t])


def everywhere(k, side, m, weights_at, place_at, sigma_at, kind, k0, k1, params_at, size, own_at, tables_at, n_nodes):
    """Pulse number k of those of the m lanes that have more than k to take; of both sides, UP tells which go up."""
    params, own = matrix_at(params_at, N_PLANES, size, LIKE), matrix_at(own_at, N_OWN, size, LIKE)
    weights, place = vector_at(weights_at, size, LIKE), vector_at(place_at, size, WORDS)
    sigma, tables = vector_at(sigma_at, 1, LIKE)[0], matrix_at(tables_at, N_TABLES, n_nodes, LIKE)
    q0, q1 = fold0(u32(k0), u32(k + 1)), fold1(u32(k1), u32(k + 1))
    n, ups, changes, k = own[N], own[UP], own[FEW], own.dtype.type(k)
    # Of a constant in the first place: a direction known beforehand spares half of most responses.
    if side == 0:
        _masked(0, m, k, weights, n, ups, changes, params, place, q0, q1, sigma, kind, tables)
    elif side == 1:
        _masked(1, m, k, weights, n, ups, changes, params, place, q0, q1, sigma, kind, tables)
    else:
        _masked(BOTH, m, k, weights, n, ups, changes, params, place, q0, q1, sigma, kind, tables)


@apart
def _masked(side, m, k, weights, n, ups, changes, params, place, q0, q1, sigma, kind, tables):
    """One pulse at each of the lanes with n > k.

    Steps in a loop of their own: while a processor waits for one's long chain of terms, it has the next within sight.
    """
    for q in range(m):
        changes[q] = step(weights[q], ups[q] > 0.0 if side == BOTH else side == 0, params, q, tables)
    for q in range(m):
        up, z = ups[q] > 0.0 if side == BOTH else side == 0, quick_normal(q0, q1, place[q])
        weights[q] = _after(weights[q], n[q] > k, up, changes[q], z, params, q, sigma, kind, tables)


def one_by_one(start, r, place_at, sigma_at, kind, k0, k1, params_at, size, own_at, tables_at, n_nodes):
    """The pulses from number `start` on at r elements, of which each has at least as many to take as the next."""
    params, own = matrix_at(params_at, N_PLANES, size, LIKE), matrix_at(own_at, N_OWN, size, LIKE)
    sigma, tables = vector_at(sigma_at, 1, LIKE)[0], matrix_at(tables_at, N_TABLES, n_nodes, LIKE)
    weights, up, changes, place = own[FEW], own[UP], own[LEFT], vector_at(place_at, size, WORDS)
    for k in range(start, int(own[SORTED, 0])):
        q0, q1 = fold0(u32(k0), u32(k + 1)), fold1(u32(k1), u32(k + 1))
        while own[SORTED, r - 1] <= k:
            r -= 1
        _pulses(r, weights, up, changes, params, place, q0, q1, sigma, kind, tables)


@apart
def _pulses(r, weights, ups, changes, params, place, q0, q1, sigma, kind, tables):
    """One pulse at each of r elements."""
    for q in range(r):
        changes[q] = step(weights[q], ups[q] > 0.0, params, q, tables)
    for q in range(r):
        z = quick_normal(q0, q1, place[q])
        weights[q] = _after(weights[q], True, ups[q] > 0.0, changes[q], z, params, q, sigma, kind, tables)


def _after(w, is_hit, up, change, z, params, q, sigma, kind, tables):
    """The weight after a pulse, whose noise is a multiple of its step, of its mean step, or as the family says.

    Without a pulse it is moved by 0: see `cpu_law` for what storing under a mask costs.
    """
    mean, zero = where(up, params[2, q], params[3, q]), params.dtype.type(0.0)
    unit = where(kind == OWN, noise(w, up, change, params, q, tables), where(kind == ADDITIVE, mean, change))
    change += sigma * unit * params.dtype.type(z)
    return move(w, where(is_hit, change, zero), params[0, q], params[1, q])
