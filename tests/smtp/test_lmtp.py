from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from mailserver.errors import AuthUnavailable, NoSpace, StoreUnavailable
from mailserver.filing.concurrency import AT_ONCE
from mailserver.net.connection.coroutines import run_concurrently
from mailserver.session.line_session import MAX_ERRORS
from tests.pop3.dialogs import HOW, play
from tests.smtp.world import LMTP_GREETING, World, begin, lmtp_trace

DIALOGS = {
    "a reply for each recipient": """
        C: LHLO mx.example.net
        S: 250-mail.example.test
        S: 250-PIPELINING
        S: 250-SIZE 300000
        S: 250-8BITMIME
        S: 250-SMTPUTF8
        S: 250-CHUNKING
        S: 250 ENHANCEDSTATUSCODES
        C: MAIL FROM:<x@example.net> SIZE=40 BODY=8BITMIME
        C: RCPT TO:<anna@example.test>
        C: RCPT TO:<nobody@example.test>
        C: RCPT TO:<Bert+work@example.ORG>
        C: RCPT TO:<x@elsewhere.test>
        S: 250 2.1.0 sender accepted
        S: 250 2.1.5 recipient accepted
        S: 550 5.1.1 no such user here
        S: 250 2.1.5 recipient accepted
        S: 550 5.1.1 no such user here
        C: DATA
        S: 354 send the message, end it with a single dot
        C: Subject: hello
        C:
        C: ..dotted
        C: .
        S: 250 2.0.0 <anna@example.test> delivered
        S: 250 2.0.0 <Bert+work@example.ORG> delivered
        C: DATA
        S: 503 5.5.1 MAIL and an accepted RCPT must come first
        C: QUIT
        S: 221 2.0.0 goodbye
    """,
    "chunks": """
        C: LHLO mx.example.net
        S: 250-mail.example.test
        S: 250-PIPELINING
        S: 250-SIZE 300000
        S: 250-8BITMIME
        S: 250-SMTPUTF8
        S: 250-CHUNKING
        S: 250 ENHANCEDSTATUSCODES
        C: MAIL FROM:<x@example.net>
        C: RCPT TO:<anna@example.test>
        C: RCPT TO:<bert+work@example.org>
        C: BDAT 17
        C: Subject: hello
        C! b"\\r"
        C: BDAT 4 last
        C! b"\\n.do"
        S: 250 2.1.0 sender accepted
        S: 250 2.1.5 recipient accepted
        S: 250 2.1.5 recipient accepted
        S: 250 2.0.0 17 octets received
        S: 250 2.0.0 <anna@example.test> delivered
        S: 250 2.0.0 <bert+work@example.org> delivered
    """,
}

TEXTS = {"a reply for each recipient": b"Subject: hello\r\n\r\n.dotted\r\n", "chunks": b"Subject: hello\r\n\r\n.do\r\n"}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", DIALOGS)
def test_dialog(name: str, how: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    play(world.connect_lmtp(), DIALOGS[name], how, LMTP_GREETING)
    second = b"Bert+work@example.ORG" if name != "chunks" else b"bert+work@example.org"
    assert world.kept() == [lmtp_trace(b"anna@example.test") + TEXTS[name]]
    assert world.kept("bert@example.org") == [lmtp_trace(second) + TEXTS[name]]
    assert world.left_behind() == []


REFUSALS = """
    C: EHLO mx.example.net
    C: HELO mx.example.net
    C: AUTH PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHNlY3JldA==
    C: MAIL FROM:<x@example.net>
    C: LHLO
    C: LHLO a b
    S: 500 5.5.1 unknown command
    S: 500 5.5.1 unknown command
    S: 500 5.5.1 unknown command
    S: 503 5.5.1 say hello first
    S: 501 5.5.4 a host name or an address literal is expected
    S: 501 5.5.4 a host name or an address literal is expected
    C: LHLO [IPv6:2001:db8::1]
    S: 250-mail.example.test
    S: 250-PIPELINING
    S: 250-SIZE 300000
    S: 250-8BITMIME
    S: 250-SMTPUTF8
    S: 250-CHUNKING
    S: 250 ENHANCEDSTATUSCODES
    C: RCPT TO:<anna@example.test>
    C: DATA
    C: MAIL FROM:<x@example.net> SIZE=300001
    C: MAIL FROM:<x@example.net> SIZE=99999999999999999999
    C: MAIL FROM:<x@example.net> SIZE=1_0
    C: MAIL FROM:<x@example.net> BODY=BINARYMIME
    C: MAIL FROM:<x@example.net> SMTPUTF8=1
    C: MAIL FROM:<x@example.net> RET=HDRS
    C: MAIL FROM:<x@example.net> AUTH=<>
    C: MAIL x@example.net
    C: MAIL FROM:x@example.net
    C: MAIL FROM:<j\u00fcrgen@example.net>
    S: 503 5.5.1 MAIL must come first, RCPT before the data
    S: 503 5.5.1 MAIL and an accepted RCPT must come first
    S: 552 5.3.4 messages are at most 300000 octets
    S: 552 5.3.4 messages are at most 300000 octets
    S: 501 5.5.4 SIZE is a number of octets
    S: 555 5.5.4 BODY is 7BIT or 8BITMIME
    S: 501 5.5.4 SMTPUTF8 has no value
    S: 555 5.5.4 parameter not recognized
    S: 555 5.5.4 parameter not recognized
    S: 501 5.5.4 FROM:<address> is expected
    S: 501 5.1.7 that is no sender address
    S: 553 5.6.7 an address beyond ASCII needs SMTPUTF8, and is UTF-8
    C: MAIL FROM:<>
    C: MAIL FROM:<>
    C: RCPT TO:<anna@example.test> NOTIFY=NEVER
    C: RCPT TO:<anna>
    C: VRFY anna
    C: NOOP anything
    C: RSET
    C: RCPT TO:<anna@example.test>
    S: 250 2.1.0 sender accepted
    S: 503 5.5.1 a transaction is open: RSET ends it
    S: 555 5.5.4 parameter not recognized
    S: 550 5.1.1 no such user here
    S: 252 2.5.2 not verified: send the message, and it will be tried
    S: 250 2.0.0 nothing done
    S: 250 2.0.0 nothing is pending
    S: 503 5.5.1 MAIL must come first, RCPT before the data
"""


@pytest.mark.parametrize("how", HOW)
def test_refusals(how: str, tmp_path: Path) -> None:
    play(World(tmp_path).connect_lmtp(), REFUSALS, how, LMTP_GREETING)


def test_the_detail_names_a_folder(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.store.account("anna@example.test").create("Lists/Python")
    client = world.lhlo()
    names = (
        b"anna+Lists/Python@example.test",
        b'"anna+../x"@example.test',
        b"anna+inbox@example.test",
        b"anna+@example.test",
    )
    client.ask(begin(*names))
    client.send(b"DATA\r\n\r\n.\r\n")
    assert client.take().count(b"250 2.0.0") == 4
    assert len(world.kept(folder="Lists/Python")) == 1
    assert len(world.kept()) == 3


def test_no_detail_without_a_separator(tmp_path: Path) -> None:
    client = World(tmp_path, lmtp={"detail_separator": ""}).lhlo()
    assert client.ask(begin(b"anna+x@example.test")).endswith(b"550 5.1.1 no such user here\r\n")


def test_a_look_up_that_fails(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.authenticator.error = AuthUnavailable()
    answer = world.lhlo().ask(begin(b"anna@example.test"))
    assert answer.endswith(b"451 4.3.0 addresses cannot be looked up at the moment, try again later\r\n")


def test_too_many_recipients(tmp_path: Path) -> None:
    world = World(tmp_path, lmtp={"max_recipients": 2})
    client = world.lhlo()
    answer = client.ask(begin(*[b"anna@example.test"] * 3))
    assert answer.endswith(b"250 2.1.5 recipient accepted\r\n452 4.5.3 too many recipients\r\n")
    assert client.ask(b"DATA\r\na: b\r\n.\r\n").count(b"250 2.0.0") == 2


@pytest.mark.parametrize("large", [False, True])
def test_one_full_mailbox_does_not_hurt_the_others(
    large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    annas = world.store.account("anna@example.test")

    def fail(*_: object, **__: object) -> None:
        raise NoSpace

    monkeypatch.setattr(annas, "append", fail)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test", b"bert@example.org"))
    text = b"A: b\r\n\r\n" + (b"line\r\n" * 40000 if large else b"")
    assert client.ask(b"DATA\r\n" + text + b".\r\nNOOP\r\n") == (
        b"354 send the message, end it with a single dot\r\n"
        b"452 4.3.1 no space left, try again later\r\n"
        b"250 2.0.0 <bert@example.org> delivered\r\n"
        b"250 2.0.0 nothing done\r\n"
    )
    assert world.kept() == []
    assert world.kept("bert@example.org") == [lmtp_trace(b"bert@example.org") + text]
    assert world.left_behind() == []


def test_a_bug_in_one_delivery_keeps_the_replies_in_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(world.store.account("anna@example.test"), "append", fail)
    client = world.lhlo()
    client.allow_bugs = True
    client.ask(begin(b"anna@example.test", b"bert@example.org"))
    answer = client.ask(b"DATA\r\n\r\n.\r\n")
    assert answer.endswith(b"451 4.3.0 internal error\r\n250 2.0.0 <bert@example.org> delivered\r\n")
    assert len(client.channel.bugs) == 1


def test_recipients_get_it_at_the_same_time_and_are_answered_in_order(tmp_path: Path) -> None:
    world = World(tmp_path)
    counts: list[int] = []

    async def backwards(deliveries: Sequence[Any]) -> list[Any]:
        counts.append(len(deliveries))
        return [await each for each in reversed(deliveries)][::-1]

    world.lmtp = evolve(world.lmtp, gather=backwards)
    client = world.lhlo()
    recipients = [b"anna+%d@example.test" % number for number in range(AT_ONCE + 2)]
    client.ask(begin(*recipients))
    answer = client.ask(b"DATA\r\na: b\r\n\r\n.\r\n")
    assert counts == [AT_ONCE, 2], "no more at once than may each hold a descriptor"
    expected = [b"250 2.0.0 <%b> delivered" % recipient for recipient in recipients]
    assert answer.split(b"\r\n")[1:-1] == expected
    assert b"anna+%d@" % (AT_ONCE - 1) in world.kept()[0]


def test_works_run_side_by_side_and_what_they_return_keeps_their_order() -> None:
    gates = [Deferred[str](), Deferred[str]()]
    begun: list[int] = []

    async def work(number: int) -> str:
        begun.append(number)
        return await gates[number]

    done = run_concurrently([work(0), work(1)])
    assert begun == [0, 1]
    gates[1].callback("second")
    assert not done.called
    gates[0].callback("first")
    assert done.result == ["first", "second"]


def test_tls_where_it_is_demanded(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect_lmtp(starttls_offered=True, tls_required=True)
    client.take()
    assert b"250-STARTTLS\r\n" in client.ask(b"LHLO mx.example.net\r\n")
    for line in (b"MAIL FROM:<>", b"RCPT TO:<anna@example.test>", b"RSET", b"VRFY x", b"DATA", b"XYZZY", b"BDAT 0"):
        assert client.ask(line + b"\r\n").startswith(b"530 5.7.0 ")
    assert client.ask(b"BDAT 6\r\nRSET\r\n").startswith(b"530 5.7.0 ")
    assert client.ask(b"NOOP\r\n") == b"250 2.0.0 nothing done\r\n"
    assert client.ask(b"STARTTLS\r\n") == b"220 2.0.0 begin TLS\r\n"
    assert client.ask(b"MAIL FROM:<>\r\n") == b"503 5.5.1 say hello first\r\n"
    assert b"STARTTLS" not in client.ask(b"LHLO mx.example.net\r\n")
    client.ask(begin(b"anna@example.test"))
    assert client.ask(b"DATA\r\n\r\n.\r\n").endswith(b"delivered\r\n")
    assert world.kept() == [lmtp_trace(b"anna@example.test", protocol=b"LMTPS") + b"\r\n"]


def test_on_a_unix_socket_without_tls(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect_lmtp(peer=None, local="/run/lmtp", tls=False)
    client.ask(b"LHLO mx.example.net\r\n" + begin(b"anna@example.test"))
    client.ask(b"DATA\r\n\r\n.\r\n")
    assert b"\r\nReceived: from mx.example.net\r\n\tby mail.example.test with LMTP id " in world.kept()[0]
    assert client.ask(b"STARTTLS\r\n") == b"454 4.7.0 TLS is not available here\r\n"


def test_deliveries_are_logged(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test"))
    client.ask(b"DATA\r\n\r\n.\r\n")
    ((event, facts),) = client.channel.logged
    assert event == "delivery"
    assert facts == {
        "user": "anna@example.test", "sender": "x@example.net", "recipient": "anna@example.test", "size": 2, "message": "test1.1",
        "message_id": "", "mailbox": "INBOX", "uid": 1,
    }  # fmt: skip


def test_the_message_id_is_logged_whoever_wrote_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test"))
    client.ask(b"DATA\r\nX-Message-ID: <no@x>\r\nMessage-ID:\r\n <a\x1b[2J\x7f@x> \r\nMessage-ID: <b@x>\r\n\r\n.\r\n")
    client.ask(begin(b"anna@example.test"))
    client.ask(b"DATA\r\nmessage-id: <" + b"a" * 900 + b"@x>\r\n\r\n.\r\n")
    assert [event for event, _facts in client.channel.logged] == ["delivery", "delivery"]
    first, second = (facts["message_id"] for _event, facts in client.channel.logged)
    assert first == "<a[2J@x>"
    assert second == "<" + "a" * 249


def test_whoever_has_the_mailbox_open_is_poked(tmp_path: Path) -> None:
    from tests.fakes import run_now

    world = World(tmp_path)
    live = run_now(run_now(world.accounts.open("anna@example.test")).select("INBOX"))
    pokes: list[int] = []
    live.open_view(lambda: pokes.append(1))
    client = world.lhlo()
    client.ask(begin(b"anna@example.test"))
    client.ask(b"DATA\r\n\r\n.\r\n")
    assert pokes


def test_the_storage_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(world.store, "account", fail)
    client = world.lhlo()
    client.ask(begin(b"anna@example.test"))
    assert client.ask(b"DATA\r\n\r\n.\r\n").endswith(
        b"451 4.3.0 the mail storage is not available, try again later\r\n"
    )


def test_errors_are_counted_between_messages(tmp_path: Path) -> None:
    client = World(tmp_path).lhlo()
    for _ in range(3):
        client.send(b"XYZZY\r\n" * (MAX_ERRORS - 1))
        client.ask(begin(b"anna@example.test"))
        assert client.ask(b"DATA\r\n\r\n.\r\n").endswith(b"delivered\r\n")
    client.send(b"XYZZY\r\n" * MAX_ERRORS)
    assert client.done
