from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.store.maildir.sync import scan
from mailserver.store.maildir.sync.scan import Found

from .listing import messages_in


@pytest.fixture
def box(tmp_path):
    for part in ("cur", "new", "tmp"):
        (tmp_path / part).mkdir()
    return tmp_path


def test_only_regular_files_count(box, monkeypatch):
    (box / "cur/m:2,S").write_bytes(b"")
    (box / "cur/.hidden").write_bytes(b"")
    (box / "cur/directory").mkdir()
    os.mkfifo(box / "cur/fifo")
    os.symlink(box / "cur/m:2,S", box / "cur/link")
    monkeypatch.chdir(box / "cur")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert scan.scan_directory(str(box / "cur")) == ["m:2,S"]


def test_a_mailbox(box):
    (box / "new/a").write_bytes(b"")
    (box / "cur/b:2,S").write_bytes(b"")
    assert messages_in(str(box)) == {"a": Found("new", "a"), "b": Found("cur", "b:2,S")}
    found = scan.read_directory(str(box / "cur"))
    assert found.stable
    assert found.racy, "the directory has just been changed"


def test_an_old_directory_is_not_racy(box):
    os.utime(box / "cur", ns=(10**18, 10**18))
    found = scan.read_directory(str(box / "cur"))
    assert not found.racy
    assert found.mtime_ns == 10**18


def test_when_a_time_proves_nothing():
    now = 10**18
    assert not scan.is_racy(now - 1_000_000_000, now)
    assert scan.is_racy(now - 999_999_999, now)
    assert scan.is_racy(now + 5, now), "from the future"


def test_a_directory_that_changes_while_it_is_read_is_read_again(box, monkeypatch):
    (box / "new/a").write_bytes(b"")
    real = scan.scan_directory
    left = [2]

    def changing(path, most=None):
        names = real(path)
        if left[0]:
            left[0] -= 1
            os.utime(path, ns=(10**18 + left[0], 10**18 + left[0]))
            (box / f"new/late{left[0]}").write_bytes(b"")
        return names

    monkeypatch.setattr(scan, "scan_directory", changing)
    found = scan.read_directory(str(box / "new"))
    assert sorted(found.names) == ["a", "late0", "late1"]
    assert found.stable


def test_a_directory_at_rest_is_read_once(box, monkeypatch):
    reads = []
    real = scan.scan_directory
    monkeypatch.setattr(scan, "scan_directory", lambda path, most=None: (reads.append(path), real(path, most))[1])
    scan.read_directory(str(box / "new"))
    assert reads == [str(box / "new")]


def test_a_slow_scan_does_not_make_a_fresh_time_old(box, monkeypatch):
    """The directory changed half a second before it was read: a change meanwhile could have the same second."""
    os.utime(box / "new", ns=(10**18, 10**18))
    clock = iter(range(10**18 + 500_000_000, 10**18 + 10**10, 800_000_000))
    monkeypatch.setattr("time.time_ns", lambda: next(clock))
    assert scan.read_directory(str(box / "new")).racy


def test_one_that_never_rests_is_not_stable(box, monkeypatch):
    real = scan.scan_directory
    count = [0]

    def changing(path, most=None):
        count[0] += 1
        names = real(path)
        os.utime(path, ns=(10**18 + count[0], 10**18 + count[0]))
        return names

    monkeypatch.setattr(scan, "scan_directory", changing)
    found = scan.read_directory(str(box / "new"))
    assert not found.stable
    assert found.racy


def test_a_directory_that_is_gone(box):
    os.rmdir(box / "new")
    with pytest.raises(FileNotFoundError):
        scan.read_directory(str(box / "new"))


def test_of_duplicates_cur_counts_and_the_one_with_more_flags():
    messages, duplicates = scan.classify(["m", "m:2,", "n"], ["m:2,", "m:2,FS", "m:2,S"])
    assert messages == {"m": Found("cur", "m:2,FS"), "n": Found("new", "n")}
    assert sorted(duplicates) == [Found("cur", "m:2,"), Found("cur", "m:2,S"), Found("new", "m"), Found("new", "m:2,")]


@given(st.lists(st.sampled_from(["m:2,", "m:2,S", "m:2,FS", "m:2,RS", "n", "n:2,a"]), unique=True), st.randoms())
def test_the_order_of_reading_does_not_count(names, random):
    shuffled = list(names)
    random.shuffle(shuffled)
    first, second = scan.classify(names[:2], names[2:]), scan.classify(names[:2][::-1], names[2:][::-1])
    assert first[0] == second[0]
    assert sorted(first[1]) == sorted(second[1])
    assert scan.classify(shuffled, [])[0] == scan.classify(names, [])[0]
    assert len(first[0]) + len(first[1]) == len(names)
