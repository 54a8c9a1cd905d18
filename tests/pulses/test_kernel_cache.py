"""Compiled kernels on disk: found again by a new process, never by a family that answers otherwise."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from ohmgrad import Crossbar, PulsedUpdate
from ohmgrad.devices import SoftBounds
from ohmgrad.pulses import numba_target
from ohmgrad.pulses.cpu import functions_of

SOURCE = """
    from dataclasses import dataclass

    from ohmgrad.devices import Device
    from ohmgrad.vocabulary import where

    HALF = 0.5


    def part(w):
        return HALF * w


    @dataclass(frozen=True, kw_only=True)
    class Mine(Device):
        is_affine = True

        @staticmethod
        def response(w, up, dw_min):
            return dw_min * where(up, 1.0 - part(w), -1.0 - part(w))
"""
# Two pulses up, then what was compiled (misses) and what was found on disk (hits).
SCRIPT = """
    import json, sys

    import torch

    sys.path.insert(0, sys.argv[1])
    from ohmgrad import Crossbar, PulsedUpdate
    from ohmgrad.pulses.cpu import functions_of, kernels

    if sys.argv[2] == "Mine":
        from my_devices import Mine as family
    else:
        from ohmgrad.devices import SoftBounds as family

    bar = Crossbar((1, 2), device=family(dw_min=0.25), update=PulsedUpdate())
    bar.pulse(torch.ones(1, 2), -torch.ones(1, 1), 0.5)
    kernel = sum(not f.cache_hits for f in kernels(torch.float32))
    hits = sum(f.cache_hits for f in functions_of(family, torch.float32, 0) if f)
    print(json.dumps({"kernel": kernel, "hits": hits, "misses": 3 - hits, "weight": bar.weight.tolist()}))
"""


def run(folder: Path, cache: Path | None, family: str = "Mine") -> dict:
    """What a new process compiled, found and made."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = os.environ | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    command = [sys.executable, str(script), str(folder), family]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, *changes: tuple[str, str]) -> None:
    """The user's file, with some text replaced."""
    source = textwrap.dedent(SOURCE)
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    (folder / "my_devices.py").write_text(source)


def test_a_new_process_compiles_nothing(tmp_path):
    folder = Path(numba_target.cache_directory())
    if Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") not in folder.parents:
        pytest.skip("needs a cache that can be written")
    bar = Crossbar((1, 2), device=SoftBounds(dw_min=0.25), update=PulsedUpdate())
    bar.pulse(torch.ones(1, 2), -torch.ones(1, 1), 0.5)
    before, made = files(folder), run(tmp_path, None, "SoftBounds")
    assert (made["kernel"], made["hits"], made["misses"]) == (0, 3, 0)
    assert files(folder) == before and made["weight"] == bar.weight.tolist()


def test_a_kernel_is_named_for_all_that_it_does():
    # Two families of one name: other code, another number that the code uses, another claim.
    made = []
    for changes in ([], [("1.0 - part", "1.5 - part")], [("HALF = 0.5", "HALF = 0.25")], [("is_affine = True", "")]):
        scope: dict = {"__name__": "ohmgrad.pulses"}  # any module, for dataclass to look into
        source = textwrap.dedent(SOURCE)
        for old, new in changes:
            source = source.replace(old, new)
        exec(source, scope)
        made.append(" ".join(f.__name__ for f in functions_of(scope["Mine"], torch.float32, 0) if f))
    assert len(set(made)) == 4 and all("Mine" in name for name in made)


@pytest.mark.slow
def test_a_changed_family_gets_another_kernel(tmp_path):
    # Up by 0.25 (1 - w / 2) twice: 0.25, then 0.46875; with 1.5 in place of 1.0 0.375, then 0.703125; with w / 4
    # 0.25, then 0.484375. A kernel that is not affine has the same weights, but another code.
    cache = tmp_path / "cache"
    write(tmp_path)
    first, again = run(tmp_path, cache), run(tmp_path, cache)
    assert (first["hits"], first["misses"], first["weight"]) == (0, 3, [[0.46875] * 2])
    assert (again["kernel"], again["misses"], again["weight"]) == (0, 0, [[0.46875] * 2])
    for old, new, weight, hits in (
        ("1.0 - part", "1.5 - part", 0.703125, 0),
        ("HALF = 0.5", "HALF = 0.25", 0.484375, 0),
        ("is_affine = True", "pass", 0.46875, 2),
    ):
        before = files(cache)
        write(tmp_path, (old, new))
        made = run(tmp_path, cache)
        assert (made["kernel"], made["hits"]) == (0, hits)
        assert made["weight"] == [[pytest.approx(weight, abs=1e-6)] * 2]
        assert files(cache) > before or hits == 2  # a family that is not affine does without one function
    write(tmp_path)
    assert run(tmp_path, cache)["misses"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a file", "read only", "empty and read only"])
def test_a_cache_that_cannot_be_written(tmp_path, kind):
    cache = tmp_path / "cache"
    write(tmp_path)
    if kind == "a file":
        cache.write_text("")
    else:
        if os.geteuid() == 0:
            pytest.skip("root writes everywhere")
        cache.mkdir()
        if kind == "read only":
            run(tmp_path, cache)
        for path in [*cache.rglob("*"), cache]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    before = files(cache)
    try:
        made = run(tmp_path, cache)
    finally:
        for path in [cache, *cache.rglob("*")]:
            path.chmod(0o755)
    assert made["weight"] == [[pytest.approx(0.46875, abs=1e-6)] * 2] and files(cache) == before
