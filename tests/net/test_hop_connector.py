"""Sessions of the queue over real sockets, at a hop on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from attrs import evolve

from mailserver.config.kinds import NextHop, Port
from mailserver.config.model.outbound import Route
from mailserver.net.outbound.hop_connector import HopConnector
from mailserver.net.outbound.hop_pool import HopPool, PooledSession
from mailserver.net.outbound.place import Place, place_of
from mailserver.net.transport.stock import stock_transports
from mailserver.queue.outcome import Outcome
from mailserver.tls.client import valid_certificate_creator
from tests.live.hop import Hop
from tests.net.own_reactor import run_on_reactor
from tests.smtp.test_onward import message, to

HOST = "localhost"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def hop(authority: trustme.CA) -> Iterator[Hop]:
    with Hop(authority) as made:
        yield made


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The system trusts the authority."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    valid_certificate_creator.cache_clear()
    yield
    valid_certificate_creator.cache_clear()


def place(hop: Hop, tls: Any = "opportunistic", host: str = HOST) -> Place:
    return Place("127.0.0.1", hop.port, host, tls)


def send(where: Place, *, messages: int = 1) -> tuple[list[Outcome], HopConnector, HopPool]:
    """Send messages over one session after another."""

    async def sending(reactor: Any) -> tuple[list[Outcome], HopConnector, HopPool]:
        connector = HopConnector(reactor, stock_transports(""), "mail.example.test")
        pool = HopPool(connector.open)
        outcomes: list[Outcome] = []
        for _ in range(messages):
            session = await pool.take(where)
            if isinstance(session, PooledSession):
                outcomes += await session.session.send(message(), to("x"))
                pool.give_back(session)
            else:
                outcomes.append(session)
        pool.close_resting()
        return outcomes, connector, pool

    return run_on_reactor(sending)


def words(hop: Hop) -> list[bytes]:
    return [each.split()[0] for each in hop.commands]


def test_tls_is_used_where_the_host_offers_it(hop: Hop) -> None:
    (outcome,), connector, _pool = send(place(hop, host="other.example.net"))
    assert (outcome.result, outcome.text) == ("relayed", "2.0.0 taken as 4711")
    assert outcome.hop == f"other.example.net[127.0.0.1]:{hop.port}"
    assert words(hop)[:3] == [b"EHLO", b"STARTTLS", b"EHLO"]
    assert [each.count(b"..dotted") for each in hop.messages] == [1]
    assert connector.cleartext_retries == 0


def test_a_session_carries_several_messages(hop: Hop) -> None:
    outcomes, _connector, pool = send(place(hop), messages=3)
    assert [each.result for each in outcomes] == ["relayed"] * 3
    assert (hop.connections, pool.opened, pool.reused) == (1, 1, 2)


def break_tls(hop: Hop) -> None:
    """Have the hop close where the handshake should begin."""

    def greet(hop: Hop) -> bytes:
        hop.stuck = False
        return b"220 hop.example.net"

    def close(hop: Hop) -> bytes:
        hop.stuck = True
        hop.released.set()
        return b"220 go on"

    hop.replies |= {b"": greet, b"STARTTLS": close}


def test_mail_goes_in_clear_text_where_the_handshake_fails(hop: Hop) -> None:
    break_tls(hop)
    (outcome,), connector, _pool = send(place(hop))
    assert outcome.result == "relayed"
    assert (hop.connections, connector.cleartext_retries) == (2, 1)
    assert words(hop)[:4] == [b"EHLO", b"STARTTLS", b"EHLO", b"MAIL"]


@pytest.mark.parametrize("policy", ["required", "verified"])
def test_mail_that_needs_tls_waits_where_the_handshake_fails(hop: Hop, policy: str) -> None:
    break_tls(hop)
    (outcome,), connector, _pool = send(place(hop, policy))
    assert (outcome.result, outcome.stage) == ("hop_failed", "starttls")
    assert (hop.connections, connector.cleartext_retries) == (1, 0)
    assert b"MAIL" not in words(hop)


def test_mail_that_needs_tls_waits_where_it_is_not_offered(authority: trustme.CA) -> None:
    with Hop(authority, starttls=False) as hop:
        (outcome,), _connector, _pool = send(place(hop, "required"))
        assert outcome.result == "hop_failed"
        assert b"MAIL" not in words(hop)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("host", "result"), [(HOST, "relayed"), ("other.example.net", "hop_failed")], ids=["its", "another"]
)
def test_a_verified_host_has_a_certificate_for_its_name(hop: Hop, host: str, result: str) -> None:
    (outcome,), _connector, _pool = send(place(hop, "verified", host))
    assert outcome.result == result
    assert (b"MAIL" in words(hop)) == (result == "relayed")


def test_a_verified_host_has_a_certificate_of_a_known_authority(hop: Hop) -> None:
    valid_certificate_creator.cache_clear()
    (outcome,), _connector, _pool = send(place(hop, "verified"))
    assert (outcome.result, outcome.stage) == ("hop_failed", "starttls")


def test_where_nobody_listens_the_reason_says_so() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        (outcome,), _connector, _pool = send(Place("127.0.0.1", closed.getsockname()[1], HOST))
    assert (outcome.result, outcome.stage, outcome.status) == ("hop_failed", "connect", "4.4.1")
    assert "refused" in outcome.text


def test_a_host_that_greets_with_our_name_is_a_loop(hop: Hop) -> None:
    hop.replies[b""] = b"220 mail.example.test ESMTP"
    (outcome,), _connector, _pool = send(place(hop))
    assert (outcome.result, outcome.status) == ("failed", "5.4.6")


def route(hop: Hop, directory: Path, **more: Any) -> Route:
    (directory / "password").write_text("secret\n")
    return Route(
        **{
            "host": NextHop("localhost"),
            "port": Port(hop.port),
            "ca_file": directory / "ca.pem",
            "user": "anna",
            "password_file": directory / "password",
        }
        | more
    )


@pytest.mark.usefixtures("trusted")
def test_a_route_has_its_tls_and_its_login(hop: Hop, tmp_path: Path) -> None:
    (outcome,), _connector, _pool = send(place_of(route(hop, tmp_path)))
    assert outcome.result == "relayed"
    assert words(hop)[:4] == [b"EHLO", b"STARTTLS", b"EHLO", b"AUTH"]
    assert hop.password() == b"\0anna\0secret"


@pytest.mark.usefixtures("trusted")
def test_a_route_without_its_password_waits(hop: Hop, tmp_path: Path) -> None:
    broken = evolve(route(hop, tmp_path), password_file=tmp_path / "missing")
    (outcome,), _connector, _pool = send(place_of(broken))
    assert (outcome.result, outcome.status) == ("hop_failed", "4.3.5")
    assert hop.connections == 0


@pytest.mark.usefixtures("trusted")
def test_a_refused_login_is_the_hops_fault(hop: Hop, tmp_path: Path) -> None:
    hop.replies[b"AUTH"] = b"535 5.7.8 no"
    (outcome,), _connector, _pool = send(place_of(route(hop, tmp_path)))
    assert (outcome.result, outcome.stage, outcome.status) == ("hop_failed", "auth", "4.7.8")
