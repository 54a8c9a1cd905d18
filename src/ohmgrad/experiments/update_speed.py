"""How long one pulsed update takes, beside aihwkit's on the same cores.

Both sides get the same inputs, device parameters and pulse trains (bit length 31, update and bit-length management) and
the same number of threads, and take turns in one run: ours, peer, ours, peer ... The figure is the median over the
turns of one public call, `Crossbar.pulse(x, d, lr)` and the peer's `tile.update(x, d)`; a turn repeats a short call
until it lasts about 10 ms, equally often on both sides, and the shortest take three times as many turns. Before each
turn the weights go back to 0, which is not timed: else they would wander to their bounds in the course of a row, and
the turns would differ. Then the side rests, so that threads of the side before have stopped spinning, and begins on the
same processor as the other.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import IO, Any

import numba
import numpy as np
import torch

from ohmgrad import __version__
from ohmgrad.crossbar.crossbar import Crossbar
from ohmgrad.devices import catalog
from ohmgrad.experiments import update_peer
from ohmgrad.pulses.settings import PulsedUpdate

FAMILIES = catalog.family_names()
LARGE = 100_000  # crosspoint-samples from which a row counts for the median ratio
TURN = 0.01  # seconds that a turn lasts at least, as far as MAX_CALLS goes
MAX_CALLS = 2000
SHORT = 100  # calls in a turn from which there are three times as many turns: a moment's other work spoils several
REST = 0.01  # seconds before a turn
LR, D_SCALE = 0.1, 0.01

# aihwkit's defaults, spreads of 30 %; some defaults of ours and its would make a family's steps constant or linear.
PARAMETERS = {
    "w_max": 0.6,
    "w_min": -0.6,
    "w_max_dtod": 0.3,
    "w_min_dtod": 0.3,
    "dw_min_dtod": 0.3,
    "dw_min_ctoc": 0.3,
    "up_down_dtod": 0.01,
}
POWER = {"gamma": 1.5, "gamma_dtod": 0.1}
NODES = [1.5, 1.2, 1.0, 0.8, 0.5]
OWN: dict[str, dict[str, Any]] = {
    "linear-step": {"gamma_up": 0.1, "gamma_down": 0.1, "gamma_up_dtod": 0.05, "gamma_down_dtod": 0.05},
    "pow-step": POWER,
    "pow-step-reference": POWER,
    "power-response": POWER,
    "piecewise-step": {"nodes_up": NODES, "nodes_down": NODES[::-1]},
    "log-domain": {"exponent": 0.5},
}
PEER_NAMES = {
    "dw_min_ctoc": "dw_min_std",
    "gamma": "pow_gamma",
    "gamma_dtod": "pow_gamma_dtod",
    "nodes_up": "piecewise_up",
    "nodes_down": "piecewise_down",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case: family, shape (out, in), samples, step of a pulse, share of zero inputs, threads."""

    family: str
    shape: tuple[int, int]
    batch: int
    dw_min: float
    sparsity: float
    threads: int

    @property
    def size(self) -> int:
        """Crosspoint-samples: how many times a sample meets a crosspoint."""
        return math.prod(self.shape) * self.batch

    def labels(self) -> dict[str, str | int | float]:
        """What tells the row from others, threads aside, as results name it."""
        n_out, n_in = self.shape
        case = {"device": self.family, "out": n_out, "in": n_in, "batch": self.batch}
        return {**case, "dw_min": self.dw_min, "sparsity": self.sparsity}

    def fields(self) -> dict[str, Any]:
        """The device's parameters by our names."""
        return PARAMETERS | OWN.get(self.family, {}) | {"dw_min": self.dw_min}


@dataclass(frozen=True, kw_only=True)
class SpeedSettings:
    """Which rows, and how often. Raises ValueError, naming field, value and rule, when a value breaks its rule.

    max_crosspoint_samples: rows larger than this are left out; one call of the largest takes the peer
        minutes.
    peer_python: interpreter that has aihwkit; None measures ours alone. peer_raw: also time the peer's update below
        its Python layer, `tile.tile.update`.
    """

    families: tuple[str, ...] = FAMILIES
    shapes: tuple[tuple[int, int], ...] = ((256, 784), (512, 512), (128, 256), (10, 128), (4096, 4096))
    batches: tuple[int, ...] = (1, 10, 64, 512)
    dw_mins: tuple[float, ...] = (1e-3, 1e-4)
    sparsities: tuple[float, ...] = (0.0, 0.8)
    threads: tuple[int, ...] = (1, 2)
    repeats: int = 7
    max_crosspoint_samples: float = 2e8
    peer_python: str | None = None
    peer_raw: bool = False

    def __post_init__(self) -> None:
        for name in ("families", "shapes", "batches", "dw_mins", "sparsities", "threads"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} needs at least one value and each once, got {values}")
        for family in self.families:
            if family not in FAMILIES:
                raise ValueError(f"families needs some of {', '.join(FAMILIES)}, got {family!r}")
        for shape in self.shapes:
            if min(shape) < 1 or math.prod(shape) > 2**31:
                raise ValueError(f"shapes needs positive sizes with a product up to 2**31, got {shape[0]}x{shape[1]}")
        for batch in self.batches:
            if batch < 1:
                raise ValueError(f"batches needs whole numbers >= 1, got {batch}")
        for dw_min in self.dw_mins:
            if not 0.0 < dw_min < math.inf:
                raise ValueError(f"dw_mins needs finite numbers > 0, got {dw_min}")
        for sparsity in self.sparsities:
            if not 0.0 <= sparsity < 1.0:
                raise ValueError(f"sparsities needs shares in [0, 1), got {sparsity}")
        for threads in self.threads:
            if not 1 <= threads <= 1024:
                raise ValueError(f"threads needs 1 ... 1024, got {threads}")
        if self.repeats < 1:
            raise ValueError(f"repeats needs a whole number >= 1, got {self.repeats}")
        if not self.rows():
            raise ValueError(
                f"max_crosspoint_samples needs at least the {min(r.size for r in self._all()):,} of the smallest row, "
                f"got {self.max_crosspoint_samples:g}"
            )

    def _all(self) -> list[Row]:
        # Rows of one crossbar follow one another, so that it is built once.
        cases = product(self.threads, self.shapes, self.families, self.dw_mins, self.batches, self.sparsities)
        return [
            Row(family=family, shape=shape, batch=batch, dw_min=dw_min, sparsity=sparsity, threads=threads)
            for threads, shape, family, dw_min, batch, sparsity in cases
        ]

    def rows(self) -> list[Row]:
        """The rows to measure, in their order."""
        return [row for row in self._all() if row.size <= self.max_crosspoint_samples]

    def left_out(self) -> list[tuple[int, int, int]]:
        """(out, in, batch) of the rows beyond `max_crosspoint_samples`."""
        return [
            (*shape, batch)
            for shape, batch in product(self.shapes, self.batches)
            if math.prod(shape) * batch > self.max_crosspoint_samples
        ]


class Peer:
    """aihwkit in a process of its own, which works only while it is asked."""

    def __init__(self, python: str, threads: int) -> None:
        self._errors = tempfile.TemporaryFile(mode="w+", encoding="utf-8")
        # The count for its own threads; torch's is set inside.
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        try:
            self._process = subprocess.Popen(
                [python, update_peer.__file__, str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=environment,
            )
        except OSError as error:
            self._errors.close()
            raise ValueError(f"--peer-python {python}: {error.strerror or error}") from None
        try:
            self.versions = self._answer()
            if "error" in self.versions:
                raise ValueError(f"--peer-python {python} needs aihwkit: {self.versions['error']}")
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The answer to one request, waited for."""
        try:
            _pipe(self._process.stdin).write(json.dumps({"do": do, **request}) + "\n")
            _pipe(self._process.stdin).flush()
        except BrokenPipeError:
            pass  # it has ended, as reading will tell
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = _pipe(self._process.stdout).readline()
        try:
            return json.loads(line)
        except ValueError:
            code = self._process.wait(timeout=10) if not line else "unknown"
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines() or [line.strip() or "nothing"]
            raise ValueError(f"the peer's process ended with code {code}, saying: {said[-1]}") from None

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None  # Popen was given PIPE for it; said for the type checker
    return stream


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, load average, versions."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "versions": {
            "ohmgrad": __version__,
            "torch": torch.__version__,
            "numba": numba.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure(settings: SpeedSettings, on_peer: Callable[[dict[str, Any]], None] = lambda _: None) -> Iterator[dict]:
    """One result for each row, as it is measured; `on_peer` learns the peer's versions.

    Raises:
        ValueError: no peer at `peer_python`, or it failed.
    """
    threads_before = torch.get_num_threads()
    try:
        for threads in settings.threads:
            with ExitStack() as stack:
                peer = None
                if settings.peer_python is not None:
                    peer = Peer(settings.peer_python, threads)
                    stack.callback(peer.close)
                    on_peer(peer.versions)
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ohmgrad-")))
                torch.set_num_threads(threads)
                yield from _measure_all([r for r in settings.rows() if r.threads == threads], settings, peer, folder)
    finally:
        torch.set_num_threads(threads_before)


def _measure_all(rows: list[Row], settings: SpeedSettings, peer: Peer | None, folder: Path) -> Iterator[dict]:
    bar, made = None, None
    for row in rows:
        x, d = inputs(row)
        is_theirs = peer is not None and row.family in update_peer.FAMILIES  # others are measured alone
        if peer and is_theirs:
            np.savez(folder / "inputs.npz", x=x, d=d)
            peer.ask("load", path=str(folder / "inputs.npz"))
        if bar is None or made != (row.family, row.shape, row.dw_min):
            bar = None  # frees the one before
            made = (row.family, row.shape, row.dw_min)
            bar = Crossbar(row.shape, device=catalog.find(row.family, **row.fields()), update=PulsedUpdate(), seed=0)
            if peer and is_theirs:
                fields = {PEER_NAMES.get(k, k): v for k, v in row.fields().items()}
                peer.ask("make", family=row.family, fields=fields, out=row.shape[0], lr=LR, **{"in": row.shape[1]})
        yield _measure(row, bar, torch.from_numpy(x), torch.from_numpy(d), settings, peer if is_theirs else None)


def inputs(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """x, (batch, in), uniform in [0, 1] with a share of zeros; d, (batch, out), normal with deviation 0.01."""
    rng = np.random.default_rng(0)
    x = rng.random((row.batch, row.shape[1]), np.float32)
    x[rng.random(x.shape) < row.sparsity] = 0.0
    return x, D_SCALE * rng.standard_normal((row.batch, row.shape[0]), np.float32)


def _measure(
    row: Row, bar: Crossbar, x: torch.Tensor, d: torch.Tensor, settings: SpeedSettings, peer: Peer | None
) -> dict:
    """Turns of both sides, after a turn of each that does not count: it compiles and fills caches."""
    zero = torch.zeros(row.shape)

    def ours(calls: int) -> tuple[float, float]:
        bar.set_weight(zero)
        pulses = float(bar.pulses)
        update_peer.rest(REST)
        start = time.perf_counter()
        for _ in range(calls):
            bar.pulse(x, d, LR)
        seconds = (time.perf_counter() - start) / calls
        return seconds, (float(bar.pulses) - pulses) / calls

    def theirs(peer: Peer, calls: int, is_raw: bool) -> float:
        return peer.ask("time", calls=calls, raw=is_raw, rest=REST)["seconds"]

    ours(1)
    calls = min(MAX_CALLS, max(1, math.ceil(TURN / ours(1)[0])))
    if peer:
        theirs(peer, 1, False)
    own, public, raw = [], [], []
    for _ in range(settings.repeats * (3 if calls >= SHORT else 1)):
        own.append(ours(calls))
        if peer:
            public.append(theirs(peer, calls, False))
            if settings.peer_raw:
                raw.append(theirs(peer, calls, True))
    seconds = statistics.median(s for s, _ in own)
    pulses = statistics.mean(n for _, n in own)
    return {
        **row.labels(),
        "threads": row.threads,
        "ours_ms": seconds * 1e3,
        "peer_ms": statistics.median(public) * 1e3 if public else None,
        "ratio": statistics.median(public) / seconds if public else None,
        "pulses_per_s": pulses / seconds,
        "peer_raw_ms": statistics.median(raw) * 1e3 if raw else None,
        "ours_range_ms": [min(own)[0] * 1e3, max(own)[0] * 1e3],
        "peer_range_ms": [min(public) * 1e3, max(public) * 1e3] if public else None,
        "calls": calls,
    }
