"""What POP3 clients may do too much of, too long, or too slowly, and what is full at their login."""

from __future__ import annotations

import pytest

from mailserver.errors import ConnectionLost, LimitReached, NoSpace
from mailserver.pop3.commands import messages
from mailserver.pop3.session import MAX_LOGIN_FAILURES
from mailserver.session.line_session import MAX_ERRORS
from mailserver.store.memory import MemoryMessage
from tests.fakes import info
from tests.pop3.dialogs import World


def test_failed_logins_are_bounded() -> None:
    client = World().connect()
    client.take()
    for _ in range(MAX_LOGIN_FAILURES):
        assert not client.channel.closed
        assert client.ask(b"USER anna@example.test\r\nPASS wrong\r\n") == (
            b"+OK send the password\r\n-ERR [AUTH] wrong user name or password\r\n"
        )
    assert client.channel.closed


def test_errors_are_bounded() -> None:
    client = World().connect()
    for _ in range(MAX_ERRORS):
        assert not client.channel.closed
        client.send(b"XYZZY\r\n")
    assert client.channel.closed


def test_an_overlong_line_is_refused_and_the_stream_stays_in_step() -> None:
    client = World().connect()
    client.take()
    for _ in range(100):
        client.send(b"USER " + b"x" * 10000)
    assert client.ask(b"\r\nUSER anna@example.test\r\n") == b"-ERR line too long\r\n+OK send the password\r\n"


def test_limits_and_full_disks_at_login() -> None:
    world = World()
    client = world.connect()
    client.channel.login_error = LimitReached("too many sessions")
    client.send(b"USER anna@example.test\r\nPASS secret\r\n")
    assert client.take().endswith(b"-ERR [SYS/TEMP] too many sessions\r\n")
    assert world.live_users() == 0
    client.channel.login_error = None
    world.authenticator.error = NoSpace()
    client.send(b"USER anna@example.test\r\nPASS secret\r\n")
    assert client.take().endswith(b"-ERR [SYS/TEMP] no space left, try again later\r\n")
    world.authenticator.error = None
    client.send(b"USER anna@example.test\r\nPASS secret\r\n")
    assert client.take().endswith(b"+OK 0 messages (0 octets)\r\n")


def test_a_bug_is_told_and_the_session_goes_on() -> None:
    world = World()
    client = world.connect(allow_bugs=True)
    world.authenticator.error = RuntimeError("boom")
    client.send(b"USER anna@example.test\r\nPASS secret\r\n")
    assert client.take().endswith(b"-ERR [SYS/TEMP] internal error\r\n")
    assert "boom" in client.channel.bugs[0]
    world.authenticator.error = None
    client.send(b"USER anna@example.test\r\nPASS secret\r\n")
    assert client.take().endswith(b"+OK 0 messages (0 octets)\r\n")


def test_times() -> None:
    world = World()
    client = world.connect()
    client.wait(179)
    assert not client.done
    client.wait(2)
    assert client.done

    client = world.log_in()
    client.wait(599)
    assert not client.done
    client.send(b"NOOP\r\n")
    client.wait(599)
    assert not client.done
    client.wait(2)
    assert client.done
    assert world.live_users() == 0


def test_a_dripping_client_is_cut() -> None:
    client = World().log_in()
    for _ in range(200):
        client.send(b"N")
        client.wait(1)
    assert client.done


def test_a_dripping_client_is_cut_before_login() -> None:
    client = World().connect()
    for _ in range(100):
        client.send(b"NOOP\r\n" if client.channel.time < 1020 else b"N")
        client.wait(3)
    assert client.done


def test_a_long_listing_is_made_and_sent_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a million messages would keep the reactor."""
    monkeypatch.setattr(messages, "_LINES_AT_ONCE", 3)
    world = World()
    world.deliver(*[b"x" * number for number in range(1, 11)])
    client = world.log_in()
    for number in (1, 4, 5, 6, 10):
        client.ask(b"DELE %d\r\n" % number)
    drains = client.channel.drains
    answer = client.ask(b"LIST\r\n")
    assert client.channel.drains - drains > 4
    assert answer == b"+OK 5 messages (29 octets)\r\n2 2\r\n3 3\r\n7 7\r\n8 8\r\n9 9\r\n.\r\n"


def test_a_large_message_streams() -> None:
    world = World()
    body = b"".join(b".%d %s\r\n" % (number, b"x" * 70) for number in range(20000))
    world.deliver(b"Subject: large\r\n\r\n" + body)
    client = world.log_in()
    drains = client.channel.drains
    answer = client.ask(b"RETR 1\r\n")
    assert client.channel.drains - drains > len(body) // 65536
    assert answer == (
        b"+OK %d octets\r\nSubject: large\r\n\r\n" % (len(body) + 18)
        + body.replace(b"\r\n.", b"\r\n..").join([b".", b""])
        + b".\r\n"
    )


@pytest.mark.parametrize("line", [b"GET /" + b"x" * 20_000 + b" HTTP/1.1", b"x", b"GET / HTTP/1.1"])
def test_what_follows_a_request_is_never_a_command(line: bytes) -> None:
    client = World().connect()
    client.take()
    client.send(line + b"\r\nHost: mail.example.test\r\n\r\nCAPA\r\n")
    assert b"UIDL" not in client.take()
    assert client.done


def test_a_client_that_does_not_read_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.deliver(b"A: b\r\n\r\n" + b"x" * 500_000)
    closed: list[bool] = []
    monkeypatch.setattr(MemoryMessage, "close", lambda _self: closed.append(True))
    client = world.log_in()
    drained: list[int] = []

    async def drain() -> None:
        drained.append(len(client.channel.output))
        if len(drained) == 3:
            raise ConnectionLost

    client.channel.drain = drain  # type: ignore[method-assign]
    client.send(b"RETR 1\r\n")
    assert client.done
    assert max(drained) < 4 * 65536
    assert closed
    assert world.live_users() == 0


def test_many_commands_in_one_piece_keep_pace_with_the_client() -> None:
    client = World().log_in()
    drains = client.channel.drains
    client.send(b"CAPA\r\n" * 1000)
    assert client.channel.drains - drains >= 15
    assert client.take().count(b"+OK") == 1000


def test_passwords_before_tls_are_bounded() -> None:
    client = World().connect(info("pop3"))
    client.send(b"USER anna\r\n" * MAX_ERRORS)
    assert client.done
