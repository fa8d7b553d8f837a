"""A POP3 server for tests: accounts in memory, a fake login service, and dialogs as text.

`C:` lines are sent with CRLF, `S:` lines are expected with CRLF, exactly; `C!` and `S!` lines are Python bytes
literals, without one.
"""

from __future__ import annotations

import ast
import random

from mailserver.config.model import Pop3
from mailserver.message.summary import Summary
from mailserver.pop3.commands import TABLE
from mailserver.pop3.session import Services, Session
from mailserver.sasl.registry import MECHANISMS, Mechanisms
from mailserver.session.channel import ConnectionInfo
from mailserver.store.live import LiveAccounts
from mailserver.store.memory import MemoryStore
from mailserver.store.receiving import NewMessage
from tests.fakes import Client, DirectRunner, FakeAuthenticator, info, run_now

EMPTY_SUMMARY = Summary(b"", b"", b"", b"")
ONE = b"Subject: one\r\n\r\nfirst\r\n.dot\r\n..two\r\n.\r\n"
TWO = b"Subject: two\r\n\r\nsecond\r\nlast line"
"""Two messages, whose lines begin and end oddly."""
GREETING = b"+OK mail.example.test ready\r\n"
HOW = ["whole", "bytewise", "1", "2"]
"""Ways of `play` to send a dialog."""


class World:
    """What the sessions of one test share."""

    def __init__(self, **config: object) -> None:
        self.store = MemoryStore(lambda _data: EMPTY_SUMMARY)
        self.accounts = LiveAccounts(self.store, DirectRunner)
        self.authenticator = FakeAuthenticator()
        self.services = Services(
            self.authenticator,
            self.accounts,
            Pop3(**config),  # type: ignore[arg-type]
            Mechanisms(MECHANISMS),
            "mail.example.test",
            table=TABLE,
        )

    def deliver(self, *messages: bytes, user: str = "anna@example.test") -> None:
        account = self.store.account(user)
        for message in messages:
            staged = account.stage()
            staged.write(message)
            account.append("INBOX", [NewMessage(staged)])

    def kept(self, user: str = "anna@example.test") -> list[bytes]:
        """The messages in INBOX now."""
        mailbox = self.store.account(user).mailbox("INBOX")
        return [mailbox.open_message(row.uid).read() for row in mailbox.load().rows]

    def connect(self, facts: ConnectionInfo | None = None, **changes: bool) -> Client:
        return Client(lambda channel: Session(channel, self.services), facts or info("pop3s"), **changes)

    def log_in(self) -> Client:
        client = self.connect()
        client.send(b"USER anna@example.test\r\nPASS secret\r\n")
        assert b"+OK send the password\r\n+OK " in client.take()
        return client

    def live_users(self) -> int:
        """Sessions that hold the account open."""
        live = run_now(self.accounts.open("anna@example.test"))
        self.accounts.release(live)
        return live.users


def parse_dialog(text: str) -> list[tuple[str, bytes]]:
    """[("C" or "S", bytes)], neighbours joined."""
    steps: list[tuple[str, bytes]] = []
    for raw in text.strip().splitlines():
        line = raw.strip()
        side, kind, rest = line[:1], line[1:2], line[2:].removeprefix(" ")
        assert side in "CS", f"not a dialog line: {raw!r}"
        assert kind in ":!", f"not a dialog line: {raw!r}"
        data = rest.encode() + b"\r\n" if kind == ":" else ast.literal_eval(rest)
        if steps and steps[-1][0] == side:
            steps[-1] = (side, steps[-1][1] + data)
        else:
            steps.append((side, data))
    return steps


def play(client: Client, text: str, how: str, greeting: bytes = GREETING) -> None:
    """Hold the dialog: every C block whole, bytewise, or in random cuts; then compare what came."""
    assert client.take() == greeting
    for side, data in parse_dialog(text):
        if side == "S":
            assert client.take() == data
        elif how == "whole":
            client.send(data)
        elif how == "bytewise":
            client.send_bytewise(data)
        else:
            chance = random.Random(how)
            at = 0
            while at < len(data):
                count = chance.randint(1, 40)
                client.send(data[at : at + count])
                at += count
    assert client.take() == b""
