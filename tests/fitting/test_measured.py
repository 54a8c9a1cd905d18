"""Files of pulse responses: read rightly, or refused in one line."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from ohmgrad.cli import main
from ohmgrad.fitting import read
from ohmgrad.report import device_fit

UP, DOWN = [1.0, 2.0, 2.5, 3.0, 3.25, 3.5], [3.5, 2.0, 1.5, 1.0, 0.75, 0.5]
ROWS = list(zip(UP, DOWN, strict=True))
WIDE = "\n".join(f"{a},{b}" for a, b in ROWS)
LONG = "pulse,conductance (uS),direction\n" + "\n".join(
    f"{i % 6},{g},{d}" for i, (g, d) in enumerate([*((g, "up") for g in UP), *((g, "down") for g in DOWN)])
)

GOOD = {
    "no headings": (WIDE, ""),
    "ramps in columns": ("set,reset\n" + WIDE, ""),
    "pulse numbers first": ("n,up,down\n" + "\n".join(f"{i},{a},{b}" for i, (a, b) in enumerate(ROWS)), ""),
    "tabs": (WIDE.replace(",", "\t"), ""),
    "blanks": (WIDE.replace(",", "   "), ""),
    "semicolons": (WIDE.replace(",", ";"), ""),
    "decimal comma": ("up;down\n" + WIDE.replace(",", ";").replace(".", ","), ""),
    "quotes": ('"up","down"\n' + WIDE.replace(",", '","').replace("\n", '"\n"').join('""'), ""),
    "comments and blank lines": ("# a note\n\n" + WIDE + "\n\n", ""),
    "one reading a row": (LONG, "S"),
    "set and reset": (LONG.replace("up", "set").replace("down", "RESET").replace("(uS)", "[uS]"), "S"),
    "pulse numbers that begin again": (
        "pulse,g_us\n" + "\n".join(f"{i % 6},{g}" for i, g in enumerate(UP + DOWN)), "S",
    ),
    "two numbers a row, the first a count": ("\n".join(f"{i % 6 + 1},{g}" for i, g in enumerate(UP + DOWN)), ""),
    "an index before pulse and conductance": (
        ",pulse,time (s),conductance (uS)\n" + "\n".join(f"{i},{i % 6},{i / 8},{g}" for i, g in enumerate(UP + DOWN)),
        "S",
    ),
    "an index before ramps": (",a,b\n" + "\n".join(f"{i},{a},{b}" for i, (a, b) in enumerate(ROWS)), ""),
    "a count before ramps, no headings": ("\n".join(f"{i},{a},{b}" for i, (a, b) in enumerate(ROWS)), ""),
    "separators between quotes": ('"up, first","down, first"\n' + WIDE, ""),
}  # fmt: skip


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("case", GOOD)
def test_layouts_and_separators(case, encoding, line_end, tmp_path):
    text, unit = GOOD[case]
    path = tmp_path / "measured.csv"
    path.write_bytes(text.replace("\n", line_end).encode(encoding))
    found = read([path])
    factor = 1e-6 if unit else 1.0
    assert found.unit == unit
    up, down = found.ramps
    np.testing.assert_allclose(up.values, np.array(UP) * factor, rtol=1e-15)
    np.testing.assert_allclose(down.values, np.array(DOWN) * factor, rtol=1e-15)
    assert up.up[1:].all() and not down.up[1:].any()


def test_missing_readings_tails_and_pulses(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("up,down\n1,3\n2,\n3,2\n4,1\n,0.5\n")
    up, down = read([path]).ramps
    np.testing.assert_array_equal(up.values, [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(down.values, [3.0, np.nan, 2.0, 1.0, 0.5])
    # Read after pulses 0, 1 and 4 alone: two pulses without a reading.
    path.write_text("pulse,g,direction\n0,1,up\n1,2,up\n4,4,up\n5,5,up\n6,4,down\n7,3,down\n8,2,down\n")
    (both,) = read([path]).ramps
    np.testing.assert_array_equal(both.values, [1, 2, np.nan, np.nan, 4, 5, 4, 3, 2])
    np.testing.assert_array_equal(both.up, [True] * 6 + [False] * 3)


def test_one_long_column_with_pulses_per_ramp(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("g\n" + "\n".join(map(str, (UP + DOWN) * 2)))
    ramps = read([path], pulses_per_ramp=6).ramps
    assert [bool(r.up[-1]) for r in ramps] == [True, False, True, False]
    with pytest.raises(ValueError, match=r"rises and falls.*pulses per ramp"):
        read([path])


def test_devices_and_units(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("device,pulse,current (nA)\n" + "\n".join(
        f"{name},{i % 6},{g}" for name in ("a", "b") for i, g in enumerate(UP + DOWN)
    ))  # fmt: skip
    found = read([path], read_voltage=0.1)
    assert found.devices == ("a", "b") and found.unit == "S"
    np.testing.assert_allclose(found.ramps[0].values, np.array(UP) * 1e-8)
    # The same, pulse by pulse through the devices.
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(row for pair in zip(lines[1:13], lines[13:], strict=True) for row in pair)]))
    for one, other in zip(found.ramps, read([path], read_voltage=0.1).ramps, strict=True):
        assert one.device == other.device
        np.testing.assert_array_equal(one.values, other.values)
    path.write_text("up,down,up,down\n" + "\n".join(f"{a},{b},{a},{b}" for a, b in ROWS))
    assert read([path]).devices == ("",)
    assert read([path], column_is_device=True).devices == ("device 1", "device 2")


BAD = {
    "empty": ("", "it is empty"),
    "only a note": ("# nothing\n", "it is empty"),
    "headings alone": ("up,down\n", "holds headings and no numbers"),
    "one ramp": ("up\n1\n2\n3\n4\n5\n", "needs ramps up and ramps down"),
    "a device without down pulses": (
        "device,pulse,g\n" + "\n".join(f"{'ab'[i > 11]},{i % 6},{g}" for i, g in enumerate(UP + DOWN + UP)),
        "got 5 readings after up pulses and 0 after down pulses of b",
    ),
    "two readings": ("up,down\n1,2\n2,1\n", "needs ramps up and ramps down"),
    "text in numbers": (WIDE + "\n4,oops", "row 7, column 2 needs a number, got 'oops'"),
    "text below notes": ("# a\n\n" + WIDE + "\n\n4,oops", "row 10, column 2 needs a number, got 'oops'"),
    "decimal commas between quotes": ('1,2\n"1,5","2,5"\n', "row 2, column 1 needs a number, got '1,5'"),
    "both directions in one heading": (
        "set/reset\n" + "\n".join(map(str, UP + DOWN)),
        "set/reset rises and falls from 1 to 0.5",
    ),
    "infinite": (WIDE + "\n4,inf", "row 7, column 2 needs a number, got 'inf'"),
    "decreasing up ramp": (
        "up,down\n" + "\n".join(f"{b},{a}" for a, b in ROWS),
        "goes up by its name, but from 3.5 to 0.5",
    ),
    "constant": ("up,down\n" + "2,2\n" * 9, "the readings are constant, 2"),
    "negative siemens": (LONG.replace(",1.0,", ",-1.0,"), "needs conductances >= 0 S, got -1e-06 S"),
    "more cells than headings": ("up,down\n1,2,3\n", "line 2 has 3 cells under 2 headings"),
    "units that differ": ("up (uS),down (nA)\n" + WIDE, "one unit"),
    "no direction": (LONG.replace(",down", ",sideways"), "needs a direction, up or down, got 'sideways'"),
    "half a pulse": (LONG.replace("\n2,", "\n2.5,"), "needs a whole pulse number, got 2.5"),
    "pulses beyond count": ("pulse,g\n0,1\n1,2\n2,3\n3000000,4\n", "at most 100000 pulses are fitted"),
    "bytes": ("\x00\x01\x02", "it is no text"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_in_one_line(case, tmp_path, monkeypatch, capsys):
    text, says = BAD[case]
    monkeypatch.chdir(tmp_path)
    Path("m.csv").write_text(text)
    monkeypatch.setattr(sys, "argv", ["ohmgrad", "device", "fit", "m.csv"])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "") and err.startswith("ohmgrad: m.csv: ") and err.count("\n") == 1
    assert says in err
    assert [p.name for p in tmp_path.iterdir()] == ["m.csv"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.csv"], "nowhere.csv: No such file"),
        (["m.csv", "--nodes", "1"], "--nodes needs 2 ... 64, got 1"),
        (["m.csv", "--family", "soft"], "no device is named 'soft'"),
        (["m.csv", "--read-voltage", "0"], "read voltage needs a finite number > 0"),
        (["m.csv", "--read-voltage", "0.1", "--zero", "0"], "zero needs a reading between"),
        (["m.csv", "--unit", "yard"], "the unit needs S or A, with m, u, n or p before it or nothing, got 'yard'"),
        (["named.csv", "--unit", "nS"], "the readings' unit is 'us' by their heading, and 'nS' by the option"),
        (["named.csv", "--read-voltage", "0.1"], "a read voltage goes with currents, got conductances in S"),
        (["negative.csv", "--read-voltage", "0.1"], "needs conductances >= 0 S, got -2e-05 S"),
        (["m.csv", "--zero", "9"], "zero needs a reading between the lowest, 0.5, and the highest, 3.5, got 9"),
        (["m.csv", "--pulses-per-ramp", "1"], "pulses per ramp needs a whole number >= 2"),
        (["m.csv", "--device-per-column", "--family", "ideal"], "no family can be fitted"),
    ],
)
def test_bad_options_are_refused_in_one_line(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("m.csv").write_text(WIDE)
    Path("named.csv").write_text("up (uS),down (uS)\n" + WIDE)
    Path("negative.csv").write_text("up (uA),down (uA)\n" + WIDE.replace("\n2.0,", "\n-2.0,"))
    monkeypatch.setattr(sys, "argv", ["ohmgrad", "device", "fit", *words])
    with pytest.raises(SystemExit) as end:
        main()
    err = capsys.readouterr().err
    assert end.value.code == 2 and says in err and err.count("\n") == 1


def rows(n: int) -> str:
    """n up and n down readings, side by side."""
    return "\n".join(f"{i / n:.7f},{1 - i / n:.7f}" for i in range(n))


def test_many_rows(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(rows(50_000))
    up, down = read([path]).ramps
    assert len(up.values) == len(down.values) == 50_000
    path.write_text(rows(60_000))
    with pytest.raises(ValueError, match="at most 100000 pulses are fitted, got 120000: leave ramps out"):
        read([path])


@pytest.mark.slow
def test_a_million_rows(tmp_path):
    (tmp_path / "m.csv").write_text(rows(1_000_000))
    with pytest.raises(ValueError, match="at most 100000 pulses are fitted, got 2000000: leave ramps out"):
        read([tmp_path / "m.csv"])


PIECES = (
    ",",
    ";",
    "\t",
    "\n",
    "-",
    "e",
    ".",
    "nan",
    "inf",
    "up",
    "down",
    "pulse",
    '"',
    "#",
    "1e400",
    "\x00",
    "µS",
    "(uS)",
    " ",
)


def mutated(text: str, rng: np.random.Generator) -> bytes:
    """The text after a few random edits: bytes changed, pieces put in, stretches cut or doubled."""
    content = bytearray(text.encode())
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(0, len(content) + 1))
        kind, length = rng.integers(0, 4), int(rng.integers(1, 20))
        if kind == 0 and at < len(content):
            content[at] = int(rng.integers(0, 256))
        elif kind == 1:
            content[at:at] = str(rng.choice(PIECES)).encode()
        elif kind == 2:
            del content[at : at + length]
        else:
            content[at:at] = content[at : at + length]
    return bytes(content)


def test_300_mutated_files_are_read_or_refused(tmp_path, rng):
    n_refused, path, texts = 0, tmp_path / "m.csv", [text for text, _ in GOOD.values()]
    for k in range(300):
        path.write_bytes(mutated(texts[k % len(texts)], rng))
        try:
            found = read([path])
        except ValueError as error:
            assert re.match(rf"{re.escape(str(path))}: \S[^\n]*$", str(error))
            n_refused += 1
            continue
        values = np.concatenate([r.values for r in found.ramps])
        assert not np.isinf(values).any() and np.nanmax(values) > np.nanmin(values)
        assert all(len(r.up) == len(r.values) and not np.isnan(r.values[[0, -1]]).any() for r in found.ramps)
    assert 30 < n_refused < 270


def fit_mutated(n: int, rng: np.random.Generator, monkeypatch, capsys) -> int:
    """`ohmgrad device fit` on n mutated files: how many it fits; the rest it must refuse in one line."""
    texts, n_fitted = [text for text, _ in GOOD.values()], 0
    monkeypatch.setattr(sys, "argv", ["ohmgrad", "device", "fit", "m.csv", "--family", "constant-step", "--out", "f"])
    for k in range(n):
        Path("m.csv").write_bytes(content := mutated(texts[k % len(texts)], rng))
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        if end.value.code == 0:
            n_fitted += 1
            assert "Written: " in out and not err, content
        else:
            assert (end.value.code, out) == (2, ""), content
            assert err.startswith("ohmgrad: ") and err.count("\n") == 1, content
    return n_fitted


def test_10_mutated_files_go_through_the_command(tmp_path, rng, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert 0 < fit_mutated(10, rng, monkeypatch, capsys) < 10


@pytest.mark.slow
def test_1000_mutated_files_go_through_the_command(tmp_path, rng, monkeypatch, capsys):
    """Without the picture, which would take most of the time and is drawn of what was fitted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(device_fit, "draw", lambda *_: None)
    assert 100 < fit_mutated(1000, rng, monkeypatch, capsys) < 900
