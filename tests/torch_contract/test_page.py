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
ROW = re.compile(r"^\| `(?P<code>.+?)` \| (?P<kind>as torch|refused|so that)(: ?(?P<rest>.*))? \|$")


def rows() -> list[tuple[str, str, str]]:
    """Of each row its code, what happens, and with what: torch's own code, a sentence, or an expression."""
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            row = ROW.match(line)
            assert row, f"a row of {PAGE.name} says neither as torch, refused nor so that: {line}"
            code, kind, rest = row["code"], row["kind"], row["rest"] or ""
            quoted = re.fullmatch(r"[*`](.+)[*`]", rest)
            own = code if kind == "as torch" else ""
            found.append((code, kind, quoted[1] if quoted else own))
    assert len(found) > 40 and all(what for _, _, what in found)
    return found


def digital(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def names(model: nn.Module, kind: Any, tmp_path: Path) -> dict[str, Any]:
    """What a row may name."""
    x = gaussian(7, 6).float()

    def optimizer_of(**options: Any) -> torch.optim.Optimizer:
        return kind(model if kind is og.AnalogOptimizer else model.parameters(), lr=0.05, **options)

    return {
        "og": og, "torch": torch, "nn": nn, "model": model, "x": x, "other": digital(5), "ideal": Ideal(),
        "path": tmp_path / "run.safetensors", "optimizer_of": optimizer_of, "optimizer": optimizer_of(),
        "loss": lambda: model(x).square().sum(),
    }  # fmt: skip


@pytest.mark.parametrize(("code", "kind", "what"), rows(), ids=lambda value: value[:60])
def test_row(code, kind, what, tmp_path):
    net = digital()
    model = og.convert(net, device=Ideal())
    ours = names(model, og.AnalogOptimizer, tmp_path) | {"net": net}
    if kind == "refused":
        with pytest.raises((TypeError, ValueError, RuntimeError, AttributeError), match=re.escape(what)):
            exec(code, ours)
    elif kind == "so that":
        exec(code, ours)
        assert eval(what, ours)
    else:
        before = [p.detach().clone() for p in net.parameters()]
        exec(code, ours)
        exec(what.replace("net", "model"), names(net, torch.optim.SGD, tmp_path))
        for a, b in zip(og.to_digital(model).parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, check_stride=False)
        assert any((p - q).abs().max() > 1e-4 for p, q in zip(net.parameters(), before, strict=True))
