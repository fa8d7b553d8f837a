"""Signed requests from the child process to an ACME authority (RFC 8555 6), with answers of bounded length.

What the authority sends is untrusted: only https is spoken, redirects are refused, and reading stops at the limit.
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
"""Timeout of each request, in seconds."""
NONCES: Final = 8
"""Maximum tries of a request whose nonce is refused (RFC 8555 6.5)."""
LONGEST: Final = 1 << 20
"""Maximum length of an answer, in octets."""
_AGENT: Final = "mailserver"


class Network(ClientNetwork):
    """HTTP requests, repeated with a new nonce; it remembers the authority's Retry-After."""

    retry_after: str = ""
    status: int = 0
    """Status of the last answer."""

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a signed request."""
        for _try in range(NONCES - 1):
            try:
                return self._post_once(*args, **kwargs)
            except messages.Error as error:
                if code_of(error) != "badNonce":
                    raise
        return self._post_once(*args, **kwargs)

    def post_signed(self, url: str, octets: str) -> requests.Response:
        """Send a request that another key has signed."""
        fields = {"Content-Type": self.JOSE_CONTENT_TYPE}
        return self._check_response(self._send_request("POST", url, data=octets, headers=fields))

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        self.retry_after = ""
        if not url.startswith("https://"):
            raise errors.ClientError(f"the authority names an address without https: {url[:200]}")
        kwargs |= {"allow_redirects": False, "hooks": {"response": _bounded}, "stream": True}
        response = super()._send_request(method, url, *args, **kwargs)
        self.status = response.status_code
        if response.is_redirect:
            raise errors.ClientError(f"the authority redirects to {response.headers['Location'][:200]}")
        if not response.ok:
            self.retry_after = response.headers.get("Retry-After", "")
        return response


def _bounded(response: requests.Response, **_kwargs: object) -> None:
    """Read the unpacked answer up to LONGEST. Raises: ClientError, RequestException."""
    octets = bytearray()
    for piece in response.iter_content(1 << 16):
        octets += piece
        if len(octets) > LONGEST:
            response.close()
            raise errors.ClientError(f"the authority's answer has more than {LONGEST} octets")
    response._content = bytes(octets)  # noqa: SLF001 - as the property `content` sets it


class AcmeServer:
    """An authority's directory, and the requests of one account."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        """Read the directory (RFC 8555 7.1.1). Raises: exceptions of the libraries."""
        self.key = key_of(job["account"])
        self.network = Network(
            self.key, alg=ES256, verify_ssl=job["ca_file"] or True, user_agent=_AGENT, timeout=HTTP_TIME
        )
        self.directory = ClientV2.get_directory(job["directory"], self.network)
        self.client = ClientV2(self.directory, self.network)

    def post(self, url: str, body: JSONDeSerializable | None) -> requests.Response:
        """Send a request signed by the account's key; without a body it is a POST-as-GET (RFC 8555 6.3)."""
        return self.network.post(url, body, new_nonce_url=self.directory["newNonce"])

    def nonce(self) -> str:
        """Return a nonce for a request that is signed elsewhere (RFC 8555 7.2)."""
        response = self.network.head(self.directory["newNonce"])
        return str(response.headers.get(self.network.REPLAY_NONCE_HEADER, ""))

    def address_of(self, resource: str) -> str | None:
        """Return the directory's URL of a resource (RFC 8555 9.7.5); None if the authority has none."""
        try:
            return str(self.directory[resource])
        except KeyError:
            return None

    def sign_up(self, job: Mapping[str, Any]) -> None:
        """Make the account, or find the existing one of the key (RFC 8555 7.3)."""
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
        """Find the account of the key and return its address (RFC 8555 7.3.1). Raises: NoAccount, too."""
        try:
            return self._account(messages.NewRegistration(only_return_existing=True))
        except messages.Error as error:
            if code_of(error) != "accountDoesNotExist":
                raise
            raise NoAccount from error

    def use(self, key: JWKEC, address: str | None) -> None:
        """Sign with a key, for the account at that address or for none yet."""
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
    """Parse an account's key."""
    key = serialization.load_pem_private_key(pem.encode(), None)
    return JWKEC(key=key)


def seconds_of(retry_after: str) -> int:
    """Convert a Retry-After field (RFC 9110 10.2.3) to seconds from now; 0 if it is missing or invalid."""
    try:
        return max(0, int(retry_after))
    except ValueError:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            return max(0, int(parsedate_to_datetime(retry_after).timestamp() - time.time()))
    return 0
