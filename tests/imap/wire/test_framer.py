"""The framer: RFC 3501 4.3 and 9, RFC 7888; any cut of the input gives the same events."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.imap.wire.framer import (
    LITERAL_END,
    MOST_DROPPED,
    NEED_DATA,
    Framer,
    FramingLost,
    Line,
    LineRefused,
    LiteralAnnounced,
    LiteralData,
)


def drive(framer: Framer, pieces: list[bytes], accept: int = 100) -> list[object]:
    """Events, with the data of each literal joined; literals up to `accept` octets are accepted."""
    events: list[object] = []
    literal = b""
    try:
        for piece in pieces:
            framer.receive_data(piece)
            while (event := framer.next_event()) is not NEED_DATA:
                if isinstance(event, LiteralData):
                    literal += event.data
                    continue
                if event is LITERAL_END:
                    events.append(literal)
                    literal = b""
                    continue
                if isinstance(event, LiteralAnnounced):
                    if event.size <= accept:
                        framer.accept_literal()
                    else:
                        framer.refuse_literal()
                events.append(event)
    except FramingLost:
        events.append("lost")
    return events


def lines(events: list[object]) -> list[bytes]:
    return [event.data for event in events if isinstance(event, Line)]


def test_lines() -> None:
    assert drive(Framer(100), [b"a NOOP\r\nb NOOP\r\nc"]) == [Line(b"a NOOP"), Line(b"b NOOP")]


def test_literal() -> None:
    assert drive(Framer(100), [b"a LOGIN {3}\r\nxyz {0+}\r\n\r\nb NOOP\r\n"]) == [
        LiteralAnnounced(b"a LOGIN ", 3, non_sync=False),
        b"xyz",
        LiteralAnnounced(b" ", 0, non_sync=True),
        b"",
        Line(b""),
        Line(b"b NOOP"),
    ]


@pytest.mark.parametrize(
    "text",
    [b"{-5}", b"{1_0}", b"{+5}", b"{5 }", b"{ 5}", b"{}", b"{+}", b"{5-}", b"{5++}", b"{0x5}", b"{5}}", b"{\xb2}"],
)
def test_no_announcement(text: bytes) -> None:
    """Only digits and a plus announce (RFC 7888 8): else it is a line, and no octets are waited for."""
    assert lines(drive(Framer(100), [b"a X " + text + b"\r\nb NOOP\r\n"])) == [b"a X " + text, b"b NOOP"]


def test_literal8_is_told() -> None:
    framer = Framer(100)
    framer.receive_data(b"a APPEND x ~{5}\r\n")
    assert framer.next_event() == LiteralAnnounced(b"a APPEND x ", 5, non_sync=False, literal8=True)


@pytest.mark.parametrize("size", [2**31, 2**32, 2**63, 2**64, 10**4000])
@pytest.mark.parametrize("plus", [b"", b"+"])
def test_absurd_sizes(size: int, plus: bytes) -> None:
    framer = Framer(10_000)
    framer.receive_data(b"a X {%b%b}\r\n" % (str(size).encode(), plus))
    event = framer.next_event()
    assert isinstance(event, LiteralAnnounced)
    assert event.size == min(size, 2**63)
    if plus:
        with pytest.raises(FramingLost):
            framer.refuse_literal()
    else:
        framer.refuse_literal()
        framer.receive_data(b"b NOOP\r\n")
        assert framer.next_event() == Line(b"b NOOP")


def test_refused_literal_that_waits_ends_the_command() -> None:
    events = drive(Framer(100), [b"a X {50}\r\nb NOOP\r\n"], accept=10)
    assert events[1:] == [Line(b"b NOOP")]


def test_refused_non_sync_literal_is_swallowed_with_the_rest_of_its_command() -> None:
    """RFC 7888 4: none of it may be run as a command."""
    data = b"a X {50+}\r\n" + b"b DELETE x\r\n".ljust(50, b"z") + b" {3+}\r\nc D e\r\nd NOOP\r\n"
    assert lines(drive(Framer(100), [data], accept=10)) == [b"d NOOP"]


def test_swallowing_ends_at_a_literal_that_waits() -> None:
    """The client sees the refusal before it sends that literal, and then does not send it."""
    data = b"a X {20+}\r\n" + b"z" * 20 + b" {3}\r\nb NOOP\r\n"
    assert lines(drive(Framer(100), [data], accept=10)) == [b"b NOOP"]


def test_the_literals_that_are_swallowed_are_counted() -> None:
    for count, lost in ((MOST_DROPPED, False), (MOST_DROPPED + 1, True)):
        framer = Framer(10, swallow_limit=1 << 20)
        framer.receive_data(b"x" * 20 + b" {1+}\r\ny" * count + b"\r\nb NOOP\r\n")
        assert isinstance(framer.next_event(), LineRefused)
        if lost:
            with pytest.raises(FramingLost):
                framer.next_event()
        else:
            assert framer.next_event() == Line(b"b NOOP")


def test_swallowing_is_bounded() -> None:
    framer = Framer(100, swallow_limit=1000)
    assert lines(drive(framer, [b"a X {900+}\r\n" + b"z" * 900 + b"\r\nb NOOP\r\n"], accept=10)) == [b"b NOOP"]
    assert drive(framer, [b"a X {1001+}\r\n"], accept=10)[-1] == "lost"
    framer = Framer(100, swallow_limit=1000)
    assert drive(framer, [b"a X {900+}\r\n" + b"z" * 900 + b" {900+}\r\n"], accept=10)[-1] == "lost"


@pytest.mark.parametrize("bad", [b"a NO\nOP", b"\nb", b"a NO\rOP", b"a \0NOOP", b"a NOOP\n", b"a\r", b"a\n {3+}"])
def test_bad_octets_refuse_the_whole_line(bad: bytes) -> None:
    """RFC 3501 9: CRLF ends a line, CR, LF and NUL are in none. Nothing of the line is run."""
    follow = b"abc\r\n" if bad.endswith(b"{3+}") else b""
    events = drive(Framer(100), [bad + b"\r\n" + follow + b"c NOOP\r\n"])
    assert isinstance(events[0], LineRefused)
    assert events[1:] == [Line(b"c NOOP")]


def test_bare_lf_is_answered_at_once() -> None:
    """A person with a plain TCP client sees what is wrong, though the line has not ended."""
    framer = Framer(100)
    framer.receive_data(b"a NOOP\n")
    event = framer.next_event()
    assert isinstance(event, LineRefused)
    assert event.head == b"a NOOP\n"
    assert framer.next_event() is NEED_DATA


@pytest.mark.parametrize("size", [100, 101, 102, 103, 500, 5000])
def test_long_line(size: int) -> None:
    line = b"a ".ljust(size, b"x")
    events = drive(Framer(100), [line + b"\r\nb NOOP\r\n"])
    if size == 100:
        assert events == [Line(line), Line(b"b NOOP")]
    else:
        assert events == [LineRefused(line.ljust(102, b"\r")[:102], "line too long"), Line(b"b NOOP")]


def test_long_line_with_a_literal_behind() -> None:
    events = drive(Framer(100), [b"a ".ljust(500, b"x") + b"{9+}\r\nb DELETE\r\r\nc NOOP\r\n"])
    assert lines(events) == [b"c NOOP"]


def test_endless_line_takes_no_memory_and_ends() -> None:
    framer = Framer(100, swallow_limit=10_000)
    held = 0
    for _ in range(1000):
        if drive(framer, [b"x" * 64])[-1:] == ["lost"]:
            break
        held = max(held, len(framer._buffer))
    else:
        raise AssertionError("it went on without end")
    assert held <= 256


def test_lines_of_one_command_count_together() -> None:
    framer = Framer(100)
    events = drive(framer, [b"a X " + b"yyyyyyyy {1+}\r\nz" * 20 + b"\r\nb NOOP\r\n"])
    assert any(isinstance(event, LineRefused) for event in events)
    assert lines(events) == [b"b NOOP"]


@pytest.mark.parametrize("taken", [0, 4, 10])
def test_abandoned_command_is_discarded(taken: int) -> None:
    framer = Framer(100)
    framer.receive_data(b"a APPEND x {10}\r\n")
    framer.next_event()
    framer.accept_literal()
    framer.receive_data(b"0123456789"[:taken])
    while framer.next_event() is not NEED_DATA and taken != 10:
        pass
    framer.abandon_command()
    framer.receive_data(b"0123456789"[taken:] + b" trailing\r\nb NOOP\r\n")
    assert framer.next_event() == Line(b"b NOOP")
    assert framer.next_event() is NEED_DATA


def test_abandoning_between_commands_does_nothing() -> None:
    framer = Framer(100)
    framer.receive_data(b"a NOOP\r\nb NO")
    assert framer.next_event() == Line(b"a NOOP")
    framer.abandon_command()
    framer.receive_data(b"OP\r\n")
    assert framer.next_event() == Line(b"b NOOP")


FRAGMENTS = st.sampled_from(
    [
        b"a NOOP",
        b"\r\n",
        b"\r\n",
        b"{5}",
        b"{5+}",
        b"{30+}",
        b"{200+}",
        b"\n",
        b"\r",
        b"\0",
        b"x" * 40,
        b" ",
        b"hello",
        b"+",
    ]
)


@given(st.lists(FRAGMENTS, max_size=30), st.data())
def test_any_cut_gives_the_same_events(fragments: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(fragments)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    def events(parts: list[bytes]) -> list[object]:
        return drive(Framer(100, swallow_limit=300), parts, accept=20)

    assert events([whole]) == events([whole[at : at + 1] for at in range(len(whole))]) == events(pieces)


@pytest.mark.parametrize(
    "event",
    [Line(b"secret"), LineRefused(b"secret", "bare LF"), LiteralAnnounced(b"secret", 1, True), LiteralData(b"secret")],
)
def test_no_representation_shows_a_password(event: object) -> None:
    """Tracebacks and debuggers show representations."""
    assert "secret" not in repr(event)


def test_a_run_is_looked_at_between_commands_alone() -> None:
    line = re.compile(rb"([a-z]) NOOP\r\n")
    run = re.compile(rb"(?:[a-z] NOOP\r\n){1,2}")
    framer = Framer(100)
    framer.receive_data(b"a NOOP\r\nb NOOP\r\nc NOOP\r\nd LOGIN {8}\r\n")
    assert framer.peek_run(line, run) == [b"a", b"b"]
    framer.skip(16)
    assert framer.next_event() == Line(b"c NOOP")
    assert isinstance(framer.next_event(), LiteralAnnounced)
    framer.accept_literal()
    framer.receive_data(b"x NOOP\r\n")
    assert framer.peek_run(line, run) == []  # a literal's octets
    while framer.next_event() is not LITERAL_END:
        pass
    framer.receive_data(b"y NOOP\r\n")
    assert framer.peek_run(line, run) == []  # the rest of that command
