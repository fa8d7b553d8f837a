"""Line ends of messages as they are sent."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.store.maildir.format.message_file import has_bare_lf, to_crlf


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"\n\n", b"\r\r\n"]), max_size=30).map(b"".join))
def test_a_bare_lf_is_one_without_cr_before_it(data: bytes) -> None:
    assert has_bare_lf(data) == (re.search(rb"(?<!\r)\n", data) is not None)
    assert to_crlf(data) == re.sub(rb"(?<!\r)\n", b"\r\n", data)
