"""A submitted message: the fields it must have and gets, who may send it as whom, its copies for people here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from mailserver.auth.interfaces import User
from mailserver.errors import InUse, MailboxFull, NoSpace
from mailserver.filing.local_copy import LocalCopy
from tests.smtp.world import DATE, HEADER, MESSAGE, FakeHop, World, submission_trace


def test_what_lacks_is_added(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.submit(b"Subject: x\r\n\r\nBody\r\n").startswith(b"250")
    (text,) = world.kept("bert@example.org")
    assert re.fullmatch(
        re.escape(
            submission_trace(b"bert@example.org") + b"From: <anna@example.test>\r\nDate: " + DATE + b"\r\nMessage-ID: "
        )
        + rb"<[0-9a-f]+\.[0-9a-f]{16}@mail\.example\.test>\r\nSubject: x\r\n\r\nBody\r\n",
        text,
    )


def test_a_message_without_any_header(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.submit(b"\r\nBody\r\n").startswith(b"250")
    assert world.kept("bert@example.org")[0].endswith(b"@mail.example.test>\r\n\r\nBody\r\n")


GOOD_FROM = {
    "bare": b"From: anna@example.test\r\n",
    "quoted name": b'From: "Anna, \\"A\\" <x@y.test>" <anna@example.test>\r\n',
    "encoded name": b"From: =?utf-8?q?=C3=84nna?= <ANNA@Example.Test>\r\n",
    "raw name": "From: Änna <anna@example.test>\r\n".encode(),
    "comments": b"From: (a (b) \\) c) Anna (x) <anna(y)@example.test> (<z@y.test>)\r\n",
    "folded": b"From:\r\n Anna\r\n\t<anna@example.test>\r\n",
    "old syntax": b"From : anna@example.test\r\n",
    "dot in name": b"From: Anna B. <anna@example.test>\r\n",
    "quoted local part": b'From: "anna"@example.test\r\n',
    "own Sender": b"From: anna@example.test\r\nSender: anna@example.test\r\n",
    "several of one's own": b"From: Anna <anna@example.test>, ANNA@example.test\r\nSender: anna@example.test\r\n",
    "resent by oneself": b"Resent-From: anna@example.test\r\nFrom: anna@example.test\r\nResent-Sender: anna@example.test\r\n",
}


@pytest.mark.parametrize("name", GOOD_FROM)
def test_good_senders(name: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.submit(GOOD_FROM[name] + b"Subject: x\r\n\r\n") == b"250 2.0.0 accepted as test1.1\r\n"
    assert GOOD_FROM[name] in world.kept("bert@example.org")[0]


BAD_FROM = {
    "another's": (b"From: bert@example.org\r\n", b"550 5.7.1"),
    "another's address, own name": (b'From: "anna@example.test" <bert@example.org>\r\n', b"550 5.7.1"),
    "from elsewhere": (b"From: anna@elsewhere.test\r\n", b"550 5.7.1"),
    "address literal": (b"From: anna@[192.0.2.1]\r\n", b"550 5.7.1"),
    "two fields": (b"From: anna@example.test\r\nfrom: anna@example.test\r\n", b"550 5.6.0"),
    "two fields, one old": (b"From: anna@example.test\r\nFrom : bert@example.org\r\n", b"550 5.6.0"),
    "several others with Sender": (
        b"From: bert@example.org, boss@example.net\r\nSender: anna@example.test\r\n",
        b"550 5.7.1",
    ),
    "oneself and another, with Sender": (
        b"From: bert@example.org, Anna <anna@example.test>\r\nSender: anna@example.test\r\n",
        b"550 5.7.1",
    ),
    "oneself and one elsewhere, with Sender": (
        b"From: anna@example.test (a),\r\n =?utf-8?q?boss?= <boss@example.net>\r\nSender: anna@example.test\r\n",
        b"550 5.7.1",
    ),
    "a group beside oneself": (
        b"From: anna@example.test, us: bert@example.org;\r\nSender: anna@example.test\r\n",
        b"550 5.6.0",
    ),
    "encoded address": (b"From: =?utf-8?q?anna=40example.test?=\r\n", b"550 5.6.0"),
    "encoded local part": (b"From: =?utf-8?q?anna?=@example.test\r\n", b"550 5.7.1"),
    "resent by another": (b"Resent-From: bert@example.org\r\nFrom: anna@example.test\r\n", b"550 5.7.1"),
    "resent by another below": (
        b"Resent-From: anna@example.test\r\nFrom: anna@example.test\r\nResent-From: anna@example.test, bert@example.org\r\n",
        b"550 5.7.1",
    ),
    "resent for another": (
        b"Resent-From: anna@example.test\r\nResent-Sender: bert@example.org\r\nFrom: anna@example.test\r\n",
        b"550 5.7.1",
    ),
    "resent without end": (b"From: anna@example.test\r\n" + b"Resent-From: anna@example.test\r\n" * 101, b"550 5.6.0"),
    "resent by nobody readable": (b"Resent-From: Anna\r\nFrom: anna@example.test\r\n", b"550 5.6.0"),
    "several without Sender": (b"From: anna@example.test, bert@example.org\r\n", b"550 5.6.0"),
    "several with another's Sender": (
        b"From: anna@example.test, bert@example.org\r\nSender: bert@example.org\r\n",
        b"550 5.7.1",
    ),
    "another's Sender": (b"From: anna@example.test\r\nSender: bert@example.org\r\n", b"550 5.7.1"),
    "two Senders": (b"From: anna@example.test\r\nSender: anna@example.test, anna@example.test\r\n", b"550 5.6.0"),
    "two Sender fields": (b"From: anna@example.test\r\n" + b"Sender: anna@example.test\r\n" * 2, b"550 5.6.0"),
    "empty": (b"From: \r\n", b"550 5.6.0"),
    "no address": (b"From: Anna\r\n", b"550 5.6.0"),
    "unclosed": (b"From: Anna <anna@example.test\r\n", b"550 5.6.0"),
    "unclosed, text behind": (b"From: <anna@example.test x\r\n", b"550 5.6.0"),
    "two angles": (b"From: <anna@example.test> <bert@example.org>\r\n", b"550 5.6.0"),
    "text behind": (b"From: <anna@example.test> bert@example.org\r\n", b"550 5.6.0"),
    "address before": (b"From: bert@example.org <anna@example.test>\r\n", b"550 5.6.0"),
    "group": (b"From: us: anna@example.test;\r\n", b"550 5.6.0"),
    "route": (b"From: <@x.test:anna@example.test>\r\n", b"550 5.6.0"),
    "trailing comma": (b"From: anna@example.test,\r\n", b"550 5.6.0"),
    "unclosed quote": (b'From: "Anna <anna@example.test>\r\n', b"550 5.6.0"),
    "unclosed comment": (b"From: (Anna anna@example.test\r\n", b"550 5.6.0"),
    "deep comment": (b"From: " + b"(" * 50000 + b" anna@example.test\r\n", b"550 5.6.0"),
    "backslash at the end": (b"From: anna@example.test (\\\r\n", b"550 5.6.0"),
    "eight-bit address": ("From: änna@example.test\r\n".encode(), b"550 5.7.1"),
    "address of no charset": ("From: änna@example.test\r\n".encode("latin-1"), b"550 5.6.0"),
    "no field": (b"From: anna@example.test\r\nthis is no field\r\n", b"550 5.6.0"),
    "fold at the start": (b" From: anna@example.test\r\n", b"550 5.6.0"),
    "mbox line": (b"From anna@example.test Mon\r\nFrom: anna@example.test\r\n", b"550 5.6.0"),
    "eight-bit field name": ("Frömm: x\r\nFrom: anna@example.test\r\n".encode(), b"550 5.6.0"),
    "endless header": (b"From: anna@example.test\r\n" + b"X: y\r\n" * 45000, b"552 5.3.4"),
    "endless field": (b"From: anna@example.test\r\nX: " + b"y" * 270_000 + b"\r\n", b"552 5.3.4"),
}


@pytest.mark.parametrize("name", BAD_FROM)
def test_bad_senders(name: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    header, reply = BAD_FROM[name]
    assert world.submit(header + b"\r\nBody\r\n").startswith(reply)
    assert world.kept("bert@example.org") == []
    assert world.left_behind() == []


def test_a_long_body_with_a_bad_header_is_no_long_header(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.submit(b"no field\r\n\r\n" + b"x" * 280_000 + b"\r\n").startswith(b"550 5.6.0")


def test_a_large_header_within_the_limit(tmp_path: Path) -> None:
    world = World(tmp_path)
    header = b"From: anna@example.test\r\n" + b"X: y\r\n" * 43000
    assert world.submit(header + b"\r\n" + b"x" * 30000 + b"\r\n").startswith(b"250")


def test_the_null_sender_is_for_reports(tmp_path: Path) -> None:
    world = World(tmp_path)
    header = b"From: anna@example.test\r\nContent-Type: "
    report = header + b'Multipart/Report; report-type=disposition-notification;\r\n boundary="x"\r\n\r\n'
    assert world.submit(report, sender=b"").startswith(b"250")
    assert world.kept("bert@example.org")[0].startswith(b"Return-Path: <>\r\n")
    for other in (b"text/plain\r\n\r\n", b"multipart/reportx\r\n\r\n", b"text/plain (multipart/report)\r\n\r\n"):
        assert world.submit(header + other, sender=b"").startswith(b"550 5.7.1")
    assert world.submit(b"From: anna@example.test\r\n\r\n", sender=b"").startswith(b"550 5.7.1")
    assert world.submit(report.replace(b"anna", b"bert"), sender=b"").startswith(b"550 5.7.1")


def test_further_addresses_of_a_login(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def login(*_: object) -> User:
        return User("anna@example.test", addresses=frozenset(["sales@example.org"]))

    async def find(address: str) -> User | None:
        return User({"alias@example.test": "anna@example.test"}.get(address, address))

    world.authenticator.login = login  # type: ignore[method-assign, assignment]
    world.authenticator.find = find  # type: ignore[method-assign]
    for address in (b"Sales@example.org", b"alias@example.test"):
        message = b"From: " + address + b"\r\n\r\n"
        assert world.submit(message, b"anna@example.test", sender=address).startswith(b"250")


def test_the_address_of_a_login_without_domain(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def login(*_: object) -> User:
        return User("anna", addresses=frozenset(["anna@example.org"]))

    world.authenticator.login = login  # type: ignore[method-assign, assignment]
    assert world.submit(b"Subject: x\r\n\r\n", sender=b"anna@example.org").startswith(b"250")
    assert b"\r\nFrom: <anna@example.org>\r\n" in world.kept("bert@example.org")[0]


def test_local_copies_are_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)

    def fail(*_: object) -> None:
        raise NoSpace

    monkeypatch.setattr(world.store.account("bert@example.org"), "prepare", fail)
    message = HEADER + b"\r\n" + b"x\r\n" * 60000
    assert world.submit(message, b"anna@example.test", b"bert@example.org").startswith(b"452 4.3.1")
    assert world.kept() == world.kept("bert@example.org") == []
    monkeypatch.undo()
    assert world.submit(message, b"anna@example.test", b"bert@example.org", b"BERT@example.org").startswith(b"250")
    assert world.kept() == [submission_trace(b"anna@example.test", alone=False) + message]
    assert world.kept("bert@example.org") == [submission_trace(b"bert@example.org", alone=False) + message]
    assert world.left_behind() == []


def test_one_copy_that_cannot_be_published_yet_hinders_no_other_and_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    publish = LocalCopy.publish
    begun: list[LocalCopy] = []

    async def first_fails(copy: LocalCopy) -> None:
        begun.append(copy)
        if len(begun) == 1:
            raise InUse
        await publish(copy)

    monkeypatch.setattr(LocalCopy, "publish", first_fails)
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<anna@example.test>\r\nRCPT TO:<bert@example.org>\r\n")
    assert b"250 2.0.0" in client.ask(b"DATA\r\n" + MESSAGE + b".\r\n")
    assert len(world.kept()) + len(world.kept("bert@example.org")) == 1
    assert [event for event, _facts in client.channel.logged].count("publish-delayed") == 1
    assert not client.channel.bugs


def test_local_copies_are_made_at_the_same_time_and_the_first_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    counts: list[int] = []

    async def backwards(works: Sequence[Any]) -> list[Any]:
        counts.append(len(works))
        return [await each for each in reversed(works)][::-1]

    world.submission = evolve(world.submission, gather=backwards)
    assert world.submit(MESSAGE, b"anna@example.test", b"bert@example.org").startswith(b"250")
    assert counts == [2, 2], "prepared, then published"
    assert len(world.kept()) == len(world.kept("bert@example.org")) == 1

    def fail_with(error: type[Exception]) -> Callable[..., None]:
        def fail(*_: object) -> None:
            raise error

        return fail

    monkeypatch.setattr(world.store.account("anna@example.test"), "prepare", fail_with(NoSpace))
    monkeypatch.setattr(world.store.account("bert@example.org"), "prepare", fail_with(MailboxFull))
    recipients = (b"anna@example.test", b"bert@example.org", b"bert+x@example.org")
    assert world.submit(MESSAGE, *recipients).startswith(b"452 4.3.1")
    assert counts[2:] == [3]
    assert len(world.kept()) == len(world.kept("bert@example.org")) == 1
    assert world.left_behind() == []


def test_two_local_recipients_find_the_message_when_they_are_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.log_in()
    write = client.channel.write
    kept: list[int] = []

    def spy(data: bytes) -> None:
        if b"accepted as" in data:
            kept.append(len(world.kept()) + len(world.kept("bert@example.org")))
        write(data)

    client.channel.write = spy  # type: ignore[method-assign]
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<bert@example.org>\r\nRCPT TO:<anna@example.test>\r\n")
    client.ask(b"DATA\r\n" + MESSAGE + b".\r\n")
    assert kept == [2]


def test_where_a_message_went_is_logged(tmp_path: Path) -> None:
    """Its Message-ID, its recipients, and the name under which the next hop has it."""
    queued = b"250-2.0.0 Ok:\x1b[2J\r\n250 2.0.0 queued as 4F1C2A\r\n"
    world = World(tmp_path, FakeHop(replies={b".": queued}))
    client = world.log_in()
    many = [b"x%02d@example.net" % number for number in range(40)]
    lines = [b"MAIL FROM:<anna@example.test>", b"RCPT TO:<bert@example.org>"]
    lines += [b"RCPT TO:<%s>" % address for address in many]
    for line in lines:
        assert client.ask(line + b"\r\n").startswith(b"250")
    client.ask(b"DATA\r\n")
    assert client.ask(b"From: anna@example.test\r\nMessage-ID:\r\n <1@example.test>\r\n\r\n.\r\n").startswith(b"250")
    ((event, facts),) = [entry for entry in client.channel.logged if entry[0] != "login"]
    assert event == "submission"
    assert (facts["message_id"], facts["recipients"], facts["relay"]) == ("<1@example.test>", 41, FakeHop.name)
    assert facts["reply"] == "250 2.0.0 Ok:?[2J queued as 4F1C2A"
    assert facts["to"].startswith("bert@example.org,x00@example.net,x01@example.net,")
    assert facts["to"].endswith(" more")
    named, more = facts["to"].removesuffix(" more").split(" and ")
    assert len(named.split(",")) + int(more) == 41
    assert len(facts["to"]) < 420


def test_a_message_that_has_no_id_is_logged_with_the_one_it_gets(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<bert@example.org>\r\nDATA\r\n")
    client.ask(b"Subject: x\r\n\r\n.\r\n")
    ((_event, facts),) = [entry for entry in client.channel.logged if entry[0] == "submission"]
    assert f"Message-ID: {facts['message_id']}\r\n".encode() in world.kept("bert@example.org")[0]
    assert facts["to"] == "bert@example.org"
    assert not {"relay", "reply"} & facts.keys(), "nothing passed the next hop"


@pytest.mark.parametrize("at", [b"DATA", b"."])
def test_what_the_next_hop_refuses_is_logged_in_its_words(at: bytes, tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop(replies={at: b"554 5.7.1 spam " + b"x" * 400 + b"\r\n"}))
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<x@example.net>\r\nDATA\r\n")
    assert client.ask(b"From: anna@example.test\r\n\r\n.\r\n").startswith(b"554 5.7.1 spam")
    ((event, facts),) = [entry for entry in client.channel.logged if entry[0] != "login"]
    assert event == "submission-refused"
    assert facts["reply"].startswith("554 5.7.1 spam x")
    assert len(facts["reply"]) == 250
    assert facts["to"] == "x@example.net"


BLIND = {
    "one": (b"To: x@example.net\r\nBcc: secret@example.net\r\nSubject: x\r\n", b"To: x@example.net\r\nSubject: x\r\n"),
    "folded, odd case": (b"bCC :\r\n secret@example.net,\r\n\tsecret@example.org\r\nTo: y\r\n", b"To: y\r\n"),
    "two, one resent": (b"Bcc: secret@example.net\r\nResent-Bcc: secret@example.org\r\nA: b\r\n", b"A: b\r\n"),
    "other fields": (b"X-Bcc: a\r\nBcc-X: b\r\nSubject: bcc: c\r\n Bcc: d\r\n", None),
}


@pytest.mark.parametrize("name", BLIND)
def test_blind_copies_stay_blind(name: str, tmp_path: Path) -> None:
    """RFC 5322 3.6.3, for the copies here and for the next hop; what the body says is no field."""
    before, after = BLIND[name]
    hop = FakeHop()
    world = World(tmp_path, hop)
    body = b"\r\nBcc: in@the.body\r\n"
    assert world.submit(HEADER + before + body, b"bert@example.org", b"secret@example.net").startswith(b"250")
    expected = HEADER + (before if after is None else after) + body
    assert world.kept("bert@example.org")[0].endswith(expected)
    assert hop.messages[0].endswith(expected)


def test_blind_copies_of_other_servers_are_theirs(tmp_path: Path) -> None:
    world = World(tmp_path)
    text = b"From: x@example.net\r\nBcc: anna@example.test\r\n\r\nBody\r\n"
    assert world.deliver(text).startswith(b"250")
    assert world.kept()[0].endswith(text)


def test_a_hidden_client(tmp_path: Path) -> None:
    world = World(tmp_path, submission={"hide_client": True})
    assert world.submit(b"From: anna@example.test\r\n\r\nBody\r\n").startswith(b"250")
    (text,) = world.kept("bert@example.org")
    assert b"\r\nReceived: from localhost\r\n\tby mail.example.test with ESMTPSA id " in text
    assert b"192.0.2.7" not in text
    assert b"client.example.net" not in text
