"""The law of a sample's trains at some elements: what the ways of the kernel of `cpu` share.

Elements, here called lanes, lie side by side, so that every pass over them goes through wide registers: one applies the
trains where the law lets all their pulses act at once (`merge`), and the rest follow pulse by pulse.

Arrays are indexed where they are, not sliced: each view of an array counts its references.
"""

from __future__ import annotations

import numpy as np

from ohmgrad import random
from ohmgrad.pulses import merge
from ohmgrad.pulses.cpu_family import DW, FEW, LEFT, MOST, SORTED, UP, C, H, N, S, V
from ohmgrad.pulses.cpu_trains import f32, inline, u32
from ohmgrad.pulses.numba_target import FAST, NUMBA, address_of, call_at, njit
from ohmgrad.vocabulary import retarget

quick_normal = retarget(random.quick_normal, NUMBA, words=True)
inverse, rate, longest, multiplicative, additive, is_mergeable, one_pulse = (
    retarget(getattr(merge, name), NUMBA)
    for name in ("inverse", "rate", "longest", "multiplicative", "additive", "is_mergeable", "pulse")
)
minimum, maximum, where = (NUMBA.namespace[name] for name in ("minimum", "maximum", "where"))
fast = njit(**FAST)
BOTH = 2  # the side of a sample whose lanes go up and down


@fast
def apply(
    weights, params, k, m, own, side, ready, most, is_back, on, tile, i, place, law, k0, k1, hit, few_params
):  # fmt: skip
    """The trains of one sample, N pulses at each of m lanes; what is ready of the lanes' parts.

    weights, params: in row k, of the lanes. side: 0 for up, 1 for down pulses, BOTH where on[tile, i] and is_back tell.
    most: the largest of N. place: the elements' numbers. law: noise, its kind, whether pulses may merge, then addresses
    of the noise and of the family's `parts`, `everywhere` and `one_by_one`; address and length of tables.
    """
    if law[2]:
        for one in range(2):
            if side == one or side == BOTH:
                ready = _make_ready(ready, one, most > 1, params, k, m, own, law)
        if most == 1:
            _singles(weights, params, k, own, side, is_back, on, tile, i, place, m, law, k0, k1)
            return ready
        most = _trains(weights, params, k, own, side, is_back, on, tile, i, place, m, law, k0, k1)
    start = 0 if law[2] else _many(
        weights, params, k, m, own, side, most, is_back, on, tile, i, place, law, k0, k1
    )  # fmt: skip
    if most > start:
        r = _sort(own, LEFT if law[2] else N, m, start, most, hit)
        for q in range(r):
            t = hit[q]
            own[FEW, q] = weights[k, 0, t]
            up = is_back != (on[tile, i, -1, t] == u32(2)) if side == BOTH else side == 0
            own[UP, q] = 1.0 if up else 0.0
        for row in range(params.shape[1]):
            for q in range(r):
                few_params[0, row, q] = params[k, row, hit[q]]
        call_at(law[6], (
            start, r, address_of(place), address_of(hit), law[3], law[1], int(k0), int(k1),
            address_of(few_params), own.shape[1], address_of(own), law[7], law[8],
        ))  # fmt: skip
        for q in range(r):
            weights[k, 0, hit[q]] = own[FEW, q]
    return ready


@fast
def _many(weights, params, k, m, own, side, most, is_back, on, tile, i, place, law, k0, k1):
    """The first pulses, while at least every fifth lane takes one: all lanes at once; the next pulse's number."""
    for t in range(m):
        up = is_back != (on[tile, i, -1, t] == u32(2)) if side == BOTH else side == 0
        own[UP, t] = f32(1.0) if up else f32(0.0)
    for number in range(most):
        taken = np.int32(0)
        for t in range(m):
            taken += np.int32(own[N, t] > f32(number))
        if 5 * taken < m:
            return number
        call_at(law[5], (
            number, m, _row_at(weights, k), address_of(place), law[3], law[1], int(k0), int(k1),
            _row_at(params, k), own.shape[1], address_of(own), law[7], law[8],
        ))  # fmt: skip
    return most


@inline
def _row_at(lines, k):
    """Where line k of (lines, rows, lanes) stands."""
    return address_of(lines) + k * lines.shape[1] * lines.shape[2] * lines.itemsize


@fast
def tally(own, m):
    """The sum and the largest of a sample's pulses."""
    total, most = np.int32(0), np.int32(0)
    for t in range(m):
        n = np.int32(own[N, t])
        total, most = np.int32(total + n), max(most, n)
    return total, most


@fast
def note(own, place, m, counts, moved):
    """Add a sample's pulses to what is kept of each crosspoint."""
    if counts.size:
        for t in range(m):
            counts[place[t]] += np.int64(own[N, t])
    if moved.size:
        for t in range(m):
            if own[N, t] > f32(0.0):
                moved[place[t]] = 1


@fast
def _make_ready(ready, side, is_long, params, k, m, own, law):
    """See to the parts of up (side 0) or down pulses; bits of ready: C, S and DW are there, and (4 <<) the rest."""
    if not ready & (1 << side):
        call_at(law[4], (side, m, _row_at(params, k), own.shape[1], address_of(own), law[7], law[8]))
    if is_long and not ready & (4 << side):
        _long_parts(m, own, side, law[0])
    return ready | (1 << side) | (4 << side if is_long else 0)


@fast
def _long_parts(m, own, side, sigma):
    """What the law of trains needs to know of steps C + S w."""
    for t in range(m):
        s = own[S + side, t]
        v = inverse(s)
        own[V + side, t], own[H + side, t], own[MOST + side, t] = v, rate(s), longest(s * v, sigma)


@fast
def _singles(weights, params, k, own, side, is_back, on, tile, i, place, m, law, k0, k1):
    """One pulse, where there is one."""
    c, s, dw, last = C + side, S + side, DW + side, on.shape[2] - 1
    if side != BOTH:
        for t in range(m):
            w, z = weights[k, 0, t], own.dtype.type(quick_normal(k0, k1, place[t]))
            after = _one(w, own[c, t], own[s, t], own[dw, t], params[k, 0, t], params[k, 1, t], law, z)
            weights[k, 0, t] = after if own[N, t] > f32(0.0) else w
        return
    for t in range(m):
        w, z = weights[k, 0, t], own.dtype.type(quick_normal(k0, k1, place[t]))
        up = is_back != (on[tile, i, last, t] == u32(2))
        after = _one(
            w, _of(up, own, C, t), _of(up, own, S, t), _of(up, own, DW, t), params[k, 0, t], params[k, 1, t], law, z
        )
        weights[k, 0, t] = after if own[N, t] > f32(0.0) else w


@fast
def _trains(weights, params, k, own, side, is_back, on, tile, i, place, m, law, k0, k1):
    """Trains at once, where the law allows; LEFT gets the pulses of the others; the most of those."""
    most, c, s, dw, h, v, long = np.int32(0), C + side, S + side, DW + side, H + side, V + side, MOST + side
    if side != BOTH:
        for t in range(m):
            z = own.dtype.type(quick_normal(k0, k1, place[t]))
            weights[k, 0, t], own[LEFT, t] = _train(
                weights[k, 0, t], own[N, t], own[c, t], own[s, t], own[dw, t], own[h, t], own[v, t], own[long, t],
                params[k, 0, t], params[k, 1, t], law, z,
            )  # fmt: skip
            most = max(most, np.int32(own[LEFT, t]))
        return most
    last = on.shape[2] - 1
    for t in range(m):
        z, up = own.dtype.type(quick_normal(k0, k1, place[t])), is_back != (on[tile, i, last, t] == u32(2))
        weights[k, 0, t], own[LEFT, t] = _train(
            weights[k, 0, t], own[N, t], _of(up, own, C, t), _of(up, own, S, t), _of(up, own, DW, t),
            _of(up, own, H, t), _of(up, own, V, t), _of(up, own, MOST, t), params[k, 0, t], params[k, 1, t], law, z,
        )  # fmt: skip
        most = max(most, np.int32(own[LEFT, t]))
    return most


@inline
def _of(up, own, row, t):
    """The part of its direction."""
    return where(up, own[row, t], own[row + 1, t])


@inline
def _one(w, c, s, dw, low, high, law, z):
    """The weight after one pulse."""
    change = c + s * w
    return one_pulse(w, change, law[0] * (dw if law[1] else change), z, low, high)


@inline
def _train(w, n, c, s, dw, h, v, longest_, low, high, law, z):
    """The weight after a train of n pulses, and the pulses that are still to be applied one by one."""
    if law[1]:
        change, stray, spread = additive(w, n, c, s, h, dw, law[0], z)
    else:
        change, stray, spread = multiplicative(w, n, c, s, h, v, law[0], z)
    is_fine = is_mergeable(w, change, spread, n, longest_, low, high)
    after = minimum(maximum(w + (change + stray), low), high)
    one = _one(w, c, s, dw, low, high, law, z)
    after = after if is_fine else w
    return (after if n > f32(1.0) else (one if n > f32(0.0) else w)), (
        n if (n > f32(1.0)) & (not is_fine) else f32(0.0)
    )


@fast
def _sort(own, row, m, least, most, hit):
    """The lanes with more than `least` pulses, with the most first, into hit, all they have into SORTED; how many."""
    first = np.zeros(most - least + 2, np.int32)
    for t in range(m):
        k = most - max(np.int32(own[row, t]), least)
        first[k + 1] += 1
    for k in range(1, most - least + 1):
        first[k] += first[k - 1]
    for t in range(m):
        k = most - np.int32(own[row, t])
        if k < most - least:
            hit[first[k]], own[SORTED, first[k]] = t, own[row, t]
            first[k] += 1
    return first[most - least - 1]
