"""The page of a host's root: of the domain that was asked for, and of what there is alone."""

from __future__ import annotations

import datetime as dt

import attrs
import pytest

from mailserver.http.services import PublishedAuthority
from tests.http.world import FILE, World, config_of

MAIL = b'[[listener]]\nprotocol = "imaps"\n[[listener]]\nprotocol = "submission"\n'
OTHER = b'[[domain]]\nname = "example.org"\nhosts = ["mail.example.org"]\ncertificate = "b.pem"\nkey = "b.key"\n'
TRUST = PublishedAuthority("Ours", b"der", dt.datetime(2030, 1, 1, tzinfo=dt.UTC))


def page(host: str = "mail.example.test", *, tls: bool = True, authority: PublishedAuthority | None = None) -> str:
    world = World(config=config_of(FILE + MAIL + OTHER), tls=tls, authority=authority)
    answered = world.get("/", host=host)
    assert (answered.status, answered.fields["content-type"]) == (200, "text/html; charset=utf-8")
    # Nothing but the form's own target may be loaded or sent to.
    assert (
        answered.fields["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'; form-action 'self'"
    )
    return answered.body.decode()


def test_what_to_enter() -> None:
    told = page()
    assert "<h1>Mail of example.test</h1>" in told
    assert "<tr><td>IMAP</td><td>mail.example.test</td><td>993</td><td>SSL/TLS</td></tr>" in told
    assert "<tr><td>SMTP</td><td>mail.example.test</td><td>587</td><td>STARTTLS</td></tr>" in told


@pytest.mark.parametrize("host", ["mail.example.org", "example.org"])
def test_of_the_domain_that_was_asked(host: str) -> None:
    told = page(host)
    assert "example.org" in told
    assert "example.test" not in told


def test_a_name_of_no_domain_gets_the_servers_own() -> None:
    assert "Mail of example.test" in page("localhost")
    assert "Mail of example.test" in page("127.0.0.1")


def test_the_authority_where_there_is_one() -> None:
    assert 'href="/ca"' in page(authority=TRUST)
    assert "/ca" not in page()


def test_a_profile_by_tls_alone() -> None:
    assert 'action="/profile.mobileconfig"' in page()
    assert "profile" not in page(tls=False)
    world = World(config=config_of(), tls=True)
    assert b"profile" not in world.get("/").body, "without services there is none"


def test_a_site_without_services() -> None:
    config = config_of()
    answered = World(config=attrs.evolve(config, domains=())).get("/")
    assert answered.status == 404
