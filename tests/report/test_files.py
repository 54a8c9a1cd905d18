"""JSON is what every parser takes, in files that are whole or not there; directories are tried."""

import json
import math
import os

import pytest

from ohmgrad.report.files import make_directory, write_json


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
