"""Asking listeners for what they show: what is a fault, and what says nothing."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailserver.config.kinds import Address, Network, Port
from mailserver.config.model import Listener
from mailserver.tls.changes import trial
from mailserver.tls.keypair.pair import parse_pair
from mailserver.tls.serving import validation
from tests.tls.site import authority

HOST = "mail.example.test"


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose connections `serve` gets, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _address = server.accept()
                    with connection, contextlib.suppress(OSError):
                        serve(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(20)


class Shown:
    """What a listener shows, and says before."""

    def __init__(self, directory: Path) -> None:
        certificate, key = validation.issue(authority(), [HOST])
        self.fingerprint = parse_pair(certificate, key).fingerprint
        path = directory / "pair.pem"
        path.write_bytes(certificate + key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(path)
        self.heard: list[bytes] = []

    def implicit(self, connection: socket.socket) -> None:
        with self.context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)

    def starttls(self, *answers: bytes) -> Callable[[socket.socket], None]:
        def serve(connection: socket.socket) -> None:
            for answer in answers:
                connection.sendall(answer)
                if answer is not answers[-1]:
                    self.heard.append(connection.recv(1000))
            self.implicit(connection)

        return serve


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    return Shown(tmp_path)


def ask(protocol: str, port: int, *fingerprints: str, **more: object) -> dict[str, str]:
    listener = Listener(protocol, Port(port), (Address("127.0.0.1"),), **more)  # type: ignore[arg-type]
    return trial.check_listeners([listener], {HOST: frozenset(fingerprints)})


def test_what_is_expected_is_no_fault_and_another_is_one(shown: Shown) -> None:
    with listening(shown.implicit) as port:
        assert ask("imaps", port, shown.fingerprint, "00") == {}
        assert ask("imaps", port, "00") == {HOST: "imaps at 127.0.0.1 shows another certificate"}


@pytest.mark.parametrize(
    ("protocol", "answers", "heard"),
    [
        ("imap", (b"* OK hello\r\n", b"p OK begin\r\n"), [b"p STARTTLS\r\n"]),
        ("pop3", (b"+OK\r\n", b"+OK begin\r\n"), [b"STLS\r\n"]),
        (
            "submission",
            (b"220 x\r\n", b"250-x\r\n250 STARTTLS\r\n", b"220 go\r\n"),
            [b"EHLO probe.invalid\r\n", b"STARTTLS\r\n"],
        ),
        ("lmtp", (b"220 x\r\n", b"250 x\r\n", b"220 go\r\n"), [b"LHLO probe.invalid\r\n", b"STARTTLS\r\n"]),
    ],
)
def test_starttls(shown: Shown, protocol: str, answers: tuple[bytes, ...], heard: list[bytes]) -> None:
    with listening(shown.starttls(*answers)) as port:
        assert ask(protocol, port, shown.fingerprint) == {}
        assert ask(protocol, port, "00") == {HOST: f"{protocol} at 127.0.0.1 shows another certificate"}
    assert shown.heard[: len(heard)] == heard


def test_a_handshake_that_fails_is_a_fault() -> None:
    with listening(lambda connection: connection.sendall(b"\x15\x03\x03\x00\x02\x02\x28")) as port:
        assert "a handshake with imaps at 127.0.0.1 fails" in ask("imaps", port, "00")[HOST]


def test_who_cannot_be_asked_says_nothing(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "PATIENCE", 0.2)
    with listening(lambda connection: connection.sendall(b"* BYE [LIMIT] too many\r\n")) as port:
        assert ask("imap", port, "00") == {}
    with listening(lambda connection: connection.recv(1)) as port:
        assert ask("imap", port, "00") == {}
    assert ask("imaps", port, "00") == {}
    with listening(lambda connection: connection.close()) as port:
        assert ask("imaps", port, "00") == {}


def test_behind_a_proxy_it_says_that_it_is_none(shown: Shown) -> None:
    heard: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        heard.append(connection.recv(len(b"PROXY UNKNOWN\r\n")))
        shown.implicit(connection)

    with listening(serve) as port:
        assert ask("imaps", port, shown.fingerprint, proxy_from=(Network("127.0.0.0/8"),)) == {}
    assert heard == [b"PROXY UNKNOWN\r\n"]


def test_what_has_no_tls_is_not_asked() -> None:
    with listening(lambda _connection: pytest.fail("asked")) as port:
        assert ask("http", port, "00") == {}


def test_a_wildcard_is_asked_for_by_a_name_that_it_covers() -> None:
    assert trial.server_name("*.example.test") == "probe.example.test"
