"""README.md, CONTRIBUTING.md and docs hold what they promise: Python runs, commands parse, links lead on."""

import importlib
import json
import re
import shlex
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from exact import assert_bits, assert_within_ulps
from ohmgrad import AnalogOptimizer, Crossbar, Dense, cli, convert
from ohmgrad.devices import SoftBounds, catalog
from ohmgrad.experiments.train_reference import with_reference
from ohmgrad.experiments.train_settings import from_tables
from ohmgrad.periphery import DEFAULT
from ohmgrad.theory import balanced_gradient

ROOT = Path(__file__).parents[1]


def blocks(name: str, language: str) -> list[str]:
    """Code blocks of that language in one of our pages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
    return [block for word, block in found if word == language]


def test_python_of_the_readme_trains(capsys):
    torch.manual_seed(0)
    scope: dict = {}
    first, *others = blocks("README.md", "python")
    exec(first, scope)
    printed = capsys.readouterr().out
    assert printed.startswith("test accuracy ")
    # 0.95 with seed 0; chance is 0.1.
    assert float(printed.split()[-1]) > 0.9
    assert sum(bool(line.strip()) for line in first.splitlines()) <= 14
    for block in others:
        exec(block, scope)
    # The crossbar's block: at 0 soft bounds move as asked, w = -lr d x'.
    assert_within_ulps(scope["bar"].weight, torch.tensor([[-0.05], [0.05]]).expand(2, 3), ulps=2)


def commands() -> list[str]:
    lines = "".join(blocks("README.md", "")).splitlines()
    return [line for line in lines if line.startswith("ohmgrad ") and "--help" not in line]


@pytest.mark.parametrize("command", commands())
def test_commands_of_the_readme_are_understood(command, monkeypatch, capsys):
    def stop(*_):
        raise ValueError("all options were understood")

    for module in (cli.compare, cli.recommend):
        monkeypatch.setattr(module, "load", stop)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == "ohmgrad: all options were understood\n"


def small(command: str) -> str:
    """The same command on fewer families and a smaller network."""
    fit, train = "--family constant-step,soft-bounds", "--epochs 1 --hidden 4 --batch-size 200 --seeds 1"
    return f"{command} {fit if ' device fit ' in command else train if ' compare ' in command else ''}"


def test_the_tutorial_leads_from_a_measurement_to_a_trained_network(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    n, noise = np.arange(60), np.random.default_rng(0).normal(size=(2, 60))
    # Soft bounds: each pulse goes 6 % of the way to the bound.
    up, down = (sign * (1.0 - 1.9 * 0.94**n) + 0.01 * z for sign, z in zip((1.0, -1.0), noise, strict=True))
    rows = [f"{a:.5f},{b:.5f}" for a, b in zip(50.0 + 30.0 * up, 50.0 + 30.0 * down, strict=True)]
    (tmp_path / "measured.csv").write_text("\n".join(["up (uS),down (uS)", *rows]))
    lines = [line for block in blocks("README.md", "sh") for line in block.splitlines()]
    assert len(lines) == 5 and sum(" device fit " in line or " compare " in line for line in lines) == 2
    threads = torch.get_num_threads()
    for line in lines:
        monkeypatch.setattr(sys, "argv", shlex.split(small(line)))
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert (end.value.code, capsys.readouterr().err) == (0, "")
    torch.set_num_threads(threads)
    device = catalog.find("fit/device.toml")
    assert isinstance(device, SoftBounds) and device.dw_min / device.w_max == pytest.approx(0.06, rel=0.1)
    settings = json.loads((tmp_path / "trained/results.json").read_text())["settings"]
    assert settings["device_model"] == "fit/device.toml" and settings["device"]["dw_min"] == device.dw_min


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_on(page):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    assert page != "README.md" or "docs/compare.png" in links
    assert not [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_python_of_the_docs_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "python"):
        exec(block, {})


def test_the_keys_of_ohmgrad_train_are_those_of_the_docs():
    page = (ROOT / "docs/train.md").read_text()
    assert page == with_reference(page), "python -m ohmgrad.experiments.train_reference docs/train.md"


def test_the_speed_of_lenet_is_the_committed_one():
    (times,) = re.findall(r"takes ([\d.]+) times less than with aihwkit", (ROOT / "README.md").read_text())
    assert times == f"{json.loads((ROOT / 'benchmarks/results/lenet.json').read_text())['ratio']:.1f}"


def test_the_figures_of_devices_are_the_committed_ones():
    page, results = (ROOT / "README.md").read_text(), ROOT / "benchmarks/results"
    for found in json.loads((results / "device_fit.json").read_text())["sets"].values():
        rows = {row["family"]: row for row in found["families"]}
        best, chosen = max(found["families"], key=lambda row: row["score"]), rows[found["chosen"]]
        best, chosen = (f"{r['held_out_error_percent_of_range']:.2f} ({r['n_free']} free)" for r in (best, chosen))
        table = f"{rows['look-up-table']['held_out_error_percent_of_range']:.2f}"
        line = rf"{found['readings_scored']:,} readings \| .*{re.escape(best)} \| .*{re.escape(chosen)} \| {table} \|"
        assert re.search(line, page)
    peer = json.loads((results / "peer_agreement.json").read_text())
    assert peer["differ"] == 0
    assert f"after the same pulses {peer['devices']:,} devices agree with aihwkit's in {len(peer['rows'])} laws" in page


@pytest.fixture
def dead_zone(tmp_path, monkeypatch) -> ModuleType:
    """CONTRIBUTING.md's device as a user's own module, outside of the package."""
    (source,) = blocks("CONTRIBUTING.md", "python")
    (tmp_path / "dead_zone.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "dead_zone", raising=False)
    return importlib.import_module("dead_zone")


def test_device_of_contributing_in_a_crossbar(dead_zone):
    device = dead_zone.DeadZone(w_max=0.6, w_min=-0.6)
    weight = torch.tensor([[0.0, 0.06, 0.3, -0.3]], dtype=torch.float64)
    bar = Crossbar((1, 4), device=device, weight=weight, dtype=torch.float64)
    bar.write(Dense(-torch.ones_like(weight)), lr=0.02)
    # Up by 0.02 (1 - w / 0.6), and half of it where |w| < 0.1.
    assert_within_ulps(bar.weight - weight, torch.tensor([[0.01, 0.009, 0.01, 0.03]], dtype=torch.float64), ulps=10)
    with pytest.raises(ValueError, match="DeadZone needs a finite number for width"):
        dead_zone.DeadZone(width=float("nan"))


def test_device_of_contributing_in_a_network(dead_zone):
    """Where the zone is everywhere, half the effect is soft bounds at half the learning rate, bit for bit."""
    bounds = {"w_max": 0.6, "w_min": -0.6, "dw_min_dtod": 0.3, "w_max_dtod": 0.3}
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=False))
    x, y = torch.randn(20, 5), torch.randint(3, (20,))
    weights = []
    for device, lr in ((dead_zone.DeadZone(width=10.0, **bounds), 0.5), (SoftBounds(**bounds), 0.25)):
        model = convert(net, device=device, seed=0)
        optimizer = AnalogOptimizer(model, lr=lr)
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        weights.append(model[2].weight)
    assert_bits(weights[0], weights[1])
    assert (weights[0] - net[2].weight).abs().max() > 0.1


def test_device_of_contributing_in_theory(dead_zone):
    device = dead_zone.DeadZone(w_max=0.6, w_min=-0.6)
    w = torch.tensor([[0.06, 0.3, -0.3]], dtype=torch.float64)
    assert_within_ulps(device.F(w), torch.tensor([[0.5, 1.0, 1.0]], dtype=torch.float64), ulps=4)
    assert_within_ulps(device.G(w), torch.tensor([[0.05, 0.5, -0.5]], dtype=torch.float64), ulps=4)
    assert float(device.symmetric_point()) == 0.0
    # The zone slows both directions alike, so pulses balance at the gradient of soft bounds: -E|g| w / tau.
    assert_within_ulps(balanced_gradient(device, w, torch.full_like(w, 2.0)), -2.0 * w / 0.6, ulps=4)


def test_the_configuration_of_the_readme():
    (text,) = blocks("README.md", "toml")
    settings = from_tables(tomllib.loads(text))
    assert settings.train.epochs == 10 and settings.periphery == DEFAULT
