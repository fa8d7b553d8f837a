"""What a message may say of where it has been, by LMTP and by submission."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mailserver.filing.trace import MAX_RECEIVED
from mailserver.message.limits import MAX_HEADER
from mailserver.smtp.trace import _COMMENTS, _verifier
from tests.smtp.world import FakeHop, World

ANNA = b"From: anna@example.test\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <1@example.test>\r\n"
BODY = b"\r\nReturn-Path: <in@the.body>\r\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Return-Path: <forged@example.net>\r\nSubject: x\r\n", b"Subject: x\r\n"),
        (b"Subject: x\r\nRETURN-path\t:\r\n <a>\r\n\t<b>\r\nTo: y\r\n", b"Subject: x\r\nTo: y\r\n"),
        (b"Return-Path: <a>\r\nReturn-Path: <b>\r\n", b""),
        (b"X-Return-Path: <a>\r\nSubject: return-path: <b>\r\n Return-Path: <c>\r\n", None),
        (b"Authentication-Results: mail.example.test; spf=pass\r\n", b""),
        (b"Authentication-Results: mx.example.net; spf=pass\r\nSubject: x\r\n", None),
        (b"Received-SPF: pass receiver=MAIL.example.test; client-ip=192.0.2.1\r\nSubject: x\r\n", b"Subject: x\r\n"),
        (b"Received-SPF: pass (mail.example.test: ok)\r\n receiver=mx.example.net;\r\n", None),
    ],
)
def test_final_delivery_has_one_return_path(before: bytes, after: bytes | None, tmp_path: Path) -> None:
    """RFC 5321 4.4; and nobody's word that something was verified here (RFC 8601 5, RFC 7208 9.1)."""
    world = World(tmp_path)
    assert world.deliver(before + BODY).startswith(b"250")
    (kept,) = world.kept()
    assert kept.startswith(b"Return-Path: <x@example.net>\r\n")
    assert kept.split(b"+0000\r\n", 1)[1] == (before if after is None else after) + BODY


def test_a_transfer_agent_that_is_trusted_speaks_for_us(tmp_path: Path) -> None:
    """`trusted_authentication_results` of the listener; a Return-Path is forged all the same."""
    world = World(tmp_path)
    said = b"Authentication-Results: mail.example.test; spf=pass\r\nReceived-SPF: pass receiver=mail.example.test\r\n"
    client = world.connect_lmtp(results_trusted=True)
    client.ask(b"LHLO mx.example.net\r\nMAIL FROM:<x@example.net>\r\nRCPT TO:<anna@example.test>\r\n")
    answer = client.ask(b"DATA\r\n" + said + b"Return-Path: <forged@example.net>\r\n" + BODY + b".\r\n")
    assert answer.endswith(b"delivered\r\n")
    assert world.kept()[0].split(b"+0000\r\n", 1)[1] == said + BODY


def test_a_message_without_header_loses_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.deliver(b"\r\nReturn-Path: <a>\r\n\r\nReturn-Path: <b>\r\n").startswith(b"250")
    assert world.kept()[0].endswith(b"+0000\r\n\r\nReturn-Path: <a>\r\n\r\nReturn-Path: <b>\r\n")


def test_a_message_from_the_spool_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    body = b"".join(b"%06d line\r\n" % number for number in range(15_000))
    assert world.deliver(b"A: b\r\nReturn-Path: <forged@example.net>\r\n\r\n" + body).startswith(b"250")
    assert world.kept()[0].split(b"+0000\r\n", 1)[1] == b"A: b\r\n\r\n" + body


@pytest.mark.parametrize("way", [World.deliver, World.submit])
def test_a_loop_is_cut(way, tmp_path: Path) -> None:
    """RFC 5321 6.3: a large threshold, normally at least 100."""
    world = World(tmp_path)
    hop = b"Received: from a.example.net\r\n by b.example.net; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    assert way(world, hop * MAX_RECEIVED + ANNA + b"Received-SPF: none\r\n" * 100 + BODY).startswith(b"250")
    assert way(world, hop * (MAX_RECEIVED + 1) + ANNA + BODY).startswith(b"554 5.4.6 ")
    # What the body quotes is no trace.
    assert way(world, ANNA + b"\r\n" + hop * 200).startswith(b"250")


@pytest.mark.parametrize(
    "field",
    [
        b"Authentication-Results: mail.example.test; dkim=pass",
        b"authentication-RESULTS : example.ORG 1;\r\n spf=pass",
        b"Authentication-Results:\r\n\t(a (nested\\)) comment) MX.Example.Test.; spf=pass",
        b'Authentication-Results: "mail.example.test"; none',
        b"Authentication-Results: " + b"(" * 20_000 + b")" * 20_000 + b"example.org; none",
        b"Return-Path: <boss@example.org>",
        b'Received-SPF: Pass (x) identity=mailfrom; receiver="mx.example.org"; client-ip=192.0.2.1',
    ],
)
def test_nobody_who_submits_speaks_for_us(field: bytes, tmp_path: Path) -> None:
    """RFC 8601 5, RFC 5321 4.4."""
    world = World(tmp_path, FakeHop(piece=10_000))
    message = b"To: bert@example.org\r\n" + field + b"\r\n" + ANNA + BODY
    without = b"To: bert@example.org\r\n" + ANNA + BODY
    assert world.submit(message).startswith(b"250")
    assert world.kept("bert@example.org")[0].endswith(b"+0000\r\n" + without)
    assert world.submit(message, b"x@example.net").startswith(b"250")
    assert world.hop is not None
    assert world.hop.messages[0].endswith(b"+0000\r\n" + without)


@pytest.mark.parametrize(
    "field",
    [
        b"Authentication-Results: mx.example.net; dkim=pass",
        b"Authentication-Results: notexample.org; none",
        b"Authentication-Results: (mail.example.test) mx.example.net; none",
        b"Authentication-Results: ;",
        b"Authentication-Results: (mail.example.test",
        b"Received-SPF: pass receiver=mx.example.net; problem=mail.example.test",
        b"X-Authentication-Results: mail.example.test; dkim=pass",
    ],
)
def test_what_others_verified_stays(field: bytes, tmp_path: Path) -> None:
    world = World(tmp_path)
    message = field + b"\r\n" + ANNA + BODY
    assert world.submit(message).startswith(b"250")
    assert world.kept("bert@example.org")[0].endswith(b"+0000\r\n" + message)


def test_the_largest_header_is_looked_at_whole(tmp_path: Path) -> None:
    world = World(tmp_path)
    late = b"\r\nReturn-Path: <late@example.net>\r\n"
    header = b"X: " + b"y" * (MAX_HEADER - len(late) - 5)
    assert world.deliver(header + late + BODY).startswith(b"250")
    assert world.kept()[0].endswith(header + b"\r\n" + BODY)


def test_of_a_name_of_very_many_labels_the_last_ones_are_looked_at(tmp_path: Path) -> None:
    """No domain has more (RFC 1035 2.3.4): to ask for each suffix of 100,000 labels would take minutes."""
    world = World(tmp_path)
    is_local, asked = world.authenticator.is_local_domain, []

    def counted(domain: str) -> bool:
        asked.append(len(domain))
        return is_local(domain)

    world.authenticator.is_local_domain = counted  # type: ignore[method-assign]
    for name, stays in ((b"a." * 100_000 + b"a", True), (b"a." * 100_000 + b"example.test", False)):
        field = b"Authentication-Results: " + name + b"; spf=pass\r\n"
        asked.clear()
        assert world.deliver(field + BODY).startswith(b"250")
        assert (field in world.kept()[-1]) == stays
        assert len(asked) < 300, "each label of it was asked for"
        assert sum(asked) < 100_000


def verifier_by_octets(body: str) -> str:
    """The authserv-id, as RFC 8601 2.2 and RFC 5322 3.2.2 say, for names without quotes."""
    depth = at = 0
    while at < len(body) and (depth or body[at] in " \t\r\n("):
        depth += (body[at] == "(") - (body[at] == ")")
        at += 2 if depth and body[at] == "\\" else 1
    end = at
    while end < len(body) and body[end] not in ' \t\r\n;()"':
        end += 1
    return body[at:end].lower().rstrip(".")


def test_comments_before_a_verifier_are_skipped_as_by_octets() -> None:
    source = random.Random(8601)
    for _ in range(20_000):
        body = "".join(source.choices("()\\ \t\r\nab;.", k=source.randrange(14)))
        assert _verifier(body.encode()) == verifier_by_octets(body), repr(body)


@pytest.mark.parametrize("octets", ["(", ")", " \r\n", "a"])
def test_no_step_over_comments_is_an_octet(octets: str) -> None:
    """256 KiB of them would take a tenth of a second."""
    assert len(_COMMENTS.findall(octets * 50_000)) == 1
    assert len(_COMMENTS.findall("(a)" * 50_000)) == 50_000
