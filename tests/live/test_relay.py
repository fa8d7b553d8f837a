"""Submission with a next hop: what the client sees is the hop's own answer or a temporary refusal, nothing is lost or
doubled, and local copies appear exactly when the message was accepted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import trustme

from tests.live.client import Client, eventually, logged_in
from tests.live.conftest import no_bug
from tests.live.hop import Hop
from tests.server import Server

RELAY = """
[submission.relay]
host = "localhost"
port = 9
ca_file = "{dir}/hop-ca.pem"
user = "relay-user"
password_file = "{dir}/hop-password"
timeout = 3
"""
PASSWORD = "hop-Passw0rd-in-no-log"
DOWN = b"451 4.4.1 "
HANG = 20.0
"""Seconds that a stop may take: ten times what is promised."""


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ca: trustme.CA) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("relay")
    ca.cert_pem.write_to_path(str(directory / "hop-ca.pem"))
    (directory / "hop-password").write_text(PASSWORD + "\n")
    (directory / "hop-password").chmod(0o600)
    with Server(directory, append=RELAY) as server:
        yield server
    no_bug(server.log)
    assert PASSWORD not in server.log


def use(server: Server, hop: Hop, tls: str = "starttls") -> None:
    """Point the configuration at the hop; without TLS nothing is logged in with."""
    text = server.config.read_text()
    relay = RELAY.format(dir=server.dir).replace("port = 9", f'port = {hop.port}\ntls = "{tls}"')
    if tls == "none":
        relay = "\n".join(
            line for line in relay.splitlines() if line.split(" ")[0] not in {"ca_file", "user", "password_file"}
        )
    server.config.write_text(text[: text.index("[submission.relay]")] + relay.lstrip() + "\n")
    assert "] reloaded" in server.hang_up()


class Submission:
    """One client, one message to a stranger and, if wished, to a colleague."""

    def __init__(self, server: Server, *, local: bool = True) -> None:
        self.server = server
        self.user, _password = server.user_of("example.test")
        self.subject = f"relayed-{time.monotonic_ns()}"
        self.client = logged_in(server, "submissions")
        assert self.client.ask(f"MAIL FROM:<{self.user}>\r\n".encode()).startswith(b"250")
        if local:
            assert self.client.ask(b"RCPT TO:<ben@example.test>\r\n").startswith(b"250")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.client.socket.close()

    def rcpt(self, address: bytes = b"someone@example.net") -> bytes:
        return self.client.ask(b"RCPT TO:<" + address + b">\r\n")

    def data(self, body: bytes = b".dot\r\n..dots\r\ntext\r\n") -> bytes:
        answer = self.client.ask(b"DATA\r\n")
        if not answer.startswith(b"354"):
            return answer
        return self.client.ask(f"From: {self.user}\r\nSubject: {self.subject}\r\n\r\n".encode() + body + b".\r\n")

    def still_serves(self) -> bool:
        """The session is in step: another message, local only, goes through."""
        self.client.ask(b"RSET\r\n")
        with_local = [f"MAIL FROM:<{self.user}>", "RCPT TO:<carla@example.test>"]
        assert all(self.client.ask(f"{line}\r\n".encode()).startswith(b"250") for line in with_local)
        return self.data(b"text\r\n").startswith(b"250")

    def copies(self) -> int:
        """Local ones of ben's."""
        folder = self.server.maildir("ben@example.test")
        files = [*(folder / "new").iterdir(), *(folder / "cur").iterdir()]
        return sum(self.subject.encode() in path.read_bytes() for path in files)


@pytest.mark.parametrize("tls", ["starttls", "implicit", "none"])
def test_a_message_reaches_the_hop_once_and_unchanged(server: Server, ca: trustme.CA, tls: str) -> None:
    with Hop(ca, implicit=tls == "implicit", starttls=tls == "starttls") as hop:
        use(server, hop, tls)
        with Submission(server) as message:
            assert message.rcpt().startswith(b"250")
            assert message.rcpt(b"other@example.net").startswith(b"250")
            answer = message.data(b"..dot\r\n...dots\r\ntext\r\n")
            assert answer.startswith(b"250")
            assert b"taken as 4711" in answer, "the hop's own words"
            eventually(lambda: message.copies() == 1)
            assert hop.connections == 1
            (taken,) = hop.messages
            assert taken.endswith(b"\r\n..dot\r\n...dots\r\ntext\r\n")
            assert taken.count(message.subject.encode()) == 1
            if tls != "none":
                assert hop.password() == f"\0relay-user\0{PASSWORD}".encode()
            assert message.still_serves()
        eventually(lambda: hop.commands[-1] == b"QUIT")


def test_a_wrong_authority_a_wrong_name_and_no_starttls_are_never_trusted(server: Server, ca: trustme.CA) -> None:
    with (
        Hop(trustme.CA()) as stranger,
        Hop(trustme.CA(), implicit=True) as implicit,
        Hop(ca, name="other.example.net") as misnamed,
        Hop(ca, starttls=False) as plain,
    ):
        for hop, tls in ((stranger, "starttls"), (implicit, "implicit"), (misnamed, "starttls"), (plain, "starttls")):
            use(server, hop, tls)
            since = len(server.log)
            with Submission(server) as message:
                assert message.rcpt().startswith(DOWN)
                assert message.rcpt().startswith(DOWN)
                assert message.still_serves()
                assert message.copies() == 0
            assert hop.connections == 1, "dialled once in a transaction"
            assert hop.messages == []
            assert not any(command.startswith((b"AUTH", b"MAIL")) for command in hop.commands)
            server.wait_for("relay-(down|failed)", since=since)


def test_a_hop_that_is_down(server: Server, ca: trustme.CA) -> None:
    with Hop(ca) as hop:
        use(server, hop)
    eventually(lambda: _refuses(hop.port))
    with Submission(server) as message:
        assert message.rcpt().startswith(DOWN)
        assert message.data().startswith(b"250"), "the local recipient was accepted"
        assert message.copies() == 1


def _refuses(port: int) -> bool:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


def injected(hop: Hop) -> bytes:
    return b"220 go on\r\n250-hop.example.net\r\n250 SIZE 1"


def slow(hop: Hop) -> bytes:
    hop.released.wait(20)
    return b"250 late"


@pytest.mark.parametrize(
    ("word", "reply"),
    [
        (b"", b"554 no service"),
        (b"", None),
        (b"", b"SSH-2.0-OpenSSH"),
        (b"", b"220" * 5000),
        (b"EHLO", b"502 what"),
        (b"EHLO", b"\r\n".join([b"250-x"] * 500) + b"\r\n250 x"),
        (b"STARTTLS", b"454 not now"),
        (b"STARTTLS", injected),
        (b"AUTH", b"535 5.7.8 wrong password"),
        (b"AUTH", slow),
        (b"MAIL", slow),
        (b"MAIL", None),
        (b"RCPT", None),
        (b"RCPT", slow),
    ],
)
def test_whatever_goes_wrong_before_data_is_a_temporary_refusal(
    server: Server, ca: trustme.CA, word: bytes, reply: object
) -> None:
    with Hop(ca) as hop:
        hop.replies[word] = reply
        use(server, hop)
        with Submission(server) as message:
            assert message.rcpt().startswith(DOWN)
            assert message.still_serves()
            assert message.copies() == 0
        assert hop.messages == []


@pytest.mark.parametrize(
    ("word", "reply", "seen"),
    [
        (b"MAIL", b"550 5.7.1 not you", b"550 5.7.1 not you"),
        (b"RCPT", b"550-5.1.1 first\r\n550 5.1.1 second", b"550-5.1.1 first"),
        (b"RCPT", b"452 4.2.2 full", b"452 4.2.2 full"),
        (b"RCPT", b"421 4.3.2 closing", b"451 4.3.2 closing"),
        (b"RCPT", b"550 no code", b"550 5.0.0 no code"),
    ],
)
def test_a_refused_recipient_hears_the_hops_own_reply(
    server: Server, ca: trustme.CA, word: bytes, reply: bytes, seen: bytes
) -> None:
    with Hop(ca) as hop:
        hop.replies[word] = reply
        use(server, hop)
        with Submission(server) as message:
            assert message.rcpt().startswith(seen)
            if b"-" in seen[:4]:
                assert message.client.line().startswith(b"550 5.1.1 second")
            assert message.still_serves()


@pytest.mark.parametrize(
    ("word", "reply", "seen"),
    [
        (b"DATA", b"451 4.3.0 no room", b"451 4.3.0 no room"),
        (b"DATA", None, DOWN),
        (b".", b"554 5.6.0 refused", b"554 5.6.0 refused"),
        (b".", b"452 4.3.1 later", b"452 4.3.1 later"),
        (b".", None, DOWN),
        (b".", slow, DOWN),
    ],
)
def test_without_the_hops_250_nobody_gets_a_copy(
    server: Server, ca: trustme.CA, word: bytes, reply: object, seen: bytes
) -> None:
    """Also where it drops behind the final dot: the client tries again, and a local copy now would be a second one."""
    with Hop(ca) as hop:
        hop.replies[word] = reply
        use(server, hop)
        with Submission(server) as message:
            assert message.rcpt().startswith(b"250")
            assert message.data().startswith(seen)
            assert message.copies() == 0
            assert message.still_serves()
        assert hop.connections == 1
        assert hop.messages == []


def test_a_client_that_goes_in_the_middle_leaves_half_a_message_nowhere(server: Server, ca: trustme.CA) -> None:
    with Hop(ca) as hop:
        use(server, hop)
        with Submission(server) as message:
            assert message.rcpt().startswith(b"250")
            assert message.client.ask(b"DATA\r\n").startswith(b"354")
            message.client.send(f"From: {message.user}\r\nSubject: {message.subject}\r\n\r\nhalf".encode())
        eventually(lambda: b"QUIT" in hop.commands or len(hop.commands) > 4)
        time.sleep(0.5)
        assert hop.messages == []
        assert message.copies() == 0


def test_a_hop_that_does_not_take_the_bytes_is_given_up(server: Server, ca: trustme.CA) -> None:
    """It accepts DATA and reads no more: flow control holds the message, the time-out ends it."""
    body = (b"y" * 900 + b"\r\n") * 20_000

    def stuck(hop: Hop) -> bytes:
        hop.stuck = True
        return b"354 go on"

    with Hop(ca) as hop:
        hop.replies[b"DATA"] = stuck
        hop.replies[b"EHLO"] = b"250-hop.example.net\r\n250 8BITMIME"
        use(server, hop, "none")
        with Submission(server, local=False) as message:
            assert message.rcpt().startswith(b"250")
            assert message.data(body).startswith(DOWN)
            assert message.still_serves()


@pytest.mark.slow
def test_a_session_that_waits_for_a_silent_hop_does_not_hold_up_the_end(tmp_path: Path, ca: trustme.CA) -> None:
    def silent(hop: Hop) -> bytes:
        hop.released.wait(120)
        return b"250 late"

    with Hop(ca, starttls=False) as hop:
        hop.replies[b"RCPT"] = silent
        relay = f'\n[submission.relay]\nhost = "localhost"\nport = {hop.port}\ntls = "none"\ntimeout = 300\n'
        server = Server(tmp_path, append=relay).start()
        with Submission(server) as message:
            message.client.send(b"RCPT TO:<someone@example.net>\r\n")
            eventually(lambda: any(command.startswith(b"RCPT") for command in hop.commands))
            assert server.process is not None
            server.process.terminate()
            server.process.terminate()  # impatience changes nothing
            began = time.monotonic()
            assert server.process.wait(30) == 0
            assert time.monotonic() - began < HANG
            assert message.client.line().startswith(b"451 4.3.2 ")
            assert message.client.line().startswith(b"421 ")
    no_bug(server.log)


@pytest.mark.slow
def test_a_client_that_goes_behind_the_last_dot_has_sent_its_message(server: Server, ca: trustme.CA) -> None:
    def slow(hop: Hop) -> bytes:
        hop.released.wait(1.5)
        return b"250 queued"

    with Hop(ca) as hop:
        hop.replies[b"."] = slow
        use(server, hop)
        with Submission(server) as message:
            assert message.rcpt().startswith(b"250")
            assert message.client.ask(b"DATA\r\n").startswith(b"354")
            message.client.send(f"From: {message.user}\r\nSubject: {message.subject}\r\n\r\ntext\r\n.\r\n".encode())
            eventually(lambda: any(command == b"DATA" for command in hop.commands))
            time.sleep(0.3)
        eventually(lambda: message.copies() == 1)


def test_without_a_relay_it_is_refused_for_good(tmp_path: Path) -> None:
    with Server(tmp_path) as server, Submission(server) as message:
        assert message.rcpt().startswith(b"550 5.7.1")
        assert isinstance(message.client, Client)
