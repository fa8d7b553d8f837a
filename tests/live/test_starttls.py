"""TLS on live ports: what is sent before it never acts within it, what was learnt before it is forgotten."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.live.client import STARTTLS, Client, logged_in
from tests.server import Server

FAMILIES = tuple(STARTTLS)
INJECTED = {
    "imap": b"x CREATE injected\r\n",
    "pop3": b"CAPA\r\n",
    "submission": b"EHLO injected.example.net\r\n",
    "lmtp": b"LHLO injected.example.net\r\n",
}


def client_hello() -> bytes:
    """A real one, of Python's own TLS."""
    out = ssl.MemoryBIO()
    layer = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="mail.example.test")
    with pytest.raises(ssl.SSLWantReadError):
        layer.do_handshake()
    return out.read()


OWN_ADDRESS = "127.0.0.21"
"""Of each address the log has 30 lines of one kind of refusal in a minute, and other tests use the server's from 127.0.0.1."""


def ready(server: Server, family: str) -> Client:
    client = Client(server, family, source=OWN_ADDRESS)
    client.greeting()
    if family in {"submission", "lmtp"}:
        client.hello()
    return client


def new_lines(server: Server, before: int, pattern: str) -> list[str]:
    server.wait_for(pattern, since=before, seconds=20)
    return [line for line in server.log[before:].splitlines() if re.search(pattern, line)]


@pytest.mark.parametrize(
    ("protocol", "commands", "last"),
    [
        ("imaps", b"a SELECT INBOX\r\nb FETCH 1:* BODY.PEEK[]\r\nc LOGOUT\r\n", rb"c OK .*\r\n\Z"),
        ("pop3s", b"STAT\r\nRETR 1\r\nQUIT\r\n", rb"\+OK .*\r\n\Z"),
        ("submissions", b"NOOP\r\nQUIT\r\n", rb"221 .*\r\n\Z"),
        ("imaps", b"a SELECT INBOX\r\nb FETCH 1:* BODY.PEEK[]\r\n", rb"b OK .*\r\n\Z"),
    ],
)
def test_who_says_all_and_close_notify_gets_all_answers(
    shared: Server, protocol: str, commands: bytes, last: bytes
) -> None:
    """RFC 8446 6.1: close_notify closes the sender's side only."""
    user, password = shared.user_of("example.test")
    log_in = {
        "imaps": f'l LOGIN "{user}" "{password}"\r\n',
        "pop3s": f"USER {user}\r\nPASS {password}\r\n",
        "submissions": "EHLO x.example.net\r\n",
    }[protocol]
    before = len(shared.log)
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    with socket.create_connection(("127.0.0.1", shared.port(protocol)), timeout=20) as plain:
        client = SSL.Connection(context, None)
        client.set_connect_state()
        client.set_tlsext_host_name(b"mail.example.test")
        read = b""
        sent = False
        while True:
            try:
                if not sent:
                    client.do_handshake()
                    client.send(log_in.encode() + commands)
                    client.shutdown()
                    sent = True
                while True:
                    read += client.recv(65536)
            except SSL.WantReadError:
                pass
            except SSL.ZeroReturnError:
                break
            try:
                while True:
                    plain.sendall(client.bio_read(65536))
            except SSL.WantReadError:
                pass
            got = plain.recv(65536)
            assert got, f"the connection ended without close_notify after {read[-200:]!r}"
            client.bio_write(got)
    assert re.search(last, read), read[-200:]
    assert not re.search(r"\] (bug|tls-failed)", shared.log[before:])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("behind", ["command", "hello"])
def test_bytes_in_the_segment_of_starttls_are_refused(shared: Server, family: str, behind: str) -> None:
    before = len(shared.log)
    command, good = STARTTLS[family]
    with ready(shared, family) as client:
        client.send(command + (INJECTED[family] if behind == "command" else client_hello()))
        answer = client.rest()
    assert not answer.startswith(good)
    assert re.match(rb"\* BYE|s BAD|-ERR|501 ", answer), answer
    lines = new_lines(shared, before, r"starttls|stls")
    assert len(lines) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_in_a_later_segment_are_no_handshake(shared: Server, family: str) -> None:
    before = len(shared.log)
    command, good = STARTTLS[family]
    with ready(shared, family) as client:
        assert client.ask(command).startswith(good)
        client.send(INJECTED[family])
        answer = client.rest()
    # An alert of TLS at most; never an answer to what was said.
    assert answer == b"" or answer[0] == 21, answer
    (line,) = new_lines(shared, before, r"tls-failed")
    assert f"protocol={family}" in line


@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_before_the_handshake_in_both_segments_never_run_inside(shared: Server, family: str) -> None:
    """The classical injection: command, then its own handshake; a client that goes on would hear two answers."""
    command, _good = STARTTLS[family]
    with ready(shared, family) as client:
        client.send(command + INJECTED[family])
        client.line()
        with pytest.raises((ssl.SSLError, OSError)):
            client.start_tls()


def test_smtp_forgets_hello_and_transaction(shared: Server) -> None:
    with ready(shared, "lmtp") as client:
        assert client.ask(b"MAIL FROM:<a@example.net>\r\n").startswith(b"250")
        assert client.ask(b"STARTTLS\r\n").startswith(b"220")
        client.start_tls()
        assert client.ask(b"RCPT TO:<anna@example.test>\r\n").startswith(b"503")
        assert client.ask(b"MAIL FROM:<a@example.net>\r\n").startswith(b"503")  # LHLO is due again (RFC 3207 4.2)
        assert not any(b"STARTTLS" in line for line in client.hello())
        assert client.ask(b"MAIL FROM:<a@example.net>\r\n").startswith(b"250")


def test_capabilities_change_with_tls(shared: Server) -> None:
    with Client(shared, "imap") as client:
        assert b"LOGINDISABLED" in client.greeting()
        client.upgrade()
        client.send(b"a CAPABILITY\r\n")
        said = b"".join(client.until(rb"a OK"))
        assert b"LOGINDISABLED" not in said
        assert b"STARTTLS" not in said
        assert b"AUTH=PLAIN" in said
        client.log_in(*shared.user_of("example.test"))


@pytest.mark.parametrize("protocol", ["imaps", "imap", "pop3s", "pop3", "submissions", "submission", "lmtp"])
@pytest.mark.parametrize("name", ["mail.example.test", "mail.example.org"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_every_port_shows_the_certificate_of_the_name_asked_for(
    shared: Server, protocol: str, name: str, host: str
) -> None:
    with Client(shared, protocol, name=name, host=host) as client:
        client.greeting()
        if client.family == protocol:
            client.upgrade()
        assert isinstance(client.socket, ssl.SSLSocket)  # verified for the name by Python
        certificate = client.socket.getpeercert()
        assert certificate is not None
        assert ("DNS", name) in certificate["subjectAltName"]


@pytest.mark.parametrize("protocol", ["imaps", "imap"])
@pytest.mark.parametrize("name", ["unknown.example.net", None])
def test_an_unknown_name_gets_the_default(shared: Server, protocol: str, name: str | None) -> None:
    client = Client(shared, protocol, name=name, tls=False)
    with client:
        client.context.check_hostname = False
        if protocol == "imap":
            client.greeting()
            client.upgrade()
        else:
            client.start_tls()
            client.greeting()
        assert isinstance(client.socket, ssl.SSLSocket)
        certificate = client.socket.getpeercert()
        assert certificate is not None
        assert ("DNS", "mail.example.test") in certificate["subjectAltName"]


def test_an_unknown_name_is_refused_where_the_policy_says_so(tmp_path: Path) -> None:
    with Server(tmp_path, edit={'default = "mail.example.test"': 'unknown_name = "refuse"'}) as server:
        for protocol in ("imaps", "imap"):
            client = Client(server, protocol, name="unknown.example.net", tls=False)
            with client:
                if protocol == "imap":
                    client.greeting()
                    client.ask(b"s STARTTLS\r\n")
                with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
                    client.start_tls()
            with logged_in(server, "imaps"):
                pass
        server.wait_for("TLS server name refused")
        server.wait_for(r"tls-failed session=.* reason=\"no hosts have the name that it asks for: add it there")


def test_cleartext_where_it_is_allowed_in_words(shared: Server) -> None:
    with Client(shared, "imap", port=shared.spare_ports[0]) as client:
        assert b"LOGINDISABLED" not in client.greeting()
        client.log_in(*shared.user_of("example.test"))
    with Client(shared, "imap") as client:
        client.greeting()
        assert b"[PRIVACYREQUIRED]" in client.try_login(*shared.user_of("example.test"))


def test_lmtp_on_a_unix_socket(shared: Server) -> None:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f"{shared.dir}/lmtp.socket")
    with connection, connection.makefile("rwb") as file:
        assert file.readline().startswith(b"220")
        file.write(b"LHLO mta.example.net\r\n")
        file.flush()
        while file.readline()[3:4] == b"-":
            pass
        for command, code in (
            (b"MAIL FROM:<a@example.net>\r\n", b"250"),
            (b"RCPT TO:<anna@example.test>\r\n", b"250"),
            (b"DATA\r\n", b"354"),
            (b"Subject: by socket\r\n\r\nhello\r\n.\r\n", b"250"),
            (b"QUIT\r\n", b"221"),
        ):
            file.write(command)
            file.flush()
            assert file.readline().startswith(code), command
    with logged_in(shared, "imaps") as client:
        client.send(b"a EXAMINE INBOX\r\n")
        client.until(rb"a OK")
        client.send(b'a SEARCH HEADER SUBJECT "by socket"\r\n')
        assert client.until(rb"\* SEARCH")[-1].strip() != b"* SEARCH"


def test_lmtp_that_requires_tls_does_nothing_before(shared: Server) -> None:
    with Client(shared, "lmtp", port=shared.spare_ports[1]) as client:
        client.greeting()
        client.hello()
        assert client.ask(b"MAIL FROM:<a@example.net>\r\n").startswith(b"530 5.7.0")
        assert client.ask(b"VRFY anna@example.test\r\n").startswith(b"530 5.7.0")
        client.ask(b"STARTTLS\r\n")
        client.start_tls()
        client.hello()
        assert client.ask(b"MAIL FROM:<a@example.net>\r\n").startswith(b"250")


def test_a_stranger_to_tls_harms_nobody(shared: Server) -> None:
    before = len(shared.log)
    with Client(shared, "imaps", tls=False) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: mail.example.test\r\n\r\n")
        answer = client.rest()
    assert answer == b""
    assert len(new_lines(shared, before, "http-request")) == 1
    with smtplib.SMTP_SSL(
        "localhost", shared.port("submissions"), context=ssl.create_default_context(cafile=str(shared.ca))
    ) as smtp:
        assert smtp.noop()[0] == 250
