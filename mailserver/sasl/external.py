"""SASL EXTERNAL (RFC 4422 appendix A): the client is the user of its TLS certificate. One message, the authzid or nothing."""

from __future__ import annotations

from mailserver.sasl.mechanism import Certified, Challenge, Done, Failed, Step

MAX_RESPONSE = 1024
"""Longest message taken, octets."""


class External:
    """One exchange."""

    def __init__(self, certified: str) -> None:
        """`certified` is the user name of a certificate that TLS has verified; it is not empty."""
        self._certified = certified
        self._over = False

    def step(self, response: bytes | None) -> Step:
        """Take the identity to act for; empty means the certificate's own."""
        if self._over:
            return Failed("the exchange is over")
        if response is None:
            return Challenge(b"")
        self._over = True
        if len(response) > MAX_RESPONSE:
            return Failed("the response is too long")
        if b"\0" in response:
            return Failed("the response contains NUL")
        try:
            return Done(Certified(self._certified, response.decode("utf-8")))
        except UnicodeDecodeError:
            return Failed("the response is not UTF-8")
