"""SASL without I/O: `step(bytes)` until Done or Failed (RFC 4422). Base64 and framing belong to the protocols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from attrs import field, frozen

from mailserver.sasl.scram_keys import ScramKeys
from mailserver.types import Secret


@frozen
class Credentials:
    """The claim of a password mechanism."""

    name: str
    """authcid: the owner of the password. As sent, not normalised."""
    password: Secret
    authorization: str = ""
    """authzid: the user to act for; empty means `name`."""


@frozen
class ScramProof:
    """The claim of SCRAM: a proof that belongs to the keys of the exchange."""

    name: str
    """As sent, not normalised."""
    hash_name: str
    """"SHA-256" or "SHA-1"."""
    keys: ScramKeys
    """The keys of the exchange. The login service makes sure that they are the user's."""
    fits: bool
    proof: Secret = field(eq=False)
    """ClientProof (RFC 5802 3): another one in each exchange."""
    authorization: str = ""
    credential: str = ""
    """Identifies the password that was proved; empty: the main one."""


@frozen
class Certified:
    """The claim of EXTERNAL: a name in the client's verified certificate."""

    name: str
    """As in the certificate, not normalised."""
    authorization: str = ""


Claim: TypeAlias = Credentials | ScramProof | Certified
"""The identity that a client claims, with its proof."""


@frozen
class Challenge:
    """Send this to the client and step with its answer."""

    data: bytes


@frozen
class NeedKeys:
    """The exchange continues by `take`, with the keys of this user; of an unknown one with made-up keys."""

    name: str
    """As sent, not normalised."""
    hash_name: str
    take: Callable[[ScramKeys], Challenge] = field(eq=False, repr=False)


@frozen
class Done:
    """The exchange is over; the claim is still to be verified."""

    claim: Claim
    last: bytes | None = None
    """Additional data with success (RFC 4422 3.6): sent when the claim has been verified; the client answers it by nothing."""


@frozen
class Failed:
    """The client's message breaks the mechanism's rules."""

    reason: str
    """For the log: the fault, and the remedy if it is the administrator's."""


Step: TypeAlias = Challenge | NeedKeys | Done | Failed


class Mechanism(Protocol):
    """One exchange of one mechanism."""

    def step(self, response: bytes | None) -> Step:
        """Take the client's message: None when it sent no initial response, b"" when it sent an empty one."""
