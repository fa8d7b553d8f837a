"""The values of the directory (no I/O)."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from attrs import field, frozen

from mailserver.types import UNLIMITED

SCRAM_HASHES: Final = ("SHA-256", "SHA-1")
"""Hashes of the SCRAM keys that a directory can hold."""


LIMITS: Final = ("networks", "storage", "messages", "mailboxes", "protocols")
"""The names of an account's limits."""


class State(enum.Enum):
    """May the account log in?"""

    ACTIVE = "active"
    DISABLED = "disabled"
    """Logins are refused; mail is still accepted."""


@frozen
class AccountLimits:
    """Restrictions of one account. None where nothing is said: then those of its domain, or the configuration's, hold."""

    networks: tuple[str, ...] | None = None
    """Networks that it may log in from; "local" for Unix sockets."""
    storage: int | None = None
    """Octets of mail."""
    messages: int | None = None
    mailboxes: int | None = None
    protocols: tuple[str, ...] | None = None
    """Protocols that it may log in by: "imap", "pop3", "submission"."""

    def text(self) -> str:
        """The JSON object of the table."""
        values = {
            "networks": self.networks,
            "protocols": self.protocols,
            "storage": self.storage,
            "messages": self.messages,
            "mailboxes": self.mailboxes,
        }
        return json.dumps({name: value for name, value in values.items() if value is not None}, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> AccountLimits:
        """Read the JSON object. Members of a newer version are ignored. Raises: ValueError."""
        if text == "{}":
            return NO_LIMITS
        data: Any = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("the limits are no JSON object")  # noqa: TRY004 - a fault of the row, as any other
        networks, protocols, *numbers = (
            data.get(name) for name in ("networks", "protocols", "storage", "messages", "mailboxes")
        )
        for name, value in (("networks", networks), ("protocols", protocols)):
            if not (value is None or (isinstance(value, list) and all(isinstance(each, str) for each in value))):
                raise ValueError(f"the {name} are no list of texts")
        for number in numbers:
            if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
                raise ValueError("a limit is no number")
            if number is not None and not 0 <= number <= UNLIMITED:
                raise ValueError(f"a limit is a number from 0 to {UNLIMITED}")
        storage, messages, mailboxes = numbers
        return cls(_tuple(networks), storage, messages, mailboxes, _tuple(protocols))


def _tuple(value: list[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)


NO_LIMITS: Final = AccountLimits()


@frozen
class StoredKeys:
    """The SCRAM keys of a password for one hash (RFC 5802 3), as texts in base64."""

    parameters: str
    """"rounds,salt": one value for all keys of an account."""
    keys: str = field(repr=False)
    """"StoredKey,ServerKey"."""

    @classmethod
    def parse(cls, text: str) -> StoredKeys:
        """Split "rounds,salt,StoredKey,ServerKey". Raises: ValueError."""
        rounds, salt, stored, server = text.split(",")
        return cls(f"{rounds},{salt}", f"{stored},{server}")

    def text(self) -> str:
        """Join them: "rounds,salt,StoredKey,ServerKey"."""
        return f"{self.parameters},{self.keys}"


@frozen
class Password:
    """The stored form of a main password."""

    secret: str = field(repr=False)
    """"{SCHEME}hash"; empty: no password fits."""
    scram: Mapping[str, StoredKeys] = field(factory=dict)
    """By hash."""
    protocols: frozenset[str] | None = None
    """Where it may be used; None: everywhere."""


NO_PASSWORD: Final = Password("")


@frozen
class Account:
    """One account, with its main password."""

    id: str
    """Never changes, also when the account is renamed."""
    name: str
    """Normalised: "anna@example.test"."""
    home: str = ""
    full_name: str = ""
    state: State = State.ACTIVE
    limits: AccountLimits = NO_LIMITS
    serial: int = 0
    """The last change of it."""
    created: int = 0
    """Seconds since 1970."""
    password: Password = NO_PASSWORD
    senders: frozenset[str] = frozenset()
    """Addresses that it may send as, besides its own name."""


class LoginRow(NamedTuple):
    """What a login needs of an account, as the database has it: what is not used is not parsed."""

    name: str
    home: str
    state: str
    limits: str
    """The JSON object of `AccountLimits`."""
    password_protocols: str | None
    """Where the main password may be used, separated by commas; None: everywhere."""
    secret: str
    """"{SCHEME}hash" of the main password; empty: no password fits."""
    scram_sha256: str
    """"rounds,salt" of all keys of the account; empty: there are none."""
    scram_sha1: str
    keys_sha256: str | None
    """"StoredKey,ServerKey" of the main password; None: there are none."""
    keys_sha1: str | None

    def __repr__(self) -> str:
        return f"LoginRow({self.name!r})"

    @property
    def is_active(self) -> bool:
        """May the account log in?"""
        return self.state == State.ACTIVE.value

    def scram(self, hash_name: str) -> StoredKeys | None:
        """The SCRAM keys of the main password; None if there are none."""
        shared, own = {
            "SHA-256": (self.scram_sha256, self.keys_sha256),
            "SHA-1": (self.scram_sha1, self.keys_sha1),
        }[hash_name]
        return StoredKeys(shared, own) if shared and own else None


@frozen
class NewAccount:
    """An account to be added."""

    name: str
    password: Password = NO_PASSWORD
    home: str = ""
    full_name: str = ""
    state: State = State.ACTIVE
    limits: AccountLimits = NO_LIMITS
    senders: frozenset[str] = frozenset()


class AddressKind(enum.Enum):
    """The kind of a name under which mail arrives."""

    USER = "user"
    """An account's own name."""
    ALIAS = "alias"
    """Another address of its targets, which may send as it."""
    GROUP = "group"
    """A list of members, which may not send as it."""
    FORWARD = "forward"
    """An address whose mail goes elsewhere."""


@frozen
class Target:
    """Where the mail of an address goes."""

    name: str
    """An account's name, or any other address."""
    is_account: bool = True
    """It is an account of the directory, which it follows when that is renamed or deleted."""
    may_send: bool = True
    """May the account send as the address?"""


@frozen
class StoredAddress:
    """An address that is no account's own name."""

    name: str
    """Lower case; "@example.test" is the catch-all of a domain."""
    kind: AddressKind
    targets: tuple[Target, ...] = ()
    """In the order in which they were added."""
    enabled: bool = True
    """A disabled address is unknown."""
    note: str = ""


@frozen
class StoredDomain:
    """A domain of the directory."""

    name: str
    alias_of: str | None = None
    """The domain that all its addresses stand for."""
    detail: str = "+"
    """The separator of details in local parts; empty: there are none."""
    limits: str = "{}"
    """A JSON object of limits, for accounts that have none of their own."""
    enabled: bool = True
    """A disabled domain gets no mail."""


@frozen
class Change:
    """One row of the record of changes."""

    serial: int
    at: int
    """Seconds since 1970."""
    who: str
    """The person or program that made it."""
    what: str
    """"account added", "password changed"..."""
    account: str
    """The name of the account at that time; empty: no single account is concerned."""
    facts: Mapping[str, Any]
    is_readable: bool = True
    """False: its facts are no JSON object, and nothing of them is known."""


class DirectoryUnavailable(Exception):
    """The database cannot be used now. The argument is the reason, for the administrator."""


class DirectoryDamaged(DirectoryUnavailable):
    """A part of the database is damaged, or all of it."""


class BadRow(ValueError):
    """A row that this program would not write. The argument is a sentence that names the account or domain."""


class Refused(Exception):
    """A change or a command is refused. The argument is a sentence for the administrator."""


class Missing(Refused):
    """There is no such account, address or domain."""

    def __init__(self, name: str, kind: str = "user") -> None:
        super().__init__(f"there is no {kind} {name}")
        self.name = name


class Taken(Refused):
    """The name is in use already."""

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(f"{name} is {'an' if kind == 'alias' else 'a'} {kind} already")
        self.name = name
        self.kind = kind
