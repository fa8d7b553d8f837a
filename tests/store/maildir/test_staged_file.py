from __future__ import annotations

import errno
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.errors import NoSpace, StoreUnavailable
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.mailbox import staged_file
from mailserver.store.maildir.mailbox.staged_file import StagedFile
from tests.store.power import Journal


def as_sent(data):
    """CRLF for every line end, by another way than counting."""
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text("\r\na", max_size=6).map(str.encode), max_size=8))
def test_sizes_are_right_however_the_bytes_are_cut(tmp_path_factory, pieces):
    directory = tmp_path_factory.mktemp("tmp")
    message = StagedFile(str(directory), "h")
    for piece in pieces:
        message.write(piece)
    whole = b"".join(pieces)
    assert message.size == len(whole)
    assert message.virtual_size == len(as_sent(whole))
    message.sync()
    with open(message.path, "rb") as file:
        assert file.read() == whole
    message.abort()


def test_the_final_name_tells_both_sizes(tmp_path):
    message = StagedFile(str(tmp_path), "h")
    message.write(b"a\nb\r\n")
    assert message.final_base == message.base + ",S=5,W=6"
    message.abort()


def test_a_small_message_takes_no_file_before_it_is_synced(tmp_path):
    message = StagedFile(str(tmp_path), "h")
    message.write(b"a")
    assert os.listdir(tmp_path) == []
    message.sync(1_234_567_890)
    assert os.listdir(tmp_path) == [message.base]
    assert os.stat(message.path).st_mtime == 1_234_567_890


def test_a_large_message_goes_to_disk_as_it_comes(tmp_path):
    message = StagedFile(str(tmp_path), "h")
    for _ in range(20):
        message.write(b"x" * (64 << 10))
    assert os.stat(message.path).st_size >= 1 << 20
    message.sync()
    with open(message.path, "rb") as file:
        assert file.read() == b"x" * (20 * (64 << 10))
    message.abort()


def test_abort_removes_and_can_be_repeated(tmp_path):
    message = StagedFile(str(tmp_path), "h")
    message.write(b"a")
    message.sync()
    message.abort()
    message.abort()
    assert os.listdir(tmp_path) == []
    with pytest.raises(StoreUnavailable):
        message.write(b"b")
    StagedFile(str(tmp_path), "h").abort()


def test_abort_after_release_does_nothing(tmp_path):
    message = StagedFile(str(tmp_path), "h")
    message.write(b"a")
    message.sync()
    message.release()
    message.abort()
    assert os.listdir(tmp_path) == [message.base]


def test_no_space_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    message = StagedFile(str(tmp_path), "h")

    def full(_fd, _data):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoSpace):
        message.write(b"x" * (1 << 20))
    message.abort()
    assert os.listdir(tmp_path) == []


def test_what_was_synced_and_named_survives_a_cut(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "tmp").mkdir(parents=True)
    (root / "cur").mkdir()
    journal = Journal(root)
    monkeypatch.setattr(safeio, "recorder", journal)
    message = StagedFile(str(root / "tmp"), "h")
    message.write(b"message")
    message.sync(1_000_000_000)
    safeio.rename(message.path, str(root / "cur/m"))
    message.release()
    safeio.sync_directory(str(root / "cur"))
    journal.leave(tmp_path / "cut")
    assert (tmp_path / "cut/cur/m").read_bytes() == b"message"
    assert (tmp_path / "cut/cur/m").stat().st_mtime == 1_000_000_000


def test_only_old_files_are_swept(tmp_path, monkeypatch):
    for name in ("old-date", "kept"):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / "directory").mkdir()
    assert staged_file.sweep(str(tmp_path)) == 0, "the mtime is a message's date; the ctime is young"
    later = time.time() + 36 * 3600 + 60
    monkeypatch.setattr(time, "time", lambda: later)
    assert staged_file.sweep(str(tmp_path), frozenset({"kept"})) == 1
    assert sorted(os.listdir(tmp_path)) == ["directory", "kept"]
