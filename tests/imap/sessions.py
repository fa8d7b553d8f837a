"""Sessions on the memory store for tests: one service, any number of clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mailserver.config.model import Imap, Mail
from mailserver.imap.commands import TABLE
from mailserver.imap.services import Services
from mailserver.imap.session import Session
from mailserver.message.render import summarise
from mailserver.sasl.registry import MECHANISMS, Mechanisms
from mailserver.session.channel import ConnectionInfo
from mailserver.store.live import LiveAccounts
from mailserver.store.memory import MemoryStore
from tests.fakes import Client, DirectRunner, FakeAuthenticator, info

MESSAGE = b"From: a@example.test\r\nSubject: one\r\n\r\nbody\r\n"


def services(**changes: Any) -> Services:
    """A service with its own empty store. `mail` and `imap` are dicts of settings."""
    store = changes.pop("store", None) or MemoryStore(summarise, special_use={"\\Sent": "Sent", "\\Trash": "Trash"})
    mail = Mail(root=Path("/nowhere"), **changes.pop("mail", {}))
    config = Imap(**changes.pop("imap", {}))
    changes.setdefault("table", TABLE)
    return Services(
        authenticator=changes.pop("authenticator", None) or FakeAuthenticator(),
        accounts=LiveAccounts(store, DirectRunner),
        hostname="mail.example.test",
        mail=mail,
        mechanisms=Mechanisms(MECHANISMS),
        config=config,
        **changes,
    )


def connect(service: Services, facts: ConnectionInfo | None = None, **more: Any) -> Client:
    """A client whose greeting is still to be taken."""
    return Client(lambda channel: Session(channel, service), facts or info(), **more)


def logged_in(service: Services, user: str = "anna@example.test", password: str = "secret") -> Client:
    """A client after LOGIN."""
    client = connect(service)
    client.send(f"l LOGIN {user} {password}\r\n".encode())
    assert b"l OK" in client.take()
    return client


def selected(service: Services, mailbox: str = "INBOX", *, messages: int = 0) -> Client:
    """A client with a mailbox open, and that many messages put there before."""
    client = logged_in(service)
    for _number in range(messages):
        put(client, mailbox)
    client.send(b"s SELECT %b\r\n" % mailbox.encode())
    assert b"s OK" in client.take()
    return client


def put(client: Client, mailbox: str = "INBOX", message: bytes = MESSAGE, flags: str = "") -> bytes:
    """APPEND a message; the answer."""
    words = f"p APPEND {mailbox} {flags + ' ' if flags else ''}{{{len(message)}+}}\r\n".encode()
    answer = client.ask(words + message + b"\r\n")
    assert b"p OK" in answer, answer
    return answer
