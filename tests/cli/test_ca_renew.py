"""`mailserver ca renew`: what is due, by hand."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from mailserver.cli import ca, cert_create
from tests.cli.test_ca import HOST, Place

ADDED = "mail.example.org"


@pytest.fixture
def days_ago(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """What is made from then on was made so many days ago."""

    def go_back(days: int) -> None:
        for module in (ca, cert_create):
            monkeypatch.setattr(module, "now", lambda: dt.datetime.now(dt.UTC) - dt.timedelta(days=days))

    return go_back


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest, days_ago: Callable[[int], None]) -> Place:
    """All of it made as many days ago as the test's parameter says."""
    days_ago(getattr(request, "param", 0))
    made = Place(tmp_path)
    made.site.add("example.org", [ADDED]).managed.add("example.org")
    made.site.write()
    made.ok("ca", "init")
    host = HOST.decode()
    made.create(host, "--days", "90")
    for old, new in zip(
        made.pair(host), (made.site.certificate("example.test"), made.site.key("example.test")), strict=True
    ):
        new.write_bytes(old)
    made.ok("cert", "create", ADDED, "--days", "90", "--activate")
    return made


def test_nothing_is_due(place: Place) -> None:
    before = place.issued()
    assert place.ok("ca", "renew") == "nothing is due\n"
    assert place.issued() == before


@pytest.mark.parametrize("place", [61], indirect=True)
def test_what_is_due_is_told_and_then_done(place: Place) -> None:
    before = x509.load_pem_x509_certificate(place.site.certificate("example.test").read_bytes())
    assert place.ok("ca", "renew", "--dry-run").splitlines() == [HOST.decode(), ADDED]
    assert len(place.issued()) == 2
    said = place.ok("ca", "renew")
    assert f"renewed {place.site.certificate('example.test')} of {HOST.decode()}" in said
    assert f"{ADDED}: taken up, until " in said
    after = x509.load_pem_x509_certificate(place.site.certificate("example.test").read_bytes())
    assert after.public_key() == before.public_key()
    assert after.not_valid_after_utc - before.not_valid_after_utc >= dt.timedelta(days=60)
    served = x509.load_pem_x509_certificate(place.ok("cert", "show", ADDED, "--pem").encode())
    assert served.not_valid_after_utc - before.not_valid_after_utc >= dt.timedelta(days=60)
    assert place.ok("ca", "renew") == "nothing is due\n"


def test_one_that_is_named_is_renewed_at_any_time(place: Place) -> None:
    said = place.ok("ca", "renew", ADDED.upper())
    assert f"{ADDED}: taken up" in said
    assert len(place.issued()) == 3
    said = place.refused("ca", "renew", "other.example.net")
    assert "is not served with a certificate of this authority" in said
    assert "there are mail.example.org, mail.example.test" in said


@pytest.mark.parametrize("place", [61], indirect=True)
def test_one_that_fails_keeps_no_other(place: Place) -> None:
    """The first of them is a file that holds its key as well."""
    file = place.site.certificate("example.test")
    file.write_bytes(file.read_bytes() + place.site.key("example.test").read_bytes())
    before = file.read_bytes()
    result = place.run("ca", "renew")
    assert result.exit_code == 1
    assert f"{HOST.decode()}: cannot be renewed: {file} holds a key beside the certificate" in result.output
    assert f"{ADDED}: taken up, until " in result.output
    assert file.read_bytes() == before


def test_the_lists_url_comes_with_a_renewal(place: Place) -> None:
    place.site.tls = ['private_ca = "state/ca/ca.pem"', 'private_ca_crl_url = "http://mail.example.test/ca.crl"']
    place.site.write()
    place.ok("ca", "renew", ADDED)
    served = x509.load_pem_x509_certificate(place.ok("cert", "show", ADDED, "--pem").encode())
    [point] = served.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name == [x509.UniformResourceIdentifier("http://mail.example.test/ca.crl")]


def test_the_list(place: Place, days_ago: Callable[[int], None]) -> None:
    days_ago(5)
    place.ok("ca", "crl", "--days", "6")
    assert place.ok("ca", "renew", "--dry-run") == "ca.crl\n"
    assert f"renewed {place.ca / 'ca.crl'}, until " in place.ok("ca", "renew")


@pytest.mark.parametrize("place", [61], indirect=True)
def test_a_key_with_a_passphrase(place: Place, tmp_path: Path) -> None:
    other = str(tmp_path / "locked")
    secret = tmp_path / "secret"
    secret.write_text("open\n")
    words = ("--dir", other, "--passphrase-file", str(secret))
    place.ok("ca", "init", "--name", "LockContext", *words)
    place.ok("cert", "create", ADDED, "--days", "90", "--activate", *words)
    assert f"{ADDED}: taken up" in place.ok("ca", "renew", *words)
    assert "cannot be decrypted with that passphrase" in place.refused(
        "ca", "renew", ADDED, "--dir", other, text="wrong\n"
    )
