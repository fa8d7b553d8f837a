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
        "Program that changes the zone, with its arguments. It is run without a shell as the service's user, with three more "
        "arguments: add or remove, the record's name, its text.",
        default=(),
        example=["/usr/local/bin/acme-dns"],
        hidden=True,
    )
    server: Address | None = setting(
        "Name server that takes dynamic updates (RFC 2136), instead of a hook.", default=None, example="192.0.2.53"
    )
    port: Port = setting("Its port.", default=Port(53))
    zone: str = setting(
        "Zone that is changed. When empty, the name server's zone for the name.",
        default="",
        example="example.org",
    )
    key_name: str = setting(
        "Name of the key that signs updates (TSIG, RFC 8945).", default="", example="mailserver.example.org"
    )
    key_algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = setting(
        "Algorithm of that key.", default="hmac-sha256"
    )
    key_file: Path | None = setting(
        "File with that key in base64 on its first line. The process that reads the keys of certificates reads it.",
        default=None,
        example="/etc/mailserver/tsig",
        hidden=True,
    )
    resolver: Address | None = setting(
        "Resolver that is asked whether the record's name is an alias (CNAME); the alias's target is changed then. When "
        "absent, the system's resolver.",
        default=None,
        example="192.0.2.1",
    )
    resolver_port: Port = setting("Its port.", default=Port(53))
    wait: Seconds = setting(
        "Seconds from the change to the authority's validation, until all name servers of the zone have it.",
        default=10.0,
    )


@frozen
class Acme:
    """[acme]"""

    terms_of_service: Literal["agreed"] = setting(
        'Your agreement to the terms of service that the authority publishes: write "agreed".', example="agreed"
    )
    directory: str = setting(
        "URL of the authority's directory.",
        default="https://acme-v02.api.letsencrypt.org/directory",
        example="https://acme-staging-v02.api.letsencrypt.org/directory",
    )
    contact: tuple[str, ...] = setting(
        "Contact addresses for the authority.", default=(), example=["mailto:postmaster@example.org"]
    )
    challenge: Literal["http-01", "dns-01"] = setting(
        "Validation of a host: by a page on port 80, or by a TXT record. Wildcards always need a TXT record.",
        default="http-01",
    )
    webroot: Path | None = setting(
        "Directory of another web server on port 80, writable by the service's user. When absent, a listener of protocol "
        "http answers.",
        default=None,
        example="/var/www/html",
    )
    key_type: Literal["ecdsa", "rsa"] = setting(
        "Type of the certificates' keys: P-256, or RSA of 2048 bits.", default="ecdsa"
    )
    ca_file: Path | None = setting(
        "Trusted authorities for the connection to the directory. When absent, the public ones.",
        default=None,
        example="/etc/mailserver/acme-ca.pem",
    )
    eab_key_id: str = setting(
        "Key identifier of an account at the authority, if it requires one (RFC 8555 7.3.4).",
        default="",
        example="kid-1",
    )
    eab_key_file: Path | None = setting(
        "File with that account's MAC key in base64url on its first line. The process that reads the keys of certificates reads it.",
        default=None,
        example="/etc/mailserver/acme-eab",
        hidden=True,
    )
    dns: AcmeDns | None = setting("Creation of TXT records; required for dns-01.", default=None)
    thumbprint: str = attrs.field(default="", kw_only=True, eq=False, metadata={"no_key": True})
    """Thumbprint of the account's key (RFC 7638), served on port 80. The process that reads the key sets it; not a setting."""
