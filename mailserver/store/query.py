"""A search query: a tree without protocol in it. Sequence sets and \\Recent have been resolved to UIDs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import evolve, frozen

from mailserver.types import ModSeq


@frozen
class All:
    """Every message."""


@frozen
class And:
    """All of these keys. An empty one matches everything."""

    parts: tuple[Query, ...]


@frozen
class Or:
    """Any of these keys."""

    parts: tuple[Query, ...]


@frozen
class Not:
    """The opposite of a key."""

    part: Query


@frozen
class InUIDs:
    """Messages in these UID ranges (both ends included, rising, not touching)."""

    ranges: tuple[tuple[int, int], ...]


@frozen
class HasFlag:
    """A system flag or keyword by name (keywords: any case)."""

    flag: str


@frozen
class Larger:
    """More octets than that, as sent."""

    size: int


@frozen
class Smaller:
    """Fewer octets than that, as sent."""

    size: int


@frozen
class Received:
    """INTERNALDATE, disregarding time and zone: `first` <= day < `end`, days since 1970-01-01; None is open."""

    first: int | None
    end: int | None


@frozen
class Saved:
    """The save date (RFC 8514), disregarding time and zone; as Received."""

    first: int | None
    end: int | None


@frozen
class Arrived:
    """INTERNALDATE, seconds since 1970-01-01 UTC: `first` <= date < `end`; None is open."""

    first: int | None
    end: int | None


@frozen
class WithEmailId:
    """The identifier of the message's content, as `Mailbox.email_ids` has it."""

    email_id: str


@frozen
class Sent:
    """The Date field, disregarding time and zone; as Received. A message without a usable Date does not match."""

    first: int | None
    end: int | None


@frozen
class Header:
    """A header field of that name contains the text, decoded (RFC 2047), any case; "" asks if there is one."""

    name: str
    text: str


@frozen
class Body:
    """The text parts, decoded, contain it, any case."""

    text: str


@frozen
class Text:
    """Header or text parts, decoded, contain it, any case."""

    text: str


@frozen
class ChangedSince:
    """Modseq at least that (RFC 7162 MODSEQ search key)."""

    modseq: ModSeq


Leaf = (
    All
    | InUIDs
    | HasFlag
    | Larger
    | Smaller
    | Received
    | Arrived
    | Saved
    | WithEmailId
    | Sent
    | Header
    | Body
    | Text
    | ChangedSince
)
"""A key without parts."""
Query = And | Or | Not | Leaf


def leaves(query: Query) -> Iterator[Leaf]:
    """Yield the keys without parts. Without recursion."""
    todo = [query]
    while todo:
        match todo.pop():
            case And(parts) | Or(parts):
                todo += parts
            case Not(part):
                todo.append(part)
            case leaf:
                yield leaf


def substituted(query: Query, replace: Callable[[Query], Query]) -> Query:
    """Return the query with each key without parts replaced. Recursive: keys of commands are nested some fifty times at most."""
    match query:
        case And(parts) | Or(parts):
            return evolve(query, parts=tuple([substituted(part, replace) for part in parts]))
        case Not(part):
            return Not(substituted(part, replace))
    return replace(query)
