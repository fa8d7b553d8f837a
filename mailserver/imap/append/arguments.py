"""The arguments of one message of APPEND: flags and date, up to its literal (RFC 3501 6.3.11, RFC 3502)."""

from __future__ import annotations

from attrs import frozen

from mailserver.errors import BadSyntax, Cannot
from mailserver.imap.wire.reader import Reader
from mailserver.store.receiving import DATES


@frozen
class MessageArguments:
    """The flags and the date that one message will have."""

    flags: frozenset[str] = frozenset()
    date: int | None = None
    """INTERNALDATE in seconds since 1970; None is now."""


def read_message_arguments(reader: Reader) -> MessageArguments:
    """`[SP flag-list] [SP date-time] SP`, before the message. Raises: BadSyntax, LimitReached, Cannot for a date."""
    reader.read_sp()
    flags: list[str] = []
    if reader.peek(b"("):
        flags = reader.read_flags()
        reader.read_sp()
    date = None
    if reader.peek(b'"'):
        date = reader.read_date_time()
        reader.read_sp()
    if date is not None and date not in DATES:
        # The file could not hold it: the next scan would find another date. "NO - error in flags or date/time" (RFC 3501 6.3.11).
        raise Cannot("dates before 1902 or after 2445 cannot be stored")
    return MessageArguments(frozenset(flags), date)


def read_form(reader: Reader) -> str:
    """CATENATE (RFC 4469) or UTF8 (RFC 6855 4) behind the arguments, or "" if a literal is next. Raises: BadSyntax."""
    reader.skip(b" ")  # imapclient writes two spaces between messages
    if reader.at_end:
        return ""
    word = reader.read_word()
    if word not in ("CATENATE", "UTF8"):
        raise BadSyntax("expected the message as a literal")
    return word
