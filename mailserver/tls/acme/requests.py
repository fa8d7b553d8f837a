"""Requests to an ACME authority beside orders: renewal information, the account, revocations."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterator, Mapping
from typing import Any

from acme import errors, jws, messages
from cryptography import x509
from josepy.jwa import ES256

from mailserver.tls.acme.faults import NoAccount, code_of, error_text, is_passing
from mailserver.tls.acme.network import AcmeServer, key_of, seconds_of


def renewal_infos(authority: AcmeServer, job: Mapping[str, Any], _send: object) -> dict[str, Any]:
    """Ask when certificates should be renewed (RFC 9773 4): `{"windows": rows}`, a row for each of `certificates`.

    A row has "certificate" and "retry_after" (seconds), and "start", "end" (Unix times) and "explanation", or "error" and
    "passing": is the failure temporary (RFC 9773 4.3.3)? Rows are [] if the authority has no renewal information.
    """
    address = authority.address_of("renewalInfo")
    if address is None:
        return {"windows": []}
    return {"windows": [_window(authority, f"{address}/{each}", each) for each in job["certificates"]]}


def _window(authority: AcmeServer, address: str, certificate: str) -> dict[str, Any]:
    try:
        response = authority.network.get(address)
        answer = response.json()
        start, end = (_unix_time(answer["suggestedWindow"][edge]) for edge in ("start", "end"))
        if end <= start:
            raise errors.ClientError("its window ends before it begins")  # noqa: TRY301 - as no answer (RFC 9773 4.2)
    except Exception as error:
        wait = seconds_of(authority.network.retry_after)
        passing = is_passing(error, authority.network.status)
        return {"certificate": certificate, "error": error_text(error), "retry_after": wait, "passing": passing}
    return {
        "certificate": certificate,
        "start": start,
        "end": end,
        "retry_after": seconds_of(response.headers.get("Retry-After", "")),
        "explanation": str(answer.get("explanationURL", "")),
    }


def _unix_time(text: str) -> int:
    """Parse a time of RFC 3339."""
    return int(dt.datetime.fromisoformat(text).timestamp())


def account(authority: AcmeServer, job: Mapping[str, Any], _send: object) -> dict[str, Any]:
    """Return `{"address", "status", "contact"}` of the account (RFC 8555 7.1.2); with `update`, set the job's contacts first."""
    address = authority.log_in()
    update = messages.UpdateRegistration(contact=tuple(job["contact"])) if job["update"] else None
    body = messages.Registration.from_json(authority.post(address, update).json())
    return {"address": address, "status": str(body.status), "contact": list(body.contact)}


def deactivate(authority: AcmeServer, _job: object, _send: object) -> dict[str, Any]:
    """End the account (RFC 8555 7.3.6); {}. An account that is missing, or whose key is rejected, has ended already."""
    try:
        address = authority.log_in()
    except NoAccount:
        return {}
    except messages.Error as error:
        if code_of(error) != "unauthorized":
            raise
        return {}
    authority.post(address, messages.UpdateRegistration(status=messages.STATUS_DEACTIVATED))
    return {}


def roll_over(authority: AcmeServer, job: Mapping[str, Any], _send: object) -> dict[str, Any]:
    """Give the account the key `next` (RFC 8555 7.3.5); {}. A repeated request succeeds without a change."""
    old, new = authority.key, key_of(job["next"])
    authority.use(new, None)
    try:
        authority.log_in()
    except NoAccount:
        authority.use(old, None)
    else:
        return {}
    address = authority.log_in()
    where = authority.address_of("keyChange")
    if where is None:
        raise errors.ClientError("it has no keyChange in its directory")
    wanted = json.dumps({"account": address, "oldKey": old.public_key().to_json()}).encode()
    authority.post(where, jws.JWS.sign(wanted, new, ES256, None, where))
    return {}


def revoke(authority: AcmeServer, job: Mapping[str, Any], _send: object) -> dict[str, Any]:
    """Revoke `certificate`, PEM, for `reason`, a number of RFC 5280 5.3.1 (RFC 8555 7.6); {}.

    A certificate that was already revoked is no failure: our own record of the revocation may have been lost.
    """
    authority.log_in()
    certificate = x509.load_pem_x509_certificates(job["certificate"].encode())[0]
    with _revoked_before():
        authority.client.revoke(certificate, job["reason"])
    return {}


def revocation_terms(authority: AcmeServer, _job: object, _send: object) -> dict[str, Any]:
    """Return `{"address", "nonce"}` for a revocation that another process signs with the certificate's own key."""
    return {"address": str(authority.directory["revokeCert"]), "nonce": authority.nonce()}


def revoke_signed(authority: AcmeServer, job: Mapping[str, Any], _send: object) -> dict[str, Any]:
    """Post `signed`, a revocation as JWS, to its address (RFC 8555 7.6); {}."""
    with _revoked_before():
        authority.network.post_signed(job["address"], job["signed"])
    return {}


@contextlib.contextmanager
def _revoked_before() -> Iterator[None]:
    try:
        yield
    except messages.Error as error:
        if code_of(error) != "alreadyRevoked":
            raise
