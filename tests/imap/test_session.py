"""The session's own rules: bugs, losses, cuts, and what a command costs."""

from __future__ import annotations

import errno
import re

import pytest
from attrs import evolve

from mailserver.errors import LimitReached, StoreUnavailable
from mailserver.imap.command import ANY, Command, CommandSpec, build_table
from mailserver.imap.commands import FAMILIES
from mailserver.imap.services import Services
from mailserver.imap.session import Session
from mailserver.session.channel import TLSInfo
from mailserver.session.cost import CONSTANT
from mailserver.store.memory import MemoryStaged
from tests.fakes import Client, FakeAuthenticator, info
from tests.imap.sessions import MESSAGE, connect, logged_in, put, selected, services


def user(service: Services) -> object:
    account = service.accounts.get("anna@example.test")
    assert account is not None
    return account


def users(service: Services) -> int:
    return getattr(user(service), "users")  # noqa: B009 - the type is not the point


async def broken(_session: Session, _command: Command) -> None:
    """RFC 3501."""
    raise ZeroDivisionError


async def unavailable(_session: Session, _command: Command) -> None:
    """RFC 3501."""
    raise StoreUnavailable from OSError(errno.EROFS, "Read-only file system", "/mail/new")


def with_extra(*specs: CommandSpec) -> Services:
    return services(table=build_table([*(family.COMMANDS for family in FAMILIES), specs]))


def test_a_bug_is_logged_and_told_and_the_session_goes_on() -> None:
    client = connect(with_extra(CommandSpec("XBUG", ANY, broken, cost=CONSTANT)), allow_bugs=True)
    client.take()
    answer = client.ask(b"a XBUG\r\nb NOOP\r\n")
    assert answer.startswith(b"a NO [SERVERBUG] ")
    assert answer.endswith(b"b OK NOOP completed\r\n")
    assert b"Zero" not in answer
    assert "ZeroDivisionError" in client.channel.bugs[0]


def test_mail_errors_are_answers() -> None:
    client = connect(with_extra(CommandSpec("XFAIL", ANY, unavailable, cost=CONSTANT)))
    client.take()
    assert client.ask(b"a XFAIL\r\n").startswith(b"a NO [UNAVAILABLE] ")
    (told,) = [fields for event, fields in client.channel.logged if event == "storage-failed"]
    assert told["command"] == "XFAIL"
    assert "Read-only file system: '/mail/new'" in told["reason"]


def test_too_many_errors_in_a_row_after_login() -> None:
    client = logged_in(services())
    for _ in range(9):
        client.send(b"a NONSENSE\r\n")
    client.send(b"a NOOP\r\n")
    for _ in range(9):
        client.send(b"a NONSENSE\r\n")
    assert not client.done
    client.send(b"a NONSENSE\r\n")
    assert client.done
    assert client.take().endswith(b"* BYE too many errors\r\n")
    assert client.channel.logged[-1] == ("too-many-errors", {"user": "anna@example.test"})


def test_an_http_request_is_logged_and_not_answered() -> None:
    client = connect(services())
    client.take()
    assert client.ask(b"GET / HTTP/1.1\r\nHost: mail.example.test\r\n\r\n") == b""
    assert client.done
    assert client.channel.logged == [("http-request", {})]


def test_five_failed_logins_end_the_session_whatever_comes_between() -> None:
    client = connect(services())
    client.take()
    for _ in range(4):
        answer = client.ask(b"a LOGIN anna@example.test wrong\r\nb NOOP\r\nc CAPABILITY\r\n")
        assert answer.endswith(b"c OK CAPABILITY completed\r\n")
    answer = client.ask(b"a LOGIN anna@example.test wrong\r\n")
    assert client.done
    refusal, bye, rest = answer.split(b"\r\n")
    assert refusal.startswith(b"a NO [AUTHENTICATIONFAILED] ")
    assert bye.startswith(b"* BYE ")
    assert rest == b""


def test_sessions_per_user() -> None:
    client = connect(services())
    client.channel.login_error = LimitReached("too many sessions")
    client.take()
    assert client.ask(b"a LOGIN anna@example.test secret\r\n") == b"a NO [LIMIT] too many sessions\r\n"
    assert users(client.session.services) == 0
    client.channel.login_error = None
    assert client.ask(b"a LOGIN anna@example.test secret\r\n").startswith(b"a OK ")


def test_login_context_and_log() -> None:
    authenticator = FakeAuthenticator()
    client = connect(services(authenticator=authenticator))
    client.send(b"a LOGIN anna@example.test wrong\r\na LOGIN anna@example.test secret\r\n")
    assert authenticator.contexts[0].host == "mail.example.test"
    assert authenticator.contexts[0].protocol == "imap"
    assert [event for event, _fields in client.channel.logged] == ["login-failed", "login"]
    assert "secret" not in repr(client.channel.logged)
    assert "wrong'" not in repr(client.channel.logged)


def test_eight_bit_and_undecodable_logins_fail_like_any_other() -> None:
    client = connect(services(authenticator=FakeAuthenticator({"anna@example.test": "pässwort"})))
    client.take()
    assert b"AUTHENTICATIONFAILED" in client.ask(b'a LOGIN "ann\xff" x\r\n')
    assert client.ask('a LOGIN anna@example.test "pässwort"\r\n'.encode()).startswith(b"a OK ")


@pytest.mark.parametrize(
    "partial", [b"", b"a NO", b"a SELECT {5}\r\nIN", b"a IDLE\r\n", b"a APPEND INBOX {100}\r\nFrom:"]
)
def test_everything_is_given_back(partial: bytes) -> None:
    service = services()
    client = selected(service)
    live = client.session.selected.live
    client.send(partial)
    client.hang_up()
    assert client.done
    assert client.channel.closed
    assert live.users == 0
    assert not live._views
    assert users(service) == 0


def test_a_cut_append_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    aborted = []
    real = MemoryStaged.abort
    monkeypatch.setattr(MemoryStaged, "abort", lambda self: (aborted.append(self), real(self)))
    service = services()
    client = selected(service)
    client.send(b"a APPEND INBOX {300000}\r\nA: b\r\n\r\n" + b"x" * 299_991)
    client.hang_up()
    assert len(aborted) == 1
    other = selected(service)
    assert b"* SEARCH\r\n" in other.ask(b"a SEARCH ALL\r\n")


def test_logout_gives_back() -> None:
    service = services()
    client = selected(service)
    client.send(b"a LOGOUT\r\nb NOOP\r\n")
    assert client.take() == b"* BYE logging out\r\na OK LOGOUT completed\r\n"
    assert client.done
    assert users(service) == 0


def test_a_command_line_must_come_in_time() -> None:
    client = logged_in(services())
    client.send(b"a N")
    for _ in range(6):
        client.wait(21)
        client.send(b"x")
    client.wait(21)
    assert client.done
    assert b"* BYE" in client.take()


def test_a_dripped_literal_is_cut() -> None:
    client = logged_in(services())
    client.send(b"a APPEND INBOX {50000}\r\n")
    for _ in range(60):
        client.send(b"x" * 10)
        client.wait(10)
    assert client.done
    assert b"* BYE" in client.take()


def test_a_slow_but_steady_message_arrives() -> None:
    client = logged_in(services())
    client.send(b"a APPEND INBOX {200000}\r\n")
    for _ in range(200):
        client.send(b"x" * 1000)
        client.wait(5)
    client.send(b"\r\n")
    assert b"a OK [APPENDUID " in client.take()


def test_a_slow_but_steady_message_is_discarded_in_step() -> None:
    client = logged_in(services())
    client.ask(b"a APPEND INBOX {200000}\r\n")
    assert client.ask(b"\0").startswith(b"a BAD ")
    client.send(b"x" * 999)
    for _ in range(199):
        client.send(b"x" * 1000)
        client.wait(5)
    assert client.ask(b"\r\nb NOOP\r\n") == b"b OK NOOP completed\r\n"


def test_a_dripped_rest_of_a_refused_message_is_cut() -> None:
    client = logged_in(services())
    client.ask(b"a APPEND INBOX {200000}\r\n")
    client.send(b"\0")
    for _ in range(60):
        client.send(b"x")
        client.wait(10)
    assert client.done


def test_small_literals_share_one_deadline() -> None:
    client = logged_in(services())
    client.send(b"a LIST ")
    for _ in range(20):
        client.send(b"{1}\r\n")
        client.wait(10)
        client.send(b"x")
    assert client.done


def test_others_have_their_turn_between_tiny_literals() -> None:
    """A literal may have six octets with its announcement: a line's worth of them takes a tenth of a second."""
    client = selected(services())
    drains = client.channel.drains
    assert client.ask(b"a SEARCH" + b" TEXT {1+}\r\nx" * 500 + b"\r\n").endswith(b"a OK SEARCH completed\r\n")
    assert client.channel.drains - drains >= 500


def test_a_noop_with_nothing_new_asks_the_store_nothing() -> None:
    client = selected(services(), messages=3)
    client.send(b"a NOOP\r\n")
    runner = client.session.account._runner
    before = runner.runs
    client.take()
    assert client.ask(b"a NOOP\r\n" * 50) == b"a OK NOOP completed\r\n" * 50
    assert runner.runs == before


def test_select_is_one_hop() -> None:
    client = selected(services(), messages=3)
    runner = client.session.account._runner
    before = runner.runs
    client.send(b"a SELECT INBOX\r\n")
    assert runner.runs - before == 1


def test_append_writes_in_large_pieces() -> None:
    client = logged_in(services())
    runner = client.session.account._runner
    before = runner.runs
    client.send(b"a APPEND INBOX {1000002+}\r\n\r\n")
    for _ in range(1000):
        client.send(b"x" * 1000)
    client.send(b"\r\n")
    assert b"a OK" in client.take()
    # Begin, four or five pieces, append, abort.
    assert runner.runs - before <= 8


@pytest.mark.parametrize(("plus", "hops"), [(b"+", 1), (b"", 2)])
def test_append_of_a_small_message_is_one_hop(plus: bytes, hops: int) -> None:
    client = logged_in(services())
    runner = client.session.account._runner
    before = runner.runs
    client.send(b"a APPEND INBOX {%d%b}\r\n" % (len(MESSAGE), plus))
    client.send(MESSAGE + b"\r\n")
    assert b"a OK [APPENDUID" in client.take()
    assert runner.runs - before == hops


def test_store_is_one_hop_for_all_messages() -> None:
    client = selected(services(), messages=20)
    runner = client.session.account._runner
    before = runner.runs
    client.send(b"a STORE 1:* +FLAGS (\\Seen)\r\n")
    assert runner.runs - before == 1


def test_starttls_with_bytes_not_yet_read() -> None:
    """What came before the handshake is never taken for a command inside TLS."""
    client = connect(services(), info("imap"))
    client.take()
    client.channel.input.append(b"a STARTTLS\r\n")
    client.channel.input.append(b"b LOGIN anna@example.test secret\r\n")
    client.send(b"")
    assert client.done
    assert b"b " not in client.take()


def test_plaintext_behind_starttls_is_logged() -> None:
    client = connect(services(), info("imap"))
    client.send(b"a STARTTLS\r\nb NOOP\r\n")
    assert "plaintext-behind-starttls" in [event for event, _fields in client.channel.logged]
    assert client.session.account is None


def test_tls_forgets_errors() -> None:
    client = connect(services(), info("imap"))
    client.send(b"x y\r\n" * 4 + b"a STARTTLS\r\n")
    client.send(b"x y\r\n" * 4)
    assert not client.done


def test_nothing_about_credentials_shows_before_tls() -> None:
    authenticator = FakeAuthenticator()
    client = connect(services(authenticator=authenticator), info("imap"))
    client.take()
    answers = {client.ask(f"a LOGIN {name} secret\r\n".encode()) for name in ("anna@example.test", "nobody", '"', "")}
    assert len(answers) == 1
    assert authenticator.contexts == []


@pytest.mark.parametrize(
    "request_line", [b"GET / HTTP/1.1", b"CONNECT mail.example.test:143 HTTP/1.0", b"PRI * HTTP/2.0"]
)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_http_is_not_answered(request_line: bytes, end: bytes) -> None:
    client = connect(services(), info("imap"))
    client.take()
    client.send(request_line + end + b"Host: x" + end + end + b"a CAPABILITY" + end)
    assert client.take() == b""
    assert client.done


def test_the_largest_id_before_login() -> None:
    """RFC 2971 3.3: 30 fields, names of 30 octets and values of 1024."""
    client = connect(services())
    client.take()
    pairs = b" ".join(b'"%030d" "%b"' % (number, b"v" * 1024) for number in range(30))
    assert b"a OK " in client.ask(b"a ID (%b)\r\n" % pairs)


@pytest.mark.parametrize("pattern", [b"a&b*", b"&ZeV*", b'"x\xe4*"', b"&AGE-"])
def test_patterns_that_match_no_name_list_nothing(pattern: bytes) -> None:
    """RFC 3501 6.3.8, 9: list-mailbox is any list-char; no mailbox has such a name (5.1.3)."""
    for command in (b"LIST", b"LSUB"):
        assert logged_in(services()).ask(b'a %b "" %b\r\n' % (command, pattern)).startswith(b"a OK "), pattern


def test_append_needs_no_memory_for_what_is_refused() -> None:
    client = logged_in(services(mail={"max_message_size": 1000}))
    assert client.ask(b"a APPEND INBOX {1001}\r\n").startswith(b"a NO [TOOBIG] ")
    client.send(b"a APPEND INBOX {900000+}\r\n")
    client.take()
    for _ in range(900):
        client.send(b"x" * 1000)
        assert len(client.session.input._framer._buffer) == 0
    assert client.ask(b"\r\nb NOOP\r\n") == b"b OK NOOP completed\r\n"


def message_of(client: Client) -> bytes:
    return client.ask(b"f FETCH 1 BODY.PEEK[]\r\n")


def test_append_keeps_the_octets() -> None:
    client = selected(services())
    put(client)
    assert b"{%d}\r\n%b)" % (len(MESSAGE), MESSAGE) in message_of(client)


@pytest.mark.parametrize(("seen", "first"), [([], 1), ([1], 2), ([1, 2, 3], 0), ([2, 3], 1), ([1, 3], 2)])
def test_first_unseen(seen: list[int], first: int) -> None:
    client = selected(services(), messages=3)
    # A keyword must not be taken for a system flag.
    client.send(b"a STORE 1:3 +FLAGS.SILENT (a b c d)\r\n")
    for number in seen:
        client.send(b"a STORE %d +FLAGS.SILENT (\\Seen)\r\n" % number)
    client.take()
    answer = client.ask(b"a SELECT INBOX\r\n")
    assert (b"[UNSEEN %d]" % first in answer) == bool(first)
    assert (b"[UNSEEN" in answer) == bool(first)


def test_the_greeting_names_the_host_that_the_client_asked_for() -> None:
    service = services()
    for tls, host in (
        (None, b"mail.example.test"),
        (TLSInfo("TLSv1.3", "x", None), b"mail.example.test"),
        (TLSInfo("TLSv1.3", "x", "nowhere.example.org"), b"mail.example.test"),
        (TLSInfo("TLSv1.3", "x", None, host="mail.example.org"), b"mail.example.org"),
        (TLSInfo("TLSv1.3", "x", "mail.example.org", host="mail.example.org"), b"mail.example.org"),
        (TLSInfo("TLSv1.3", "x", "imap.example.net", host="*.example.net"), b"imap.example.net"),
    ):
        greeting = connect(service, evolve(info(tls=False), tls=tls)).take()
        assert greeting.endswith(b"] %b ready\r\n" % host)


@pytest.mark.parametrize("protocol", ["imap", "imaps"])
def test_capabilities_are_the_same_before_and_after_login(protocol: str) -> None:
    """Clients that ask once, before login, refuse to IDLE where it is not listed there (aioimaplib)."""
    client = connect(services(), info(protocol, cleartext=True))
    greeting = set(re.findall(r"[^ \[\]]+", client.take().decode())[3:-2])
    before = set(client.ask(b"a CAPABILITY\r\n").split(b"\r\n")[0].decode().split()[2:])
    after = set(
        client.ask(b"b LOGIN anna@example.test secret\r\nc CAPABILITY\r\n")
        .split(b"* CAPABILITY ")[1]
        .split(b"\r\n")[0]
        .decode()
        .split()
    )
    assert {"IDLE", "ENABLE", "MOVE", "UIDPLUS", "NAMESPACE"} <= before == greeting
    late = {"COMPRESS=DEFLATE", "UNAUTHENTICATE"}
    assert {token for token in before if not token.startswith("AUTH=")} - {"STARTTLS", "SASL-IR"} == after - late - {
        "SASL-IR"
    }
    assert late <= after


class Overrun(BaseException):
    """As a session's turn is cut: no command catches it."""


async def overrun(_session: Session, _command: Command) -> None:
    """RFC 3501."""
    raise Overrun


def test_sessions_beside_one_that_was_cut_still_hear_of_new_messages() -> None:
    service = with_extra(CommandSpec("XOVERRUN", ANY, overrun, cost=CONSTANT))
    bystander, cut = selected(service), selected(service)
    with pytest.raises(Overrun):
        cut.send(b"a XOVERRUN\r\n")
    put(logged_in(service))
    assert b"* 1 EXISTS" in bystander.ask(b"n NOOP\r\n")


def test_a_mailbox_that_only_a_cut_session_had_open_is_read_anew() -> None:
    service = with_extra(CommandSpec("XOVERRUN", ANY, overrun, cost=CONSTANT))
    cut = selected(service)
    live = cut.session.selected.live
    account = live.account
    assert account.keeps(live)
    with pytest.raises(Overrun):
        cut.send(b"a XOVERRUN\r\n")
    assert not account.keeps(live)
