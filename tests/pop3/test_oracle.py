"""One Maildir, read by a real Dovecot and by ours: the same numbers, sizes, unique-ids and octets."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.config.model import Pop3
from mailserver.pop3.commands import TABLE
from mailserver.pop3.session import Services, Session
from mailserver.sasl.registry import MECHANISMS, Mechanisms
from mailserver.store.live import LiveAccounts
from mailserver.store.maildir.account.store import MaildirStore
from tests.corpus import python_messages
from tests.dovecot import Dovecot, need
from tests.fakes import Client, DirectRunner, FakeAuthenticator, info
from tests.pop3.dialogs import EMPTY_SUMMARY

USER, PASSWORD = "anna@example.test", "secret"
OWN = {
    "dots": b"Subject: dots\n\n.\n..\n.x\n\n.\n",
    "no end": b"Subject: no end\r\n\r\nlast line",
    "no body": b"Subject: no body\n",
    "body only": b"\nbody\n",
    "crlf": b"Subject: crlf\r\n\r\n.\r\nbody\r\n",
    "long": b"Subject: long\n\n" + b"".join(b".%d\n" % number for number in range(30000)),
    "edge": b"Subject: edge\n\n" + b"x" * 65517 + b"\n.\n" * 3,
}


def ask(port: int, commands: list[bytes]) -> list[bytes]:
    """Dovecot's whole conversation after login, one answer a command."""
    answers = []
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        stream = connection.makefile("rwb")
        stream.readline()
        for command in (b"USER " + USER.encode(), b"PASS " + PASSWORD.encode(), *commands):
            stream.write(command + b"\r\n")
            stream.flush()
            answer = stream.readline()
            assert answer.startswith(b"+OK"), answer
            if command.split()[0] in (b"RETR", b"TOP") or command in (b"LIST", b"UIDL"):
                while not answer.endswith(b"\r\n.\r\n"):
                    answer += stream.readline()
            answers.append(answer)
    return answers[2:]


def told(answer: bytes) -> bytes:
    """An answer without the words of its first line, which are each server's own."""
    first, _, rest = answer.partition(b"\r\n")
    return rest or first


@pytest.fixture
def place() -> Iterator[Path]:
    """Not below pytest's directory: that is root's alone, and Dovecot reads mail as another user."""
    with tempfile.TemporaryDirectory(prefix="mailserver-oracle-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.interop
def test_dovecot_tells_the_same(place: Path) -> None:
    need("dovecot-pop3d")
    # Dovecot does not send a NUL as it is.
    usable = [text for text in python_messages().values() if b"\0" not in text]
    assert len(usable) > 30 or not python_messages(), "but for those with a NUL, all are compared"
    root = place / "theirs"
    new = root / "example.test" / "anna" / "Maildir" / "new"
    for name in ("cur", "new", "tmp"):
        (new.parent / name).mkdir(parents=True)
    for number, text in enumerate([*OWN.values(), *usable]):
        (new / f"{1700000000 + number}.M{number}P1.host").write_bytes(text)
    count = len(OWN) + len(usable)
    commands = [b"STAT", b"LIST", b"UIDL"]
    commands += [b"RETR %d" % number for number in range(1, count + 1)]
    commands += [b"TOP %d %d" % (number, number % 5) for number in range(1, count + 1)]

    dovecot = Dovecot(place / "dovecot", root, {USER: PASSWORD}, protocols="imap pop3")
    dovecot.own(root)
    with dovecot:
        theirs = ask(dovecot.ports["pop3"], commands)

    shutil.copytree(root, place / "ours")
    store = MaildirStore(place / "ours", lambda _message: EMPTY_SUMMARY)
    authenticator = FakeAuthenticator({USER: PASSWORD})
    services = Services(
        authenticator,
        LiveAccounts(store, DirectRunner),
        Pop3(),
        Mechanisms(MECHANISMS),
        "mail.example.test",
        table=TABLE,
    )
    client = Client(lambda channel: Session(channel, services), info("pop3s"))
    client.ask(b"USER " + USER.encode() + b"\r\nPASS " + PASSWORD.encode() + b"\r\n")
    for command, expected in zip(commands, theirs, strict=True):
        assert told(client.ask(command + b"\r\n")) == told(expected), command
