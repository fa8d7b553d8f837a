"""The pages of one's own authority: what people and their devices get."""

from __future__ import annotations

import datetime as dt
import plistlib
import ssl
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mailserver.discovery import ca_guide
from mailserver.http.services import PublishedAuthority
from mailserver.tls.ca import authority as making
from mailserver.tls.keypair.pair import parse_pair
from mailserver.tls.keypair.published_ca import describe
from mailserver.tls.keypair.signature import sign
from mailserver.tls.serving import validation
from tests.http.world import FILE, World, config_of

PEM, KEY = validation.make_ca("Authority <of> Example & Sons")
AUTHORITY = x509.load_pem_x509_certificate(PEM)


def authority() -> PublishedAuthority:
    found = describe(AUTHORITY)
    return PublishedAuthority(found.name, found.der, found.not_after)


@pytest.fixture
def world() -> World:
    return World(authority=authority())


class Words(HTMLParser):
    """Text and links of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name == "href" and value]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_names_what_is_ones_own(world: World) -> None:
    answered = world.get("/ca")
    assert (answered.status, answered.fields["content-type"]) == (200, "text/html; charset=utf-8")
    page = Words(answered.body.decode())
    digest = AUTHORITY.fingerprint(hashes.SHA256()).hex().upper()
    assert ":".join(digest[at : at + 2] for at in range(0, 64, 2)) in page.text
    assert "Authority <of> Example & Sons" in page.text
    assert "mail.example.test" in page.text
    assert "of" not in page.tags, "a name is text"
    assert page.links == ["/ca.crt", "/ca.der", "/ca.mobileconfig"]
    for link in page.links:
        assert world.get(link).status == 200
    titles = (
        "Windows, Outlook (Windows), macOS, iOS and iPadOS, Android, Thunderbird, Apple Mail, mutt and NeoMutt, K-9"
    )
    for title in titles.split(", "):
        assert title in page.text
    assert "{" not in page.text


def test_the_domains_of_others_are_not_told() -> None:
    more = b'[[domain]]\nname = "example.org"\nhosts = ["mail.example.org"]\ncertificate = "b.pem"\nkey = "b.key"\n'
    world = World(authority=authority(), config=config_of(FILE + more))
    assert b"mail.example.org" not in world.get("/ca").body
    assert b"mail.example.org" in world.get("/ca", host="mail.example.org").body
    assert b"mail.example.org" not in world.get("/ca", host="anything.example.net").body


def test_files(world: World, tmp_path: Path) -> None:
    pem, der = world.get("/ca.crt"), world.get("/ca.der")
    assert x509.load_pem_x509_certificate(pem.body) == x509.load_der_x509_certificate(der.body) == AUTHORITY
    for answered, name in ((pem, "ca.crt"), (der, "ca.der")):
        assert answered.fields["content-type"] == "application/x-x509-ca-cert"
        assert answered.fields["content-disposition"] == f'attachment; filename="{name}"'
    context = ssl.create_default_context(cadata=pem.body.decode())
    assert len(context.get_ca_certs()) > 0


def test_users_certificates_are_told_of_where_they_are_asked_for() -> None:
    own = "Manage Certificates, Your Certificates, Import"
    assert own not in Words(World(authority=authority()).get("/ca").body.decode()).text
    asks = b'client_certificates = "asked"\nclient_ca = "ca.pem"\n[[listener]]'
    world = World(authority=authority(), config=config_of(FILE.replace(b"[[listener]]", asks)))
    assert own in Words(world.get("/ca").body.decode()).text


def test_the_list_is_der_where_there_is_one(world: World) -> None:
    assert world.get("/ca.crl").status == 404
    signer = serialization.load_pem_private_key(KEY, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    made = making.make_list(making.Authority(AUTHORITY, signer), [], number=1, days=9, now=dt.datetime.now(dt.UTC))
    der = made.public_bytes(serialization.Encoding.DER)
    world = World(authority=attrs.evolve(authority(), crl=der))
    answered = world.get("/ca.crl")
    assert (answered.status, answered.fields["content-type"]) == (200, "application/pkix-crl")
    assert answered.body == der
    assert "/ca.crl" in Words(world.get("/ca").body.decode()).links


def test_a_profile_that_is_signed(tmp_path: Path) -> None:
    pair = parse_pair(*validation.issue((PEM, KEY), ["mail.example.test"]))
    world = World(
        authority=authority(), sign=lambda host, octets: sign(pair, octets) if host == "mail.example.test" else octets
    )
    answered = world.get("/ca.mobileconfig")
    assert answered.fields["content-type"] == "application/x-apple-aspen-config"
    (tmp_path / "p").write_bytes(answered.body)
    (tmp_path / "ca.pem").write_bytes(PEM)
    words = ["openssl", "cms", "-verify", "-inform", "DER", "-in", "p", "-CAfile", "ca.pem", "-purpose", "any"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    profile = plistlib.loads(done.stdout)
    [root] = profile["PayloadContent"]
    assert (profile["PayloadType"], root["PayloadType"]) == ("Configuration", "com.apple.security.root")
    assert x509.load_der_x509_certificate(root["PayloadContent"]) == AUTHORITY
    assert len({profile["PayloadUUID"], root["PayloadUUID"]}) == 2
    again = ca_guide.profile(ca_guide.Facts("x", authority().der, "", {}, ""))
    assert plistlib.loads(again)["PayloadUUID"] == profile["PayloadUUID"], "fetched again it takes the old one's place"


@pytest.mark.parametrize("path", ["/ca", "/ca.crt", "/ca.der", "/ca.mobileconfig"])
def test_where_none_is_offered(path: str) -> None:
    answered = World().get(path)
    assert answered.status == 404
    assert b"private_ca" in answered.body


def test_every_client_has_a_guide_of_its_own() -> None:
    asked = {"windows", "macos", "ios", "android", "thunderbird", "outlook", "apple-mail", "mutt", "k-9"}
    assert asked <= {guide.client for guide in ca_guide.GUIDES}
    facts = ca_guide.Facts("Ours", authority().der, "2030-01-01", {"mail.example.test": "ab" * 32}, "https://mail/ca")
    text = "\n".join(ca_guide.lines(facts))
    assert "https://mail/ca.crt" in text
    assert "https://mail/ca.mobileconfig" in text
    assert ":".join(["AB"] * 32) in text
    assert "{" not in text
    assert ca_guide.OWN not in text
    # How a user's PKCS #12 gets into each of them, or that it has no use there.
    with_users = list(ca_guide.lines(attrs.evolve(facts, has_users=True)))
    assert "{" not in "".join(with_users)
    assert with_users.count(f"  {ca_guide.OWN}:") == len(ca_guide.GUIDES)
