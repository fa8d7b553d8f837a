"""SMTPUTF8 (RFC 6531): local delivery, and a next hop with and without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.auth.interfaces import User
from tests.smtp.world import AS_SENT, DATE, MESSAGE, FakeHop, World, submission_trace

SENDER = "ännä@example.test"
PLAIN = b"From: anna@example.test\r\nDate: " + DATE + b"\r\nMessage-ID: <1@example.test>\r\n"
SUBJECT = PLAIN + "Subject: Grüße\r\n\r\nx\r\n".encode()
PART = PLAIN + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: ü\r\n\r\nx\r\n--b--\r\n".encode()
BODY = PLAIN + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nü\r\n--b--\r\n".encode()
WITH = (b"8BITMIME", b"SMTPUTF8")
WITHOUT = (b"8BITMIME",)
OK, LOCAL, DONE, REFUSED = b"250 2.1.0", b"250 2.1.5", b"250 2.0.0", b"550 5.6.7"


def world_of(directory: Path, *extensions: bytes) -> World:
    """A world in which SENDER is an address of Anna's."""
    world = World(directory, FakeHop(extensions))
    find = world.authenticator.find

    async def found(address: str) -> User | None:
        return User("anna@example.test") if address == SENDER else await find(address)

    world.authenticator.find = found  # type: ignore[method-assign]
    return world


def sent(world: World, message: bytes, *recipients: str, sender: str = "anna@example.test") -> list[bytes]:
    """The codes of the replies to MAIL, to each RCPT, and to the message."""
    client = world.log_in()
    replies = [client.ask(f"MAIL FROM:<{sender}> SMTPUTF8\r\n".encode())]
    replies += [client.ask(f"RCPT TO:<{recipient}>\r\n".encode()) for recipient in recipients]
    if client.ask(b"DATA\r\n").startswith(b"354"):
        replies.append(client.ask(message + b".\r\n"))
    client.hang_up()
    assert world.left_behind() == []
    return [b" ".join(reply.split()[:2]) for reply in replies]


def lines(world: World) -> list[bytes]:
    assert world.hop is not None
    return world.hop.lines


@pytest.mark.parametrize("more", [(), (b"PIPELINING",)])
def test_a_hop_with_it_gets_everything(more: tuple[bytes, ...], tmp_path: Path) -> None:
    world = world_of(tmp_path, *WITH, *more)
    assert sent(world, SUBJECT, "jürgen@bücher.example", sender=SENDER) == [OK, OK, DONE]
    assert lines(world)[1:3] == [
        f"MAIL FROM:<{SENDER}> BODY=8BITMIME SMTPUTF8".encode(),
        "RCPT TO:<jürgen@xn--bcher-kva.example>".encode(),
    ]
    assert world.hop is not None
    assert world.hop.messages[0].endswith(SUBJECT)
    assert b" with UTF8SMTPSA id " in world.hop.messages[0]


@pytest.mark.parametrize("more", [(), (b"PIPELINING",)])
def test_a_hop_without_it_gets_no_address_beyond_ascii(more: tuple[bytes, ...], tmp_path: Path) -> None:
    world = world_of(tmp_path, *WITHOUT, *more)
    recipients = (
        "jürgen@elsewhere.test",
        "x@elsewhere.test",
        "anna@example.test",
        "ü@elsewhere.test",
        "b@bücher.example",
    )
    assert sent(world, MESSAGE, *recipients) == [OK, REFUSED, OK, LOCAL, REFUSED, OK, DONE]
    assert lines(world)[1:4] == [
        b"MAIL FROM:<anna@example.test> BODY=8BITMIME",
        b"RCPT TO:<x@elsewhere.test>",
        b"RCPT TO:<b@xn--bcher-kva.example>",
    ]
    assert world.kept()[0].endswith(AS_SENT)


def test_a_hop_without_it_gets_no_such_sender(tmp_path: Path) -> None:
    world = world_of(tmp_path, *WITHOUT)
    assert sent(world, SUBJECT, "x@elsewhere.test", "y@elsewhere.test", "bert@example.org", sender=SENDER) == [
        OK, REFUSED, REFUSED, LOCAL, DONE,
    ]  # fmt: skip
    assert lines(world) == [b"EHLO mail.example.test"]
    (kept,) = world.kept("bert@example.org")
    assert kept.startswith(f"Return-Path: <{SENDER}>\r\n".encode())
    assert kept.endswith(SUBJECT)


@pytest.mark.parametrize("message", [SUBJECT, PART])
def test_a_hop_without_it_gets_no_such_header(message: bytes, tmp_path: Path) -> None:
    world = world_of(tmp_path, *WITHOUT)
    assert sent(world, message, "x@elsewhere.test", "bert@example.org") == [OK, OK, LOCAL, REFUSED]
    assert world.hop is not None
    assert world.hop.messages == []
    assert world.kept("bert@example.org") == []


@pytest.mark.parametrize("message", [BODY, MESSAGE])
def test_a_hop_without_it_gets_what_does_not_need_it(message: bytes, tmp_path: Path) -> None:
    world = world_of(tmp_path, *WITHOUT)
    assert sent(world, message, "x@elsewhere.test") == [OK, OK, DONE]
    assert b"SMTPUTF8" not in b"".join(lines(world))


def test_a_large_message_with_parts_is_taken_to_need_it(tmp_path: Path) -> None:
    world = world_of(tmp_path, *WITHOUT)
    large = BODY.replace("ü".encode(), "ü\r\n".encode() * 40_000)
    assert sent(world, large, "x@elsewhere.test") == [OK, OK, REFUSED]
    text = large.replace(b"multipart/mixed", b"text/plain")
    assert sent(world, text, "x@elsewhere.test") == [OK, OK, DONE]


def test_without_the_parameter_all_is_as_before(tmp_path: Path) -> None:
    """8-bit headers of old programs are passed on."""
    world = world_of(tmp_path, *WITHOUT)
    assert world.submit(SUBJECT, b"x@elsewhere.test").startswith(b"250")
    client = world.log_in()
    assert client.ask(f"MAIL FROM:<{SENDER}>\r\n".encode()).startswith(b"553 5.6.7 ")
    client.ask(b"MAIL FROM:<anna@example.test>\r\n")
    assert client.ask("RCPT TO:<ü@elsewhere.test>\r\n".encode()).startswith(b"553 5.6.7 ")


def test_received_and_the_trace_are_utf8(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    assert sent(world, MESSAGE, SENDER, sender=SENDER) == [OK, LOCAL, DONE]
    wanted = submission_trace(SENDER.encode()).replace(b"<anna@example.test>", f"<{SENDER}>".encode(), 1)
    assert world.kept() == [wanted.replace(b"ESMTPSA", b"UTF8SMTPSA") + AS_SENT]


def test_lmtp_takes_it(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    client = world.lhlo()
    client.ask("MAIL FROM:<jürgen@bücher.example> SMTPUTF8\r\n".encode())
    assert client.ask(f"RCPT TO:<{SENDER}>\r\n".encode()).startswith(b"250 2.1.5")
    client.ask(b"DATA\r\n")
    assert client.ask(SUBJECT + b".\r\n") == b"250 2.0.0 delivered\r\n"
    (kept,) = world.kept()
    assert kept.startswith(f"Return-Path: <jürgen@xn--bcher-kva.example>\r\nDelivered-To: {SENDER}\r\n".encode())
    assert b" with UTF8LMTP id " in kept
    assert kept.endswith(SUBJECT)


def test_an_author_beyond_ascii_must_be_ones_own(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    own = MESSAGE.replace(b"<anna@example.test>", f"<{SENDER}>".encode())
    assert sent(world, own, "bert@example.org")[-1] == DONE
    assert sent(world, own.replace("ä".encode(), "ö".encode()), "bert@example.org")[-1] == b"550 5.7.1"
