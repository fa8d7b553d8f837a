"""An ACME authority as a child process talks to it (RFC 8555 6): signed requests, each answer of bounded length.

What the authority sends is a stranger's. So nothing but https is spoken, no other address is gone to at its word, and what
is longer than any honest answer is not read on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

import requests
from acme import errors, messages
from acme.client import ClientNetwork, ClientV2
from cryptography.hazmat.primitives import serialization
from josepy.interfaces import JSONDeSerializable
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from mailserver.tls.acme.faults import NoAccount, code_of

HTTP_TIME: Final = 30
"""Seconds for each wait for the authority."""
NONCES: Final = 8
"""Tries of a request whose nonce is refused (RFC 8555 6.5)."""
LONGEST: Final = 1 << 20
"""Octets of an answer."""
_AGENT: Final = "mailserver"


class Network(ClientNetwork):
    """Requests, tried again with a new nonce, and how long the authority would have us wait."""

    retry_after: str = ""
    status: int = 0
    """Of the last answer."""

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Signed."""
        for _try in range(NONCES - 1):
            try:
                return self._post_once(*args, **kwargs)
            except messages.Error as error:
                if code_of(error) != "badNonce":
                    raise
        return self._post_once(*args, **kwargs)

    def post_signed(self, url: str, octets: str) -> requests.Response:
        """What another key has signed."""
        fields = {"Content-Type": self.JOSE_CONTENT_TYPE}
        return self._check_response(self._send_request("POST", url, data=octets, headers=fields))

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        self.retry_after = ""
        if not url.startswith("https://"):
            raise errors.ClientError(f"the authority names an address that is not https: {url[:200]}")
        kwargs |= {"allow_redirects": False, "hooks": {"response": _bounded}, "stream": True}
        response = super()._send_request(method, url, *args, **kwargs)
        self.status = response.status_code
        if response.is_redirect:
            raise errors.ClientError(f"the authority sends us elsewhere: {response.headers['Location'][:200]}")
        if not response.ok:
            self.retry_after = response.headers.get("Retry-After", "")
        return response


def _bounded(response: requests.Response, **_kwargs: object) -> None:
    """Read the answer, and no more of it than LONGEST, as unpacked. Raises: ClientError, RequestException."""
    octets = bytearray()
    for piece in response.iter_content(1 << 16):
        octets += piece
        if len(octets) > LONGEST:
            response.close()
            raise errors.ClientError(f"the authority's answer has more than {LONGEST} octets")
    response._content = bytes(octets)  # noqa: SLF001 - as `content` would have it


class Authority:
    """What an authority offers, and requests of an account."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        """Reads its directory (RFC 8555 7.1.1). Raises: what the libraries raise."""
        self.key = key_of(job["account"])
        self.network = Network(
            self.key, alg=ES256, verify_ssl=job["ca_file"] or True, user_agent=_AGENT, timeout=HTTP_TIME
        )
        self.directory = ClientV2.get_directory(job["directory"], self.network)
        self.client = ClientV2(self.directory, self.network)

    def post(self, url: str, body: JSONDeSerializable | None) -> requests.Response:
        """Signed by the account's key; without a body it is a POST-as-GET (RFC 8555 6.3)."""
        return self.network.post(url, body, new_nonce_url=self.directory["newNonce"])

    def nonce(self) -> str:
        """For a request that is signed elsewhere (RFC 8555 7.2)."""
        response = self.network.head(self.directory["newNonce"])
        return str(response.headers.get(self.network.REPLAY_NONCE_HEADER, ""))

    def address_of(self, resource: str) -> str | None:
        """What the directory says of it (RFC 8555 9.7.5); None where the authority has none."""
        try:
            return str(self.directory[resource])
        except KeyError:
            return None

    def sign_up(self, job: Mapping[str, Any]) -> None:
        """Make the account, or find the one that the key has (RFC 8555 7.3)."""
        binding = None
        if job["eab"] is not None:
            key_id, mac_key = job["eab"]
            binding = messages.ExternalAccountBinding.from_data(self.key.public_key(), key_id, mac_key, self.directory)
        self._account(
            messages.NewRegistration.from_data(
                contact=tuple(job["contact"]), terms_of_service_agreed=True, external_account_binding=binding
            )
        )

    def log_in(self) -> str:
        """Find the account that the key has; its address (RFC 8555 7.3.1). Raises: NoAccount, too."""
        try:
            return self._account(messages.NewRegistration(only_return_existing=True))
        except messages.Error as error:
            if code_of(error) != "accountDoesNotExist":
                raise
            raise NoAccount from error

    def use(self, key: JWKEC, address: str | None) -> None:
        """Sign with a key: for the account of that address, or for none yet."""
        self.key = self.network.key = key
        body = messages.Registration()
        self.network.account = None if address is None else messages.RegistrationResource(body=body, uri=address)

    def _account(self, wanted: messages.NewRegistration) -> str:
        self.use(self.key, None)
        try:
            address = self.client.new_account(wanted).uri
        except errors.ConflictError as known:
            address = known.location
        self.use(self.key, address)
        return str(address)


def key_of(pem: str) -> JWKEC:
    """An account's key."""
    key = serialization.load_pem_private_key(pem.encode(), None)
    return JWKEC(key=key)


def seconds_of(retry_after: str) -> int:
    """A Retry-After field (RFC 9110 10.2.3) in seconds from now; 0 where it says nothing."""
    try:
        return max(0, int(retry_after))
    except ValueError:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            return max(0, int(parsedate_to_datetime(retry_after).timestamp() - time.time()))
    return 0
