"""Directories and JSON of results; `write`, from below, makes files that are whole or not there."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

from ohmgrad.files import write

__all__ = ["make_directory", "write", "write_json"]


def write_json(path: Path, content: Any) -> None:
    """JSON that every parser takes: infinite and undefined numbers become null."""
    text = json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"
    write(path, lambda p: p.write_text(text, encoding="utf-8"))


def make_directory(path: Path) -> Path:
    """The directory, made if need be and found writable.

    Raises:
        OSError: it cannot be made or written to.
    """
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        return path


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(k): _finite(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(v) for v in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
