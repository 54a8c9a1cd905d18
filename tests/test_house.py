"""Rules that hold for every file of the repository."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES = 400
# Absolute paths that mean something on one machine alone.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(work|farm|tmp|root|home|Users)/\w")


def repository_files() -> list[Path]:
    """Files that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a checkout, to know which files belong to the repository")
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def machine_paths(text: str) -> list[str]:
    """Lines of that text that name a machine's path."""
    return [line.strip() for line in text.splitlines() if MACHINE_PATH.search(line)]


def test_source_files_are_short():
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "src").rglob("*.py")}
    long = {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MAX_LINES}
    assert lengths and not long, f"split by concept, {MAX_LINES} lines at most: {long}"


def test_no_file_names_a_machines_path():
    found = {}
    for path in repository_files():
        try:
            lines = machine_paths(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:  # a picture
            continue
        if lines:
            found[str(path.relative_to(ROOT))] = lines
    assert not found


def test_machine_paths_are_recognised():
    planted = ["/".join(("", folder, "x.txt")) for folder in ("work", "tmp", "root", "home")]
    assert machine_paths("\n".join(planted)) == planted
    assert machine_paths("src/home/x.py\nhttps://example.org/work/x\n~/work/x\ntmp_path / 'work'") == []
