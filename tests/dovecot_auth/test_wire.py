"""Lines of Dovecot's authentication protocol: whatever a client sends, in whatever pieces."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.dovecot_auth import wire
from mailserver.dovecot_auth.wire import Authenticate, Cancel, ClientProcess, CommandReader, Continue, Version, parse


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"VERSION\t1\t0", Version(1)),
        (b"VERSION\t1", Version(1)),
        (b"VERSION\t2\t1", Version(2)),
        (b"CPID\t4711", ClientProcess(4711)),
        (b"CANCEL\t7", Cancel(7)),
        (b"CONT\t7\tAAA=", Continue(7, b"AAA=")),
        (b"CONT\t7\t", Continue(7, b"")),
        (b"CONT\t7", Continue(7, b"")),
        (b"AUTH\t1\tplain", Authenticate(1, "PLAIN")),
        (
            # Postfix 3.10
            b"AUTH\t1\tPLAIN\tservice=smtp\tnologin\tlip=127.0.0.1\trip=192.0.2.1\tresp=AGE=",
            Authenticate(
                1, "PLAIN", {"service": "smtp", "nologin": "", "lip": "127.0.0.1", "rip": "192.0.2.1"}, b"AGE="
            ),
        ),
        (b"AUTH\t4294967295\tLOGIN\tresp=", Authenticate(4294967295, "LOGIN", {}, b"")),
        (b"AUTH\t1\tPLAIN\tsession=a\x01tb\x01nc\x01ld\x01re\x010f\x011g\x01xh", None),
    ],
)
def test_commands(line: bytes, command: wire.Command | None) -> None:
    if command is None:
        command = Authenticate(1, "PLAIN", {"session": "a\tb\nc\nd\re\0f\1gxh"})
    assert parse(line) == command


def test_a_tab_in_the_initial_response_begins_no_parameter() -> None:
    parsed = parse(b"AUTH\t1\tPLAIN\trip=192.0.2.1\tresp=AGE=\trip=192.0.2.99\tnologin")
    assert isinstance(parsed, Authenticate)
    assert parsed.parameters == {"rip": "192.0.2.1"}
    assert parsed.initial == b"AGE=\trip=192.0.2.99\tnologin", "which is no base64"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\t",
        b"auth\t1\tPLAIN",
        b"GET / HTTP/1.1\r",
        b"AUTH",
        b"AUTH\t1",
        b"AUTH\t1\t",
        b"AUTH\t0\tPLAIN",
        b"AUTH\t-1\tPLAIN",
        b"AUTH\t4294967296\tPLAIN",
        b"AUTH\t99999999999999999999\tPLAIN",
        b"AUTH\t\xd9\xa1\tPLAIN",
        b"AUTH\t1\tPLAIN\trip=192.0.2.1\trip=192.0.2.2",
        b"AUTH\t1\t" + b"A" * 21,
        b"CONT",
        b"CONT\tx\tAA==",
        b"CANCEL",
        b"VERSION",
        b"VERSION\tone",
        b"CPID\t",
        b"USER\t1\tanna@example.test",
    ],
)
def test_what_is_no_command_is_refused(line: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        parse(line)


def test_values_are_escaped_as_dovecot_does() -> None:
    """Its clients read LF as "l" (lib/strescape.c); "n" would be a letter to them."""
    assert wire.escape("a\nb\rc\td\0e\1f") == b"a\x01lb\x01rc\x01td\x010e\x011f"


@given(st.text(), st.text(max_size=20))
def test_a_value_comes_back_as_it_was(user: str, reason: str) -> None:
    user, reason = (text.encode("utf-8", "replace").decode() for text in (user, reason))
    line = wire.failure(1, user=user, reason=reason, code="temp_fail")
    assert line.count(b"\n") == 1
    found = dict(part.partition(b"=")[::2] for part in line.rstrip(b"\n").split(b"\t"))
    assert wire.unescape(found.get(b"user", b"")).decode() == user[:1024]
    assert wire.unescape(found.get(b"reason", b"")).decode() == reason[:1024]
    assert b"temp" in found


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_any_octets_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    """The same commands, or the same refusal, however the octets are cut."""
    whole, pieces = CommandReader(), CommandReader()
    whole.receive_data(data)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    found: list[object] = []
    for start, end in itertools.pairwise(edges):
        pieces.receive_data(data[start:end])
        found += _all(pieces)
        if found and found[-1] == "refused":
            break
    assert found == _all(whole)


@pytest.mark.parametrize("more", range(-3, 4))
def test_a_line_has_a_limit(more: int) -> None:
    length = wire.MAX_LINE + more
    reader = CommandReader()
    reader.receive_data(b"CPID\t1\n" + b"A" * length)
    is_too_long = length >= wire.MAX_LINE
    assert _all(reader) == [ClientProcess(1), *(["refused"] if is_too_long else [])]
    assert reader.pending == (not is_too_long)


def test_a_mebibyte_without_an_end_is_not_kept() -> None:
    reader = CommandReader()
    for _ in range(16):
        reader.receive_data(b"A" * 65536)
        assert _all(reader) == ["refused"]
        assert not reader.pending


def test_the_handshake() -> None:
    lines = wire.handshake({"PLAIN": ("plaintext",)}, process=7, connection=8, cookie="0" * 32)
    assert lines.split(b"\n") == [
        *(b"VERSION\t1\t2", b"MECH\tPLAIN\tplaintext", b"SPID\t7", b"CUID\t8"),
        *(b"COOKIE\t" + b"0" * 32, b"DONE", b""),
    ]


def _all(reader: CommandReader) -> list[object]:
    found: list[object] = []
    commands = reader.commands()
    while True:
        try:
            found.append(next(commands))
        except StopIteration:
            return found
        except wire.ProtocolError:
            return [*found, "refused"]
