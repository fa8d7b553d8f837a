"""The octets of a message, by DATA and BDAT: where it ends, what is refused, what breaks off. LMTP stands for both roles."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.errors import NoSpace, TooBig
from mailserver.message.limits import MAX_HEADER
from mailserver.store.memory import MemoryStaged
from tests.smtp.world import HEADER, LIMIT, World, begin, lmtp_trace

BARE = {
    "bare LF": b"A: b\r\n\r\nx\ny\r\n",
    "bare CR": b"A: b\r\n\r\nx\ry\r\n",
    "LF dot LF": b"A: b\r\n\r\nx\n.\nMAIL FROM:<y@example.net>\r\n",
    "LF dot CRLF": b"A: b\r\n\r\nx\n.\r\nMAIL FROM:<y@example.net>\r\n",
    "CR dot CR": b"A: b\r\n\r\nx\r.\rMAIL FROM:<y@example.net>\r\n",
    "CRLF dot LF": b"A: b\r\n\r\nx\r\n.\nMAIL FROM:<y@example.net>\r\n",
    "NUL": b"A: b\r\n\r\nx\0y\r\n",
    "NUL before the dot": b"A: b\r\n\r\nx\r\n\0.\r\nMAIL FROM:<y@example.net>\r\n",
}


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("chunked", [False, True])
def test_smuggling_is_impossible(name: str, chunked: bool, bytewise: bool, tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test", b"bert@example.org"))
    text = BARE[name]
    data = b"BDAT %d LAST\r\n" % len(text) + text if chunked else b"DATA\r\n" + text + b".\r\n"
    (client.send_bytewise if bytewise else client.send)(data + b"RCPT TO:<anna@example.test>\r\n")
    lines = client.take().removeprefix(b"354 send the message, end it with a single dot\r\n").split(b"\r\n")
    assert [line[:9] for line in lines] == [b"550 5.6.0", b"550 5.6.0", b"503 5.5.1", b""]
    assert world.kept() == []
    assert world.left_behind() == []


LINE = b"X-Line: " + b"y" * 62 + b"\r\n"
PART = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
LARGE_HEADERS = {
    "its own": LINE * 3700 + b"\r\nx\r\n",
    "without end": LINE * 3700,
    "of a part": b"Subject: x\r\n" + PART + LINE * 3700 + b"\r\nx\r\n",
    "of a message": b"Content-Type: message/rfc822\r\n\r\n" + LINE * 3700 + b"\r\nx\r\n",
}


@pytest.mark.parametrize("chunked", [0, 70_000, 1_000_000])
@pytest.mark.parametrize("name", LARGE_HEADERS)
def test_a_header_over_the_limit(name: str, chunked: int, tmp_path: Path) -> None:
    text = LARGE_HEADERS[name]
    assert MAX_HEADER < len(text) < LIMIT
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test", b"bert@example.org"))
    if chunked:
        parts = [text[at : at + chunked] for at in range(0, len(text), chunked)]
        client.send(b"".join(b"BDAT %d\r\n%b" % (len(part), part) for part in parts[:-1]))
        client.send(b"BDAT %d LAST\r\n%bNOOP\r\n" % (len(parts[-1]), parts[-1]))
    else:
        client.send(b"DATA\r\n")
        for at in range(0, len(text), 5000):
            client.send(text[at : at + 5000])
        client.send(b".\r\nNOOP\r\n")
    answers = [line[:9] for line in client.take().split(b"\r\n")]
    assert answers[-4:] == [b"552 5.3.4", b"552 5.3.4", b"250 2.0.0", b""]
    assert not any(answer.startswith(b"250 2.1.5") for answer in answers)
    assert world.kept() == []
    assert world.left_behind() == []
    client.ask(begin(b"anna@example.test"))
    assert client.ask(b"DATA\r\n\r\n.\r\n").endswith(b"delivered\r\n")


def test_no_header_over_the_limit_is_submitted(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.submit(HEADER + PART + LINE * 3700 + b"\r\nx\r\n").startswith(b"552 5.3.4")
    assert world.kept() == []
    assert world.left_behind() == []
    assert world.submit(HEADER + PART + LINE * 3600 + b"\r\nx\r\n").startswith(b"250")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_message_over_the_limit(chunked: bool, tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test", b"bert@example.org"))
    text = b"A: b\r\n\r\n" + b"." * LIMIT + b"\r\n"
    if chunked:
        answer = client.ask(b"BDAT %d LAST\r\n" % len(text) + text + b"NOOP\r\n")
    else:
        answer = client.ask(b"DATA\r\n")
        for at in range(0, len(text), 5000):
            client.send(text[at : at + 5000])
        answer = client.ask(b".\r\nNOOP\r\n")
    assert [line[:9] for line in answer.split(b"\r\n")] == [b"552 5.3.4", b"552 5.3.4", b"250 2.0.0", b""]
    assert world.kept() == []
    assert world.left_behind() == []
    client.ask(begin(b"anna@example.test"))
    assert client.ask(b"DATA\r\n\r\n.\r\n").endswith(b"delivered\r\n")


def test_a_message_of_exactly_the_limit(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test"))
    text = b"\r\n" + b"." * (LIMIT - 4) + b"\r\n"
    answer = client.ask(b"DATA\r\n" + text.replace(b"\r\n.", b"\r\n..") + b".\r\n")
    assert answer.endswith(b"delivered\r\n")
    assert world.kept() == [lmtp_trace(b"anna@example.test") + text]
    assert world.left_behind() == []


@pytest.mark.parametrize(
    "line", [b"BDAT", b"BDAT -1", b"BDAT 1_0", b"BDAT 5 FIRST", b"BDAT x", b"BDAT 123456789012345678901"]
)
def test_a_chunk_of_unknown_length_ends_the_connection(line: bytes, tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test"))
    answer = client.ask(line + b"\r\nRSET\r\n")
    assert answer == b"501 5.5.4 BDAT needs a number of octets, closing the connection\r\n"
    assert client.channel.closed


@pytest.mark.parametrize("count", [2**31, 2**64 - 1])
def test_absurd_chunks_end_the_connection(count: int, tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test"))
    assert client.ask(b"BDAT %d LAST\r\nRSET\r\n" % count).startswith(b"552 5.3.4 ")
    assert client.channel.closed


def test_refused_chunks_are_never_commands(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    assert client.ask(b"BDAT 6\r\nRSET\r\nNOOP\r\n") == (
        b"503 5.5.1 MAIL and an accepted RCPT must come first\r\n250 2.0.0 nothing done\r\n"
    )
    client.ask(begin(b"anna@example.test", b"bert@example.org"))
    answer = client.ask(b"BDAT 6\r\nRS\nT\r\nBDAT 6\r\nRSET\r\nBDAT 0 LAST\r\nNOOP\r\n")
    codes = [line[:9] for line in answer.split(b"\r\n")]
    assert codes == [b"550 5.6.0"] * 4 + [b"250 2.0.0", b""]
    assert world.kept() == []


def test_data_and_chunks_do_not_mix(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test"))
    answer = client.ask(b"BDAT 6\r\nA: b\r\nDATA\r\nRCPT TO:<anna@example.test>\r\nMAIL FROM:<>\r\nBDAT 0 LAST\r\n")
    codes = [line[:9] for line in answer.split(b"\r\n")]
    assert codes == [b"250 2.0.0", b"503 5.5.1", b"503 5.5.1", b"503 5.5.1", b"250 2.0.0", b""]
    assert world.kept() == [lmtp_trace(b"anna@example.test") + b"A: b\r\n"]


def test_reset_forgets_chunks(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test"))
    big = b"x" * 200_000 + b"\r\n"
    assert client.ask(b"BDAT %d\r\n" % len(big) + big + b"RSET\r\nBDAT 0 LAST\r\n").endswith(
        b"250 2.0.0 nothing is pending\r\n503 5.5.1 MAIL and an accepted RCPT must come first\r\n"
    )
    assert world.kept() == []
    assert world.left_behind() == []


@pytest.mark.parametrize("cut", ["hang up", "time out", "drip"])
def test_a_message_that_breaks_off_is_forgotten(cut: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test"))
    client.ask(b"DATA\r\nA: b\r\n\r\n" + b"text\r\n" * 40000)
    if cut == "hang up":
        client.hang_up()
        assert client.take() == b""
    elif cut == "time out":
        client.wait(121)
        assert client.take() == b"421 4.4.2 mail.example.test timeout, closing the connection\r\n"
    else:
        for _ in range(300):
            client.send(b"x")
            client.wait(1)
        assert client.take() == b"421 4.4.2 mail.example.test timeout, closing the connection\r\n"
    assert client.done
    assert world.kept() == []
    assert world.left_behind() == []


def test_a_slow_sender_is_not_cut(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test"))
    client.ask(b"DATA\r\n")
    for _ in range(60):
        client.send(b"x" * 498 + b"\r\n")
        client.wait(30)
    assert client.ask(b".\r\n").endswith(b"delivered\r\n")


def test_the_spool_fails_and_the_stream_stays_in_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test", b"bert@example.org"))

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", fail)
    answer = client.ask(b"DATA\r\n" + b"RSET\r\n" * 40000 + b".\r\nNOOP\r\n")
    assert [line[:9] for line in answer.split(b"\r\n")][1:] == [b"452 4.3.1", b"452 4.3.1", b"250 2.0.0", b""]


def test_an_unforeseen_failure_within_data_ends_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.allow_bugs = True
    client.ask(begin(b"anna@example.test"))

    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("mailserver.smtp.wire.LineEnds.check", fail)
    assert client.ask(b"DATA\r\nRSET\r\n").endswith(b"421 4.3.0 internal error, closing the connection\r\n")
    assert client.channel.closed


def test_a_declared_size_is_enough_to_refuse(tmp_path: Path) -> None:
    client = World(tmp_path).lhlo()
    client.ask(begin(b"anna@example.test"))
    client.send(b"BDAT %d LAST\r\n" % (LIMIT + 1) + b"x" * 100)
    transaction = client.session.transaction
    assert isinstance(transaction.incoming.failure, TooBig)
    assert transaction.incoming.size == 0


def test_a_large_chunk_where_no_message_may_come(tmp_path: Path) -> None:
    client = World(tmp_path).lhlo()
    assert client.ask(b"BDAT %d\r\n" % (2 * 1024 * 1024)).startswith(b"552 5.3.4 ")
    assert client.done


def test_an_endless_message_ends_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailserver.smtp.commands.data.MAX_SWALLOWED", 0)
    client = World(tmp_path).lhlo()
    client.ask(begin(b"anna@example.test"))
    client.ask(b"DATA\r\n")
    for _ in range(100):
        client.send(b"x" * 10_000)
    assert client.take() == b"552 5.3.4 the message is far too large, closing the connection\r\n"
    assert client.done


def test_a_disk_that_fills_up_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test"))
    write = MemoryStaged.write

    def fail(self: MemoryStaged, data: bytes) -> None:
        if len(data) > 100_000:
            raise NoSpace
        write(self, data)

    monkeypatch.setattr(MemoryStaged, "write", fail)
    assert client.ask(b"DATA\r\n" + b"line\r\n" * 40000 + b".\r\n").endswith(
        b"452 4.3.1 no space left, try again later\r\n"
    )
    assert world.left_behind() == []
