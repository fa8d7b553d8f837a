"""SASL PLAIN (RFC 4616): one message, `[authzid] NUL authcid NUL password`."""

from __future__ import annotations

from mailserver.sasl.mechanism import Challenge, Credentials, Done, Failed, Step
from mailserver.types import Secret

MAX_RESPONSE = 4096
"""Longest message taken, octets. RFC 4616 2 demands that 255 in each of the three fields be accepted."""


class Plain:
    """One exchange of PLAIN. Grammar of RFC 4616 2: UTF-8, no other NUL, neither authcid nor password empty."""

    def __init__(self) -> None:
        self._over = False

    def step(self, response: bytes | None) -> Step:
        """Take the message; without an initial response an empty challenge asks for it (RFC 4422 5.1)."""
        if self._over:
            return Failed("the exchange is over")
        if response is None:
            return Challenge(b"")
        self._over = True
        if len(response) > MAX_RESPONSE:
            return Failed("the response is too long")
        fields = response.split(b"\0")
        if len(fields) != 3:
            return Failed("expected authzid NUL authcid NUL password")
        try:
            authorization, name, password = (each.decode("utf-8") for each in fields)
        except UnicodeDecodeError:
            return Failed("the response is not UTF-8")
        if not name or not password:
            return Failed("user name and password must not be empty")
        return Done(Credentials(name, Secret(password.encode("utf-8")), authorization))
