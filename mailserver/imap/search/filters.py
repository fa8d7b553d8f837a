"""Filters (RFC 5466): search criteria that are kept by name as annotations of the server, in place of the FILTER search key.

A private filter comes before the shared one of the same name. Shared ones are the administrator's, as all shared entries of the
server are. Names are compared in lower case, as names of entries are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from attrs import Factory, define

from mailserver.config.model import Imap
from mailserver.errors import BadSyntax, Cannot, LimitReached, MailError
from mailserver.imap.capabilities import Capability
from mailserver.imap.session import Session
from mailserver.imap.wire.reader import Reader
from mailserver.store.annotations import Annotations

PRIVATE: Final = "/private/filters/values/"
SHARED: Final = "/shared/filters/values/"
MAX_PASSES: Final = 8
"""Filters within each other; at least 3 (3.1)."""
MAX_OCTETS: Final = 262144
"""Octets of all filters in one command, each as often as it is named."""
_NAME: Final = re.compile(rb"[!#$&'+-.0-\[^-z|}~]++(?!/)")
"""`filter-name` (4): ATOM-CHAR without the slash."""
_LITERAL: Final = re.compile(rb"~?\{([0-9]{1,10})\+?\}\r\n")


class UndefinedFilter(MailError):
    """A filter that does not exist, that contains itself, or that lies in too many others (3.1)."""

    def __init__(self, name: str) -> None:
        """`name`: as the command or the filter has it."""
        super().__init__()
        self.imap_code = f"UNDEFINED-FILTER {name}"  # type: ignore[misc]

    text = "there is no such filter"


class BadFilter(Cannot):
    """The value of a filter is not a whole, correct search criterion."""


@define
class Filters:
    """The filters that one command may name, and the state of their substitution."""

    values: Mapping[str, bytes] = Factory(dict)
    """By name, in lower case."""
    octets: int = 0
    """Of all those substituted."""
    open_names: list[str] = Factory(list)
    """The filters that are being read, each within the one before."""

    @contextmanager
    def reading(self, name: str) -> Iterator[Reader]:
        """Read the value of a filter. Raises: UndefinedFilter, LimitReached, and BadFilter for errors of its syntax."""
        key = name.lower()
        value = self.values.get(key)
        if value is None or key in self.open_names or len(self.open_names) >= MAX_PASSES:
            raise UndefinedFilter(name)
        self.octets += len(value)
        if self.octets > MAX_OCTETS:
            raise LimitReached("the filters of one command are too long together")
        self.open_names.append(key)
        with criterion(value, f"filter {name}") as reader:
            yield reader
        self.open_names.pop()


NO_FILTERS: Final = Filters()
"""For commands that name none."""


@contextmanager
def criterion(value: bytes, name: str) -> Iterator[Reader]:
    """Read search keys that are kept as a value. `name`: of the value, for the error. Raises: BadFilter for errors of its syntax."""
    try:
        reader = Reader(_parts(value))
        yield reader
        reader.read_end()
    except BadSyntax as error:
        if error.imap_code is not None:
            raise  # An error of the command that uses it: UIDREQUIRED.
        raise BadFilter(f"{name} is not a search criterion: {error.sentence}") from None


def _parts(value: bytes) -> list[bytes]:
    """Split a value into text and literals. Raises: BadSyntax."""
    parts, at = [], 0
    while (announced := _LITERAL.search(value, at)) is not None:
        end = announced.end() + int(announced[1])
        if end > len(value):
            raise BadSyntax("a literal is incomplete")
        parts += [value[at : announced.start()], value[announced.end() : end]]
        at = end
    return [*parts, value[at:]]


def read_filter_name(reader: Reader) -> str:
    """`filter-name`, as written. Raises: BadSyntax."""
    return reader.read_match(_NAME, "the name of a filter")[0].decode("ascii")


def is_filter_name(name: str) -> bool:
    """Can a filter have that name?"""
    return name.isascii() and _NAME.fullmatch(name.encode("ascii")) is not None


def administrators_filters(config: Imap) -> Annotations:
    """The entries of the shared filters."""
    return {SHARED + name.lower(): " ".join(keys).encode("utf-8") for name, keys in config.filters.items()}


def may_name_filters(reader: Reader) -> bool:
    """Is the word FILTER in the text of a command that is left?"""
    return reader.mentions(b"FILTER ")


async def load_filters(session: Session) -> Filters:
    """The user's filters and the shared ones. Raises: StoreUnavailable."""
    account = session.account
    assert account is not None
    entries = {**administrators_filters(session.services.config)}
    entries.update(await account.run(lambda: account.account.annotations(None)))
    values = {}
    for root in (SHARED, PRIVATE):
        values.update({entry.removeprefix(root): value for entry, value in entries.items() if entry.startswith(root)})
    return Filters(values)


FILTERS = Capability("FILTERS", "RFC 5466", __name__, "filters")
