"""The greeting names the host that the client has asked for."""

from __future__ import annotations

import pytest

from tests.live.client import Client
from tests.server import Server

HOSTS = ("mail.example.test", "mail.example.org")


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("protocol", ["imaps", "pop3s", "submissions"])
def test_the_greeting_behind_tls_names_the_host_of_sni(shared: Server, protocol: str, host: str) -> None:
    with Client(shared, protocol, name=host) as client:
        assert host.encode() in client.greeting().split()


@pytest.mark.parametrize("host", HOSTS)
def test_ehlo_behind_starttls_names_the_host_of_sni(shared: Server, host: str) -> None:
    with Client(shared, "submission", name=host) as client:
        client.greeting()
        client.upgrade()
        client.send(b"EHLO client.example\r\n")
        assert client.line().split()[0].endswith(host.encode())
