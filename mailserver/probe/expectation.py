"""Expectations that follow from the configuration: certificate, versions and ALPN protocol for each listener and name."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from attrs import frozen
from cryptography import x509

from mailserver.config.model import Config, Domain, Listener
from mailserver.probe.chain import fingerprint
from mailserver.probe.finding import Finding
from mailserver.probe.handshake import VERSIONS

Kind = Literal["exact", "wildcard", "unknown", "none"]

ALPN: Final[Mapping[str, tuple[bytes, ...]]] = {
    "imap": (b"imap",),
    "pop3": (b"pop3",),
    "submission": (b"submission", b"smtp"),
    "lmtp": (b"lmtp",),
    "http": (b"http/1.1",),
}
"""By protocol family; imap, pop3 and http/1.1 are registered (RFC 7301 6)."""

FOREIGN: Final = (b"h3", b"xmpp-client")
UNKNOWN_NAME: Final = "no-such-name.invalid"
MAX_FILE: Final = 1 << 20
OLDEST: Final = "1.2"
"""The default minimum: TLS 1.0 and 1.1 are deprecated (RFC 8996)."""


@frozen
class Name:
    """A server name to test."""

    kind: Kind
    sent: str | None
    """None if no name is sent."""
    host: str
    """The host in the configuration; empty for an unknown name and for none."""
    domain: Domain
    """The domain whose certificate is expected."""
    refused: bool = False
    """Must the handshake end with the alert unrecognized_name?"""

    def __str__(self) -> str:
        return self.sent or "(no name)"


def names(config: Config, listener: Listener) -> list[Name]:
    """Return every configured host, an unknown name, and no name, as a listener must serve them."""
    found = [
        Name("wildcard", host.replace("*", "probe", 1), host, domain)
        if host.startswith("*.")
        else Name("exact", host, host, domain)
        for domain in config.domains_and_sites
        for host in domain.hosts
    ]
    default = default_domain(config, listener)
    if default is not None:
        refused = config.tls.unknown_name == "refuse"
        found += [Name("unknown", UNKNOWN_NAME, "", default, refused), Name("none", None, "", default)]
    return found


def default_domain(config: Config, listener: Listener) -> Domain | None:
    """Return the domain whose certificate clients without a name get."""
    wanted = listener.default or config.tls.default
    if not wanted:
        return config.domains_and_sites[0] if config.domains_and_sites else None
    parent = f"*.{wanted.partition('.')[2]}"
    for host in (wanted, parent):
        for domain in config.domains_and_sites:
            if host in domain.hosts:
                return domain
    return None


def versions(config: Config, listener: Listener, domain: Domain) -> set[str]:
    """Return the versions that must be accepted."""
    least = max(listener.minimum_version or config.tls.minimum_version or OLDEST, domain.minimum_version or OLDEST)
    most = listener.maximum_version or config.tls.maximum_version or max(VERSIONS)
    return {version for version in VERSIONS if least <= version <= most}


def settings(domain: Domain) -> tuple[object, ...]:
    """Return the domain's settings that affect handshakes; domains with equal ones differ in the certificate alone."""
    return (
        domain.minimum_version,
        domain.ciphers,
        domain.client_certificates,
        domain.client_ca,
        domain.client_crl,
        domain.client_user,
    )


class Certificates:
    """Fingerprints of the configured certificates; each file is read once."""

    def __init__(self, managed: Callable[[str], str | None]) -> None:
        """`managed(host)` returns the PEM of a host whose domain names no files."""
        self._managed = managed
        self._known: dict[tuple[int, int], frozenset[str] | None] = {}
        self.findings: list[Finding] = []

    def expected(self, domain: Domain) -> frozenset[str] | None:
        """Return the fingerprints that a client may be shown; None if they are unknown."""
        at = (domain.number, domain.site)
        if at not in self._known:
            self._known[at] = self._read(domain)
        return self._known[at]

    def _read(self, domain: Domain) -> frozenset[str] | None:
        found: set[str] = set()
        paths = [path for path in (domain.certificate, domain.second_certificate) if path is not None]
        if not paths:
            pem = self._managed(domain.hosts[0])
            return None if pem is None else _of_pem(pem.encode())
        for path in paths:
            try:
                with path.open("rb") as file:
                    found |= _of_pem(file.read(MAX_FILE))
            except (OSError, ValueError) as error:
                words = getattr(error, "strerror", None) or "it holds no certificate"
                self.findings.append(
                    Finding("file-unreadable", str(path), f"cannot be compared: {words}", warning=True)
                )
                return None
        return frozenset(found)


def _of_pem(octets: bytes) -> frozenset[str]:
    """Return the first certificate's fingerprint. Raises: ValueError."""
    return frozenset([fingerprint(x509.load_pem_x509_certificates(octets)[0])])


def key_files(config: Config) -> Iterator[Finding]:
    """Yield keys that other users of this machine can read."""
    for domain in config.domains_and_sites:
        for path in (domain.key, domain.second_key):
            if path is not None and (mode := _mode(path)) is not None and mode & stat.S_IRWXO:
                yield Finding(
                    "key-readable", str(path), "the key can be read or changed by every user: chmod 600, and a new key"
                )


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except OSError:
        return None
