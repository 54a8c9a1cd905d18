"""The README's Python runs as it stands."""

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"


def test_the_readmes_examples_run(capsys: pytest.CaptureFixture[str]):
    torch.manual_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    scope: dict = {}
    for block in blocks:
        exec(block, scope)
    accuracy = float(re.search(r"test accuracy (\S+)", capsys.readouterr().out)[1])
    assert len(blocks) == 2 and accuracy > 0.9
