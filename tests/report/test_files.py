"""Files are whole or not there, and JSON is what every parser takes."""

import json
import math
import os

import pytest

from ohmgrad.report.files import make_directory, write, write_json


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(error, tmp_path):
    path = tmp_path / "figures.csv"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("ha")
        raise error

    with pytest.raises(type(error)):
        write(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["figures.csv"]


def test_a_file_is_as_readable_as_any_other(tmp_path):
    mask = os.umask(0o027)
    try:
        write(tmp_path / "a", lambda p: p.write_text("x"))
    finally:
        os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_numbers_that_are_none_become_null(tmp_path):
    write_json(tmp_path / "a.json", {"a": [math.nan, 1.5], "b": {"c": math.inf, 3: (-math.inf, "nan", True, None)}})
    content = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert content == {"a": [None, 1.5], "b": {"c": None, "3": [None, "nan", True, None]}}


def test_content_that_json_lacks_leaves_the_old_file(tmp_path):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert (tmp_path / "a.json").read_text() == "old"


def test_directories_are_made_and_tried(tmp_path):
    assert make_directory(tmp_path / "a/b").is_dir()
    assert list((tmp_path / "a/b").iterdir()) == []
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(OSError, match=r"file"):
            make_directory(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        make_directory(tmp_path)
