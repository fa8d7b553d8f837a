from __future__ import annotations

import os
import time

import pytest

from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format.uid_validity import next_uid_validity
from tests.store.power import Disk, Journal


def test_uid_validity_grows_with_dovecots_counter(tmp_path):
    root = str(tmp_path)
    first = next_uid_validity(root)
    second = next_uid_validity(root)
    assert second > first
    (tmp_path / "dovecot-uidvalidity").write_bytes(b"f0000000")
    os.rename(tmp_path / f"dovecot-uidvalidity.{second:08x}", tmp_path / "dovecot-uidvalidity.f0000005")
    third = next_uid_validity(root)
    assert third == 0xF0000006
    assert sorted(os.listdir(root)) == ["dovecot-uidvalidity", "dovecot-uidvalidity.f0000006"]
    assert (tmp_path / "dovecot-uidvalidity").read_bytes() == b"f0000006"
    (tmp_path / "dovecot-uidvalidity").write_bytes(b"ffffffff")
    assert 0 < next_uid_validity(root) < 2**32, "a spoilt counter gives no impossible value"


def test_the_counter_is_found_without_a_look_at_every_folder(tmp_path, monkeypatch):
    first = next_uid_validity(str(tmp_path))
    monkeypatch.setattr(os, "listdir", lambda _path: pytest.fail("the directory was read"))
    second = next_uid_validity(str(tmp_path))
    assert second > first
    assert (tmp_path / "dovecot-uidvalidity").read_bytes() == b"%08x" % second
    assert [path.name for path in tmp_path.glob("dovecot-uidvalidity.*")] == [f"dovecot-uidvalidity.{second:08x}"]


def test_a_counter_behind_its_file_is_not_believed(tmp_path):
    (tmp_path / "dovecot-uidvalidity").write_bytes(b"00000005")
    (tmp_path / "dovecot-uidvalidity.f0000000").touch()
    assert next_uid_validity(str(tmp_path)) > 0xF0000000


@pytest.mark.parametrize("text", [b"", b"0000", b"\0\0\0\0\0\0\0\0"])
def test_a_counter_that_a_power_cut_spoilt_is_told_by_the_name_of_its_file(tmp_path, text):
    (tmp_path / "dovecot-uidvalidity").write_bytes(text)
    (tmp_path / "dovecot-uidvalidity.f0000000").touch()
    assert next_uid_validity(str(tmp_path)) == 0xF0000001
    assert (tmp_path / "dovecot-uidvalidity").read_bytes() == b"f0000001"
    assert sorted(os.listdir(tmp_path)) == ["dovecot-uidvalidity", "dovecot-uidvalidity.f0000001"]


@pytest.mark.parametrize("kind", ["strict", "journal", "torn"])
def test_a_value_is_never_given_again_after_a_power_cut(tmp_path, monkeypatch, kind):
    root, left = tmp_path / "root", tmp_path / "left"
    root.mkdir()
    monkeypatch.setattr(time, "time", lambda: 1000.0)  # the clock does not hide it
    disk, journal = Disk(str(root)), Journal(root)
    monkeypatch.setattr(safeio, "recorder", journal)
    for _ in range(3):
        given = next_uid_validity(str(root))
    monkeypatch.setattr(safeio, "recorder", None)
    disk.replay(journal.changes)
    disk.leave(str(left), kind)
    assert next_uid_validity(str(left)) == given + 1
