"""Files that are replaced whole."""

import os
import threading
from pathlib import Path

import pytest

from mailserver.system import atomic_file
from mailserver.system.atomic_file import only_one, replace_file


def test_a_new_file_is_private(tmp_path: Path) -> None:
    replace_file(tmp_path / "users", b"x")
    assert (tmp_path / "users").read_bytes() == b"x"
    assert (tmp_path / "users").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["users"]


def test_mode_and_link_stay(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_bytes(b"old")
    real.chmod(0o640)
    (tmp_path / "link").symlink_to(real)
    replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert real.read_bytes() == b"new"
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_stays_and_a_new_file_can_be_given_away(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"old")
    os.chown(old, 1234, 5678)
    old.chmod(0o640)
    replace_file(old, b"new", owner=(1, 1))
    assert (old.stat().st_uid, old.stat().st_gid, old.stat().st_mode & 0o777) == (1234, 5678, 0o640)
    replace_file(tmp_path / "new", b"new", owner=(1234, 5678))
    assert ((tmp_path / "new").stat().st_uid, (tmp_path / "new").stat().st_gid) == (1234, 5678)


def test_sync_before_rename_before_sync_of_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(descriptor: int) -> None:
        steps.append("directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def recorded_rename(source: Path, target: Path) -> None:
        steps.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    replace_file(tmp_path / "users", b"x")
    assert steps == ["file", "rename", "directory"]


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "users"
    path.write_bytes(b"old")

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(atomic_file.os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        replace_file(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["users"]


def test_two_edits_do_not_lose_each_other(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_bytes(b"0")

    def add() -> None:
        for _ in range(10):
            with only_one(path):
                replace_file(path, b"%d" % (int(path.read_bytes()) + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert path.read_bytes() == b"40"
