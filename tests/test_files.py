"""Files are whole or not there."""

import os

import pytest

from ohmgrad.files import sweep, write


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


def test_the_disk_holds_the_content_before_the_name_and_the_name_at_the_end(tmp_path, monkeypatch):
    path, synced = tmp_path / "a", []
    fsync = os.fsync

    def watched(handle):
        fsync(handle)
        synced.append((os.fstat(handle).st_ino, path.exists()))

    monkeypatch.setattr(os, "fsync", watched)
    write(path, lambda p: p.write_text("x"))
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_what_killed_writers_left_is_swept(tmp_path):
    kept = ["a.csv", "b.csv", ".b-1.csv", ".a-1.txt"]
    for name in (*kept, ".a-1.csv", ".a-xyz.csv"):
        (tmp_path / name).write_text("x")
    sweep(tmp_path / "a.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)
