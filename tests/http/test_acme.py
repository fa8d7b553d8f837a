"""The page that proves to an ACME authority that a host is ours (RFC 8555 8.3)."""

from __future__ import annotations

import attrs
import pytest

from mailserver.config.model import Config
from tests.http.world import FILE, World, config_of

TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
THUMBPRINT = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
"""Both of RFC 8555 8.3."""


def config(thumbprint: str = THUMBPRINT) -> Config:
    more = b'[acme]\nterms_of_service = "agreed"\nwebroot = "/var/www"\n[[domain]]\nname = "example.org"\n'
    read = config_of(FILE + more + b'hosts = ["mail.example.org"]\nacme = true\n')
    assert read.acme is not None
    return attrs.evolve(read, acme=attrs.evolve(read.acme, thumbprint=thumbprint))


def test_token_and_thumbprint_are_the_answer() -> None:
    for tls in (False, True):
        answered = World(config=config(), tls=tls).get(f"/.well-known/acme-challenge/{TOKEN}", host="mail.example.org")
        assert answered.status == 200
        assert answered.body == f"{TOKEN}.{THUMBPRINT}".encode()
        assert answered.fields["content-type"] == "application/octet-stream"
    assert World(config=config()).get(f"/.well-known/acme-challenge/{TOKEN}", "MAIL.example.org.:80").status == 200


@pytest.mark.parametrize(
    ("path", "host"),
    [
        (TOKEN, "mail.example.test"),  # a host whose certificates come from elsewhere
        (TOKEN, "localhost"),
        ("short", "mail.example.org"),
        ("%3Cscript%3Ealert(1)%3C%2Fscript%3E", "mail.example.org"),
        (f"{TOKEN}%0A", "mail.example.org"),
        (f"..%2F{TOKEN}", "mail.example.org"),
        ("x" * 257, "mail.example.org"),
        ("", "mail.example.org"),
    ],
)
def test_nothing_else_is_answered(path: str, host: str) -> None:
    answered = World(config=config()).get(f"/.well-known/acme-challenge/{path}", host)
    assert answered.status in (400, 404)
    assert THUMBPRINT.encode() not in answered.body


def test_without_an_account_there_is_no_answer() -> None:
    assert World(config=config("")).get(f"/.well-known/acme-challenge/{TOKEN}", "mail.example.org").status == 404
    assert World().get(f"/.well-known/acme-challenge/{TOKEN}").status == 404
