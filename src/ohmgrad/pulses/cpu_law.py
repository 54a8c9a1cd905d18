"""The law of a sample's trains at some elements: what the ways of the kernel of `cpu` share.

Elements, here called lanes, lie side by side, so that every pass over them goes through wide registers: one applies the
trains where the law lets all their pulses act at once (`merge`), and the rest follow pulse by pulse.

Arrays are indexed where they are, not sliced: each view of an array counts its references.
"""

from __future__ import annotations

import numpy as np

from ohmgrad import random
from ohmgrad.pulses import merge
from ohmgrad.pulses.cpu_family import ADDITIVE, BOTH, DW, FEW, LEFT, MOST, SORTED, UP, C, H, K, N, S, V, Y
from ohmgrad.pulses.cpu_trains import f32, u32
from ohmgrad.pulses.numba_target import BARE, NUMBA, address_of, call_at, njit
from ohmgrad.vocabulary import retarget

quick_normal = retarget(random.quick_normal, NUMBA, words=True)
parts, multiplicative, additive, is_mergeable, move = (
    retarget(getattr(merge, name), NUMBA) for name in ("parts", "multiplicative", "additive", "is_mergeable", "move")
)
where = NUMBA.namespace["where"]
bare, bare_inline = njit(**BARE), njit(forceinline=True, **BARE)
BESIDE = 64  # lanes that cost no more all at once than it costs to find those among them that take a pulse


@bare
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
        if not _trains(weights, params, k, own, side, is_back, on, tile, i, place, m, law, k0, k1):
            return ready
        for t in range(m):
            own[N, t] = own[LEFT, t]
    start = _many(weights, params, k, m, own, side, most, is_back, on, tile, i, place, law, k0, k1)
    if most > start:
        r, first = _sort(own, m, start, most, hit), own.shape[1]
        for q in range(r):
            t = hit[q]
            own[FEW, q], hit[first + q] = weights[k, 0, t], place[t]
            up = is_back != (on[tile, i, -1, t] == u32(2)) if side == BOTH else side == 0
            own[UP, q] = 1.0 if up else 0.0
        for row in range(params.shape[1]):
            for q in range(r):
                few_params[0, row, q] = params[k, row, hit[q]]
        call_at(law[6], (
            start, r, address_of(hit) + first * hit.itemsize, law[3], law[1], int(k0), int(k1),
            address_of(few_params), own.shape[1], address_of(own), law[7], law[8],
        ))  # fmt: skip
        for q in range(r):
            weights[k, 0, hit[q]] = own[FEW, q]
    return ready


@bare
def _many(weights, params, k, m, own, side, most, is_back, on, tile, i, place, law, k0, k1):
    """The first pulses, while at least every fifth lane takes one: all lanes at once; the next pulse's number."""
    for number in range(most):
        taken = np.int32(0)
        for t in range(m):
            taken += np.int32(own[N, t] > f32(number))
        if not taken:  # what merged trains have left is less than the trains were
            return most
        if 5 * taken < m - BESIDE:
            return number
        if not number and side == BOTH:
            for t in range(m):
                up = is_back != (on[tile, i, -1, t] == u32(2))
                own[UP, t] = f32(1.0) if up else f32(0.0)
        call_at(law[5], (
            number, side, m, _row_at(weights, k), address_of(place), law[3], law[1], int(k0), int(k1),
            _row_at(params, k), own.shape[1], address_of(own), law[7], law[8],
        ))  # fmt: skip
    return most


@bare_inline
def _row_at(lines, k):
    """Where line k of (lines, rows, lanes) stands."""
    return address_of(lines) + k * lines.shape[1] * lines.shape[2] * lines.itemsize


@bare
def tally(own, m):
    """The sum and the largest of a sample's pulses."""
    total, most = np.int32(0), np.int32(0)
    for t in range(m):
        n = np.int32(own[N, t])
        total, most = np.int32(total + n), max(most, n)
    return total, most


@bare
def note(own, place, m, counts, moved):
    """Add a sample's pulses to what is kept of each crosspoint."""
    if counts.size:
        for t in range(m):
            counts[place[t]] += np.int64(own[N, t])
    if moved.size:
        for t in range(m):
            if own[N, t] > f32(0.0):
                moved[place[t]] = 1


@bare
def _make_ready(ready, side, is_long, params, k, m, own, law):
    """See to the parts of up (side 0) or down pulses; bits of ready: C, S and DW are there, and (4 <<) the rest."""
    if not ready & (1 << side):
        call_at(law[4], (side, m, _row_at(params, k), own.shape[1], address_of(own), law[7], law[8]))
    if is_long and not ready & (4 << side):
        _long_parts(m, own, side, law[0])
    return ready | (1 << side) | (4 << side if is_long else 0)


@bare
def _long_parts(m, own, side, sigma):
    """What the law of trains needs to know of steps C + S w."""
    for t in range(m):
        own[H + side, t], own[Y + side, t], own[V + side, t], own[K + side, t], own[MOST + side, t] = parts(
            own[S + side, t], sigma
        )


@bare
def _singles(weights, params, k, own, side, is_back, on, tile, i, place, m, law, k0, k1):
    """One pulse, where there is one."""
    if law[1] == ADDITIVE:
        _singles_of(True, weights, params, k, own, side, is_back, on, tile, i, place, m, law[0], k0, k1)
    else:
        _singles_of(False, weights, params, k, own, side, is_back, on, tile, i, place, m, law[0], k0, k1)


@bare
def _trains(weights, params, k, own, side, is_back, on, tile, i, place, m, law, k0, k1):
    """Trains at once, where the law allows; LEFT gets the pulses of the others; whether there are any."""
    if law[1] == ADDITIVE:
        return _trains_of(True, weights, params, k, own, side, is_back, on, tile, i, place, m, law[0], k0, k1)
    return _trains_of(False, weights, params, k, own, side, is_back, on, tile, i, place, m, law[0], k0, k1)


# Of a constant in the first place, so that no loop asks for the kind of noise. A lane that stays as it is moves by 0: a
# weight chosen from before and after is stored under a mask, which takes some processors as long as the law itself.
@bare_inline
def _singles_of(is_additive, weights, params, k, own, side, is_back, on, tile, i, place, m, sigma, k0, k1):
    c, s, dw, last, for_up = C + side, S + side, DW + side, on.shape[2] - 1, u32(1 if is_back else 2)
    if side != BOTH:
        for t in range(m):
            w, z = weights[k, 0, t], own.dtype.type(quick_normal(k0, k1, place[t]))
            weights[k, 0, t] = _one(
                is_additive, w, own[N, t], own[c, t], own[s, t], own[dw, t], params[k, 0, t], params[k, 1, t], sigma, z
            )
        return
    for t in range(m):
        w, z = weights[k, 0, t], own.dtype.type(quick_normal(k0, k1, place[t]))
        up = on[tile, i, last, t] == for_up
        weights[k, 0, t] = _one(
            is_additive, w, own[N, t], _of(up, own, C, t), _of(up, own, S, t), _of(up, own, DW, t), params[k, 0, t],
            params[k, 1, t], sigma, z,
        )  # fmt: skip


@bare_inline
def _trains_of(is_additive, weights, params, k, own, side, is_back, on, tile, i, place, m, sigma, k0, k1):
    some, c, s, dw = False, C + side, S + side, DW + side
    h, y, v, kk, long = H + side, Y + side, V + side, K + side, MOST + side
    if side != BOTH:
        for t in range(m):
            z = own.dtype.type(quick_normal(k0, k1, place[t]))
            weights[k, 0, t], own[LEFT, t], is_left = _train(
                is_additive, weights[k, 0, t], own[N, t], own[c, t], own[s, t], own[dw, t], own[h, t], own[y, t],
                own[v, t], own[kk, t], own[long, t], params[k, 0, t], params[k, 1, t], sigma, z,
            )  # fmt: skip
            some |= is_left
        return some
    last, for_up = on.shape[2] - 1, u32(1 if is_back else 2)
    for t in range(m):
        z, up = own.dtype.type(quick_normal(k0, k1, place[t])), on[tile, i, last, t] == for_up
        weights[k, 0, t], own[LEFT, t], is_left = _train(
            is_additive, weights[k, 0, t], own[N, t], _of(up, own, C, t), _of(up, own, S, t), _of(up, own, DW, t),
            _of(up, own, H, t), _of(up, own, Y, t), _of(up, own, V, t), _of(up, own, K, t), _of(up, own, MOST, t),
            params[k, 0, t], params[k, 1, t], sigma, z,
        )  # fmt: skip
        some |= is_left
    return some


@bare_inline
def _of(up, own, row, t):
    """The part of its direction."""
    return where(up, own[row, t], own[row + 1, t])


@bare_inline
def _one(is_additive, w, n, c, s, dw, low, high, sigma, z):
    """The weight after n pulses, one or none."""
    step = c + s * w
    change = step + sigma * (dw if is_additive else step) * z
    return move(w, change if n > f32(0.0) else f32(0.0), low, high)


@bare_inline
def _train(is_additive, w, n, c, s, dw, h, y, v, k, most, low, high, sigma, z):
    """The weight after a train of n >= 0 pulses, the pulses that are left for one by one, whether there are any."""
    if is_additive:
        mean, change, spread = additive(w, n, c, s, h, y, sigma * dw, z)
    else:
        mean, change, spread = multiplicative(w, n, c, s, h, y, v, k, sigma, z)
    is_left = (n > f32(1.0)) & (not is_mergeable(w, mean, spread, n, most, low, high))
    after = move(w, f32(0.0) if is_left else change, low, high)
    return after, (n if is_left else f32(0.0)), is_left


@bare
def _sort(own, m, least, most, hit):
    """The lanes with more than `least` pulses, with the most first, into hit, all they have into SORTED; how many.

    hit: room for the lanes, then for their elements or for counts of all numbers of pulses that a train can have.
    """
    first, r = own.shape[1], 0
    for t in range(m):
        own[FEW, r] = t
        r += 1 if own[N, t] > own.dtype.type(least) else 0
    for k in range(most - least + 2):
        hit[first + k] = 0
    for q in range(r):
        hit[first + most - np.int32(own[N, int(own[FEW, q])]) + 1] += u32(1)
    for k in range(1, most - least + 1):
        hit[first + k] += hit[first + k - 1]
    for q in range(r):
        t = int(own[FEW, q])
        k = first + most - np.int32(own[N, t])
        hit[hit[k]], own[SORTED, hit[k]] = t, own[N, t]
        hit[k] += u32(1)
    return r
