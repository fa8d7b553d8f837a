"""SASL without I/O: `step(bytes)` until Done or Failed (RFC 4422). Base64 and framing belong to the protocols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from attrs import field, frozen

from mailserver.sasl.scram_keys import ScramKeys
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
class ScramProof:
    """What SCRAM learns: whether the client knows what belongs to the keys that it was asked by."""

    name: str
    """As sent, not normalised."""
    hash_name: str
    """"SHA-256" or "SHA-1"."""
    keys: ScramKeys
    """Those of the exchange. Whoever lets the user in makes sure that they are the user's."""
    fits: bool
    proof: Secret = field(eq=False)
    """ClientProof (RFC 5802 3): another one in each exchange."""
    authorization: str = ""


@frozen
class Certified:
    """What EXTERNAL knows: a name that stands in the client's verified certificate."""

    name: str
    """As it stands there, not normalised."""
    authorization: str = ""


Claim: TypeAlias = Credentials | ScramProof | Certified
"""Who the client says it is, and why it should be believed."""


@frozen
class Challenge:
    """Send this to the client and step with its answer."""

    data: bytes


@frozen
class NeedKeys:
    """The exchange goes on with `take`, by the keys of this user; for an unknown one by made-up keys."""

    name: str
    """As sent, not normalised."""
    hash_name: str
    take: Callable[[ScramKeys], Challenge] = field(eq=False, repr=False)


@frozen
class Done:
    """The exchange is over; the claim is still to be verified."""

    claim: Claim
    last: bytes | None = None
    """Additional data with success (RFC 4422 3.6): sent when the claim has been found right, and answered by nothing."""


@frozen
class Failed:
    """The client's message breaks the mechanism's rules."""

    reason: str
    """For the log: what is wrong, and what the administrator can do if it is not the client's fault."""


Step: TypeAlias = Challenge | NeedKeys | Done | Failed


class Mechanism(Protocol):
    """One exchange of one mechanism."""

    def step(self, response: bytes | None) -> Step:
        """Take the client's message: None when it sent no initial response, b"" when it sent an empty one."""
