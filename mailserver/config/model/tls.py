"""TLS: what all listeners have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import frozen

from mailserver.config.kinds import CipherOrder, Count, HttpUrl, OptionalHostName, Preset, TlsVersion
from mailserver.config.model.keys import setting


@frozen
class Tls:
    """[tls]"""

    default: OptionalHostName = setting(
        "Host name whose certificate is served to clients that send no name; "
        "when empty the first host of the first domain.",
        default="",
        example="mail.example.org",
    )
    unknown_name: Literal["default", "refuse"] = setting(
        "A name that no certificate covers: serve the default, or refuse with alert unrecognized_name.",
        default="default",
    )
    preset: Preset = setting(
        "What holds where the keys below are absent: for all clients of the last ten years, or also CBC suites and RSA "
        "key exchange for devices that have nothing else. docs/tls.md lists the values.",
        default="modern",
    )
    minimum_version: TlsVersion | None = setting(
        "Oldest TLS version accepted; the preset's when absent.", default=None, example="1.3"
    )
    maximum_version: TlsVersion | None = setting(
        "Newest TLS version accepted; the preset's when absent.", default=None, example="1.3"
    )
    ciphers: str | None = setting(
        "TLS 1.2 cipher suites, in OpenSSL's notation; the preset's when absent.",
        default=None,
        example="ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL",
    )
    ciphersuites: str | None = setting(
        "TLS 1.3 cipher suites by their names; the preset's when absent.",
        default=None,
        example="TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
    )
    groups: str | None = setting(
        "Key exchange groups, in OpenSSL's notation; a ? stands before one that an older OpenSSL may lack.",
        default=None,
        example="?X25519MLKEM768:X25519:P-256:P-384",
    )
    cipher_order: CipherOrder | None = setting(
        "Whose order of cipher suites counts; the preset's when absent.", default=None, example="server"
    )
    tickets: bool | None = setting(
        "Let clients resume sessions by tickets; the preset's when absent.", default=None, example=True
    )
    follow_files: bool = setting(
        "Serve certificates that change on disk within seconds, without a reload.", default=True
    )
    history: Count = setting("Activations kept for each host name, to go back to.", default=10)
    history_days: Count = setting(
        "Days for which older ones are kept as well, up to 1000 of a host name.", default=Count(90)
    )
    private_ca: Path | None = setting(
        "Certificate of one's own authority (PEM), which HTTP listeners offer to people at /ca, with the steps to import it. "
        "Where its key lies beside it, what it has signed is renewed.",
        default=None,
        example="/var/lib/mailserver/ca/ca.pem",
    )
    private_ca_crl_url: HttpUrl = setting(
        "URL of its revocation list, written into what it signs from then on (cRLDistributionPoints, RFC 5280 4.2.1.13); "
        "HTTP listeners have the list at /ca.crl.",
        default=HttpUrl(""),
        example="http://mail.example.org/ca.crl",
    )
