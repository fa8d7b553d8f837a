from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.errors import AuthUnavailable, NoSpace, StoreUnavailable, TooBig
from mailserver.smtp.session import MAX_ERRORS
from mailserver.store.memory import MemoryStaged
from tests.pop3.dialogs import play
from tests.smtp.world import DATE, LIMIT, LMTP_GREETING, World

HOW = ["whole", "bytewise", "1", "2"]


def trace(recipient: bytes, number: int = 1, sender: bytes = b"x@example.net", protocol: bytes = b"LMTP") -> bytes:
    return (
        b"Return-Path: <" + sender + b">\r\nDelivered-To: " + recipient + b"\r\n"
        b"Received: from mx.example.net ([192.0.2.7])\r\n\tby mail.example.test with "
        + protocol
        + b" id test1.%d\r\n\tfor <" % number
        + recipient
        + b">;\r\n\t"
        + DATE
        + b"\r\n"
    )


DIALOGS = {
    "a reply for each recipient": """
        C: LHLO mx.example.net
        S: 250-mail.example.test
        S: 250-PIPELINING
        S: 250-SIZE 300000
        S: 250-8BITMIME
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
    assert world.kept() == [trace(b"anna@example.test") + TEXTS[name]]
    assert world.kept("bert@example.org") == [trace(second) + TEXTS[name]]
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
    S: 250-CHUNKING
    S: 250 ENHANCEDSTATUSCODES
    C: RCPT TO:<anna@example.test>
    C: DATA
    C: MAIL FROM:<x@example.net> SIZE=300001
    C: MAIL FROM:<x@example.net> SIZE=99999999999999999999
    C: MAIL FROM:<x@example.net> SIZE=1_0
    C: MAIL FROM:<x@example.net> BODY=BINARYMIME
    C: MAIL FROM:<x@example.net> SMTPUTF8
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
    S: 555 5.5.4 parameter not recognized
    S: 555 5.5.4 parameter not recognized
    S: 555 5.5.4 parameter not recognized
    S: 501 5.5.4 FROM:<address> is expected
    S: 501 5.1.7 that is no sender address
    S: 553 5.6.7 addresses are ASCII here: SMTPUTF8 is not offered
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


def begin(world: World, *recipients: bytes) -> bytes:
    return b"MAIL FROM:<x@example.net>\r\n" + b"".join(b"RCPT TO:<%s>\r\n" % name for name in recipients)


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
    client.ask(begin(world, *names))
    client.send(b"DATA\r\n\r\n.\r\n")
    assert client.take().count(b"250 2.0.0") == 4
    assert len(world.kept(folder="Lists/Python")) == 1
    assert len(world.kept()) == 3


def test_no_detail_without_a_separator(tmp_path: Path) -> None:
    client = World(tmp_path, lmtp={"detail_separator": ""}).lhlo()
    assert client.ask(begin(World(tmp_path), b"anna+x@example.test")).endswith(b"550 5.1.1 no such user here\r\n")


def test_a_look_up_that_fails(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.authenticator.error = AuthUnavailable()
    answer = world.lhlo().ask(begin(world, b"anna@example.test"))
    assert answer.endswith(b"451 4.3.0 addresses cannot be looked up at the moment, try again later\r\n")


def test_too_many_recipients(tmp_path: Path) -> None:
    world = World(tmp_path, lmtp={"max_recipients": 2})
    client = world.lhlo()
    answer = client.ask(begin(world, *[b"anna@example.test"] * 3))
    assert answer.endswith(b"250 2.1.5 recipient accepted\r\n452 4.5.3 too many recipients\r\n")
    assert client.ask(b"DATA\r\na: b\r\n.\r\n").count(b"250 2.0.0") == 2


@pytest.mark.parametrize("large", [False, True])
def test_one_full_mailbox_does_not_hurt_the_others(
    large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    annas = world.store.account("anna@example.test")

    def fail(*_: object) -> None:
        raise NoSpace

    monkeypatch.setattr(annas, "append", fail)
    client = world.lhlo()
    client.ask(begin(world, b"anna@example.test", b"bert@example.org"))
    text = b"A: b\r\n\r\n" + (b"line\r\n" * 40000 if large else b"")
    assert client.ask(b"DATA\r\n" + text + b".\r\nNOOP\r\n") == (
        b"354 send the message, end it with a single dot\r\n"
        b"452 4.3.1 no space left, try again later\r\n"
        b"250 2.0.0 <bert@example.org> delivered\r\n"
        b"250 2.0.0 nothing done\r\n"
    )
    assert world.kept() == []
    assert world.kept("bert@example.org") == [trace(b"bert@example.org") + text]
    assert world.left_behind() == []


def test_a_bug_in_one_delivery_keeps_the_replies_in_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)

    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(world.store.account("anna@example.test"), "append", fail)
    client = world.lhlo()
    client.allow_bugs = True
    client.ask(begin(world, b"anna@example.test", b"bert@example.org"))
    answer = client.ask(b"DATA\r\n\r\n.\r\n")
    assert answer.endswith(b"451 4.3.0 internal error\r\n250 2.0.0 <bert@example.org> delivered\r\n")
    assert len(client.channel.bugs) == 1


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
    client.ask(begin(world, b"anna@example.test", b"bert@example.org"))
    text = BARE[name]
    data = b"BDAT %d LAST\r\n" % len(text) + text if chunked else b"DATA\r\n" + text + b".\r\n"
    (client.send_bytewise if bytewise else client.send)(data + b"RCPT TO:<anna@example.test>\r\n")
    lines = client.take().removeprefix(b"354 send the message, end it with a single dot\r\n").split(b"\r\n")
    assert [line[:9] for line in lines] == [b"550 5.6.0", b"550 5.6.0", b"503 5.5.1", b""]
    assert world.kept() == []
    assert world.left_behind() == []


@pytest.mark.parametrize("chunked", [False, True])
def test_a_message_over_the_limit(chunked: bool, tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(world, b"anna@example.test", b"bert@example.org"))
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
    client.ask(begin(world, b"anna@example.test"))
    assert client.ask(b"DATA\r\n\r\n.\r\n").endswith(b"delivered\r\n")


def test_a_message_of_exactly_the_limit(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(world, b"anna@example.test"))
    text = b"." * (LIMIT - 2) + b"\r\n"
    answer = client.ask(b"DATA\r\n." + text + b".\r\n")
    assert answer.endswith(b"delivered\r\n")
    assert world.kept() == [trace(b"anna@example.test") + text]
    assert world.left_behind() == []


@pytest.mark.parametrize(
    "line", [b"BDAT", b"BDAT -1", b"BDAT 1_0", b"BDAT 5 FIRST", b"BDAT x", b"BDAT 123456789012345678901"]
)
def test_a_chunk_of_unknown_length_ends_the_connection(line: bytes, tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(world, b"anna@example.test"))
    answer = client.ask(line + b"\r\nRSET\r\n")
    assert answer == b"501 5.5.4 BDAT needs a number of octets, closing the connection\r\n"
    assert client.channel.closed


@pytest.mark.parametrize("count", [2**31, 2**64 - 1])
def test_absurd_chunks_end_the_connection(count: int, tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(world, b"anna@example.test"))
    assert client.ask(b"BDAT %d LAST\r\nRSET\r\n" % count).startswith(b"552 5.3.4 ")
    assert client.channel.closed


def test_refused_chunks_are_never_commands(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    assert client.ask(b"BDAT 6\r\nRSET\r\nNOOP\r\n") == (
        b"503 5.5.1 MAIL and an accepted RCPT must come first\r\n250 2.0.0 nothing done\r\n"
    )
    client.ask(begin(world, b"anna@example.test", b"bert@example.org"))
    answer = client.ask(b"BDAT 6\r\nRS\nT\r\nBDAT 6\r\nRSET\r\nBDAT 0 LAST\r\nNOOP\r\n")
    codes = [line[:9] for line in answer.split(b"\r\n")]
    assert codes == [b"550 5.6.0"] * 4 + [b"250 2.0.0", b""]
    assert world.kept() == []


def test_data_and_chunks_do_not_mix(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(world, b"anna@example.test"))
    answer = client.ask(b"BDAT 6\r\nA: b\r\nDATA\r\nRCPT TO:<anna@example.test>\r\nMAIL FROM:<>\r\nBDAT 0 LAST\r\n")
    codes = [line[:9] for line in answer.split(b"\r\n")]
    assert codes == [b"250 2.0.0", b"503 5.5.1", b"503 5.5.1", b"503 5.5.1", b"250 2.0.0", b""]
    assert world.kept() == [trace(b"anna@example.test") + b"A: b\r\n"]


def test_reset_forgets_chunks(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(world, b"anna@example.test"))
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
    client.ask(begin(world, b"anna@example.test"))
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
    client.ask(begin(world, b"anna@example.test"))
    client.ask(b"DATA\r\n")
    for _ in range(60):
        client.send(b"x" * 498 + b"\r\n")
        client.wait(30)
    assert client.ask(b".\r\n").endswith(b"delivered\r\n")


def test_the_spool_fails_and_the_stream_stays_in_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(world, b"anna@example.test", b"bert@example.org"))

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", fail)
    answer = client.ask(b"DATA\r\n" + b"RSET\r\n" * 40000 + b".\r\nNOOP\r\n")
    assert [line[:9] for line in answer.split(b"\r\n")][1:] == [b"452 4.3.1", b"452 4.3.1", b"250 2.0.0", b""]


def test_an_unforeseen_failure_within_data_ends_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.allow_bugs = True
    client.ask(begin(world, b"anna@example.test"))

    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("mailserver.smtp.wire.LineEnds.check", fail)
    assert client.ask(b"DATA\r\nRSET\r\n").endswith(b"421 4.3.0 internal error, closing the connection\r\n")
    assert client.channel.closed


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
    client.ask(begin(world, b"anna@example.test"))
    assert client.ask(b"DATA\r\n\r\n.\r\n").endswith(b"delivered\r\n")
    assert world.kept() == [trace(b"anna@example.test", protocol=b"LMTPS") + b"\r\n"]


def test_on_a_unix_socket_without_tls(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect_lmtp(peer=None, local="/run/lmtp", tls=False)
    client.ask(b"LHLO mx.example.net\r\n" + begin(world, b"anna@example.test"))
    client.ask(b"DATA\r\n\r\n.\r\n")
    assert b"\r\nReceived: from mx.example.net\r\n\tby mail.example.test with LMTP id " in world.kept()[0]
    assert client.ask(b"STARTTLS\r\n") == b"454 4.7.0 TLS is not available here\r\n"


def test_deliveries_are_logged(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(world, b"anna@example.test"))
    client.ask(b"DATA\r\n\r\n.\r\n")
    ((event, facts),) = client.channel.logged
    assert event == "delivery"
    assert facts == {
        "user": "anna@example.test", "sender": "x@example.net", "size": 2, "message": "test1.1", "mailbox": "INBOX", "uid": 1,
    }  # fmt: skip


def test_whoever_has_the_mailbox_open_is_poked(tmp_path: Path) -> None:
    from tests.fakes import run_now

    world = World(tmp_path)
    live = run_now(run_now(world.accounts.open("anna@example.test")).select("INBOX"))
    pokes: list[int] = []
    live.open_view(live.columns.uid_next, lambda: pokes.append(1))
    client = world.lhlo()
    client.ask(begin(world, b"anna@example.test"))
    client.ask(b"DATA\r\n\r\n.\r\n")
    assert pokes


def test_the_storage_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(world.store, "account", fail)
    client = world.lhlo()
    client.ask(begin(world, b"anna@example.test"))
    assert client.ask(b"DATA\r\n\r\n.\r\n").endswith(
        b"451 4.3.0 the mail storage is not available, try again later\r\n"
    )


def test_a_declared_size_is_enough_to_refuse(tmp_path: Path) -> None:
    client = World(tmp_path).lhlo()
    client.ask(begin(World(tmp_path), b"anna@example.test"))
    client.send(b"BDAT %d LAST\r\n" % (LIMIT + 1) + b"x" * 100)
    transaction = client.session.transaction
    assert isinstance(transaction.incoming.failure, TooBig)
    assert transaction.incoming.size == 0


def test_a_large_chunk_where_no_message_may_come(tmp_path: Path) -> None:
    client = World(tmp_path).lhlo()
    assert client.ask(b"BDAT %d\r\n" % (2 * 1024 * 1024)).startswith(b"552 5.3.4 ")
    assert client.done


def test_an_endless_message_ends_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailserver.smtp.commands.MAX_SWALLOWED", 0)
    client = World(tmp_path).lhlo()
    client.ask(begin(World(tmp_path), b"anna@example.test"))
    client.ask(b"DATA\r\n")
    for _ in range(100):
        client.send(b"x" * 10_000)
    assert client.take() == b"552 5.3.4 the message is far too large, closing the connection\r\n"
    assert client.done


def test_errors_are_counted_between_messages(tmp_path: Path) -> None:
    client = World(tmp_path).lhlo()
    for _ in range(3):
        client.send(b"XYZZY\r\n" * (MAX_ERRORS - 1))
        client.ask(begin(World(tmp_path), b"anna@example.test"))
        assert client.ask(b"DATA\r\n\r\n.\r\n").endswith(b"delivered\r\n")
    client.send(b"XYZZY\r\n" * MAX_ERRORS)
    assert client.done


def test_a_disk_that_fills_up_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    client = world.lhlo()
    client.ask(begin(world, b"anna@example.test"))
    write = MemoryStaged.write

    def fail(self: MemoryStaged, data: bytes) -> None:
        if self.size > 100_000:
            raise NoSpace
        write(self, data)

    monkeypatch.setattr(MemoryStaged, "write", fail)
    assert client.ask(b"DATA\r\n" + b"line\r\n" * 40000 + b".\r\n").endswith(
        b"452 4.3.1 no space left, try again later\r\n"
    )
    assert world.left_behind() == []
