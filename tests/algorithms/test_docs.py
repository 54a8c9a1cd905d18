"""docs/algorithms.md shows each algorithm's rule as it is."""

import ast
import inspect
import re
import textwrap
from pathlib import Path

import pytest

from ohmgrad.algorithms import ALGORITHMS

PAGE = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_the_page_shows_the_update(kind):
    section = next(s for s in PAGE.split("\n## ") if f"/{Path(inspect.getfile(kind)).name}`" in s)
    (shown,) = re.findall(r"```py\n(.*?)```", section, re.DOTALL)
    source = textwrap.dedent(inspect.getsource(kind.update))
    # Line breaks aside, which the page has its own of.
    assert ast.dump(ast.parse(shown).body[0]) == ast.dump(ast.parse(source).body[0])
