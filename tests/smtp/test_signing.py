"""DKIM signatures of submitted mail, verified where it arrives: at the next hop and in the copies for users here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import dkim
import pytest

from mailserver.dkim import canonical
from mailserver.dkim.key_file import SigningDomain
from mailserver.dkim.verify import verify
from mailserver.smtp.incoming import IN_MEMORY
from mailserver.smtp.signing import LOG_INTERVAL, MessageSigner, Unsigned
from mailserver.smtp.spool import FileSpool
from tests.dkim.samples import DOMAIN, find, find_octets, keys
from tests.fakes import Client, DirectRunner
from tests.smtp.world import HEADER, LIMIT, NOW, FakeHop, World

BERT = b"bert@example.org"
ELSEWHERE = b"x@example.net"


def signing(directory: Path, *, domains: tuple[str, ...] = (DOMAIN,), **options: Any) -> World:
    world = World(directory, FakeHop(), **options)
    signer = MessageSigner([SigningDomain(domain, keys()) for domain in domains])
    world.submission = attrs.evolve(world.submission, signer=signer)
    return world


def send(client: Client, message: bytes, *recipients: bytes, sender: bytes = b"anna@example.test") -> bytes:
    """Submit a message in its own form, by DATA."""
    stuffed = re.sub(rb"^\.", b"..", message, flags=re.MULTILINE)
    client.send(
        b"MAIL FROM:<%s>\r\n" % sender + b"".join(b"RCPT TO:<%s>\r\n" % each for each in recipients) + b"DATA\r\n"
    )
    client.send(stuffed + b".\r\n")
    return client.take().split(b"\r\n")[-2]


def assert_signed(message: bytes) -> None:
    assert [result.verdict for result in verify(message, find, NOW)] == ["pass", "pass"], message[:2000]
    assert [dkim.DKIM(message).verify(idx=index, dnsfunc=find_octets) for index in (0, 1)] == [True, True]


def of_submission(copy: bytes) -> bytes:
    """A copy for a user here without the fields of final delivery."""
    assert copy.startswith(b"Return-Path: ")
    return copy.split(b"\r\n", 2)[2]


MESSAGES = [
    pytest.param(HEADER + b"\r\nHello\r\n", id="usual"),
    pytest.param(HEADER + b"\r\n", id="empty-body"),
    pytest.param(HEADER, id="no-body"),
    pytest.param(HEADER + b"\r\n" + b"\r\n" * 9, id="only-line-ends"),
    pytest.param(HEADER + b"\r\n.\r\n..\r\n.a\r\n", id="dots"),
    pytest.param(HEADER + b"\r\n" + b"\xff\xe9 8-bit\r\n", id="8-bit"),
    pytest.param(HEADER + "Subject: Grüße\r\n".encode() + b"\r\nHello\r\n", id="8-bit-header"),
    pytest.param(HEADER + b"\r\n" + (b"x" * 998 + b"\r\n") * 50, id="longest-lines"),
    pytest.param(HEADER + b"Subject: a\r\n\tb\r\n  c \r\n\r\n lead \t\r\n", id="folded"),
    pytest.param(
        HEADER + b"".join(b"X-%d: y\r\n" % number for number in range(10_000)) + b"\r\nHello\r\n", id="many-fields"
    ),
    pytest.param(HEADER + b"\r\n" + b"0123456\t \r\n" * (IN_MEMORY // 8), id="in-a-file"),
    pytest.param(HEADER + b"X-Long: " + b"y " * 80_000 + b"\r\n\r\nHello\r\n", id="header-in-a-file"),
    pytest.param(
        b"Return-Path: <forged@example.test>\r\n" + HEADER + b"Bcc: c@example.net\r\n\r\nHello\r\n", id="removed-fields"
    ),
    pytest.param(b"Subject: lacks all\r\n\r\nHello\r\n", id="added-fields"),
    pytest.param(b"\r\nno header\r\n", id="no-header"),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_it_is_verified_at_the_next_hop_and_in_copies(message: bytes, tmp_path: Path) -> None:
    world = signing(tmp_path)
    assert send(world.log_in(), message, ELSEWHERE, BERT).startswith(b"250 ")
    assert world.hop is not None
    [relayed], [copy] = world.hop.messages, world.kept("bert@example.org")
    assert relayed.startswith(b"DKIM-Signature: v=1; a=rsa-sha256;")
    assert relayed == of_submission(copy), "all get the same octets"
    assert_signed(relayed)
    assert_signed(copy)


def test_a_single_copy_is_signed(tmp_path: Path) -> None:
    world = signing(tmp_path)
    assert send(world.log_in(), HEADER + b"\r\nHello\r\n", BERT).startswith(b"250 ")
    [copy] = world.kept("bert@example.org")
    assert_signed(copy)


def test_chunks_are_signed(tmp_path: Path) -> None:
    world = signing(tmp_path)
    client = world.log_in()
    client.send(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<bert@example.org>\r\n")
    first, last = HEADER + b"\r\nHel", b"lo\r\nend"
    client.send(b"BDAT %d\r\n" % len(first) + first + b"BDAT %d LAST\r\n" % len(last) + last)
    assert client.take().endswith(b"accepted as test1.1\r\n")
    assert_signed(world.kept("bert@example.org")[0])


def test_each_message_of_a_session_is_signed(tmp_path: Path) -> None:
    world = signing(tmp_path)
    client = world.log_in()
    for number in range(3):
        assert send(client, HEADER + b"\r\nHello %d\r\n" % number, ELSEWHERE).startswith(b"250 ")
    assert world.hop is not None
    for message in world.hop.messages:
        assert_signed(message)


@pytest.mark.parametrize(
    ("header", "domain"),
    [
        pytest.param(b"From: Anna@EXAMPLE.test\r\n", DOMAIN, id="capitals"),
        pytest.param(b'From: "x@other.test" <anna@example.test> (y@other.test)\r\n', DOMAIN, id="other-words"),
        pytest.param(b"", DOMAIN, id="none"),
    ],
)
def test_the_domain_is_the_authors(header: bytes, domain: str, tmp_path: Path) -> None:
    world = signing(tmp_path, domains=("other.test", DOMAIN))
    assert send(world.log_in(), header + b"Subject: s\r\n\r\nHello\r\n", ELSEWHERE).startswith(b"250 ")
    assert world.hop is not None
    assert set(re.findall(rb" d=([^;]+);", world.hop.messages[0])) == {domain.encode()}
    assert_signed(world.hop.messages[0])


def test_the_envelope_does_not_decide(tmp_path: Path) -> None:
    """Of a user who may send as two domains, the field that people see counts."""
    world = signing(tmp_path, domains=("example.org",))

    async def may_send_as(*_: object) -> bool:
        return True

    world.authenticator.may_send_as = may_send_as  # type: ignore[method-assign]
    client = world.log_in()
    assert send(client, b"From: bert@example.org\r\n\r\nHello\r\n", ELSEWHERE).startswith(b"250 ")
    assert send(client, HEADER + b"\r\nHello\r\n", ELSEWHERE, sender=BERT).startswith(b"250 ")
    assert world.hop is not None
    assert [message.count(b" d=example.org;") for message in world.hop.messages] == [2, 0]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(HEADER + b"From: anna@example.test\r\n\r\nHello\r\n", id="two-from"),
        pytest.param(b"From: friends: anna@example.test;\r\n\r\nHello\r\n", id="group"),
        pytest.param(b"From: carl@example.net\r\n\r\nHello\r\n", id="foreign"),
        pytest.param(b"From:\r\n\r\nHello\r\n", id="empty-from"),
    ],
)
def test_a_message_that_is_refused_is_not_signed(message: bytes, tmp_path: Path) -> None:
    world = signing(tmp_path)
    assert send(world.log_in(), message, ELSEWHERE, BERT).startswith(b"5")
    assert world.hop is not None
    assert (world.hop.messages, world.kept("bert@example.org")) == ([], [])


def unsigned_lines(client: Client) -> list[dict[str, object]]:
    return [fields for event, fields in client.channel.logged if event == "dkim-unsigned"]


def test_a_domain_without_keys_is_logged_once_a_minute(tmp_path: Path) -> None:
    world = signing(tmp_path, domains=("other.test",))
    now = [NOW]
    world.submission = attrs.evolve(world.submission, clock=lambda: now[0])
    client = world.log_in()
    for _ in range(3):
        assert send(client, HEADER + b"\r\nHello\r\n", ELSEWHERE).startswith(b"250 ")
    assert unsigned_lines(client) == [{"domain": DOMAIN, "reason": "there are no keys of the domain in the From field"}]
    now[0] += LOG_INTERVAL
    send(client, HEADER + b"\r\nHello\r\n", ELSEWHERE)
    assert len(unsigned_lines(client)) == 2
    assert world.hop is not None
    assert b"DKIM-Signature" not in b"".join(world.hop.messages)


def test_too_many_signed_fields_are_sent_unsigned(tmp_path: Path) -> None:
    world = signing(tmp_path)
    client = world.log_in()
    assert send(client, HEADER + b"Subject: s\r\n" * 10_000 + b"\r\nHello\r\n", ELSEWHERE).startswith(b"250 ")
    [line] = unsigned_lines(client)
    assert "more than 64 fields" in str(line["reason"])


@pytest.mark.parametrize("silent", [False, True])
def test_a_domain_that_is_not_to_be_signed_is_not_logged(silent: bool) -> None:
    signer = MessageSigner([SigningDomain("other.test", keys())], silent=[DOMAIN] if silent else [])
    with pytest.raises(Unsigned) as raised:
        signer.choose([DOMAIN], NOW)
    assert raised.value.log is not silent


def test_without_keys_nothing_is_hashed_or_logged(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    client = world.log_in()
    assert world.submission.signer.new_digest() is None
    assert send(client, HEADER + b"\r\nHello\r\n", ELSEWHERE).startswith(b"250 ")
    assert unsigned_lines(client) == []


def test_lmtp_signs_nothing(tmp_path: Path) -> None:
    world = signing(tmp_path)
    client = world.lhlo()
    client.send(
        b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<bert@example.org>\r\nDATA\r\n" + HEADER + b"\r\nHi\r\n.\r\n"
    )
    assert b"DKIM-Signature" not in world.kept("bert@example.org")[0]


class Counting(DirectRunner):
    """Counts octets that are hashed within the operations of the spool, and outside them."""

    inside = False

    async def run(self, operation: Any) -> Any:
        Counting.inside = True
        try:
            return operation()
        finally:
            Counting.inside = False


def test_a_large_body_is_hashed_in_the_thread_of_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = {True: 0, False: 0}
    update = canonical.BodyDigest.update

    def count(digest: Any, piece: bytes) -> None:
        hashed[Counting.inside] += len(piece)
        update(digest, piece)

    monkeypatch.setattr(canonical.BodyDigest, "update", count)
    world = signing(tmp_path)
    world.submission = attrs.evolve(world.submission, spool=FileSpool(str(tmp_path), Counting))
    body = b"0123456789abcd\r\n" * (LIMIT // 20)
    assert send(world.log_in(), HEADER + b"\r\n" + body, ELSEWHERE).startswith(b"250 ")
    assert hashed == {True: len(body), False: 0}
    assert world.hop is not None
    assert_signed(world.hop.messages[0])
