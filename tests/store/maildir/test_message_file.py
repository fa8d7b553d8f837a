"""Line ends of message files: what is sent has CRLF throughout, and a bare CR stays what it is."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mailserver.store.maildir.message_file import open_file, to_crlf

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
