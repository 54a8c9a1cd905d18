"""The conclusion follows the figures, in each of its cases; table and picture cope with the awkward ones."""

import io
import itertools
import math
from typing import Any

import pytest
import torch
from rich.console import Console

from ohmgrad.experiments.compare import Curves
from ohmgrad.report.compare import conclusion, draw, table, write_curves


def figures(accuracy: float, loss: float, std: float = 0.01) -> dict[str, Any]:
    """One method's figures."""
    return {
        "test_accuracy": {"mean": accuracy, "std": std},
        "train_loss": {"mean": loss, "std": std},
        "floor_measured": 2.6e-2,
        "floor_predicted": 2.3e-2,
        "floor_bound": math.inf,
        "saturation": 0.2,
        "cycles": 123_456,
        "pulses": 1e6,
        "seconds": 1.0,
    }


def sentence(sgd: tuple[float, float], tiki: tuple[float, float], digital: tuple[float, float] = (97.0, 0.05)) -> str:
    methods = {"digital": figures(*digital), "analog-sgd": figures(*sgd), "tiki-taka": figures(*tiki)}
    return conclusion(methods, "some-device")


GOOD, LESS_ACCURATE, LOSSIER = (96.0, 0.06), (93.9, 0.06), (96.0, 0.16)


def test_conclusion_says_stalls_and_closes_the_gap():
    assert sentence((94.0, 0.4), (97.3, 0.02)) == (
        "On some-device, Analog SGD stalls: its training loss ends at 8.0 times that of digital SGD and its test "
        "accuracy 3.0 points below, at a squared gradient norm of 2.6e-02 where theory predicts 2.3e-02; "
        "Tiki-Taka on the same device closes the gap: 0.4 times the loss, and an accuracy 0.3 points above."
    )


@pytest.mark.parametrize(("sgd", "tiki"), [*itertools.product([GOOD, LESS_ACCURATE, LOSSIER], repeat=2)])
def test_conclusion_in_each_case(sgd, tiki):
    """Analog SGD stalls by 3 points or 3 times the loss; Tiki-Taka keeps up within 1.5 points and 3 times."""
    said = sentence(sgd, tiki)
    stalls, keeps_up = sgd != GOOD, tiki == GOOD
    assert ("Analog SGD stalls:" in said) == stalls
    assert ("Analog SGD does not stall:" in said) == (not stalls)
    verdict = {
        (True, True): "device closes the gap:",
        (True, False): "device does not close the gap:",
        (False, True): "device keeps up:",
        (False, False): "device falls behind:",
    }[stalls, keeps_up]
    assert verdict in said


def test_conclusion_at_its_thresholds():
    assert "Analog SGD stalls" in sentence((94.0, 0.05), GOOD)
    assert "Analog SGD does not stall" in sentence((94.001, 0.05), GOOD)
    assert "keeps up" in sentence(GOOD, (95.5, 0.05))
    assert "falls behind" in sentence(GOOD, (95.499, 0.05))


def test_conclusion_with_equal_accuracy_and_no_loss():
    assert "1.0 times that of digital SGD and its test accuracy equal, at" in sentence((97.0, 0.0), GOOD, (97.0, 0.0))
    assert "inf times that of digital SGD" in sentence((97.0, 0.1), GOOD, (97.0, 0.0))


@pytest.mark.parametrize("missing", ["digital", "analog-sgd", "tiki-taka"])
def test_no_conclusion_from_fewer_methods(missing):
    methods = {m: figures(97.0, 0.1) for m in ("digital", "analog-sgd", "tiki-taka") if m != missing}
    assert conclusion(methods, "x") == "Run with the methods digital, analog-sgd and tiki-taka for a conclusion."


def shown(methods: dict[str, Any], n_seeds: int) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(methods, n_seeds))
    return console.export_text()


def test_table_fits_80_columns_and_states_the_spread():
    methods = {m: figures(100.0, 12.3456, std=9.8765) for m in ("digital", "analog-sgd", "tiki-taka")}
    text = shown(methods, 3)
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert "mean ± standard deviation over 3 seeds" in text
    assert "12.3456 ± 9.8765" in text and "123,456" in text


def test_table_of_one_seed_has_no_spread():
    text = shown({"tiki-taka": figures(90.0, 0.5, std=math.nan)}, 1)
    assert "one seed" in text and "±" not in text and "nan" not in text and "from digital" not in text


def curves(*values: float, n_seeds: int = 2) -> Curves:
    series = [torch.full((n_seeds,), v, dtype=torch.float64) for v in values]
    return Curves(series, series, series, series, series, series, cycles=1, pulses=torch.ones(n_seeds), seconds=1.0)


@pytest.mark.parametrize("values", [(1.0, 0.1), (0.0, 0.0), (1.0, 0.0), (1e-30, 1.0), (1.0, math.inf)])
def test_picture_and_curves_of_awkward_figures(values, tmp_path):
    """Warnings are errors here; a floor of 0 on a log axis once shrank every panel to nothing."""
    methods = {"digital": figures(97.0, 0.1), "analog-sgd": figures(94.0, 0.4) | {"floor_predicted": values[-1]}}
    both = {m: curves(*values) for m in methods}
    if not math.isinf(values[-1]):
        draw(tmp_path / "compare.png", both, methods, "awkward")
        assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    write_curves(tmp_path / "curves.csv", both, (0, 1))
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2 * 2
    assert [float(v) for v in lines[2].split(",")[3:]] == pytest.approx([values[1]] * 6)
