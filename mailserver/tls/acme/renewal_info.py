"""Renewal information of an ACME authority (RFC 9773), asked by the child process for the process that reads keys."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from cryptography import x509

from mailserver.config.model import Config
from mailserver.tls.acme.child import AcmeError, Child
from mailserver.tls.acme.jws import base64url
from mailserver.tls.acme.schedule import CurrentCertificate, Window, ask_after_failure, ask_again, choose_moment
from mailserver.tls.keypair.sanitize import printable

MOST: Final = 100
"""Maximum number of certificates in one request."""
PATIENCE: Final = 240.0
"""Timeout of the child process, in seconds."""
_LATEST: Final = 1 << 40
"""Times after this are invalid."""


def windows(
    config: Config, certificates: Sequence[CurrentCertificate], before: Mapping[str, Window], now: int
) -> list[Window]:
    """Ask for the renewal window of each certificate, MOST at most; `before` is by host.

    A window without a moment means that the authority gave none. Blocks. Raises nothing: the schedule has a default.
    """
    names = {held.host: identifier(held.of_authority) for held in certificates[:MOST]}
    try:
        rows = Child(config).ask("renewal-infos", {"certificates": sorted({*names.values()} - {""})}, seconds=PATIENCE)
        by_certificate = {row["certificate"]: row for row in rows["windows"]}
    except AcmeError as refused:
        failure = {"error": str(refused), "retry_after": refused.retry_after, "passing": not refused.decided}
        by_certificate = dict.fromkeys(names.values(), failure)
    except (KeyError, TypeError):
        by_certificate = {}
    return [
        _window(held, by_certificate.get(names[held.host]), before.get(held.host), now) for held in certificates[:MOST]
    ]


def identifier(chain_pem: bytes) -> str:
    """Return the authority's identifier of the first certificate of a chain (RFC 9773 4.1); "" if it has none."""
    try:
        certificate = x509.load_pem_x509_certificates(chain_pem)[0]
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except (ValueError, x509.ExtensionNotFound):
        return ""
    if found is None:
        return ""
    # The octets of an ASN.1 INTEGER: the first bit is the sign.
    serial = certificate.serial_number.to_bytes(certificate.serial_number.bit_length() // 8 + 1, "big")
    return f"{base64url(found)}.{base64url(serial)}"


def _window(held: CurrentCertificate, row: Any, before: Window | None, now: int) -> Window:
    match row:
        case {"start": int(start), "end": int(end), "retry_after": int(wait), "explanation": str(why)} if (
            0 < start < end < _LATEST
        ):
            same = before if before is not None and before.fingerprint == held.fingerprint else None
            moment = choose_moment(start, end, same, random.random())  # noqa: S311 - to spread the load
            return Window(held.host, held.fingerprint, moment, start, end, ask_again(now, wait), printable(why))
        case {"error": str(), "retry_after": int(wait), "passing": bool(passing)}:
            failures = (0 if before is None else before.failures) + 1 if passing else 0
            again = ask_after_failure(now, wait, failures)
        case _:
            failures, again = 0, ask_after_failure(now, 0, 0)
    # The authority gave no window: the previous one stays in force.
    if before is not None and before.fingerprint == held.fingerprint:
        return attrs.evolve(before, again=again, failures=failures)
    return Window(held.host, held.fingerprint, 0, 0, 0, again, failures=failures)
