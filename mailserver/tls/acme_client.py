"""`python -m mailserver.tls.acme_client`: one certificate of an ACME authority (RFC 8555), by the service's user.

A job comes in on standard input and an answer goes out on standard output, JSON both: what the authority sends is read
here alone, with no more rights than the workers have. The certificate's key never comes here, only the request that it
signed. The account's key does: no other process of the user can read this one's memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime as dt
import json
import os
import resource
import sys
import time
from typing import Any, Final

import requests
from acme import challenges, errors, messages
from acme.client import ClientNetwork, ClientV2
from cryptography.hazmat.primitives import serialization
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from mailserver.tls.acme_proofs import CannotProve, Proof, make_proof

HTTP_TIME: Final = 30
"""Seconds for one answer of the authority."""
ORDER_TIME: Final = 150
"""Seconds for all validations, and as long again for the certificate."""
NONCES: Final = 8
"""Tries of a request whose nonce is refused (RFC 8555 6.5)."""
_MEMORY: Final = 1 << 30
_PR_SET_DUMPABLE: Final = 4
_AGENT: Final = "mailserver"


class Network(ClientNetwork):
    """Requests, tried again with a new nonce, and how long the authority would have us wait."""

    retry_after: str = ""

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Signed."""
        for _try in range(NONCES - 1):
            try:
                return self._post_once(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return self._post_once(*args, **kwargs)

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        if not url.startswith("https://"):
            raise errors.ClientError(f"the authority names an address that is not https: {url[:200]}")
        response = super()._send_request(method, url, *args, **kwargs)
        if not response.ok:
            self.retry_after = response.headers.get("Retry-After", "")
        return response


def obtain(job: dict[str, Any], network: Network) -> str:
    """The certificate and its chain, PEM. Raises: what the libraries raise; CannotProve."""
    client = ClientV2(ClientV2.get_directory(job["directory"], network), network)
    _log_in(client, job)
    order = client.new_order(job["csr"].encode())
    deadline = dt.datetime.now() + dt.timedelta(seconds=ORDER_TIME)  # noqa: DTZ005 - as the library compares it
    with contextlib.ExitStack() as proofs:
        for authorization in order.authorizations:
            if authorization.body.status != messages.STATUS_PENDING:
                continue
            offered = [each for each in authorization.body.challenges if each.chall.typ == job["challenge"]]
            if not offered:
                raise CannotProve(f"the authority offers no {job['challenge']} for it")
            response, validation = offered[0].response_and_validation(network.key)
            proof = _proof(job, authorization.body.identifier.value, offered[0], validation)
            proofs.callback(proof.remove)
            proof.put()
            client.answer_challenge(offered[0], response)
        order = client.poll_authorizations(order, deadline)
    end = dt.datetime.now() + dt.timedelta(seconds=ORDER_TIME)  # noqa: DTZ005 - see above
    return client.finalize_order(order, end).fullchain_pem


def _log_in(client: ClientV2, job: dict[str, Any]) -> None:
    """Make the account, or find the one that the key has (RFC 8555 7.3.1)."""
    key = client.net.key
    assert key is not None
    binding = None
    if job["eab"] is not None:
        key_id, mac_key = job["eab"]
        binding = messages.ExternalAccountBinding.from_data(key.public_key(), key_id, mac_key, client.directory)
    wanted = messages.NewRegistration.from_data(
        contact=tuple(job["contact"]), terms_of_service_agreed=True, external_account_binding=binding
    )
    try:
        client.new_account(wanted)
    except errors.ConflictError as known:
        client.net.account = messages.RegistrationResource(body=messages.Registration(), uri=known.location)


def _proof(job: dict[str, Any], host: str, challenge: messages.ChallengeBody, validation: str) -> Proof:
    token = challenge.chall.encode("token") if isinstance(challenge.chall, challenges.HTTP01) else ""
    return make_proof(job, host, token, validation)


def told(error: Exception) -> str:
    """A failure in one line for the administrator."""
    match error:
        case errors.ValidationError():
            found = [
                f"{authorization.body.identifier.value}: {challenge.error.detail}"
                for authorization in error.failed_authzrs
                for challenge in authorization.body.challenges
                if challenge.error is not None
            ]
            words = "the authority could not verify " + "; ".join(found)
        case errors.TimeoutError():
            words = "the authority did not decide in time"
        case errors.IssuanceError():
            words = f"the authority issued nothing: {error.error.detail}"
        case messages.Error():
            words = f"the authority refuses: {error.code or error.typ}: {error.detail}"
        case requests.exceptions.SSLError():
            words = f"the directory's certificate is not trusted (ca_file): {error}"
        case requests.exceptions.RequestException():
            words = f"the directory cannot be reached: {error}"
        case CannotProve():
            words = str(error)
        case _:
            words = f"the authority's answer is not understood: {type(error).__name__}: {error}"
    return " ".join(words.split())


def seconds_of(retry_after: str) -> int:
    """A Retry-After field (RFC 9110 10.2.3) in seconds from now; 0 where it says nothing."""
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - rarely needed

    try:
        return max(0, int(retry_after))
    except ValueError:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            return max(0, int(parsedate_to_datetime(retry_after).timestamp() - time.time()))
    return 0


def main() -> None:
    """Do the job; whatever the libraries print goes to standard error."""
    # Others of the same user could otherwise read the account's key out of this process.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    answer = os.dup(1)
    os.dup2(2, 1)
    job = json.load(sys.stdin.buffer)
    key = JWKEC(key=serialization.load_pem_private_key(job["account"].encode(), None))
    network = Network(key, alg=ES256, verify_ssl=job["ca_file"] or True, user_agent=_AGENT, timeout=HTTP_TIME)
    result: dict[str, Any]
    try:
        result = {"chain": obtain(job, network)}
    except Exception as error:
        result = {"error": told(error), "retry_after": seconds_of(network.retry_after)}
    with open(answer, "wb") as file:
        file.write(json.dumps(result).encode())


if __name__ == "__main__":
    main()
