"""Table [tls]: settings common to all listeners."""

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
        "Host name whose certificate is served to clients without SNI. When empty, the first host of the first domain.",
        default="",
        example="mail.example.org",
    )
    unknown_name: Literal["default", "refuse"] = setting(
        "Answer to an SNI name without a certificate: serve the default, or refuse with the alert unrecognized_name.",
        default="default",
    )
    preset: Preset = setting(
        "Defaults of the keys below: modern for all clients of the last ten years, old-devices also with CBC suites and RSA "
        "key exchange. docs/tls.md lists the values.",
        default="modern",
    )
    minimum_version: TlsVersion | None = setting(
        "Oldest TLS version accepted. When absent, the preset's.", default=None, example="1.3"
    )
    maximum_version: TlsVersion | None = setting(
        "Newest TLS version accepted. When absent, the preset's.", default=None, example="1.3"
    )
    ciphers: str | None = setting(
        "TLS 1.2 cipher suites in OpenSSL's notation. When absent, the preset's.",
        default=None,
        example="ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL",
    )
    ciphersuites: str | None = setting(
        "TLS 1.3 cipher suites by name. When absent, the preset's.",
        default=None,
        example="TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
    )
    groups: str | None = setting(
        "Key exchange groups in OpenSSL's notation. A ? marks one that an older OpenSSL may lack.",
        default=None,
        example="?X25519MLKEM768:X25519:P-256:P-384",
    )
    cipher_order: CipherOrder | None = setting(
        "Side whose preference of cipher suites is used. When absent, the preset's.", default=None, example="server"
    )
    tickets: bool | None = setting(
        "Let clients resume sessions by tickets. When absent, the preset's.", default=None, example=True
    )
    follow_files: bool = setting("Serve changed certificate files within seconds, without a reload.", default=True)
    history: Count = setting("Activations kept for each host name, for a rollback.", default=10)
    history_days: Count = setting(
        "Days for which older activations are kept, too, up to 1000 of a host name.", default=Count(90)
    )
    private_ca: Path | None = setting(
        "PEM file of a private authority's certificate. HTTP listeners offer it at /ca, with instructions to import it. If its "
        "key is in the same directory, the certificates that it has signed are renewed.",
        default=None,
        example="/var/lib/mailserver/ca/ca.pem",
    )
    private_ca_crl_url: HttpUrl = setting(
        "URL of its revocation list, written into new certificates (cRLDistributionPoints, RFC 5280 4.2.1.13). HTTP listeners "
        "serve the list at /ca.crl.",
        default=HttpUrl(""),
        example="http://mail.example.org/ca.crl",
    )
