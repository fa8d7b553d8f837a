"""SEARCH as expensive as a client can make it: others are served, a kick ends it, and so does the client's going."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.hostile.conftest import LARGEST, forget_peak, peak
from tests.hostile.wire import Client, deliver, log_in
from tests.live.client import eventually
from tests.server import Server

PROMISE = 2.0
"""Seconds in which a kick or a stop is obeyed."""
HANG = 10 * PROMISE
KEYS = b"SEARCH " + b" ".join(b"TEXT absent%d" % number for number in range(990))
"""A thousand texts that begin as the message does everywhere."""
HEADER = b"From: a@example.test\r\nSubject: large\r\n"
TEXT = HEADER + b"\r\n" + b"absent absent absent absent absent absent\r\n" * (LARGEST // 44)


@pytest.fixture
def searching(server: Server, mail_user: str) -> tuple[str, Client]:
    """A user with one message of the largest size, and a client that looks for a thousand texts in it."""
    deliver(server, mail_user, TEXT)
    client = log_in(server, "imaps", mail_user)
    assert client.command(b"SELECT INBOX")[-1].startswith(b"OK")
    client.send(b"s " + KEYS + b"\r\n")
    # It is under way: the server says so.
    assert b"INPROGRESS" in client.reply()
    return mail_user, client


def test_others_of_the_account_are_served_meanwhile_and_it_ends(server: Server, searching: tuple[str, Client]) -> None:
    user, client = searching
    with client, log_in(server, "imaps", user) as other:
        longest = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert other.command(b"SELECT INBOX")[-1].startswith(b"OK")
            assert other.command(b"STATUS INBOX (MESSAGES)")[-1].startswith(b"OK")
            longest = max(longest, time.monotonic() - began)
        assert longest < HANG, f"another session of the account waited {longest:.1f} s"
        while not (answer := client.reply()).startswith(b"s "):
            assert b"INPROGRESS" in answer
        # Either all was compared, or it was too much.
        assert answer.startswith((b"s OK", b"s NO [LIMIT] ")), answer
        client.in_step()


def test_a_kick_ends_it(server: Server, searching: tuple[str, Client]) -> None:
    user, client = searching
    began = time.monotonic()
    server.run_cli("kick", user, "--config", str(server.config))
    with client:
        rest = client.to_the_end()
    assert time.monotonic() - began < HANG
    assert b"s OK" not in rest, "it was meant to be under way"
    assert b"\r\n* BYE" in b"\r\n" + rest, rest[-200:]
    _is_idle(server, user)


@pytest.mark.parametrize("protocol", ["imaps", "imap"])
def test_a_client_that_goes_ends_it(server: Server, mail_user: str, protocol: str) -> None:
    deliver(server, mail_user, TEXT)
    with log_in(server, "imaps", mail_user) if protocol == "imaps" else _log_in_clear(server, mail_user) as client:
        assert client.command(b"SELECT INBOX")[-1].startswith(b"OK")
        client.send(b"s " + KEYS + b"\r\n")
        assert b"INPROGRESS" in client.reply()
    began = time.monotonic()
    with log_in(server, "imaps", mail_user) as other:
        assert other.command(b"SELECT INBOX")[-1].startswith(b"OK")
        assert other.command(b"STORE 1 +FLAGS (\\Seen)")[-1].startswith(b"OK")
    assert time.monotonic() - began < HANG, "the account's thread is kept by nobody"
    _is_idle(server, mail_user)


def _log_in_clear(server: Server, user: str) -> Client:
    """Behind STARTTLS, whose layer is another."""
    client = Client(server, "imap")
    assert client.command(b"STARTTLS")[-1].startswith(b"OK")
    client.start_tls()
    assert client.command(f'LOGIN "{user}" "{server.accounts[user]}"'.encode())[-1].startswith(b"OK")
    return client


def _is_idle(server: Server, user: str) -> None:
    """No session of the user is left."""

    def gone() -> bool:
        return user not in server.run_cli("who", "--config", str(server.config)).stdout

    eventually(gone, HANG)


def test_a_header_larger_than_any_is_searched_in_little_memory(server: Server, mail_user: str) -> None:
    """It lies in the Maildir: no way in takes it."""
    with log_in(server, "imaps", mail_user) as client:
        assert client.command(b"SELECT INBOX")[-1].startswith(b"OK")
    size = 62 << 20
    path: Path = server.maildir(mail_user) / "cur" / "1700000000.M1P1.host:2,"
    line = b"X-Other: " + b"b" * 989 + b"\r\n"
    path.write_bytes(line * (size // len(line)) + b"X-Foo: " + b"b" * (1 << 20) + b"\r\n\r\ntext\r\n")
    with log_in(server, "imaps", mail_user) as client:
        assert client.command(b"SELECT INBOX")[-1].startswith(b"OK")
        forget_peak(server)
        before = peak(server)
        for keys, found in ((b"X-Foo b", b"* SEARCH 1"), (b"X-Foo a", b"* SEARCH"), (b"X-Other bbb", b"* SEARCH 1")):
            answers = client.command(b"SEARCH HEADER " + keys)
            assert next(answer for answer in answers if b"INPROGRESS" not in answer) == found
        grown = peak(server) - before
    path.unlink()
    assert grown < 96 * 1024, f"the server took {grown} KiB"
