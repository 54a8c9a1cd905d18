"""Floor 0: files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write(path: Path, save: Callable[[Path], object]) -> None:
    """`save` writes to a temporary file in the same directory, which then takes the name `path`.

    Whatever happens on the way, a kill or a power cut included, `path` is the old file or the new one. A kill leaves
    the temporary file behind, which `sweep` removes.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        save(temporary)
        # mkstemp gives files to their owner alone; results are as readable as any other new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        _sync(temporary)  # else a power cut may keep the rename and lose the content
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(path: Path) -> None:
    """Remove what killed writers of `path` left; for a directory that nobody else writes to."""
    for left in path.parent.glob(f".{glob.escape(path.stem)}-*{path.suffix}"):
        left.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have the disk hold what was written."""
    if os.name != "posix":  # elsewhere a directory cannot be opened
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
