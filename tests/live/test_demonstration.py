"""The demonstration of `make run`: users, an alias and a group in a directory, and mail to them as its printed commands send it."""

from __future__ import annotations

import base64
import re
import smtplib
import socket
import ssl
from collections.abc import Iterator

import pytest

from mailserver.lookup.wire import netstring
from tests.live.client import Client
from tests.live.conftest import no_bug
from tests.server import Server

ANNA, BEN, CARLA, DAVID = "anna@example.test", "ben@example.test", "carla@example.test", "david@example.org"
INFO, TEAM = "info@example.test", "team@example.test"


@pytest.fixture(scope="module", params=[0, 2], ids=["one-process", "two-workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("demonstration"), workers=request.param, in_directory=True) as server:
        yield server
    no_bug(server.log)


def submit(server: Server, user: str, sender: str, *recipients: str, subject: str) -> None:
    context = ssl.create_default_context(cafile=str(server.ca))
    with smtplib.SMTP_SSL("localhost", server.port("submissions"), context=context, timeout=60) as client:
        client.login(user, server.accounts[user])
        client.sendmail(sender, recipients, f"From: {sender}\r\nSubject: {subject}\r\n\r\nHello\r\n")


def received(server: Server, user: str, subject: str) -> int:
    """The number of messages with that subject in the user's INBOX, by IMAP."""
    with logged_in(server, user) as client:
        client.send(b"b SELECT INBOX\r\n")
        client.until(rb"b OK")
        client.send(f'c SEARCH SUBJECT "{subject}"\r\n'.encode())
        [line] = [each for each in client.until(rb"c OK") if each.startswith(b"* SEARCH")]
    return len(line.split()) - 2


def logged_in(server: Server, user: str) -> Client:
    client = Client(server, "imaps")
    client.greeting()
    return client.log_in(user, server.accounts[user])


def test_mail_to_the_alias_and_the_group(server: Server) -> None:
    submit(server, DAVID, DAVID, INFO, TEAM, subject="to-all-of-you")
    assert [received(server, name, "to-all-of-you") for name in (ANNA, BEN, CARLA)] == [1, 1, 1]
    submit(server, DAVID, DAVID, f"{INFO}", subject="to-the-alias")
    assert [received(server, name, "to-the-alias") for name in (ANNA, BEN, CARLA)] == [1, 1, 0]


def test_users_send_as_their_alias_and_not_as_the_group(server: Server) -> None:
    submit(server, ANNA, INFO, DAVID, subject="as-the-alias")
    assert received(server, DAVID, "as-the-alias") == 1
    with pytest.raises(smtplib.SMTPSenderRefused) as refused:
        submit(server, ANNA, TEAM, DAVID, subject="as-the-group")
    assert refused.value.smtp_code == 550


def test_the_app_password_of_a_new_demonstration(server: Server) -> None:
    user, _, password = (server.dir / "app-password.txt").read_text().strip().partition(":")
    assert user == ANNA
    with Client(server, "imaps") as client:
        client.greeting()
        client.log_in(user, password)
    with Client(server, "pop3s") as client:
        client.greeting()
        assert client.try_login(user, password).startswith(b"-ERR [AUTH]")


def test_changes_beside_the_running_server_hold_at_once(server: Server) -> None:
    """In each worker: every attempt may meet another one."""
    for number in range(3):
        address = f"new{number}@example.test"
        server.run_cli("alias", "add", address, CARLA, "--config", str(server.config))
        submit(server, DAVID, DAVID, address, subject=f"new-{number}")
        server.run_cli("alias", "disable", address, "--config", str(server.config))
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            submit(server, DAVID, DAVID, address, subject="disabled")
    assert [received(server, CARLA, f"new-{number}") for number in range(3)] == [1, 1, 1]


def test_a_document_beside_the_running_server(server: Server) -> None:
    """The sessions of a user that a document disables end; those of others go on."""
    file = server.dir / "wanted.toml"
    file.write_text(
        f'[[user]]\nname = "{BEN}"\nenabled = false\n[[alias]]\naddress = "doc@example.test"\ntargets = ["{CARLA}"]\n'
    )
    ben, carla = logged_in(server, BEN), logged_in(server, CARLA)
    server.run_cli("directory", "apply", str(file), "--yes", "--config", str(server.config))
    assert b"BYE" in ben.rest()
    assert carla.ask(b"n NOOP\r\n").startswith(b"n OK")
    submit(server, DAVID, DAVID, "doc@example.test", subject="by-the-document")
    assert received(server, CARLA, "by-the-document") == 1


def asked(server: Server, protocol: str, request: bytes, pattern: bytes) -> bytes:
    """What a socket for other servers sends, until the pattern is in it."""
    received = b""
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(60)
        agent.connect(str(server.dir / "run" / protocol))
        agent.sendall(request)
        while not re.search(pattern, received, re.MULTILINE):
            more = agent.recv(4096)
            assert more, received
            received += more
    return received


def test_the_sockets_for_other_servers_answer(server: Server) -> None:
    data = f"OK {ANNA}, {BEN}".encode()
    assert asked(server, "lookup", netstring(f"alias {INFO}".encode()), rb",\Z") == netstring(data)
    word = base64.b64encode(f"\0{ANNA}\0{server.accounts[ANNA]}".encode()).decode()
    request = f"VERSION\t1\t1\nCPID\t1\nAUTH\t1\tPLAIN\tservice=smtp\tsecured\tresp={word}\n".encode()
    answer = asked(server, "auth", request, rb"^(OK|FAIL)\t.*\n")
    assert f"\nOK\t1\tuser={ANNA}".encode() in answer
