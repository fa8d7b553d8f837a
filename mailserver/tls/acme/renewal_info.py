"""Where keys are read: when an ACME authority would have certificates renewed (RFC 9773), asked by the child process."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from cryptography import x509

from mailserver.config.model import Config
from mailserver.tls.acme.child import Child, NotObtained
from mailserver.tls.acme.jws import base64url
from mailserver.tls.acme.schedule import Held, Window, ask_after_failure, ask_again, chosen
from mailserver.tls.keypair.sanitize import printable

MOST: Final = 100
"""Certificates that are asked about at once."""
PATIENCE: Final = 240.0
"""Seconds until the child process is ended."""
_LATEST: Final = 1 << 40
"""Times after this are nonsense."""


def windows(config: Config, certificates: Sequence[Held], before: Mapping[str, Window], now: int) -> list[Window]:
    """One for each of them, at most MOST; `before` by host. Where the authority says nothing, one without a moment.

    Blocks. Raises nothing: that is what the plan falls back from.
    """
    names = {held.host: identifier(held.of_authority) for held in certificates[:MOST]}
    try:
        rows = Child(config).ask("renewal-infos", {"certificates": sorted({*names.values()} - {""})}, seconds=PATIENCE)
        told = {row["certificate"]: row for row in rows["windows"]}
    except NotObtained as refused:
        failure = {"error": str(refused), "retry_after": refused.retry_after, "passing": not refused.decided}
        told = dict.fromkeys(names.values(), failure)
    except (KeyError, TypeError):
        told = {}
    return [_window(held, told.get(names[held.host]), before.get(held.host), now) for held in certificates[:MOST]]


def identifier(chain_pem: bytes) -> str:
    """How an authority calls the first certificate of a chain (RFC 9773 4.1); "" for one that has no such name."""
    try:
        certificate = x509.load_pem_x509_certificates(chain_pem)[0]
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except (ValueError, x509.ExtensionNotFound):
        return ""
    if found is None:
        return ""
    # The octets of an ASN.1 INTEGER: the first bit is its sign.
    serial = certificate.serial_number.to_bytes(certificate.serial_number.bit_length() // 8 + 1, "big")
    return f"{base64url(found)}.{base64url(serial)}"


def _window(held: Held, row: Any, before: Window | None, now: int) -> Window:
    match row:
        case {"start": int(start), "end": int(end), "retry_after": int(wait), "explanation": str(why)} if (
            0 < start < end < _LATEST
        ):
            same = before if before is not None and before.fingerprint == held.fingerprint else None
            moment = chosen(start, end, same, random.random())  # noqa: S311 - to spread the load
            return Window(held.host, held.fingerprint, moment, start, end, ask_again(now, wait), printable(why))
        case {"error": str(), "retry_after": int(wait), "passing": bool(passing)}:
            failures = (0 if before is None else before.failures) + 1 if passing else 0
            again = ask_after_failure(now, wait, failures)
        case _:
            failures, again = 0, ask_after_failure(now, 0, 0)
    # Nothing was said: what was before counts on.
    if before is not None and before.fingerprint == held.fingerprint:
        return attrs.evolve(before, again=again, failures=failures)
    return Window(held.host, held.fingerprint, 0, 0, 0, again, failures=failures)
