"""SASL without I/O: `step(bytes)` until Done or Failed (RFC 4422). Base64 and framing belong to the protocols."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from mailserver.types import Secret


@frozen
class Credentials:
    """What a password mechanism learns from the client."""

    name: str
    """authcid: whose password it is. As sent, not normalised."""
    password: Secret
    authorization: str = ""
    """authzid: whom to act for; empty means `name`."""


@frozen
class Challenge:
    """Send this to the client and step with its answer."""

    data: bytes


@frozen
class Done:
    """The exchange is over; the credentials are still to be verified."""

    credentials: Credentials


@frozen
class Failed:
    """The client's message breaks the mechanism's grammar."""

    reason: str


class Mechanism(Protocol):
    """One exchange of one mechanism."""

    def step(self, response: bytes | None) -> Challenge | Done | Failed:
        """Take the client's message: None when it sent no initial response, b"" when it sent an empty one."""
