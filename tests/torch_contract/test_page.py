"""Every row of docs/torch.md is run: on torch's model beside ours, or to be refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ohmgrad as og
from contracts.layer import gaussian
from ohmgrad.devices import Ideal

PAGE = Path(__file__).parents[2] / "docs" / "torch.md"
ROW = re.compile(
    r"^\| `(?P<code>.+)` \| (?P<kind>as torch|refused): ?(?P<rest>.*) \|$|^\| `(?P<bare>.+)` \| as torch \|$"
)


def rows() -> list[tuple[str, str | None, str | None]]:
    """Code of each row; torch's own code, where it is another; and the sentence that refuses, if one does."""
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            row = ROW.match(line)
            assert row, f"a row of {PAGE.name} is neither as torch nor refused: {line}"
            code, rest = row["code"] or row["bare"], row["rest"] or ""
            if row["kind"] == "refused":
                (sentence,) = re.findall(r"\*(.+)\*", rest)
                found.append((code, None, sentence))
            else:
                theirs = re.fullmatch(r"`(.+)`", rest)
                found.append((code, theirs[1].replace("net", "model") if theirs else code, None))
    assert len(found) > 20
    return found


def digital(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def names(model: nn.Module, kind: Any, **own: Any) -> dict[str, Any]:
    """What a row may name."""
    x = gaussian(7, 6).float()

    def optimizer_of(**options: Any) -> torch.optim.Optimizer:
        return kind(model if kind is og.AnalogOptimizer else model.parameters(), lr=0.05, **options)

    shared = {"og": og, "torch": torch, "nn": nn, "model": model, "x": x, "other": digital(5)}
    return {**shared, "optimizer_of": optimizer_of, "optimizer": optimizer_of(),
            "loss": lambda: model(x).square().sum(), **own}  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "theirs", "sentence"), rows(), ids=lambda value: None if value is None else value[:60]
)
def test_row(ours, theirs, sentence):
    net = digital()
    model = og.convert(net, device=Ideal())
    if sentence is not None:
        with pytest.raises((TypeError, ValueError, RuntimeError, AttributeError), match=re.escape(sentence)):
            exec(ours, names(model, og.AnalogOptimizer, net=net))
        return
    before = [p.detach().clone() for p in net.parameters()]
    exec(ours, names(model, og.AnalogOptimizer, net=net))
    exec(theirs, names(net, torch.optim.SGD))
    for a, b in zip(og.to_digital(model).parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, check_stride=False)
    assert any((p - q).abs().max() > 1e-4 for p, q in zip(net.parameters(), before, strict=True))
