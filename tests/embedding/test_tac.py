"""The `.tac` of docs/embedding.md, run by twistd: real clients on each kind of endpoint."""

from __future__ import annotations

import re
import shutil
import signal
import smtplib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedding.program import Clients, Program, children, make_files
from tests.server import ROOT, free_ports

PORTS = (10143, 10993, 10995, 10994, 10587, 10007)
"""Those of the page; the test has others."""


class Tac(Clients):
    """The program, its clients and its ports by those of the page."""

    def __init__(self, directory: Path) -> None:
        make_files(directory)
        super().__init__(directory)
        self.directory = directory
        certificates = directory / "certs"
        shutil.copy(certificates / "mail.example.test.pem", directory / "certificate.pem")
        shutil.copy(certificates / "mail.example.test.key", directory / "key.pem")
        page = (ROOT / "docs" / "embedding.md").read_text()
        found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
        assert found is not None
        text = found[1]
        assert len(text.splitlines()) <= 32
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        for written, port in self.ports.items():
            assert text.count(str(written)) == 1
            text = text.replace(str(written), str(port))
        (directory / "mail.tac").write_text(text)
        self.handed_over = socket.create_server(("127.0.0.1", 0))
        self.systemd_port = self.handed_over.getsockname()[1]
        twistd = str(Path(sys.executable).parent / "twistd")
        command = [twistd, "-n", "--pidfile=", "--logfile=twistd.log", "-y", "mail.tac"]
        self.program = Program(directory, command, [self.handed_over])

    def log(self) -> str:
        return (self.directory / "twistd.log").read_text()


@pytest.fixture(scope="module")
def tac(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tac]:
    made = Tac(tmp_path_factory.mktemp("tac"))
    with made.handed_over, made.program:
        made.program.wait_for(made.ports[10007])
        yield made


def test_tcp_with_starttls(tac: Tac) -> None:
    client = tac.imap(tac.ports[10143])
    assert "LOGINDISABLED" in client.capabilities
    client.starttls(tac.context)
    tac.log_in(client)
    assert re.search(r"login .*protocol=imap peer=127\.0\.0\.1 tls=TLSv1\.3 name=localhost user=anna", tac.log())


def test_tcp_with_implicit_tls_of_the_factory(tac: Tac) -> None:
    client = tac.pop3(tac.ports[10995], implicit_tls=True)
    client.user(tac.user)
    client.pass_(tac.password)
    assert client.stat()[0] > 0
    client.quit()


def test_clear_text_at_that_port_is_told_so(tac: Tac) -> None:
    with socket.create_connection(("127.0.0.1", tac.ports[10995]), 20) as client:
        client.sendall(b"CAPA\r\n")
        assert client.recv(1000) == (
            b"-ERR Port %d is for SSL/TLS: set the security of POP3 to SSL/TLS\r\n" % tac.ports[10995]
        )


@pytest.mark.parametrize("name", ["mail.example.test", "mail.example.org"])
def test_twisteds_tls_with_the_certificate_of_each_name(tac: Tac, name: str) -> None:
    client = tac.imaps(tac.ports[10993], name)
    assert "LOGINDISABLED" not in client.capabilities
    assert "STARTTLS" not in client.capabilities
    tac.log_in(client)
    assert f"protocol=imaps peer=127.0.0.1 tls=TLSv1.3 name={name} user=anna" in tac.log()


def test_twisteds_tls_agrees_on_the_protocol(tac: Tac) -> None:
    tac.context.set_alpn_protocols(["imap"])
    try:
        with tac.secure(tac.ports[10993], "localhost") as client:
            assert client.selected_alpn_protocol() == "imap"
            assert client.recv(100).startswith(b"* OK")
    finally:
        tac.context.set_alpn_protocols([])


def test_ssl(tac: Tac) -> None:
    """The one certificate of the endpoint; passwords are taken."""
    client = tac.imaps(tac.ports[10994], "mail.example.test")
    assert "STARTTLS" not in client.capabilities
    tac.log_in(client)
    assert len(re.findall(r"login .*protocol=imaps .*tls=TLSv1\.3 name=mail\.example\.test ", tac.log())) >= 1


@pytest.mark.parametrize("written", [10143, 10993, 10994])
def test_a_large_message_goes_both_ways(tac: Tac, written: int) -> None:
    """Through the flow control of each kind of transport."""
    client = tac.imap(tac.ports[written]) if written == 10143 else tac.imaps(tac.ports[written], "mail.example.test")
    if written == 10143:
        client.starttls(tac.context)
    client.login(tac.user, tac.password)
    message = b"Subject: large\r\n\r\n" + b"0123456789abcde\r\n" * 200_000
    assert client.append("Drafts", "", "", message)[0] == "OK"
    client.select("Drafts")
    _ok, found = client.fetch("*", "(BODY.PEEK[])")
    assert found[0] is not None
    assert found[0][1] == message
    client.logout()


def test_haproxy(tac: Tac) -> None:
    """The client that the header names counts; the greeting waits for it."""
    client = tac.submission(tac.ports[10587], b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 587\r\n")
    client.starttls(context=tac.context)
    client.login(tac.user, tac.password)
    assert client.sendmail(tac.user, ["carla@example.test"], "Subject: one\r\n\r\ntext\r\n") == {}
    client.quit()
    assert re.search(r"submission .*protocol=submission peer=192\.0\.2\.7 ", tac.log())


def test_haproxy_with_a_header_in_pieces_and_a_health_check(tac: Tac) -> None:
    with socket.create_connection(("127.0.0.1", tac.ports[10587]), 20) as client:
        client.settimeout(0.3)
        client.sendall(b"PROXY TCP6 2001:db8::7")
        with pytest.raises(TimeoutError):
            client.recv(10)
        client.settimeout(20)
        client.sendall(b" 2001:db8::1 4711 587\r\nQUIT\r\n")
        greeting = b""
        while piece := client.recv(1000):
            greeting += piece
        assert re.fullmatch(rb"220 .*\r\n221 .*\r\n", greeting)
    with socket.create_connection(("127.0.0.1", tac.ports[10587]), 20) as client:
        client.sendall(b"PROXY UNKNOWN\r\n")
        assert client.recv(100).startswith(b"220 ")


def test_haproxy_without_a_header(tac: Tac) -> None:
    with socket.create_connection(("127.0.0.1", tac.ports[10587]), 20) as client:
        client.sendall(b"EHLO client.example.net\r\n")
        try:
            heard = client.recv(100)
        except ConnectionResetError:
            heard = b""
    assert heard == b""


def test_systemd(tac: Tac) -> None:
    client = tac.pop3(tac.systemd_port)
    client.stls(tac.context)
    client.user(tac.user)
    client.pass_(tac.password)
    client.quit()


def test_unix(tac: Tac) -> None:
    path = tac.directory / "lmtp.socket"
    assert path.stat().st_mode & 0o777 == 0o600
    with smtplib.LMTP(str(path)) as client:
        assert client.sendmail("x@example.net", [tac.user], "Subject: two\r\n\r\ntext\r\n") == {}


def test_the_other_service(tac: Tac) -> None:
    with socket.create_connection(("127.0.0.1", tac.ports[10007]), 20) as client:
        client.sendall(b"hello")
        assert client.recv(10) == b"hello"


def test_the_end(tac: Tac) -> None:
    """Clients are told; processes and the socket's file are gone."""
    client = tac.imap(tac.ports[10143])
    processes = children(tac.program.process.pid)
    assert processes, "the logins have started some that check passwords"
    assert tac.program.stop() == -signal.SIGTERM, "which is Twisted's own way to end"
    assert client.readline() == b"* BYE the server is shutting down\r\n"
    assert not [each for each in processes if Path(f"/proc/{each}").exists()]
    assert not (tac.directory / "lmtp.socket").exists()
    assert "Traceback" not in tac.log()
    assert "Unhandled" not in tac.log()
