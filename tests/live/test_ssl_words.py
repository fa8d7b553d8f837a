"""Dovecot's `ssl` and `auth_allow_cleartext` on live listeners, and ours beside them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from attrs import evolve

from tests.live.client import Client
from tests.live.conftest import no_bug
from tests.server import Server, free_ports
from tests.ssl_words import ELSEWHERE, HERE, TABLE, Open, look

FAMILIES = ("imap", "pop3", "submission")
WORDS = {
    "no": 'ssl = "no"',
    "no, cleartext": 'ssl = "no"\nauth_allow_cleartext = true',
    "yes": 'ssl = "yes"',
    "yes, cleartext": 'ssl = "yes"\nauth_allow_cleartext = true',
    "required": 'ssl = "required"',
    "nothing": "",
    "allow_cleartext": "allow_cleartext = true",
    "yes, proxy": 'ssl = "yes"\nproxy_from = ["127.0.0.1"]',
}
NOTHING = Open(starttls=True, passwords=False, proofs=False)
EXPECTED = {
    **{
        (f"{ssl}{', cleartext' if cleartext else ''}", source): opened
        for (ssl, cleartext, source), opened in TABLE.items()
    },
    ("nothing", HERE): NOTHING,
    ("nothing", ELSEWHERE): NOTHING,
    ("allow_cleartext", HERE): evolve(NOTHING, passwords=True, proofs=True),
    ("allow_cleartext", ELSEWHERE): evolve(NOTHING, passwords=True, proofs=True),
}
Ports = dict[tuple[str, str], int]


@pytest.fixture(scope="module")
def ports() -> Ports:
    """Of each of WORDS and each family."""
    places = [(words, family) for words in WORDS for family in FAMILIES]
    return dict(zip(places, free_ports(len(places)), strict=True))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ports: Ports) -> Iterator[Server]:
    tables = "".join(
        f'[[listener]]\nprotocol = "{family}"\nport = {port}\naddresses = ["127.0.0.1"]\n{WORDS[words]}\n'
        for (words, family), port in ports.items()
    )
    scram = '[auth]\nscram_protocols = ["imap", "pop3", "submission"]\n'
    server = Server(tmp_path_factory.mktemp("ssl"), edit={"[auth]\n": scram}, append=f"\n{tables}")
    with server:
        yield server
    no_bug(server.log)


@pytest.mark.parametrize(("words", "source"), EXPECTED)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_open_without_tls(server: Server, ports: Ports, words: str, source: str, family: str) -> None:
    user, password = server.user_of("example.test")
    assert look(family, ports[words, family], source, user, password) == EXPECTED[words, source]


@pytest.mark.parametrize("family", FAMILIES)
def test_behind_tls_all_is_open(server: Server, ports: Ports, family: str) -> None:
    for words in ("yes", "required"):
        with Client(server, family, port=ports[words, family], source=ELSEWHERE) as client:
            client.greeting()
            client.upgrade().log_in(*server.user_of("example.test"))


def test_a_password_that_came_all_the_same_is_told(server: Server, ports: Ports) -> None:
    """Where SCRAM may come without TLS, PLAIN must not, and one that does is known to others."""
    user, password = server.user_of("example.test")
    for family in FAMILIES:
        before = len(server.log)
        assert look(family, ports["yes", family], ELSEWHERE, user, password).passwords is False
        server.wait_for(rf"cleartext-login session=.* user={user} method=PLAIN", since=before)


def test_a_proxy_is_not_the_client(server: Server, ports: Ports) -> None:
    """It comes from the address that it connects to, its clients do not."""
    user, password = server.user_of("example.test")
    for header in (b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", b"PROXY UNKNOWN\r\n"):
        with Client(server, "imap", port=ports["yes, proxy", "imap"], before=header) as client:
            client.greeting()
            assert client.try_login(user, password).startswith(b"a NO [PRIVACYREQUIRED]")
