"""The trace of one attempt to log in: all that was seen and decided, without the password."""

from __future__ import annotations

import enum
from typing import Final

from attrs import define, field, frozen

MAX_CALLS: Final = 6
"""Calls of back ends that a trace keeps."""


class Rule(enum.Enum):
    """The rule by which a login was refused. The values are on disk."""

    OTHER = "other"
    UNKNOWN_USER = "unknown user"
    BAD_NAME = "bad name"
    EMPTY = "empty password"
    WRONG = "wrong password"
    DISABLED = "disabled"
    UNSET = "no password"
    UNUSABLE = "unusable password"
    WEAK_SCHEME = "weak scheme"
    NO_KEYS = "no keys"
    CHANGED = "changed meanwhile"
    NETWORK = "network"
    PROTOCOL = "protocol"
    EXPIRED = "expired"
    CERTIFICATE = "certificate"
    AUTHORIZATION = "authorization"
    EXCHANGE = "exchange"
    UNAVAILABLE = "unavailable"
    TOO_MANY = "too many"
    LIMIT = "limit"
    BANNED = "banned"
    CANCELLED = "cancelled"
    MAILBOX = "mailbox"


@frozen
class Call:
    """One call of a back end."""

    backend: str
    """Its name without the argument, which may have a password."""
    question: str
    """"find" or "verify"."""
    seconds: float
    answer: str
    """"yes", "no" or "unavailable"."""


@define(eq=False)
class Trace:
    """One attempt. Its LoginContext has it, and the login service fills it."""

    user: str = ""
    """The account that was found; empty: none, or nobody has looked."""
    acting_for: str = ""
    """The user that the account wants to act for, as `names.shown_name` has it; empty: itself."""
    ref: str = ""
    """The id of its refusal, once there is one."""
    was_right: bool = False
    """Was the credential right? Then a restriction has refused the login, and it was no guess."""
    names: tuple[str, ...] = ()
    """The accounts that the typed name may mean."""
    rule: Rule | None = None
    """None: the class of the error says it."""
    waited: float = 0.0
    """Seconds until the check began: the turn, and delays of earlier failures."""
    delay: float = 0.0
    """Seconds from the begin of the attempt until the answer to a failure was due."""
    calls: list[Call] = field(factory=list)

    def called(self, backend: str, question: str, seconds: float, answer: str) -> None:
        """Add a call of a back end; the first MAX_CALLS are kept."""
        if len(self.calls) < MAX_CALLS:
            self.calls.append(Call(backend, question, seconds, answer))
