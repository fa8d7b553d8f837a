"""Clients without SNI at listeners with a default of their own, from the certificate to the user."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.live.client import Client
from tests.live.conftest import no_bug
from tests.server import Server

OWN = """
[[listener]]
protocol = "imaps"
port = {a}
addresses = ["127.0.0.1"]
default = "mail.example.org"

[[listener]]
protocol = "pop3"
port = {b}
addresses = ["127.0.0.1"]
default = "mail.example.org"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("defaults"), append=OWN)
    with server:
        yield server
    no_bug(server.log)


def shown(server: Server, port: int, *more: str) -> str:
    """The subject alternative name of what `openssl s_client` is shown."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(server.ca), *more]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=False)
    assert "Verify return code: 0 (ok)" in done.stdout, done.stdout + done.stderr
    names = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName"],
        input=done.stdout,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    found = re.search(r"DNS:(mail\.[a-z.]+)", names)
    assert found is not None, names
    return found[1]


def test_openssl_without_a_name(server: Server) -> None:
    own, stls, _c = server.spare_ports
    assert shown(server, own, "-noservername") == "mail.example.org"
    assert shown(server, stls, "-noservername", "-starttls", "pop3") == "mail.example.org"
    assert shown(server, own, "-servername", "elsewhere.example.net") == "mail.example.org"
    assert shown(server, own, "-servername", "mail.example.test") == "mail.example.test"
    for port, more in ((server.port("imaps"), []), (server.port("pop3"), ["-starttls", "pop3"])):
        assert shown(server, port, "-noservername", *more) == "mail.example.test"


def test_names_without_a_domain_are_of_its_domain(server: Server) -> None:
    user, password = server.user_of("example.org")
    local = user.partition("@")[0]
    own, stls, _c = server.spare_ports
    before = len(server.log)
    with Client(server, "imaps", port=own, name=None) as client:
        client.greeting()
        client.log_in(local, password)
    server.wait_for(rf"login session=.* user={user} method=LOGIN", since=before)
    with Client(server, "pop3", port=stls, name=None) as client:
        client.greeting()
        client.upgrade().log_in(local, password)
    with Client(server, "imaps", name=None) as client:
        client.greeting()
        assert client.try_login(local, password).startswith(b"a NO [AUTHENTICATIONFAILED]")


def test_probe_knows_what_is_due_there(server: Server) -> None:
    arguments = ("tls", "probe", "--no-dns", "--json", "--ca", str(server.ca), "--config", str(server.config))
    told = json.loads(server.run_cli(*arguments).stdout)
    assert told["findings"] == []
    own, stls, _c = server.spare_ports
    without = {row["place"].rpartition(":")[2]: row["subject"] for row in told["rows"] if row["kind"] == "none"}
    assert {port for port, subject in without.items() if subject == "mail.example.org"} == {str(own), str(stls)}
    # Taken out of the file and not yet reloaded, it is seen.
    server.replace('default = "mail.example.org"\n', "")
    told = json.loads(server.run_cli(*arguments, check=False).stdout)
    assert {finding["code"] for finding in told["findings"]} == {"unknown-name-policy"}
    places = [place for finding in told["findings"] for place in finding["places"]]
    assert {place.rpartition(":")[2] for place in places} == {str(own), str(stls)}
    server.hang_up()
    assert shown(server, own, "-noservername") == "mail.example.test"
