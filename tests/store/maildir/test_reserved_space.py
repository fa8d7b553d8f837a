from __future__ import annotations

import errno
import os
from pathlib import Path

from mailserver.store.maildir.disk import reserved_space


def test_it_takes_space_and_gives_it_back(tmp_path):
    root = str(tmp_path)
    assert reserved_space.ensure(root)
    status = os.stat(tmp_path / "mailserver-ballast")
    assert status.st_size == 4 << 20
    assert status.st_blocks * 512 >= 4 << 20, "not a hole"
    data = (tmp_path / "mailserver-ballast").read_bytes()
    assert data.startswith(b"This file reserves 4 MiB of the disk for the mail server")
    assert not data.strip(b"\0").partition(b"operations.md.\n")[2]
    assert reserved_space.ensure(root)
    assert reserved_space.release(root)
    assert not reserved_space.release(root)
    assert os.listdir(tmp_path) == []


def test_a_half_made_one_is_made_anew(tmp_path):
    (tmp_path / "mailserver-ballast").write_bytes(b"x")
    assert reserved_space.ensure(str(tmp_path))
    assert os.stat(tmp_path / "mailserver-ballast").st_size == 4 << 20


def test_a_full_disk_is_no_error(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert not reserved_space.ensure(str(tmp_path))
    assert os.listdir(tmp_path) == []
    assert not reserved_space.ensure(str(tmp_path / "none"))


def test_it_waits_until_there_is_room_for_more(tmp_path, monkeypatch):
    real = os.statvfs(tmp_path)
    low = os.statvfs_result([*real[:4], (11 << 20) // real.f_frsize, *real[5:]])
    monkeypatch.setattr(os, "statvfs", lambda _path: low)
    assert not reserved_space.ensure(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_one_of_an_older_version_gets_the_text_once(tmp_path):
    path = tmp_path / "mailserver-ballast"
    path.write_bytes(b"\0" * reserved_space.SIZE)
    assert reserved_space.ensure(str(tmp_path))
    assert path.read_bytes() == reserved_space.TEXT + b"\0" * (reserved_space.SIZE - len(reserved_space.TEXT))
    path.write_bytes(b"\0" * reserved_space.SIZE)
    assert reserved_space.ensure(str(tmp_path))
    assert not path.read_bytes().strip(b"\0"), "one stat when nothing is to be done"


def test_what_the_text_names_is_there():
    page = Path(__file__).parents[3] / "docs" / "operations.md"
    assert "\n## A full disk\n" in page.read_text(encoding="utf-8")
