"""`ohmgrad device`: what list, show and fit print and write; fitted devices go into every other command."""

import csv
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from ohmgrad.cli import main
from ohmgrad.devices import SoftBounds, catalog


@pytest.fixture
def ohmgrad_(monkeypatch, capsys, tmp_path):
    """`ohmgrad WORDS` in this process, in a directory of its own: exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ohmgrad", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return (end.value.code, *capsys.readouterr())

    return call


def test_list_names_every_device_with_its_numbers(ohmgrad_):
    code, out, err = ohmgrad_("device", "list")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:] if line.startswith("  ")}
    assert set(rows) == {*catalog.names(), *catalog.cell_names()}
    assert rows["reram-es-4"] == rows["reram-es"]
    # Bounds, step, states, imbalance, step noise, write noise, spread (reference 4.4).
    assert rows["aihwkit-soft-bounds"] == ["-0.6", "0.6", "0.001", "1200", "0", "0.3", "0", "0.3"]


def test_show_one_device(ohmgrad_, tmp_path):
    code, out, err = ohmgrad_("device", "show", "aihwkit-soft-bounds", "--out", "page")
    assert (code, err) == (0, "")
    (found,) = json.loads((tmp_path / "page/results.json").read_text())["devices"]
    # S = x^2 / (1 - x^2) at the share x of the way to a bound (reference 6.2); 1.2 / 0.001 states.
    for share in (0.25, 0.5, 0.75):
        assert found["figures"][f"asymmetry_at_{share}"] == pytest.approx(share**2 / (1.0 - share**2), rel=1e-9)
    assert found["figures"]["n_states"] == pytest.approx(1200.0)
    # up_down_dtod = 0.01 alone moves the points: by r tau / gain in the mean, so 0.01 of the range at least.
    assert 0.01 < found["figures"]["symmetric_point_scatter"] < 0.02
    (limit,) = found["limits"]
    assert limit.startswith("Asymmetry:") and limit in " ".join(out.split())
    assert (tmp_path / "page/device.png").read_bytes().startswith(b"\x89PNG")


def test_words_for_what_limits(ohmgrad_, tmp_path):
    # Steps of 2 at one bound and -1 at the other: from a third of the way on, all pulses lead to the middle.
    (tmp_path / "turn.toml").write_text(
        '[device]\nname = "look-up-table"\nstep_up = [2.0, -1.0]\nstep_down = [-1.0, 2.0]\n'
    )
    names = ["ideal", "reram-array-hfo2", "pcm", "reram-es", "capacitor", "turn.toml"]
    code, _, err = ohmgrad_("device", "show", "--compare", *names, "--out", "page")
    assert (code, err) == (0, "")
    found = {d["name"]: d["limits"] for d in json.loads((tmp_path / "page/results.json").read_text())["devices"]}
    assert list(found) == names
    begins = {name: [line.split(":")[0] for line in lines] for name, lines in found.items()}
    assert found["ideal"] == ["Nothing here should limit training: it is fine-grained, symmetric and quiet."]
    assert "Few states" in begins["reram-array-hfo2"] and "Write noise" in begins["reram-array-hfo2"]
    assert {"Asymmetry", "Step noise", "Write noise"} <= set(begins["reram-es"])
    assert "Decay" in begins["capacitor"] and "Asymmetry" not in begins["capacitor"]
    assert "Analog SGD holds no weight, since" in found["turn.toml"][0] and "inf" not in "".join(found["turn.toml"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "nothing"], "no device is named 'nothing'"),
        (["show", "ecram-4"], "ecram-4 is a unit cell of several devices, and here one device is needed"),
        (["show", "ideal", "pcm"], "several devices need --compare, got ideal, pcm"),
        (["show", "nowhere.toml"], "nowhere.toml: No such file"),
        (["show", "ideal", "--seed", "-1"], "--seed needs a whole number"),
        (["show", "bad.toml"], "bad.toml: "),
        (["show", "own.toml"], "own.toml: device.name needs a family or a preset, not a file"),
        (["show", "other.toml"], "other.toml: it needs a section [device] with a name"),
        (["show", "field.toml"], "field.toml: soft-bounds has no parameter 'width'"),
        (["show", "value.toml"], "value.toml: SoftBounds needs dw_min > 0, got -1"),
    ],
)
def test_bad_input_is_refused_in_one_line(ohmgrad_, words, says, tmp_path):
    files = {
        "bad": "[device",
        "own": '[device]\nname = "own.toml"',
        "other": "[data]\nname = 'digits'",
        "field": '[device]\nname = "soft-bounds"\nwidth = 1.0',
        "value": '[device]\nname = "soft-bounds"\ndw_min = -1',
    }
    for name, text in files.items():
        (tmp_path / f"{name}.toml").write_text(text)
    code, out, err = ohmgrad_("device", *words)
    assert (code, out) == (2, "") and err.startswith("ohmgrad: ") and err.count("\n") == 1
    assert says in err
    assert not (tmp_path / "device").exists()


def measured(path: Path) -> None:
    """Ten ramps of soft bounds in microsiemens: 40 + 20 w, w from bound to bound, 1 % noise of readings."""
    rng, n = np.random.default_rng(0), np.arange(81)
    up = 1.0 - 1.9 * (1.0 - 0.05) ** n
    states = np.stack([up, -up] * 5, 1) + 0.02 * rng.normal(size=(81, 10))
    names = ",".join(f"{d}{i} (uS)" for i in range(5) for d in ("up", "down"))
    rows = [",".join(f"{40 + 20 * w:.6f}" for w in row) for row in states]
    path.write_text("\n".join([names, *rows]))


def test_fit_writes_a_device_that_other_commands_take(ohmgrad_, tmp_path):
    measured(tmp_path / "m.csv")
    code, _, err = ohmgrad_("device", "fit", "m.csv", "--family", "constant-step,soft-bounds", "--out", "fit")
    assert (code, err) == (0, "")
    results = json.loads((tmp_path / "fit/results.json").read_text())
    assert results["chosen"] == "soft-bounds" and results["scale"]["unit"] == "S"
    device = catalog.find(str(tmp_path / "fit/device.toml"))
    assert isinstance(device, SoftBounds)
    # In siemens: the bounds at 20 and 60 uS, and the share 0.05 of the way at each pulse.
    scale = tomllib.loads((tmp_path / "fit/device.toml").read_text())["reading"]
    for w, reading in ((device.w_max, 60e-6), (device.w_min, 20e-6)):
        assert scale["zero"] + scale["per_unit"] * w == pytest.approx(reading, rel=0.02)
    assert device.dw_min / device.w_max == pytest.approx(0.05, rel=0.1)
    assert device.write_noise * device.dw_min * scale["per_unit"] == pytest.approx(0.4e-6, rel=0.2)
    with (tmp_path / "fit/residuals.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 810
    for row in rows:
        assert float(row["residual"]) == pytest.approx(float(row["reading"]) - float(row["fitted"]), abs=1e-12)
    scores = [float(row["one_step_residual_in_std"]) for row in rows if row["direction"] != "start"]
    assert len(scores) == 800 and 0.85 < np.std(scores) < 1.15
    assert (tmp_path / "fit/fit.png").read_bytes().startswith(b"\x89PNG")
    assert ohmgrad_("device", "show", "fit/device.toml")[0] == 0


CONFIG = """
[data]
name = "digits"
[model]
kind = "mlp"
hidden = [4]
[device]
name = "device.toml"
w_max_dtod = 0.1
[algorithm]
name = "analog-sgd"
[optimizer]
lr = 0.1
[train]
epochs = 1
batch_size = 200
"""


def test_a_device_of_a_file_is_trained(ohmgrad_, tmp_path):
    (tmp_path / "device.toml").write_text(catalog.section(SoftBounds(w_max=0.5, w_min=-0.7, dw_min=0.01)))
    (tmp_path / "run.toml").write_text(CONFIG)
    assert ohmgrad_("train", "run.toml", "--out", "a")[0] == 0
    own = json.loads((tmp_path / "a/results.json").read_text())["settings"]["device"]
    assert (own["name"], own["w_max"], own["w_min"], own["w_max_dtod"]) == ("SoftBounds", 0.5, -0.7, 0.1)
    assert ohmgrad_("train", "run.toml", "--device-model", "ecram", "--out", "b")[0] == 0
    assert json.loads((tmp_path / "b/results.json").read_text())["settings"]["device"]["name"] == "LinearStep"


@pytest.mark.parametrize("name", catalog.names())
def test_every_device_survives_its_file(name, tmp_path):
    device = catalog.find(name)  # infinite bounds among them: TOML has a word for these
    (tmp_path / "device.toml").write_text(catalog.section(device))
    assert catalog.find(str(tmp_path / "device.toml")) == device
