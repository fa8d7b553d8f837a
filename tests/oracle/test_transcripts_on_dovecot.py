"""The same transcripts on a real Dovecot, where it has the capability that the header names.

A line at which Dovecot answers otherwise stands in deviations.txt with the RFC sentence for ours; the run goes on
behind it, unless the reason begins with "ends: ", as what follows depends on it. A difference that is not listed
fails, and so does a listed one that is none any more.
"""

from __future__ import annotations

import select
import shutil
import socket
import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.dovecot import Dovecot, away, need
from tests.smtp.world import PLAIN, FakeHop
from tests.transcript import FOLDER, STATES, Header, Mismatch, Running, Step, Transcript, load, message, names
from tests.transcript_match import Bindings, Broken
from tests.transcript_run import run_step

DEVIATIONS = Path(__file__).parent / "deviations.txt"
USER = "anna@example.test"
USERS = {USER: "secret", "bert@example.org": "secret2"}
FOR_BOTH = (
    "authenticate-initial",
    "authenticate-login",
    "list",
    "list-extended",
    "list-nonexistent",
    "list-recursivematch",
    "lsub",
    "names",
    "quota",
    "special-use",
)
"""Transcripts with settings that this Dovecot has too. The others ask for what is our own choice, or a clock."""
MORE = """
mail_utf8_extensions = yes
mail_plugins {
  quota = yes
}
protocol imap {
  mail_plugins {
    imap_quota = yes
  }
  imap_metadata = yes
}
mail_attribute {
  dict file {
    path = %{home}/dovecot-attributes
  }
}
quota_storage_size = 100M
quota_message_count = 1000
quota "User quota" {
}
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


RELAY = """
submission_relay_host = 127.0.0.1
submission_relay_port = {port}
auth_failure_delay = 0
"""


def played() -> list[tuple[str, str]]:
    """Protocol and name of each transcript that runs here."""
    return [
        (protocol, name)
        for protocol in STATES
        for name in names(protocol)
        if (protocol == "imap" and name in FOR_BOTH) or not load(protocol, name).header.settings
    ]


PLAYED = played()


def deviations() -> dict[tuple[str, str], dict[str, str]]:
    """Protocol and transcript -> (line -> why ours is right)."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for entry in DEVIATIONS.read_text(encoding="utf-8").splitlines():
        if entry and not entry.startswith("#"):
            place, line, reason = entry.split(" | ")
            protocol, _, name = place.partition("/")
            lines = found.setdefault((protocol, name), {})
            assert line not in lines, entry
            lines[line] = reason
    return found


def places(protocol: str, name: str, transcript: Transcript) -> dict[int, str]:
    """How deviations.txt names each step: its line; where that is not the first such line, with " (2)" and so on."""
    lines = (FOLDER / protocol / name).read_text(encoding="utf-8").split("\n")
    found: dict[int, str] = {}
    for step in transcript.steps:
        line = lines[step.number - 1]
        again = sum(lines[number - 1] == line for number in found)
        found[step.number] = f"{line} ({again + 1})" if again else line
    return found


class _HopHandler(socketserver.BaseRequestHandler):
    """A next hop that accepts everything."""

    def handle(self) -> None:
        hop = FakeHop(
            extensions=(b"8BITMIME", b"SIZE 1000000", b"ENHANCEDSTATUSCODES"),
            replies={b"VRFY": b"252 2.5.2 not verified\r\n"},
        )
        while not hop._lost:
            output, hop._output = hop._output, b""
            self.request.sendall(output)
            if output.startswith(b"221") or not (data := self.request.recv(65536)):
                return
            hop.write(data)


@contextmanager
def next_hop() -> Iterator[int]:
    """The port of one."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _HopHandler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


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
    with next_hop() as port:
        more = MORE + RELAY.format(port=port)
        with away(USERS, protocols="imap pop3 lmtp submission", more=more) as server, server:
            yield server


def connected(protocol: str, header: Header, server: Dovecot) -> list[SocketConnection]:
    """The connections in their state."""
    fill(header, server.ports["imap"])
    if protocol == "imap":
        return imap_connected(header, server.ports["imap"])
    make = {"pop3": pop3_connected, "submission": smtp_connected, "lmtp": smtp_connected}[protocol]
    return [make(protocol, header, server.ports[protocol]) for _number in range(header.connections)]


def fill(header: Header, port: int) -> None:
    """Put the header's messages into INBOX."""
    if header.messages:
        connection = SocketConnection(port)
        assert connection.receive(patient=True).startswith(b"* OK")
        connection.ask(f"LOGIN {USER} secret".encode())
        for number in range(1, header.messages + 1):
            data = message(number)
            connection.ask(b"APPEND INBOX {%d+}\r\n%b" % (len(data), data))
        connection.ask(b"LOGOUT")
        connection.hang_up()


def imap_connected(header: Header, port: int) -> list[SocketConnection]:
    def one(state: str) -> SocketConnection:
        connection = SocketConnection(port)
        assert connection.receive(patient=True).startswith(b"* OK")
        if state != "nonauth":
            connection.ask(f"LOGIN {USER} secret".encode())
        if state == "selected":
            connection.ask(b"SELECT INBOX")
        return connection

    before = one("nonauth")
    offered = set(before.ask(b"CAPABILITY").decode().split())
    before.hang_up()
    first = one("auth")
    offered |= set(first.ask(b"CAPABILITY").decode().split())
    offered |= {token.split("=")[0] for token in offered}
    first.hang_up()
    missing = set(header.capabilities) - offered
    if missing:
        pytest.skip(f"Dovecot does not offer {' '.join(missing)}")
    return [one(header.state) for _number in range(header.connections)]


def pop3_connected(_protocol: str, header: Header, port: int) -> SocketConnection:
    connection = SocketConnection(port)
    assert connection.receive(patient=True).startswith(b"+OK")
    if "UTF8" in header.capabilities:
        connection.send(b"CAPA\r\n")
        if b"\r\nUTF8" not in connection.receive(patient=True):
            pytest.skip("Dovecot does not offer UTF8")
    if header.state == "auth":
        for command in (f"USER {USER}", "PASS secret"):
            connection.send(command.encode() + b"\r\n")
            assert connection.receive(patient=True).startswith(b"+OK")
    return connection


def smtp_connected(protocol: str, header: Header, port: int) -> SocketConnection:
    connection = SocketConnection(port)
    assert connection.receive(patient=True).startswith(b"220 ")
    if header.state != "nonauth":
        connection.send((b"LHLO" if protocol == "lmtp" else b"EHLO") + b" client.example.net\r\n")
        answer = connection.receive(patient=True).decode().split("\r\n")
        missing = set(header.capabilities) - {line[4:].split(" ")[0] for line in answer} - {"SMTP", "LMTP"}
        if missing:
            pytest.skip(f"Dovecot does not offer {' '.join(missing)}")
    if header.state == "auth":
        connection.send(b"AUTH PLAIN " + PLAIN + b"\r\n")
        assert connection.receive(patient=True).startswith(b"235 ")
    return connection


def differences(transcript: Transcript, connections: Sequence[SocketConnection], last: set[int]) -> dict[int, str]:
    """Number of the line -> what came otherwise there. A difference at a line of `last` ends the run."""
    running = [Running(connection, transcript.protocol) for connection in connections]
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
@pytest.mark.parametrize(("protocol", "name"), PLAYED)
def test_on_dovecot(protocol: str, name: str, dovecot: Dovecot) -> None:
    for domain in ("example.test", "example.org"):
        shutil.rmtree(dovecot.root / domain, ignore_errors=True)
    transcript = load(protocol, name)
    connections = connected(protocol, transcript.header, dovecot)
    lines = places(protocol, name, transcript)
    listed = deviations().get((protocol, name), {})
    last = {number for number, line in lines.items() if listed.get(line, "").startswith("ends: ")}
    found = differences(transcript, connections, last)
    for connection in connections:
        connection.hang_up()
    unlisted = [
        f"{protocol}/{name} | {lines[number]} | {text}" for number, text in found.items() if lines[number] not in listed
    ]
    assert not unlisted, "no RFC sentence is noted for:\n" + "\n".join(unlisted)
    stale = set(listed) - {lines[number] for number in found}
    assert not stale, f"Dovecot does the same: {stale}"


def test_deviations_are_of_transcripts_that_are_played_and_cite_an_rfc() -> None:
    for (protocol, name), lines in deviations().items():
        assert (protocol, name) in PLAYED
        known = set(places(protocol, name, load(protocol, name)).values())
        for line, reason in lines.items():
            assert line in known, line
            assert "RFC " in reason, line
