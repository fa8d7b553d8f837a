"""Obtain a certificate from an ACME authority: the order, the challenge, the chain (RFC 8555 7.4).

An order that an earlier process placed is continued at its present step: its certificate may exist already.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final

from acme import challenges, errors, messages
from josepy.json_util import field

from mailserver.tls.acme.challenges import ChallengeFailed, make_proof
from mailserver.tls.acme.faults import code_of, is_passing
from mailserver.tls.acme.network import AcmeServer

ORDER_TIME: Final = 150
"""Timeout of the validation, and again of the certificate, in seconds."""
_BEGUN: Final = (messages.STATUS_PROCESSING, messages.STATUS_VALID)
"""States of orders whose request was sent already."""
_OF_REPLACES: Final = ("alreadyReplaced", "malformed", "unauthorized", "")
"""Problems that may concern the certificate that an order replaces; "" is a problem without a type. The library turns status
409 into its own error.
"""
_INTERNAL: Final = "serverInternal"
"""An authority may answer this if it does not find the order of the replaced certificate."""


class NewOrder(messages.NewOrder):
    """A new order that names the certificate it replaces (RFC 9773 5)."""

    replaces: str | None = field("replaces", omitempty=True)


def obtain(authority: AcmeServer, job: Mapping[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Return `{"chain": PEM}`; `send` gets `{"order": address}` before any further step.

    Raises: exceptions of the libraries; ChallengeFailed.
    """
    authority.sign_up(job)
    order = _begun(authority, job) or _ordered(authority, job)
    send({"order": order.uri})
    if order.body.status == messages.STATUS_PENDING:
        _prove(authority, job, order)
    if order.body.status in _BEGUN:
        return {"chain": authority.client.poll_finalization(order, _deadline()).fullchain_pem}
    return {"chain": authority.client.finalize_order(order, _deadline()).fullchain_pem}


def _begun(authority: AcmeServer, job: Mapping[str, Any]) -> messages.OrderResource | None:
    """Return the order of an earlier attempt, unless the authority has dropped it."""
    if not job["order"]:
        return None
    try:
        body = messages.Order.from_json(authority.post(job["order"], None).json())
    except (messages.Error, errors.ClientError) as error:
        if is_passing(error, authority.network.status):
            raise
        return None  # the authority has forgotten it
    return None if body.status == messages.STATUS_INVALID else _checked(job, body, job["order"])


def _ordered(authority: AcmeServer, job: Mapping[str, Any]) -> messages.OrderResource:
    # Only an authority with renewal information knows the field.
    replaces = job["replaces"] if authority.address_of("renewalInfo") is not None else None
    identifiers = [messages.Identifier(typ=messages.IDENTIFIER_FQDN, value=job["host"])]
    wanted = NewOrder(identifiers=identifiers, replaces=replaces or None)
    try:
        response = authority.post(authority.directory["newOrder"], wanted)
    except (messages.Error, errors.ConflictError) as error:
        if not replaces or not _may_be_of_replaces(error, authority.network.status):
            raise
        # It was replaced already, or another authority issued it: order without it (RFC 9773 5).
        response = authority.post(authority.directory["newOrder"], NewOrder(identifiers=identifiers))
    return _checked(job, messages.Order.from_json(response.json()), response.headers["Location"])


def _may_be_of_replaces(error: messages.Error | errors.ConflictError, status: int) -> bool:
    code = code_of(error)
    return code == _INTERNAL or (code in _OF_REPLACES and not is_passing(error, status))


def _checked(job: Mapping[str, Any], body: messages.Order, address: str) -> messages.OrderResource:
    """Validate that an order is for our host alone. Raises: ClientError."""
    named = [each.value for each in body.identifiers or ()]
    if named != [job["host"]] or len(body.authorizations or ()) != 1:
        raise errors.ClientError(f"the order is not for {job['host']} alone")
    return messages.OrderResource(body=body, uri=address, authorizations=[], csr_pem=job["csr"].encode())


def _prove(authority: AcmeServer, job: Mapping[str, Any], order: messages.OrderResource) -> None:
    """Publish the challenge response until the authority has validated it."""
    host = job["host"].removeprefix("*.")
    authorization = messages.Authorization.from_json(authority.post(order.body.authorizations[0], None).json())
    if authorization.identifier is None or authorization.identifier.value != host:
        raise errors.ClientError(f"the authorization is not for {host}")
    with contextlib.ExitStack() as proofs:
        if authorization.status == messages.STATUS_PENDING:
            offered = [each for each in authorization.challenges or () if each.chall.typ == job["challenge"]]
            if not offered:
                raise ChallengeFailed(f"the authority offers no {job['challenge']} challenge for {job['host']}")
            response, validation = offered[0].response_and_validation(authority.key)
            proof = make_proof(job, host, _token(offered[0]), validation)
            proofs.callback(proof.remove)
            proof.put()
            # An interrupted attempt may have answered it.
            if offered[0].status == messages.STATUS_PENDING:
                authority.client.answer_challenge(offered[0], response)
        authority.client.poll_authorizations(order, _deadline())


def _token(challenge: messages.ChallengeBody) -> str:
    return str(challenge.chall.encode("token")) if isinstance(challenge.chall, challenges.HTTP01) else ""


def _deadline() -> dt.datetime:
    return dt.datetime.now() + dt.timedelta(seconds=ORDER_TIME)  # noqa: DTZ005 - as the library compares it
