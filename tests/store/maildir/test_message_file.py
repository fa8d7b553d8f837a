"""Line ends of message files: what is sent has CRLF throughout, and a bare CR stays what it is."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mailserver.store.maildir.format.message_file import open_file, read_dated, read_small, to_crlf

TEXT = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a", b"\r\r\n", b"\n\n"])).map(b"".join)


def as_sent(data: bytes) -> bytes:
    """An LF that no CR stands before gets one."""
    return re.sub(rb"(?<!\r)\n", rb"\r\n", data)


@given(TEXT)
@example(b"\n\r")
@example(b"\r\n\n")
@example(b"\r\r\n\n")
def test_only_bare_line_feeds_change(data: bytes) -> None:
    assert to_crlf(data) == as_sent(data)


@given(TEXT, st.integers(65_530, 65_540), st.sampled_from([b"x", b"\n", b"\r"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_is_converted_across_its_blocks(tmp_path: Path, data: bytes, before: int, filler: bytes) -> None:
    whole = filler * before + data + b"y" * 100
    path = tmp_path / "message"
    path.write_bytes(whole)
    file = open_file(str(path))
    try:
        assert file.size == len(as_sent(whole))
        assert file.read() == as_sent(whole)
        assert file.read(65_500, 200) == as_sent(whole)[65_500:65_700]
    finally:
        file.close()


@pytest.mark.parametrize("lines", [2, 40_000])
def test_a_name_that_claims_the_size_on_disk_does_not_make_lf_crlf(tmp_path: Path, lines: int) -> None:
    data = b"a line\n" * lines
    size = len(data)
    path = tmp_path / f"1.M1P1.host,S={size - 1},W={size}:2,S"
    path.write_bytes(data)
    assert read_small(str(path), size, size) is None
    assert read_dated(str(path), size, size) is None
    file = open_file(str(path), size)
    try:
        assert (file.size, file.read()) == (len(as_sent(data)), as_sent(data))
    finally:
        file.close()


def test_what_is_in_memory_is_read_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "message"
    whole = b"0123456789\r\n" * 20_000
    path.write_bytes(whole)
    file = open_file(str(path), len(whole))
    try:
        data = file.read_now(100, 70_000)
        if data is not None:  # a file system may not be able to say
            assert whole[100:70_100].startswith(data)
        assert file.read_now(len(whole), 100) is None
        assert (file.read_now(len(whole) - 3, 100) or b"9\r\n"[-3:]) == whole[-3:]
    finally:
        file.close()
    assert file.read_now(0, 100) is None


def test_what_would_wait_is_left_to_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"text\r\n" * 100)
    asked: list[int] = []

    def preadv(_fd: int, _buffers: object, _offset: int, flags: int) -> int:
        asked.append(flags)
        raise BlockingIOError(errno.EAGAIN, "not in memory")

    file = open_file(str(path), 600)
    monkeypatch.setattr(os, "preadv", preadv)
    try:
        assert file.read_now(0, 600) is None
        assert asked == [os.RWF_NOWAIT]
        assert file.read(0, 600) == b"text\r\n" * 100
    finally:
        file.close()


@given(TEXT, st.integers(65_530, 65_540), st.sampled_from([b"x", b"\n", b"\r"]), st.integers(0, 66_000))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_is_converted_without_waiting(
    tmp_path: Path, data: bytes, before: int, filler: bytes, start: int
) -> None:  # fmt: skip
    whole = b"\n" + filler * before + data + b"y" * 100
    path = tmp_path / "message"
    path.write_bytes(whole)
    sent = as_sent(whole)
    file = open_file(str(path))
    try:
        at = start
        while at < len(sent):
            found = file.read_now(at, 70_000)
            if found is None:
                break  # a file system may not be able to say
            assert found == sent[at : at + len(found)]
            assert found
            at += len(found)
        assert file.read_now(len(sent), 100) is None
    finally:
        file.close()
    assert file.read_now(0, 100) is None


def test_a_block_that_is_not_in_memory_is_left_to_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"text\n" * 100)
    file = open_file(str(path))
    # The first octets alone are there.
    monkeypatch.setattr(os, "preadv", lambda _fd, _buffers, _offset, _flags: 10)
    try:
        assert file.read_now(0, 100) is None
        assert file.read(0, 12) == b"text\r\ntext\r\n"
    finally:
        file.close()
