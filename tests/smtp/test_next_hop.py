"""Submission to recipients elsewhere: what the next hop says, and what that does to the local copies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mailserver.errors import InUse, NoSpace
from mailserver.store.memory import MemoryPrepared
from tests.smtp.world import AS_SENT, HEADER, MESSAGE, RECEIVED, FakeHop, World, submission_trace


def relay(world: World, message: bytes, *recipients: bytes) -> list[bytes]:
    """The replies to each RCPT and to the message."""
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\n")
    replies = [client.ask(b"RCPT TO:<" + recipient + b">\r\n") for recipient in recipients]
    if client.ask(b"DATA\r\n").startswith(b"354"):
        replies.append(client.ask(message + b".\r\n"))
    client.hang_up()
    assert world.left_behind() == []
    assert world.hop is None or world.hop.connections == world.hop.closed
    return replies


def test_a_message_for_both_kinds(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    assert world.hop is not None
    kept_at_the_end: list[list[bytes]] = []
    world.hop.on_end = lambda: kept_at_the_end.append(world.kept("bert@example.org"))
    assert relay(world, MESSAGE, b"bert@example.org", b"x@elsewhere.test", b"y@elsewhere.test") == [
        b"250 2.1.5 recipient accepted\r\n",
        b"250 2.1.0 hop says yes\r\n",
        b"250 2.1.0 hop says yes\r\n",
        b"250 2.0.0 hop has it\r\n",
    ]
    assert world.hop.lines == [
        b"EHLO mail.example.test",
        b"MAIL FROM:<anna@example.test> BODY=8BITMIME",
        b"RCPT TO:<x@elsewhere.test>",
        b"RCPT TO:<y@elsewhere.test>",
        b"DATA",
        b"QUIT",
    ]
    assert world.hop.messages == [RECEIVED % b"" + AS_SENT]
    assert kept_at_the_end == [[]]
    assert world.kept("bert@example.org") == [submission_trace(b"bert@example.org", alone=False) + AS_SENT]


def test_the_hop_is_not_dialled_for_local_mail(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    assert relay(world, MESSAGE, b"bert@example.org")[-1].startswith(b"250")
    assert world.hop is not None
    assert world.hop.connections == 0


def test_a_large_message_streams_through(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    body = b"".join(b".%d\r\n" % number for number in range(30000))
    dot_stuffed = body.replace(b"\r\n.", b"\r\n..")
    assert relay(world, HEADER + b"\r\n." + dot_stuffed, b"x@elsewhere.test")[-1].startswith(b"250")
    assert world.hop is not None
    assert world.hop.messages == [RECEIVED % b"" + HEADER + b"\r\n" + body]


REFUSING = {
    "the hop's own replies": (
        {b"RCPT": b"550-5.1.1 no\r\n550 5.1.1 really\r\n"},
        [b"550-5.1.1 no\r\n550 5.1.1 really\r\n"],
    ),
    "without enhanced status": ({b"RCPT": b"553 no\r\n"}, [b"553 5.0.0 no\r\n"]),
    "at MAIL": ({b"MAIL": b"550 5.7.1 not you\r\n"}, [b"550 5.7.1 not you\r\n"]),
    "421 is not passed on": ({b"RCPT": b"421 4.3.2 going\r\n"}, [b"451 4.3.2 going\r\n"]),
    "temporary, at the end": (
        {b".": b"451 4.2.0 later\r\n"},
        [b"250 2.1.0 hop says yes\r\n", b"451 4.2.0 later\r\n"],
    ),
    "for good, at the end": ({b".": b"554 5.6.0 spam\r\n"}, [b"250 2.1.0 hop says yes\r\n", b"554 5.6.0 spam\r\n"]),
    "at DATA": ({b"DATA": b"450 wait\r\n"}, [b"250 2.1.0 hop says yes\r\n", b"450 4.0.0 wait\r\n"]),
    "lost at the end": ({b".": b""}, [b"250 2.1.0 hop says yes\r\n", b"451 4.4.1 "]),
    "lost at DATA": ({b"DATA": b""}, [b"250 2.1.0 hop says yes\r\n", b"451 4.4.1 "]),
    "lost at RCPT": ({b"RCPT": b""}, [b"451 4.4.1 "]),
    "no greeting": ({b"greeting": b"554 go away\r\n"}, [b"451 4.4.1 "]),
    "no SMTP": ({b"greeting": b"HTTP/1.1 400 Bad Request\r\n"}, [b"451 4.4.1 "]),
    "no EHLO": ({b"EHLO": b"502 no\r\n"}, [b"451 4.4.1 "]),
    "an endless reply": ({b"RCPT": b"250-x\r\n" * 1000}, [b"451 4.4.1 "]),
    "an endless line": ({b"RCPT": b"250 " + b"x" * 100_000}, [b"451 4.4.1 "]),
    "two codes in one reply": ({b"RCPT": b"250-x\r\n550 y\r\n"}, [b"451 4.4.1 "]),
    "control characters": ({b"RCPT": b"550 5.1.1 a\x00b\rc\xff\r\n"}, [b"550 5.1.1 a?b?c?\r\n"]),
}


@pytest.mark.parametrize("name", REFUSING)
def test_a_hop_that_refuses(name: str, tmp_path: Path) -> None:
    replies, expected = REFUSING[name]
    world = World(tmp_path, FakeHop(replies=replies))
    message_reply = len(expected) == 2
    got = relay(world, MESSAGE, *([b"bert@example.org"] if message_reply else []), b"x@elsewhere.test")
    got = got[1:] if message_reply else got
    assert len(got) == len(expected)
    assert all(one.startswith(other) for one, other in zip(got, expected, strict=True)), got
    assert world.kept("bert@example.org") == []


def test_a_refused_remote_recipient_does_not_hinder_local_ones(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop(replies={b"RCPT": b"550 5.1.1 no\r\n"}))
    replies = relay(world, MESSAGE, b"x@elsewhere.test", b"bert@example.org")
    assert replies[0].startswith(b"550")
    assert replies[2].startswith(b"250")
    assert len(world.kept("bert@example.org")) == 1
    assert world.hop is not None
    assert b"DATA" not in world.hop.lines


def test_a_hop_that_is_down_is_dialled_once(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    assert world.hop is not None
    world.hop.down = True
    replies = relay(world, MESSAGE, b"x@elsewhere.test", b"y@elsewhere.test")
    assert replies == [b"451 4.4.1 the next hop cannot be reached, try again later\r\n"] * 2


def test_a_hop_without_8bitmime(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop(extensions=(b"SIZE",)))
    assert world.hop is not None
    assert relay(world, MESSAGE, b"x@elsewhere.test")[-1].startswith(b"250")
    assert world.hop.lines[1] == b"MAIL FROM:<anna@example.test>"
    message = MESSAGE + "ä\r\n".encode() + b"ascii again\r\n" * 20000
    replies = relay(world, message, b"bert@example.org", b"x@elsewhere.test")
    assert replies[-1] == b"554 5.6.3 the next hop does not take messages with 8-bit text\r\n"
    assert len(world.hop.messages) == 1
    assert world.kept("bert@example.org") == []


def test_a_hop_that_takes_only_small_messages(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop(extensions=(b"SIZE 100",)))
    assert world.hop is not None
    assert relay(world, MESSAGE, b"x@elsewhere.test")[-1].startswith(b"552 5.3.4 ")
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test> SIZE=101\r\n")
    assert (
        client.ask(b"RCPT TO:<x@elsewhere.test>\r\n")
        == b"552 5.3.4 the next hop takes messages of at most 100 octets\r\n"
    )
    client.ask(b"RSET\r\nMAIL FROM:<anna@example.test> SIZE=99\r\n")
    assert client.ask(b"RCPT TO:<x@elsewhere.test>\r\n").startswith(b"250")
    assert world.hop.lines[-2:] == [b"MAIL FROM:<anna@example.test> SIZE=99", b"RCPT TO:<x@elsewhere.test>"]
    assert world.hop.messages == []


def test_a_full_disk_before_the_final_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, FakeHop())
    assert world.hop is not None

    def fail(*_: object) -> None:
        raise NoSpace

    monkeypatch.setattr(world.store.account("bert@example.org"), "prepare", fail)
    replies = relay(world, MESSAGE, b"bert@example.org", b"x@elsewhere.test")
    assert replies[-1].startswith(b"452 4.3.1")
    assert world.hop.messages == []
    # Within the message no QUIT may stand: it would be text.
    assert world.hop._data is not None
    assert b"QUIT" not in world.hop._data


@pytest.mark.parametrize("end", [b"RSET\r\n", b"EHLO a\r\n", b"QUIT\r\n"])
def test_the_hop_is_left_when_the_transaction_ends(end: bytes, tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    assert world.hop is not None
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<x@elsewhere.test>\r\n")
    client.send(end)
    assert world.hop.lines[-1] == b"QUIT"
    assert world.hop.closed == 1


def two_messages(world: World, between: Callable[[FakeHop], None] = lambda hop: None) -> list[bytes]:
    """The replies to both messages of one session; `between` happens to the hop behind the first."""
    assert world.hop is not None
    client = world.log_in()
    replies = []
    for number in (1, 2):
        client.ask(b"MAIL FROM:<anna@example.test>\r\n")
        assert client.ask(b"RCPT TO:<x@elsewhere.test>\r\n").startswith(b"250")
        client.ask(b"DATA\r\n")
        replies.append(client.ask(MESSAGE + b".\r\n"))
        if number == 1:
            between(world.hop)
    client.hang_up()
    assert world.left_behind() == []
    assert world.hop.connections == world.hop.closed
    assert world.hop.messages == [RECEIVED % b"" + AS_SENT, (RECEIVED % b"" + AS_SENT).replace(b".1;", b".2;")]
    return replies


ONE_MESSAGE = [
    b"MAIL FROM:<anna@example.test> BODY=8BITMIME",
    b"RCPT TO:<x@elsewhere.test>",
    b"DATA",
]


def test_the_hop_is_kept_for_the_next_message(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    assert two_messages(world) == [b"250 2.0.0 hop has it\r\n"] * 2
    assert world.hop is not None
    assert world.hop.lines == [b"EHLO mail.example.test", *ONE_MESSAGE, *ONE_MESSAGE, b"QUIT"]
    assert world.hop.rests == 2


def test_a_hop_that_went_away_is_dialled_again(tmp_path: Path) -> None:
    def lose(hop: FakeHop) -> None:
        hop._lost = True

    world = World(tmp_path, FakeHop())
    assert two_messages(world, lose) == [b"250 2.0.0 hop has it\r\n"] * 2
    assert world.hop is not None
    assert world.hop.connections == 2


@pytest.mark.parametrize("extensions", [(b"8BITMIME",), (b"8BITMIME", b"PIPELINING")])
def test_a_hop_that_is_closing_is_dialled_again(extensions: tuple[bytes, ...], tmp_path: Path) -> None:
    """RFC 5321 3.8: 421 may be the answer to any command, and nothing of the message is with the hop yet."""
    world = World(tmp_path, FakeHop(extensions))
    assert world.hop is not None

    def close_at_mail(hop: FakeHop) -> None:
        hop.replies[b"MAIL"] = b"421 4.4.2 timeout\r\n"
        connect = hop.connect

        async def connect_again() -> FakeHop:
            hop.replies.clear()
            return await connect()

        hop.connect = connect_again  # type: ignore[method-assign]

    assert two_messages(world, close_at_mail) == [b"250 2.0.0 hop has it\r\n"] * 2
    assert world.hop.connections == 2


def test_a_hop_that_refuses_the_next_sender_has_the_last_word(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    assert world.hop is not None
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<x@elsewhere.test>\r\n")
    client.ask(b"DATA\r\n")
    client.ask(MESSAGE + b".\r\n")
    world.hop.replies[b"MAIL"] = b"452 4.5.3 enough for today\r\n"
    client.ask(b"MAIL FROM:<anna@example.test>\r\n")
    assert client.ask(b"RCPT TO:<x@elsewhere.test>\r\n") == b"452 4.5.3 enough for today\r\n"
    client.hang_up()
    assert world.hop.connections == world.hop.closed == 1


def test_a_hop_that_takes_what_it_has_not_got_is_not_believed(tmp_path: Path) -> None:
    """RFC 5321 4.3.2: DATA is answered with 354 or a refusal. Nothing is acknowledged that is with nobody."""
    world = World(tmp_path, FakeHop(replies={b"DATA": b"250 2.0.0 queued\r\n"}))
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<x@elsewhere.test>\r\n")
    client.ask(b"DATA\r\n")
    assert client.ask(MESSAGE + b".\r\n").startswith(b"451 4.4.1 ")
    client.hang_up()
    assert world.hop is not None
    assert world.hop.connections == world.hop.closed == 1


@pytest.mark.parametrize("extensions", [(b"8BITMIME",), (b"8BITMIME", b"PIPELINING")])
@pytest.mark.parametrize("piece", [7, 1000])
@pytest.mark.parametrize(
    ("beginning", "answer"),
    [
        (b"RCPT", b"250 2.1.5 one\r\n250 2.1.5 two\r\n"),
        (b"MAIL", b"250 2.1.0 one\r\n250 2.1.5 two\r\n"),
        (b"DATA", b"354 go\r\n250 2.0.0 queued\r\n"),
    ],
)
def test_a_hop_that_answers_twice_is_given_up(
    beginning: bytes, answer: bytes, piece: int, extensions: tuple[bytes, ...], tmp_path: Path
) -> None:
    """Otherwise each of its later replies would be taken for that of another command, a 250 for the message's."""
    world = World(tmp_path, FakeHop(extensions, replies={beginning: answer}, piece=piece))
    client = world.log_in()
    told = client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<x@elsewhere.test>\r\nDATA\r\n")
    if b"354 " in told:
        told = client.ask(MESSAGE + b".\r\n")
    assert b"\r\n451 4.4.1 " in b"\r\n" + told
    client.hang_up()
    assert world.hop is not None
    assert world.hop.messages == []
    assert b"QUIT" not in world.hop.lines


def test_a_kept_hop_that_has_said_something_unasked_is_dialled_again(tmp_path: Path) -> None:
    def speak(hop: FakeHop) -> None:
        hop._output += b"250 2.0.0 hello again\r\n"

    world = World(tmp_path, FakeHop())
    assert two_messages(world, speak) == [b"250 2.0.0 hop has it\r\n"] * 2
    assert world.hop is not None
    assert world.hop.connections == 2


def test_a_hop_may_refuse_before_the_end_of_data(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop(replies={b"DATA": b"354 go\r\n552 5.3.4 too big\r\n"}))
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<x@elsewhere.test>\r\n")
    client.ask(b"DATA\r\n")
    assert client.ask(MESSAGE + b".\r\n") == b"552 5.3.4 too big\r\n"
    client.hang_up()
    assert world.hop is not None
    assert world.hop.messages == []


@pytest.mark.parametrize("error", [InUse(), RuntimeError("boom")])
def test_a_delayed_publication_is_accepted_mail(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, FakeHop())
    told: list[bytes] = []

    def fail(_self: MemoryPrepared) -> None:
        told.append(client.take())
        raise error

    monkeypatch.setattr(MemoryPrepared, "publish", fail)
    client = world.log_in()
    client.allow_bugs = True
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<bert@example.org>\r\nRCPT TO:<x@elsewhere.test>\r\n")
    client.ask(b"DATA\r\n")
    client.send(MESSAGE + b".\r\n")
    # The answer is on its way before anything is published, and the prepared copy is left to whoever comes next.
    assert told == [b"250 2.0.0 hop has it\r\n"]
    assert client.take() == b""
    assert not world.store.prepared[0]._aborted
    assert client.ask(b"NOOP\r\n") == b"250 2.0.0 nothing done\r\n"
    client.hang_up()
    assert not world.store.prepared[0]._aborted
