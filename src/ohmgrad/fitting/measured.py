"""Measured pulse responses, as laboratories keep them: from CSV files to sequences of pulses and readings.

Two layouts. *Wide*: one ramp a column, the reading after each pulse, empty cells below short ramps; a first column
that is named `pulse`, or has no name and counts up, is a count. *Long*: one reading a row, columns by name: `pulse`,
`conductance` (or `current`, `state`), and where there are several `direction`, `ramp`, `device`; two columns of numbers
without names, the first of them counting up, are pulse and conductance. A pulse number that falls begins a new ramp;
one that jumps leaves pulses without a reading.

A direction that nothing names is that of the ramp's trend. Separators (comma, semicolon, tab, blanks), a decimal comma,
a byte-order mark and lines of comment (#) are told from the file.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

ROLES = {
    "pulse": ("pulse", "pulses", "n", "number", "pulse number", "count"),
    "value": ("conductance", "g", "current", "i", "state", "weight", "value"),
    "direction": ("direction", "polarity", "sign"),
    "ramp": ("ramp", "sweep", "cycle"),
    "device": ("device", "cell", "sample"),
}
UP = ("up", "set", "potentiation", "pot", "ltp", "+", "+1", "1", "1.0")
DOWN = ("down", "reset", "depression", "dep", "ltd", "-", "-1", "0", "-1.0")
PREFIX = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "n": 1e-9, "p": 1e-12}
NO_NAME = ("", "index", "unnamed: 0")  # headings of a column of counts, as data frames are written
MOST = 100_000  # pulses that are fitted in reasonable time and memory
TREND = 0.3  # of its range, which a ramp must gain in all to have a direction


@dataclass(frozen=True)
class Ramp:
    """A sequence of pulses on one device.

    values: (n,) reading after each pulse, NaN where there was none; the first one is where the sequence starts.
    up: (n,) bool, the direction of the pulse before each reading; the first is of no effect.
    name: where it stands in the file. device: which device it is of.
    """

    values: np.ndarray
    up: np.ndarray
    name: str
    device: str


@dataclass(frozen=True)
class Measurement:
    """Ramps in one unit: S, A, or "" for arbitrary ones."""

    ramps: tuple[Ramp, ...]
    unit: str = ""

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices, in their order."""
        return tuple(dict.fromkeys(r.device for r in self.ramps))


def read(
    paths: Sequence[Path],
    *,
    read_voltage: float | None = None,
    unit: str | None = None,
    pulses_per_ramp: int | None = None,
    column_is_device: bool = False,
) -> Measurement:
    """The ramps in these files, which must together hold up and down pulses.

    Args:
        read_voltage: in volt; makes conductances of readings that are currents.
        unit: of the readings (S, mS, uS, nS, A, mA, uA, nA), if no heading says it.
        pulses_per_ramp: readings after which a sequence that rises and falls changes its direction.
        column_is_device: in the wide layout the k-th up ramp and the k-th down ramp are those of device k; otherwise
            all ramps are of one device.

    Raises:
        ValueError: what is in a file cannot be read as a response; the message names file and place.
        OSError: a file cannot be read.
    """
    if read_voltage is not None and not 0.0 < read_voltage < np.inf:
        raise ValueError(f"the read voltage needs a finite number > 0, got {read_voltage}")
    if pulses_per_ramp is not None and pulses_per_ramp < 2:
        raise ValueError(f"pulses per ramp needs a whole number >= 2, got {pulses_per_ramp}")
    if unit is not None and not _factor(unit)[1]:
        raise ValueError(f"the unit needs S or A, with m, u, n or p before it or nothing, got {unit!r}")
    parts = [_read_file(path, unit, pulses_per_ramp, read_voltage) for path in paths]
    units = list(dict.fromkeys(part.unit for part in parts))
    if len(units) > 1:
        raise ValueError(f"files need one unit, got {' and '.join(repr(u) for u in units)}")
    ramps = tuple(r for part in parts for r in part.ramps)
    if column_is_device:
        ramps = _paired(ramps)
    _check(ramps, ", ".join(map(str, paths)))
    return Measurement(ramps, units[0])


def _read_file(path: Path, unit: str | None, pulses_per_ramp: int | None, read_voltage: float | None) -> Measurement:
    try:
        header, rows, numbers = _table(_text(path.read_bytes()))
        header = [h.lower().strip() for h in header]
        width = max(map(len, rows))
        roles = _roles(header, rows, width)
        factor, base = _factor(_unit_of(header, roles, unit))
        if read_voltage is not None:
            if base == "S":
                raise ValueError("a read voltage goes with currents, got conductances in S")
            factor, base = factor / read_voltage, "S"
        layout = _long if "value" in roles else _wide
        ramps = layout(_Cells(rows, numbers), roles, header, width)
        ramps = [piece for ramp in ramps for piece in _pieces(ramp, pulses_per_ramp)]
        return Measurement(tuple(_scaled(_directed(r), factor, base) for r in ramps), base)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _text(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    if b"\0" in content:
        raise ValueError("it is no text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # µ as old instruments write it


def _table(text: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Headings (none: empty), rows of cells, and the line that each row stands on."""
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    if not lines:
        raise ValueError("it is empty")
    sample = "\n".join(line for _, line in lines[:20])
    separator = next((s for s in (";", "\t", ",") if s in sample), None)
    # 1,5;2,5 has a decimal comma; 1,5 alone has two columns.
    comma_is_point = separator in (";", "\t") and "," in sample and "." not in "".join(line for _, line in lines[1:20])
    rows = [_split(line, separator) for _, line in lines]
    if comma_is_point:
        rows = [[cell.replace(",", ".") for cell in row] for row in rows]
    has_header = any(cell and _number(cell) is None for cell in rows[0])
    header, rows = (rows[0], rows[1:]) if has_header else ([], rows)
    if not rows:
        raise ValueError("it holds headings and no numbers")
    if header and max(map(len, rows)) > len(header):
        wide = next(i for i, row in enumerate(rows) if len(row) > len(header))
        raise ValueError(f"line {lines[wide + 1][0]} has {len(rows[wide])} cells under {len(header)} headings")
    return header, rows, [i for i, _ in lines[1 if header else 0 :]]


def _split(line: str, separator: str | None) -> list[str]:
    """Cells of a line; a separator between quotes separates nothing."""
    if separator is None:
        return [cell.strip('"') for cell in line.split()]
    if '"' in line:
        try:
            return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
        except csv.Error as error:  # a cell of more than 131,072 characters
            raise ValueError(f"it holds no table: {error}") from None
    return [cell.strip() for cell in line.split(separator)]


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


@dataclass(frozen=True)
class _Cells:
    rows: list[list[str]]
    lines: list[int]

    def text(self, column: int) -> list[str]:
        return [row[column] if column < len(row) else "" for row in self.rows]

    def numbers(self, column: int) -> np.ndarray:
        """NaN for an empty cell. Raises ValueError for text and for infinity."""
        values = np.full(len(self.rows), np.nan)
        for i, cell in enumerate(self.text(column)):
            if cell:
                value = _number(cell)
                if value is None or abs(value) > 1e100:
                    raise ValueError(f"row {self.lines[i]}, column {column + 1} needs a number, got {cell[:40]!r}")
                values[i] = value
        return values


def _unit(heading: str) -> str:
    """What stands in brackets, or behind the last underscore if it is a unit.

    >>> _unit("g (us)"), _unit("current_na"), _unit("rmp1")
    ('us', 'na', '')
    """
    found = re.search(r"[\[(]\s*([^\])]+?)\s*[\])]|_([munpµμ]?[sa])$", heading)
    return (found[1] or found[2]) if found else ""


def _unit_of(header: list[str], roles: dict[str, int], given: str | None) -> str:
    """The unit of the readings: what their own headings say, or else the given one."""
    own = [h for k, h in enumerate(header) if k == roles.get("value", k) and k != roles.get("pulse")]
    units = sorted({_unit(h) for h in own} - {""})
    known = [u for u in units if _factor(u)[1]]
    if known and len(units) > 1:
        raise ValueError(f"headings need one unit, got {' and '.join(units)}")
    if known and given and _factor(known[0]) != _factor(given):
        raise ValueError(f"the readings' unit is {known[0]!r} by their heading, and {given!r} by the option")
    return known[0] if known else given or ""


def _factor(unit: str) -> tuple[float, str]:
    """What makes S or A of a unit; of one that is neither, nothing does."""
    found = re.fullmatch(r"([munpµμ]?)([sSaA])", unit)
    return (PREFIX[found[1]], found[2].upper()) if found else (1.0, "")


def _roles(header: list[str], rows: list[list[str]], width: int) -> dict[str, int]:
    """Which column is what, by its name."""
    names = [re.sub(r"\s*[\[(].*|_[munpµμ]?[sa]$", "", h).replace("_", " ").strip() for h in header]
    roles = {role: names.index(n) for role, known in ROLES.items() for n in known[::-1] if n in names}
    if "pulse" not in roles and width > 1 and (not header or header[0] in NO_NAME) and _counts(rows):
        roles["pulse"] = 0
        if not header and width == 2:
            roles["value"] = 1
    return roles


def _counts(rows: list[list[str]]) -> bool:
    """Whether the first column counts up by one, from the start or again and again."""
    counts = [_number(row[0]) for row in rows]
    if any(n is None or not abs(n) < 1e15 or n != int(n) for n in counts):
        return False
    steps = np.diff(np.array(counts, float))
    return len(steps) > 0 and bool(np.isin(steps[steps >= 0], [1.0]).all() and (steps > 0).mean() > 0.5)


def _wide(cells: _Cells, roles: dict[str, int], header: list[str], width: int) -> list[Ramp]:
    ramps = []
    for column in range(width):
        if column == roles.get("pulse"):
            continue
        name = header[column] if header else f"column {column + 1}"
        values = cells.numbers(column)
        if len(values := _trimmed(values)):
            ramps.append(Ramp(values, _named_direction(name, len(values)), name, ""))
    return ramps


def _named_direction(name: str, n: int) -> np.ndarray:
    """All up or all down where a heading says so, else an empty array."""
    words = re.split(r"[^a-z+-]+", name)
    said = {
        up for known, up in ((UP, True), (DOWN, False)) for word in words if word in known and word not in ("+", "-")
    }
    return np.full(n, said.pop()) if len(said) == 1 else np.empty(0, bool)


def _long(cells: _Cells, roles: dict[str, int], header: list[str], width: int) -> list[Ramp]:
    values = cells.numbers(roles["value"])
    pulse = cells.numbers(roles["pulse"]) if "pulse" in roles else np.arange(len(values), dtype=float)
    if np.isnan(pulse).any() or (pulse != np.rint(pulse)).any():
        at = int(np.argmax(np.isnan(pulse) | (pulse != np.rint(pulse))))
        raise ValueError(f"row {cells.lines[at]} needs a whole pulse number, got {pulse[at]}")
    ramp, device = (cells.text(roles[k]) if k in roles else [""] * len(values) for k in ("ramp", "device"))
    up = _directions(cells, roles["direction"]) if "direction" in roles else np.empty(0, bool)
    order = list(range(len(values)))
    if np.mean([a != b for a, b in pairwise(device)] or [0.0]) > 0.5:  # row by row another device
        order.sort(key=lambda i: device.index(device[i]))
    starts = np.concatenate([[0], np.cumsum(np.diff(pulse[order]) <= 0)])
    ramps = []
    for key, group in groupby(zip(order, starts, strict=True), key=lambda p: (device[p[0]], ramp[p[0]], p[1])):
        at = np.array([i for i, _ in group])
        name = " ".join(w for w in (key[0], key[1], f"row {cells.lines[at[0]]}") if w)
        ramps.append(_spread(pulse[at], values[at], up[at] if len(up) else up, name, key[0]))
    return [r for r in ramps if len(r.values)]


def _directions(cells: _Cells, column: int) -> np.ndarray:
    up = np.empty(len(cells.rows), bool)
    for i, word in enumerate(cells.text(column)):
        if word.lower() not in UP + DOWN:
            raise ValueError(f"row {cells.lines[i]} needs a direction, up or down, got {word[:40]!r}")
        up[i] = word.lower() in UP
    return up


def _spread(pulse: np.ndarray, values: np.ndarray, up: np.ndarray, name: str, device: str) -> Ramp:
    """One place for each pulse; those without a reading go in the direction of the next that has one."""
    at = (pulse - pulse[0]).astype(np.int64)
    if at[-1] >= MOST:
        raise ValueError(
            f"{name}: pulse numbers run from {pulse[0]:g} to {pulse[-1]:g}, at most {MOST} pulses are fitted"
        )
    full = np.full(at[-1] + 1, np.nan)
    full[at] = values
    direction = up[np.searchsorted(at, np.arange(len(full)))] if len(up) else up
    kept = len(_trimmed(full))
    skipped = len(full) - len(full[np.argmax(~np.isnan(full)) :]) if kept else 0
    return Ramp(_trimmed(full), direction[skipped : skipped + kept] if len(up) else up, name, device)


def _trimmed(values: np.ndarray) -> np.ndarray:
    """Without missing readings at either end."""
    there = np.flatnonzero(~np.isnan(values))
    return values[there[0] : there[-1] + 1] if len(there) else values[:0]


def _pieces(ramp: Ramp, n: int | None) -> list[Ramp]:
    if n is None or len(ramp.up):
        return [ramp]
    parts = [_trimmed(ramp.values[i : i + n]) for i in range(0, len(ramp.values), n)]
    return [replace(ramp, values=p, name=f"{ramp.name}, part {k}") for k, p in enumerate(parts, 1) if len(p) > 1]


def _directed(ramp: Ramp) -> Ramp:
    """With a direction: the one it is said to have, or else that of its trend."""
    values = ramp.values[~np.isnan(ramp.values)]
    n = max(1, len(values) // 10)
    gain, span = values[-n:].mean() - values[:n].mean(), np.ptp(values)
    if not len(ramp.up):
        if span and abs(gain) < TREND * span:
            raise ValueError(
                f"{ramp.name} rises and falls from {values[0]:.4g} to {values[-1]:.4g}: name the direction of its "
                "pulses in a column `direction`, or give the pulses per ramp"
            )
        return replace(ramp, up=np.full(len(ramp.values), gain > 0))
    is_up = ramp.up[1:].all()
    if (is_up or not ramp.up[1:].any()) and len(values) > 2 and (-gain if is_up else gain) > TREND * span:
        raise ValueError(
            f"{ramp.name} goes {'up' if is_up else 'down'} by its name, but from {values[0]:.4g} to {values[-1]:.4g}"
        )
    return ramp


def _scaled(ramp: Ramp, factor: float, base: str) -> Ramp:
    values = ramp.values * factor
    if base == "S" and (low := np.nanmin(values)) < 0.0:
        raise ValueError(f"{ramp.name} needs conductances >= 0 S, got {low:.4g} S")
    return replace(ramp, values=values)


def _paired(ramps: Sequence[Ramp]) -> tuple[Ramp, ...]:
    number = {True: 0, False: 0}
    named = []
    for ramp in ramps:
        up = bool(ramp.up[-1])
        number[up] += 1
        named.append(replace(ramp, device=ramp.device or f"device {number[up]}"))
    if number[True] != number[False]:
        raise ValueError(f"devices need an up and a down ramp each, got {number[True]} up and {number[False]} down")
    return tuple(named)


def _check(ramps: Sequence[Ramp], where: str) -> None:
    for device in dict.fromkeys(r.device for r in ramps) or ("",):
        own = [r for r in ramps if r.device == device]
        up = np.concatenate([np.empty(0, bool), *(r.up[1:][~np.isnan(r.values[1:])] for r in own)])
        if min(up.sum(), (~up).sum()) < 3:
            found = f"{up.sum()} readings after up pulses and {(~up).sum()} after down pulses"
            found += f" of {device}" if device else ""
            raise ValueError(f"{where}: a response needs ramps up and ramps down, of 3 pulses or more, got {found}")
    if (n := sum(len(r.values) for r in ramps)) > MOST:
        raise ValueError(f"{where}: at most {MOST} pulses are fitted, got {n}: leave ramps out")
    low, high = (f([f(r.values[~np.isnan(r.values)]) for r in ramps]) for f in (np.min, np.max))
    if not high - low > 1e-9 * max(abs(high), abs(low)):
        raise ValueError(f"{where}: the readings are constant, {low:.6g}; a response needs states that differ")
