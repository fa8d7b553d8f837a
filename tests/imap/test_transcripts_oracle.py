"""The same transcripts on a real Dovecot. Where it differs, tests/oracle/deviations.txt has the RFC sentence for ours."""

from __future__ import annotations

import select
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dovecot import Dovecot, available
from tests.imap.test_transcripts import FILES, message, parsed
from tests.transcript import Header, Mismatch, run
from tests.transcript_match import Broken

DEVIATIONS = Path(__file__).parents[1] / "oracle" / "deviations.txt"
PLAYED = [name for name in FILES if not parsed(name).header.settings]


def deviations() -> dict[str, str]:
    """Transcript -> why ours is right."""
    found = {}
    for line in DEVIATIONS.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, colon, reason = line.partition(": ")
            assert colon
            assert name not in found
            assert "RFC" in reason
            found[name] = reason
    return found


class SocketConnection:
    """A transcript's connection to a server on loopback."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.closed = False

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, *, patient: bool) -> bytes:
        if self.closed or not select.select([self.socket], [], [], 5 if patient else 0.1)[0]:
            return b""
        data = self.socket.recv(65536)
        self.closed = not data
        return data

    def wait(self, seconds: float) -> None:
        raise AssertionError(f"nobody waits {seconds} seconds here: give the transcript settings")

    def hang_up(self) -> None:
        self.socket.close()
        self.closed = True

    def ask(self, command: bytes) -> bytes:
        """One command of the set-up, tagged x."""
        self.send(b"x " + command + b"\r\n")
        answer = b""
        while not any(line.startswith(b"x ") for line in answer.split(b"\r\n")[:-1]):
            data = self.receive(patient=True)
            assert data, answer
            answer += data
        assert b"x OK" in answer, answer
        return answer


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    if not available():
        pytest.skip("needs root and Debian's dovecot-imapd")
    # Not below pytest's directory: that is root's alone, and Dovecot reads mail as another user.
    with tempfile.TemporaryDirectory(prefix="mailserver-oracle-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        root = directory / "mail"
        root.mkdir()
        users = {f"{each}@example.test": "secret" for each in PLAYED}
        with Dovecot(directory / "dovecot", root, users, protocols="imap") as server:
            server.own(root)
            yield server


def connected(header: Header, port: int, user: str) -> list[SocketConnection]:
    """The connections in their state."""

    def one(state: str) -> SocketConnection:
        connection = SocketConnection(port)
        assert connection.receive(patient=True).startswith(b"* OK")
        if state != "nonauth":
            connection.ask(f"LOGIN {user} secret".encode())
        if state == "selected":
            connection.ask(b"SELECT INBOX")
        return connection

    first = one("auth")
    offered = {token.split("=")[0] for token in first.ask(b"CAPABILITY").decode().split()}
    missing = set(header.capabilities) - offered
    if missing:
        pytest.skip(f"Dovecot does not offer {' '.join(missing)}")
    for number in range(1, header.messages + 1):
        data = message(number)
        first.ask(b"APPEND INBOX {%d+}\r\n%b" % (len(data), data))
    first.ask(b"LOGOUT")
    return [one(header.state) for _number in range(header.connections)]


@pytest.mark.interop
@pytest.mark.parametrize("name", PLAYED)
def test_on_dovecot(name: str, dovecot: Dovecot) -> None:
    transcript = parsed(name)
    connections = connected(transcript.header, dovecot.ports["imap"], f"{name}@example.test")
    difference = ""
    try:
        run(transcript, connections)
    except (Mismatch, Broken) as error:
        difference = str(error)
    finally:
        for connection in connections:
            connection.hang_up()
    if name in deviations():
        assert difference, "Dovecot does the same: the deviation is stale"
    else:
        assert not difference, "no RFC sentence is noted for this"


def test_deviations_are_of_transcripts_that_are_played() -> None:
    assert set(deviations()) <= set(PLAYED)
