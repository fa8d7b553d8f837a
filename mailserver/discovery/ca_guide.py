"""Instructions for importing a private authority into mail clients, with its names and fingerprints."""

from __future__ import annotations

import base64
import hashlib
import plistlib
import textwrap
import uuid
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from attrs import frozen

_NAMESPACE: Final = uuid.UUID("0d2c1f1e-6c0b-5c39-9a55-2d4b8a7f6e10")
"""Makes the profile's identifiers constant, so that a new download replaces the old profile."""


@frozen
class Facts:
    """The values that a guide shows."""

    name: str
    """The authority's name, as key stores show it."""
    der: bytes
    """The authority's certificate."""
    until: str
    """The last day of its life, YYYY-MM-DD."""
    hosts: Mapping[str, str]
    """Host name of a mail server -> SHA-256 of its certificate, hexadecimal; "" if that is not known."""
    page: str
    """URL of the page with the files; "" without one."""
    has_list: bool = False
    """Does the page offer the revocation list?"""
    has_users: bool = False
    """Do users have certificates of their own?"""

    @property
    def sha256(self) -> str:
        """The certificate's SHA-256 fingerprint, as key stores show it."""
        return with_colons(hashlib.sha256(self.der).hexdigest())

    @property
    def sha1(self) -> str:
        """The certificate's SHA-1 fingerprint, which Windows calls the thumbprint."""
        return with_colons(hashlib.sha1(self.der, usedforsecurity=False).hexdigest())


@frozen
class Guide:
    """The steps for one program or system."""

    client: str
    """The program's name in commands."""
    title: str
    steps: tuple[str, ...]
    """`{name}`, `{host}`, and the locations `{crt}`, `{der}`, `{profile}` are filled in."""
    own: tuple[str, ...] = ()
    """The steps for a user's own certificate in a PKCS #12 file."""


OWN: Final = "A certificate of your own, with which you log in"

GUIDES: Final = (
    Guide(
        "windows",
        "Windows",
        (
            "Save {crt} and open it; choose Install Certificate.",
            "Choose Local Machine (or Current User, for yourself alone) and then Place all certificates in the following store.",
            "Browse to Trusted Root Certification Authorities, and finish. Windows asks once more and shows the thumbprint.",
            "For many machines: certutil -addstore Root ca.crt as administrator, or a group policy (Public Key Policies).",
        ),
        (
            "Open the .p12 file: the wizard imports it for Current User, asks for its password, and puts it into Personal.",
            "Windows before 10 (1709) opens the old form alone, which `mailserver cert create` makes by default.",
        ),
    ),
    Guide(
        "outlook",
        "Outlook (Windows)",
        (
            "Outlook uses the store of Windows: follow the steps for Windows, then close Outlook and start it again.",
            "Outlook for Mac uses the keychain: follow the steps for macOS.",
            "Outlook for iOS and Android fetches mail through Microsoft's servers, where no authority can be added.",
        ),
        (
            (
                "As far as is known, Outlook shows no user certificate to IMAP, POP3 or SMTP servers: log in with a password, under a host name "
                "that does not require a certificate."
            ),
        ),
    ),
    Guide(
        "macos",
        "macOS",
        (
            "Open {profile}, then System Settings, Privacy & Security (or General, Device Management), Profiles, and install it.",
            "Or open {der} with Keychain Access, into the keychain System; open {name} there, and set Trust to Always Trust.",
            "In a terminal: sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain ca.crt",
        ),
        ("Open the .p12 file (the old form): Keychain Access asks for its password; choose the keychain login.",),
    ),
    Guide(
        "apple-mail",
        "Apple Mail",
        (
            "On a Mac follow the steps for macOS, on iPhone and iPad those for iOS; then quit Mail and open it again.",
            "If Mail says that it cannot verify the identity of {host}, Show Certificate must name {name}.",
        ),
        (
            (
                "On a Mac, once it is in the keychain: Settings, Accounts, Server Settings: as TLS Certificate choose it for the "
                "incoming and the outgoing server, and as Authentication External (TLS Client Certificate)."
            ),
            "As far as is known, Mail on iPhone and iPad shows no user certificate to IMAP and SMTP servers.",
        ),
    ),
    Guide(
        "ios",
        "iOS and iPadOS",
        (
            "Open {profile} in Safari and allow the download; other browsers do not install profiles.",
            "Settings shows Profile Downloaded (or General, VPN & Device Management): install it.",
            "Settings, General, About, Certificate Trust Settings: switch on {name}. Without this step it is not trusted.",
        ),
        (
            "Open the .p12 file (the old form), and install it in Settings, Profile Downloaded; it asks for the file's password.",
            "Safari shows it to web servers. As far as is known, Mail uses it for S/MIME alone, not to log in.",
        ),
    ),
    Guide(
        "android",
        "Android",
        (
            "Save {crt} on the device.",
            "Settings, Security, Encryption & credentials, Install a certificate, CA certificate; Android warns: install anyway.",
            "Many mail apps ignore it and trust the system's authorities alone.",
        ),
        (
            (
                "Settings, Security, Encryption & credentials, Install a certificate, VPN & app user certificate: choose the .p12 "
                "file (the old form), and give its password and a name."
            ),
            "Mail apps that can use it ask for that name.",
        ),
    ),
    Guide(
        "k-9",
        "K-9 Mail and Thunderbird for Android",
        (
            "They ignore an authority that a user has installed. At the first connection they show the certificate of {host}.",
            "Compare its SHA-256 fingerprint with the one below, and accept it. They ask again when it is renewed.",
        ),
        (
            (
                "Install it as described for Android. In the account's incoming and outgoing server settings choose it as Client "
                "certificate, and Client certificate as Authentication."
            ),
        ),
    ),
    Guide(
        "thunderbird",
        "Thunderbird",
        (
            "Save {crt}. Thunderbird has its own store: Settings, Privacy & Security, Certificates, Manage Certificates.",
            "Authorities, Import: choose the file, tick Trust this CA to identify websites (this includes mail servers).",
            "Or set security.enterprise_roots.enabled in the Config Editor: Thunderbird then uses the store of Windows, macOS or Android.",
        ),
        (
            "Settings, Privacy & Security, Certificates, Manage Certificates, Your Certificates, Import: the .p12 file, of any form.",
            "Account Settings, Server Settings and Outgoing Server: as Authentication method choose TLS Certificate.",
        ),
    ),
    Guide(
        "mutt",
        "mutt and NeoMutt",
        (
            "Save {crt} as ~/.mutt/ca.crt.",
            'In muttrc: set certificate_file = "~/.mutt/ca.crt" and set ssl_force_tls = yes.',
            'To trust nothing else: set ssl_ca_certificates_file = "~/.mutt/ca.crt" too.',
        ),
        (
            "openssl pkcs12 -in FILE.p12 -nodes -out ~/.mutt/own.pem, and chmod 600 ~/.mutt/own.pem",
            'In muttrc: set ssl_client_cert = "~/.mutt/own.pem" and set imap_authenticators = "external".',
        ),
    ),
    Guide(
        "linux",
        "Programs that use Debian's or Fedora's store (Evolution, KMail, Geary, curl)",
        (
            "Debian: copy {crt} to /usr/local/share/ca-certificates/ca.crt and run update-ca-certificates.",
            "Fedora: copy it to /etc/pki/ca-trust/source/anchors/ and run update-ca-trust.",
        ),
        (
            "Evolution, Geary and KMail cannot use it. curl: --cert-type P12 --cert FILE.p12:PASSWORD --login-options AUTH=EXTERNAL",
            "Programs that need PEM (mbsync, msmtp): openssl pkcs12 -in FILE.p12 -nodes -out own.pem, and chmod 600 it.",
        ),
    ),
)


def lines(facts: Facts, guides: Sequence[Guide] = GUIDES) -> Iterator[str]:
    """Yield the guides as text."""
    yield f"Authority: {facts.name}, until {facts.until}"
    yield f"SHA-256:   {facts.sha256}"
    yield f"SHA-1:     {facts.sha1}"
    yield "Compare these fingerprints in each program. Get them from the administrator, not from the page."
    for guide in guides:
        yield ""
        yield guide.title
        for number, step in enumerate(guide.steps, 1):
            yield f"  {number}. {_filled(step, facts)}"
        if facts.has_users and guide.own:
            yield f"  {OWN}:"
            yield from (f"  {number}. {_filled(step, facts)}" for number, step in enumerate(guide.own, 1))
    if any(facts.hosts.values()):
        yield ""
        yield "Present certificates of the mail servers (SHA-256):"
        wide = max(len(host) for host, shown in facts.hosts.items() if shown)
        yield from (f"  {host:{wide}}  {with_colons(shown)}" for host, shown in facts.hosts.items() if shown)


def page(facts: Facts) -> bytes:
    """Make the HTML page with the guides, and links to the files beside it."""

    def text(words: str) -> str:
        return escape(words)

    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{text(facts.name)}</title></head><body>",
        f"<h1>{text(facts.name)}</h1>",
        "<p>This authority signs the certificates of these mail servers: ",
        f"{text(', '.join(facts.hosts))}. It is valid until {text(facts.until)}.</p>",
        f"<p>SHA-256: <code>{facts.sha256}</code><br>SHA-1: <code>{facts.sha1}</code></p>",
        "<p>Anybody who can change this page could show another authority. Before you trust it, compare the fingerprint ",
        "with the one that you got from your administrator by another way.</p>",
        '<ul><li><a href="/ca.crt">ca.crt</a> (PEM)</li><li><a href="/ca.der">ca.der</a> (DER)</li>',
        '<li><a href="/ca.mobileconfig">ca.mobileconfig</a> (profile for iOS, iPadOS and macOS)</li>',
        '<li><a href="/ca.crl">ca.crl</a> (revocation list)</li></ul>' if facts.has_list else "</ul>",
    ]
    for guide in GUIDES:
        steps = "".join(f"<li>{text(_filled(step, facts))}</li>" for step in guide.steps)
        parts.append(f'<h2 id="{guide.client}">{text(guide.title)}</h2><ol>{steps}</ol>')
        if facts.has_users and guide.own:
            steps = "".join(f"<li>{text(_filled(step, facts))}</li>" for step in guide.own)
            parts.append(f"<h3>{OWN}</h3><ol>{steps}</ol>")
    shown = [
        f"<li>{text(host)}: <code>{with_colons(value)}</code></li>" for host, value in facts.hosts.items() if value
    ]
    if shown:
        parts.append(f"<h2>Certificates of the mail servers (SHA-256)</h2><ul>{''.join(shown)}</ul>")
    parts.append("</body></html>\n")
    return "\n".join(parts).encode()


def profile(facts: Facts) -> bytes:
    """Make a profile for Apple's systems with the authority (com.apple.security.root)."""
    identity = hashlib.sha256(facts.der).hexdigest()[:16]
    root: dict[str, Any] = {
        "PayloadType": "com.apple.security.root",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"authority.{identity}.root",
        "PayloadUUID": _identity("root", identity),
        "PayloadDisplayName": facts.name,
        "PayloadCertificateFileName": "ca.der",
        "PayloadContent": facts.der,
    }
    return plistlib.dumps(
        {
            "PayloadType": "Configuration",
            "PayloadVersion": 1,
            "PayloadIdentifier": f"authority.{identity}",
            "PayloadUUID": _identity("profile", identity),
            "PayloadDisplayName": facts.name,
            "PayloadDescription": f"Has this device trust {', '.join(facts.hosts)}. SHA-256: {facts.sha256}",
            "PayloadContent": [root],
        }
    )


def pem(der: bytes) -> bytes:
    """Encode a certificate as PEM (RFC 7468)."""
    rows = textwrap.wrap(base64.b64encode(der).decode("ascii"), 64)
    return "\n".join(("-----BEGIN CERTIFICATE-----", *rows, "-----END CERTIFICATE-----", "")).encode("ascii")


def with_colons(digits: str) -> str:
    """ab12 -> AB:12."""
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2)).upper()


def _filled(step: str, facts: Facts) -> str:
    files = {"crt": "ca.crt", "der": "ca.der", "profile": "ca.mobileconfig"}
    places = {word: f"{facts.page}.{file.partition('.')[2]}" if facts.page else file for word, file in files.items()}
    return step.format(name=facts.name, host=next(iter(facts.hosts), "the mail server"), **places)


def _identity(what: str, identity: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{what}:{identity}")).upper()
