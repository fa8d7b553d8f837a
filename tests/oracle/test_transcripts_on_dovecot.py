"""The same transcripts on a real Dovecot, where it has the capability that the header names.

A line at which Dovecot answers otherwise stands in deviations.txt with the RFC sentence for ours; the run goes on
behind it, unless the reason begins with "ends: ", as what follows depends on it. A difference that is not listed
fails, and so does a listed one that is none any more.
"""

from __future__ import annotations

import select
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.dovecot import Dovecot, away, need
from tests.transcript import FOLDER, Header, Mismatch, Running, Step, Transcript, load, message, names
from tests.transcript_match import Bindings, Broken
from tests.transcript_run import run_step

DEVIATIONS = Path(__file__).parent / "deviations.txt"
USER = "anna@example.test"
FOR_BOTH = ("authenticate-initial", "authenticate-login", "list", "lsub", "names", "special-use")
"""Transcripts with settings that this Dovecot has too. The others ask for what is our own choice, or a clock."""
MORE = """
namespace inbox {
  mailbox Sent {
    special_use = \\Sent
    auto = create
  }
  mailbox Trash {
    special_use = \\Trash
    auto = create
  }
}
"""


PLAYED = [name for name in names("imap") if name in FOR_BOTH or not load("imap", name).header.settings]


def deviations() -> dict[str, dict[str, str]]:
    """Transcript -> (line -> why ours is right)."""
    found: dict[str, dict[str, str]] = {}
    for entry in DEVIATIONS.read_text(encoding="utf-8").splitlines():
        if entry and not entry.startswith("#"):
            name, line, reason = entry.split(" | ")
            lines = found.setdefault(name, {})
            assert line not in lines, entry
            lines[line] = reason
    return found


def places(name: str, transcript: Transcript) -> dict[int, str]:
    """How deviations.txt names each step: its line; where that is not the first such line, with " (2)" and so on."""
    lines = (FOLDER / transcript.protocol / name).read_text(encoding="utf-8").split("\n")
    found: dict[int, str] = {}
    for step in transcript.steps:
        line = lines[step.number - 1]
        again = sum(lines[number - 1] == line for number in found)
        found[step.number] = f"{line} ({again + 1})" if again else line
    return found


class SocketConnection:
    """A transcript's connection to a server on loopback."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.closed = False

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError:
            self.closed = True

    def receive(self, *, patient: bool) -> bytes:
        if self.closed or not select.select([self.socket], [], [], 5 if patient else 0.1)[0]:
            return b""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self.closed = not data
        return data

    def wait(self, seconds: float) -> None:
        raise AssertionError(f"nobody waits {seconds} seconds here")

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
    need()
    with away({USER: "secret"}, protocols="imap", more=MORE) as server, server:
        yield server


def connected(header: Header, port: int) -> list[SocketConnection]:
    """The connections in their state."""

    def one(state: str) -> SocketConnection:
        connection = SocketConnection(port)
        assert connection.receive(patient=True).startswith(b"* OK")
        if state != "nonauth":
            connection.ask(f"LOGIN {USER} secret".encode())
        if state == "selected":
            connection.ask(b"SELECT INBOX")
        return connection

    before = one("nonauth")
    offered = {token.split("=")[0] for token in before.ask(b"CAPABILITY").decode().split()}
    before.hang_up()
    first = one("auth")
    offered |= {token.split("=")[0] for token in first.ask(b"CAPABILITY").decode().split()}
    missing = set(header.capabilities) - offered
    if missing:
        pytest.skip(f"Dovecot does not offer {' '.join(missing)}")
    for number in range(1, header.messages + 1):
        data = message(number)
        first.ask(b"APPEND INBOX {%d+}\r\n%b" % (len(data), data))
    first.ask(b"LOGOUT")
    return [one(header.state) for _number in range(header.connections)]


def differences(transcript: Transcript, connections: Sequence[SocketConnection], last: set[int]) -> dict[int, str]:
    """Number of the line -> what came otherwise there. A difference at a line of `last` ends the run."""
    running = [Running(connection) for connection in connections]
    bound: Bindings = {}
    found: dict[int, str] = {}
    for step in transcript.steps:
        here = running[step.connection - 1]
        try:
            bound = run_step(step, here, bound)
        except (Mismatch, Broken) as error:
            found[step.number] = str(error)
            if step.number in last:
                break
            _go_on(step, here)
    return found


def _go_on(step: Step, running: Running) -> None:
    """After a difference: what is left unread belongs to it."""
    while running.more(patient=False):
        pass
    running.buffer = b""
    if step.kind == "C":
        run_step(step, running, {})


@pytest.mark.interop
@pytest.mark.parametrize("name", PLAYED)
def test_on_dovecot(name: str, dovecot: Dovecot) -> None:
    shutil.rmtree(dovecot.root / "example.test", ignore_errors=True)
    transcript = load("imap", name)
    connections = connected(transcript.header, dovecot.ports["imap"])
    lines = places(name, transcript)
    listed = deviations().get(name, {})
    last = {number for number, line in lines.items() if listed.get(line, "").startswith("ends: ")}
    found = differences(transcript, connections, last)
    for connection in connections:
        connection.hang_up()
    unlisted = [f"{name} | {lines[number]} | {text}" for number, text in found.items() if lines[number] not in listed]
    assert not unlisted, "no RFC sentence is noted for:\n" + "\n".join(unlisted)
    stale = set(listed) - {lines[number] for number in found}
    assert not stale, f"Dovecot does the same: {stale}"


def test_deviations_are_of_transcripts_that_are_played_and_cite_an_rfc() -> None:
    for name, lines in deviations().items():
        assert name in PLAYED
        known = set(places(name, load("imap", name)).values())
        for line, reason in lines.items():
            assert line in known, line
            assert "RFC " in reason, line
