from __future__ import annotations

import base64
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.errors import NoSpace, RelayDown, StoreUnavailable
from mailserver.sasl.mechanism import Credentials
from mailserver.smtp.address import Address
from mailserver.smtp.hop import HopTransaction
from mailserver.smtp.incoming import IN_MEMORY, Incoming
from mailserver.smtp.relay import RelayExchange, ReplyReader, relay_reply
from mailserver.smtp.spool import FileSpool
from mailserver.smtp.wire import Reply
from mailserver.types import Secret
from tests.fakes import DirectRunner, run_now
from tests.smtp.world import FakeHop

US = Credentials("us", Secret(b"pass word"))
SENDER = Address("anna", "example.test")


async def nobody_waits() -> None:
    """What an Incoming does for others where there are none."""


def replies_of(pieces: list[bytes]) -> list[Reply | str]:
    reader = ReplyReader()
    replies: list[Reply | str] = []
    for piece in pieces:
        reader.receive_data(piece)
        try:
            while (reply := reader.next_reply()) is not None:
                replies.append(reply)
        except RelayDown:
            return [*replies, "down"]
    return replies


PIECES = st.sampled_from(
    [b"250 2.0.0 ok\r\n", b"250-one\r\n", b"250\r\n", b"550 5.1.1 no\r\n", b"\r", b"\n", b"x", b"354 go\r\n", b"2.1.0 "]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES).map(b"".join), st.lists(st.integers(0, 1000)))
def test_replies_do_not_depend_on_chunks(data: bytes, points: list[int]) -> None:
    edges = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    whole = replies_of([data])
    assert replies_of([data[a:b] for a, b in pairwise(edges)]) == whole
    assert replies_of([data[at : at + 1] for at in range(len(data))]) == whole


def test_replies() -> None:
    assert replies_of([b"250-2.0.0 a\r\n250-2.0.0 b\r\n250 2.0.0 c\r\n250\r\n550 2.0.0 x\r\n220 h\r\n"]) == [
        Reply(250, "2.0.0", ("a", "b", "c")),
        Reply(250, None, ("",)),
        # A status of another class is no status.
        Reply(550, None, ("2.0.0 x",)),
        Reply(220, None, ("h",)),
    ]
    for broken in (b"hello\r\n", b"25 x\r\n", b"199 x\r\n", b"250x\r\n", b"\r\n", b"250-a\r\n251 b\r\n"):
        assert replies_of([broken]) == ["down"]


def test_memory_for_replies_is_bounded() -> None:
    reader = ReplyReader()
    for _ in range(4):
        reader.receive_data(b"x" * 1000)
        assert reader.next_reply() is None
    reader.receive_data(b"x" * 1000)
    with pytest.raises(RelayDown):
        reader.next_reply()


@pytest.mark.parametrize(
    ("reply", "code", "enhanced"),
    [
        (Reply(250, "2.1.5", ("x",)), 250, "2.1.5"),
        (Reply(250, None, ("x",)), 250, "2.0.0"),
        (Reply(421, "4.3.2", ("x",)), 451, "4.3.2"),
        (Reply(354, None, ("x",)), 451, "4.0.0"),
        (Reply(550, None, ("x",)), 550, "5.0.0"),
    ],
)
def test_what_is_passed_on(reply: Reply, code: int, enhanced: str) -> None:
    assert relay_reply(reply) == Reply(code, enhanced, ("x",))
    assert len(relay_reply(Reply(550, None, ("x" * 4000,))).lines[0]) == 400


FIRST = Address("first", "elsewhere.test")


def begin(hop: FakeHop, size: int | None = None) -> HopTransaction:
    return run_now(HopTransaction.begin(hop, "mail.example.test", SENDER, FIRST, size=size))[0]


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_starttls_and_login(piece: int) -> None:
    hop = FakeHop((b"STARTTLS", b"AUTH LOGIN PLAIN"), starttls=True, credentials=US, piece=piece)
    begin(hop)
    assert hop.tls
    assert hop.lines == [
        b"EHLO mail.example.test",
        b"STARTTLS",
        b"EHLO mail.example.test",
        b"AUTH PLAIN " + base64.b64encode(b"\0us\0pass word"),
        b"MAIL FROM:<anna@example.test>",
        b"RCPT TO:<first@elsewhere.test>",
    ]


def test_login_by_the_other_mechanism() -> None:
    hop = FakeHop((b"AUTH LOGIN",), credentials=US)
    begin(hop)
    assert hop.lines[1:4] == [b"AUTH LOGIN", base64.b64encode(b"us"), base64.b64encode(b"pass word")]


BROKEN = {
    "no STARTTLS": FakeHop((b"AUTH PLAIN",), starttls=True, credentials=US),
    "STARTTLS refused": FakeHop((b"STARTTLS",), starttls=True, replies={b"STARTTLS": b"454 no\r\n"}),
    "no AUTH": FakeHop((b"SIZE",), credentials=US),
    "an unknown mechanism": FakeHop((b"AUTH CRAM-MD5",), credentials=US),
    "the login refused": FakeHop((b"AUTH PLAIN",), credentials=US, replies={b"AUTH": b"535 5.7.8 no\r\n"}),
    "an answer within the handshake": FakeHop(
        (b"STARTTLS",), starttls=True, replies={b"STARTTLS": b"220 go\r\n250 AUTH PLAIN\r\n"}, piece=1000
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_hop_that_cannot_be_used(name: str) -> None:
    hop = BROKEN[name]
    with pytest.raises(RelayDown) as raised:
        begin(hop)
    assert hop.closed == 1
    assert "pass" not in str(raised.value)
    if hop.starttls:
        assert not any(line.startswith((b"AUTH", b"MAIL")) for line in hop.lines)


def test_what_the_hop_offered_before_tls_is_forgotten() -> None:
    exchange = RelayExchange("mail.example.test", starttls=True, credentials=None)
    exchange.open()
    exchange.receive_data(b"220 hop\r\n250-hop\r\n250-STARTTLS\r\n250 8BITMIME\r\n220 go\r\n")
    assert exchange.tls_due
    assert exchange.next_bytes() == b"EHLO mail.example.test\r\nSTARTTLS\r\n"
    exchange.tls_started()
    assert exchange.next_bytes() == b"EHLO mail.example.test\r\n"
    exchange.receive_data(b"250-hop\r\n250 SIZE\r\n")
    assert exchange.outcome is not None
    assert exchange.extensions == {"SIZE": ""}
    assert exchange.size_limit is None


def test_addresses_are_quoted_again() -> None:
    hop = FakeHop()
    transaction = begin(hop, 5)
    run_now(transaction.add_recipient(Address("a b>c", "elsewhere.test")))
    assert hop.lines[1:] == [
        b"MAIL FROM:<anna@example.test> SIZE=5 BODY=8BITMIME",
        b"RCPT TO:<first@elsewhere.test>",
        b'RCPT TO:<"a b>c"@elsewhere.test>',
    ]


PIPELINING = (b"8BITMIME", b"PIPELINING")


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_mail_and_the_first_rcpt_go_together(piece: int) -> None:
    hop = FakeHop(PIPELINING, piece=piece)
    begin(hop)
    assert hop.written[1:] == [b"MAIL FROM:<anna@example.test> BODY=8BITMIME\r\nRCPT TO:<first@elsewhere.test>\r\n"]


def test_they_do_not_where_the_hop_does_not_say_that_it_can() -> None:
    hop = FakeHop()
    begin(hop)
    assert hop.written[1:] == [
        b"MAIL FROM:<anna@example.test> BODY=8BITMIME\r\n",
        b"RCPT TO:<first@elsewhere.test>\r\n",
    ]


@pytest.mark.parametrize("rcpt", [b"503 5.5.1 no sender\r\n", b"250 2.1.5 whatever\r\n", b""])
def test_a_sender_refused_together_with_the_first_recipient(rcpt: bytes) -> None:
    """RFC 2920 3.1: each of the group has its own answer; a hop may also go behind its refusal."""
    hop = FakeHop(PIPELINING, replies={b"MAIL": b"550 5.7.1 not you\r\n", b"RCPT": rcpt})
    transaction, first = run_now(HopTransaction.begin(hop, "mail.example.test", SENDER, FIRST, size=None))
    refusal = Reply(550, "5.7.1", ("not you",))
    assert first == refusal
    assert run_now(transaction.add_recipient(Address("second", "elsewhere.test"))) == refusal
    assert transaction.accepted == 0
    assert transaction.close() is None
    assert hop.closed == 1


def test_a_first_recipient_refused_alone() -> None:
    hop = FakeHop(PIPELINING, replies={b"RCPT TO:<first": b"550 5.1.1 unknown\r\n"})
    transaction, first = run_now(HopTransaction.begin(hop, "mail.example.test", SENDER, FIRST, size=None))
    assert first == Reply(550, "5.1.1", ("unknown",))
    assert transaction.accepted == 0
    assert run_now(transaction.add_recipient(Address("second", "elsewhere.test"))).code == 250
    assert transaction.accepted == 1


def test_a_hop_that_goes_behind_its_answer_to_mail() -> None:
    hop = FakeHop(PIPELINING, replies={b"RCPT": b""})
    with pytest.raises(RelayDown):
        begin(hop)
    assert hop.closed == 1


TEXT = st.lists(st.sampled_from([b"\r\n", b".", b"a", b"..", b"\r\n.\r\n", b"x" * 65_530])).map(b"".join)


@settings(max_examples=40, deadline=None)
@given(TEXT)
def test_the_hop_gets_the_message_and_nothing_else(text: bytes) -> None:
    hop = FakeHop()
    transaction = begin(hop)
    run_now(transaction.add_recipient(Address("x", "elsewhere.test")))
    incoming = Incoming(FileSpool("/nonexistent", DirectRunner), 10_000_000, nobody_waits)
    incoming._memory += text  # whatever its size, in memory
    incoming.size = len(text)
    assert run_now(transaction.send(b"A: b\r\n", incoming)) is None
    assert run_now(transaction.finish()) == Reply(250, "2.0.0", ("hop has it",))
    session = transaction.close()
    assert session is not None
    session.close()
    assert hop.messages == [b"A: b\r\n" + text + (b"" if not text or text.endswith(b"\r\n") else b"\r\n")]
    assert hop.lines[-2:] == [b"DATA", b"QUIT"]


# --- The message that waits.


async def receive(incoming: Incoming, text: bytes, piece: int) -> bytes:
    for at in range(0, len(text), piece):
        await incoming.write(text[at : at + piece])
    await incoming.finish()
    return b"".join([part async for part in incoming.pieces()])


@pytest.mark.parametrize("size", [0, 2, 65_536, IN_MEMORY, IN_MEMORY + 2, 1_000_000])
@pytest.mark.parametrize("piece", [997, 65_536, 10_000_000])
def test_a_message_waits_in_memory_or_in_a_file(size: int, piece: int, tmp_path: Path) -> None:
    text = (b"\r\n" + b"0123456789" * (size // 10 + 1))[: max(0, size - 2)] + b"\r\n" * (size >= 2)
    incoming = Incoming(FileSpool(str(tmp_path / "spool"), DirectRunner), 2_000_000, nobody_waits)
    assert run_now(receive(incoming, text, piece)) == text
    assert incoming.size == size
    assert (incoming.in_memory is not None) == (size <= IN_MEMORY)
    assert len(incoming._memory) <= IN_MEMORY
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    run_now(incoming.close())


def test_a_last_line_without_end_gets_one(tmp_path: Path) -> None:
    incoming = Incoming(FileSpool(str(tmp_path), DirectRunner), 100, nobody_waits)
    assert run_now(receive(incoming, b"x", 1)) == b"x\r\n"


def test_others_go_on_while_very_many_parts_are_looked_at(tmp_path: Path) -> None:
    """64 KiB may hold 6,000 of them, of which each takes tens of microseconds."""
    pauses = 0

    async def yield_to_others() -> None:
        nonlocal pauses
        pauses += 1

    message = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 40_000
    incoming = Incoming(FileSpool(str(tmp_path), DirectRunner), 1_000_000, yield_to_others)
    run_now(receive(incoming, message, 65_536))
    assert incoming.failure is None
    assert pauses > 100


def test_eight_bit_text_anywhere_counts(tmp_path: Path) -> None:
    incoming = Incoming(FileSpool(str(tmp_path), DirectRunner), 100, nobody_waits)
    run_now(receive(incoming, b"a\xe4b\r\n", 1))
    assert incoming.eight_bit


@pytest.mark.parametrize(("number", "error"), [(28, NoSpace), (122, NoSpace), (27, NoSpace), (5, StoreUnavailable)])
def test_spool_failures(number: int, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, "no")

    monkeypatch.setattr("os.write", fail)
    incoming = Incoming(FileSpool(str(tmp_path), DirectRunner), 1_000_000, nobody_waits)
    run_now(incoming.write(b"x" * 200_000))
    assert isinstance(incoming.failure, error)
    run_now(incoming.write(b"x" * 200_000))
    assert len(incoming._memory) == 0
