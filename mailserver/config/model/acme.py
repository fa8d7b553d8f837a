"""Certificates from an authority that speaks ACME (RFC 8555)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs
from attrs import frozen

from mailserver.config.kinds import Address, Port, Seconds
from mailserver.config.model.keys import setting


@frozen
class AcmeDns:
    """[acme.dns]"""

    hook: tuple[str, ...] = setting(
        "Program that changes the zone, with its arguments; run without a shell as the service's user, with three more: "
        "add or remove, the record's name, its text.",
        default=(),
        example=["/usr/local/bin/acme-dns"],
        hidden=True,
    )
    server: Address | None = setting(
        "Name server that takes dynamic updates (RFC 2136), instead of a hook.", default=None, example="192.0.2.53"
    )
    port: Port = setting("Its port.", default=Port(53))
    zone: str = setting(
        "Zone that is changed; the one that the name server has for the name when empty.",
        default="",
        example="example.org",
    )
    key_name: str = setting(
        "Name of the key that signs updates (TSIG, RFC 8945).", default="", example="mailserver.example.org"
    )
    key_algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = setting(
        "What it signs with.", default="hmac-sha256"
    )
    key_file: Path | None = setting(
        "File with that key, in base64, on its first line; read by who reads the keys of certificates.",
        default=None,
        example="/etc/mailserver/tsig",
        hidden=True,
    )
    resolver: Address | None = setting(
        "Resolver that is asked whether the record's name is an alias (CNAME), whose target is changed then; the system's "
        "when absent.",
        default=None,
        example="192.0.2.1",
    )
    resolver_port: Port = setting("Its port.", default=Port(53))
    wait: Seconds = setting(
        "Seconds between the change and the authority's look, until all name servers of the zone have it.", default=10.0
    )


@frozen
class Acme:
    """[acme]"""

    terms_of_service: Literal["agreed"] = setting(
        'That you have read the authority\'s terms, which it publishes, and agree: write "agreed".', example="agreed"
    )
    directory: str = setting(
        "Address of the authority's directory.",
        default="https://acme-v02.api.letsencrypt.org/directory",
        example="https://acme-staging-v02.api.letsencrypt.org/directory",
    )
    contact: tuple[str, ...] = setting(
        "Where the authority may write to.", default=(), example=["mailto:postmaster@example.org"]
    )
    challenge: Literal["http-01", "dns-01"] = setting(
        "How a host is proved to be ours: by a page on port 80, or by a TXT record, as wildcards always are.",
        default="http-01",
    )
    webroot: Path | None = setting(
        "Directory of another web server on port 80, where the service's user may write; without it our own listener of "
        "protocol http answers.",
        default=None,
        example="/var/www/html",
    )
    key_type: Literal["ecdsa", "rsa"] = setting(
        "Keys of the certificates: P-256, or RSA of 2048 bits.", default="ecdsa"
    )
    ca_file: Path | None = setting(
        "Authorities that may have signed the certificate of the directory itself; the public ones when absent.",
        default=None,
        example="/etc/mailserver/acme-ca.pem",
    )
    eab_key_id: str = setting(
        "Key identifier of an account at the authority, if it demands one (RFC 8555 7.3.4).",
        default="",
        example="kid-1",
    )
    eab_key_file: Path | None = setting(
        "File with that account's MAC key, in base64url, on its first line; read by who reads the keys of certificates.",
        default=None,
        example="/etc/mailserver/acme-eab",
        hidden=True,
    )
    dns: AcmeDns | None = setting("How TXT records are made; needed for dns-01.", default=None)
    thumbprint: str = attrs.field(default="", kw_only=True, eq=False, metadata={"no_key": True})
    """Of the account's key (RFC 7638), set by who reads it: what a page on port 80 answers with. It is no key."""
