"""The values of a message that SORT and THREAD compare, made of its header (RFC 5256, RFC 5957).

They are made in groups, as a first sort by date needs no addresses: decoding all takes three times as long as reading
the header.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from mailserver.message.base_subject import BaseSubject, base_subject
from mailserver.message.collation import casemap
from mailserver.message.dates import sent_time
from mailserver.message.envelope import FIELD_LIMIT, first_address
from mailserver.message.header_summary import first_values
from mailserver.message.headers import decode_line, header_end
from mailserver.message.limits import SEEN
from mailserver.message.message_ids import message_ids

LONGEST: Final = 1024
"""Characters of a subject, name or address that are compared."""

_SHORT: Final = 128


class SortKeys(NamedTuple):
    """The values of one message. Texts are in the form that i;unicode-casemap compares by code points.

    Values of a group that was not asked for are as if the header had none of its fields.
    """

    sent: int | None = None
    """The sent date (RFC 5256 2.2), seconds since 1970-01-01 UTC; None: INTERNALDATE takes its place."""
    subject: str = ""
    """The base subject."""
    is_reply: bool = False
    """The subject has a mark of a reply or a forward."""
    sender: str = ""
    """addr-mailbox of the first From address; "" if there is none."""
    recipient: str = ""
    """The same of To."""
    copied: str = ""
    """The same of Cc."""
    display_sender: str = ""
    """The DISPLAY sort value (RFC 5957 3) of the first From address."""
    display_recipient: str = ""
    """The same of To."""
    message_id: str = ""
    """Normalised, without "<" and ">"; "" if there is no valid one."""
    references: str = ""
    """The references that RFC 5256 3 threads by, oldest first, with "\\n" between two."""


Groups = int
"""Values that are made together: a sum of the following numbers, which are kept in the index."""
DATE: Final = 1
SUBJECT: Final = 2
ADDRESSES: Final = 4
IDS: Final = 8
ALL_GROUPS: Final = DATE | SUBJECT | ADDRESSES | IDS
FIELDS: Final[Mapping[Groups, tuple[str, ...]]] = {
    DATE: ("sent",),
    SUBJECT: ("subject", "is_reply"),
    ADDRESSES: ("sender", "recipient", "copied", "display_sender", "display_recipient"),
    IDS: ("message_id", "references"),
}
"""The fields of each group."""
_HEADER_FIELDS: Final = {
    DATE: (b"date",),
    SUBJECT: (b"subject",),
    ADDRESSES: (b"from", b"to", b"cc"),
    IDS: (b"message-id", b"references", b"in-reply-to"),
}


def groups_of(names: Iterable[str]) -> Groups:
    """Return the groups of these fields."""
    wanted = frozenset(names)
    return sum(group for group, fields in FIELDS.items() if wanted.intersection(fields))


def picked(keys: SortKeys, names: Sequence[str]) -> list[Any]:
    """Return the fields of these names."""
    return [getattr(keys, name) for name in names]


def message_sort_keys(source: bytes, groups: Groups = ALL_GROUPS) -> SortKeys:
    """Make the values of a message with CRLF line ends."""
    return sort_keys(source[: min(header_end(source), SEEN)], groups)


def sort_keys(header: bytes, groups: Groups = ALL_GROUPS) -> SortKeys:
    """Make the values of a header; it may have CRLF or LF line ends, and lack its end. Never raises."""
    get = first_values(header, _header_fields(groups)).get
    sent = sent_time(get(b"date", b"")) if groups & DATE else None
    if groups == DATE:
        return SortKeys(sent)
    subject = _subject(get(b"subject", b"")) if groups & SUBJECT else _NO_SUBJECT
    if groups & ADDRESSES:
        sender, display_sender = _address(get(b"from", b""))
        recipient, display_recipient = _address(get(b"to", b""))
        copied, _display = _address(get(b"cc", b""))
    else:
        sender = recipient = copied = display_sender = display_recipient = ""
    own = references = ""
    if groups & IDS:
        own = next(iter(message_ids(get(b"message-id", b""))), "")
        named = message_ids(get(b"references", b"")) or message_ids(get(b"in-reply-to", b""))[:1]
        references = "\n".join(named)
    return SortKeys(
        sent,
        subject.text,
        subject.is_reply,
        sender,
        recipient,
        copied,
        display_sender,
        display_recipient,
        own,
        references,
    )


_NO_SUBJECT: Final = BaseSubject("", is_reply=False)


@lru_cache(maxsize=16)
def _header_fields(groups: Groups) -> tuple[bytes, ...]:
    return tuple(name for group, names in _HEADER_FIELDS.items() if groups & group for name in names)


def _subject(line: bytes) -> BaseSubject:
    base = base_subject(decode_line(line))
    return BaseSubject(casemap(base.text[:LONGEST]), base.is_reply)


def _address(line: bytes) -> tuple[str, str]:
    """Return the compared forms of the first address: its mailbox, and its DISPLAY sort value."""
    if not line:
        return "", ""
    return _common(line) if len(line) <= _SHORT else _first(line)


@lru_cache(maxsize=2048)
def _common(line: bytes) -> tuple[str, str]:
    """Keep the forms of frequent correspondents."""
    return _first(line)


def _first(line: bytes) -> tuple[str, str]:
    address = first_address(line[:FIELD_LIMIT])
    if address is None:
        return "", ""
    mailbox = _text(address.mailbox)
    name = _text(address.name)
    if not name and address.mailbox is not None and address.host is not None:
        name = f"{mailbox}@{_text(address.host)}"
    return casemap(mailbox[:LONGEST]), casemap((name or mailbox)[:LONGEST])


def _text(value: bytes | None) -> str:
    return decode_line(value) if value else ""
