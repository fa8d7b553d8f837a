"""IMAP URLs that name a message or part of one, relative to the session's server and user (RFC 5092 7, 9)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from attrs import frozen

LONGEST: Final = 4096
"""Octets of a URL that is read: a mailbox name, escaped, and a section."""
_LARGEST: Final = 2**32 - 1
_BCHARS: Final = r"[A-Za-z0-9._~!$'()*+,&=:@/-]|%[0-9A-Fa-f]{2}"
_URL: Final = re.compile(
    rf"(?:/?(?!/|[a-z][a-z0-9+.-]*:/)(?P<mailbox>(?:{_BCHARS})+?)(?:;UIDVALIDITY=(?P<validity>[0-9]{{1,10}}))?/)?"
    r";UID=(?P<uid>[0-9]{1,10})"
    rf"(?:/;SECTION=(?P<section>(?:{_BCHARS})+?))?"
    r"(?:/;PARTIAL=(?P<first>[0-9]{1,10})(?:\.(?P<count>[0-9]{1,10}))?)?",
    re.IGNORECASE,
)


class NoSuchUrl(ValueError):
    """It is no such URL, or of another kind."""


@frozen
class ImapUrl:
    """A message, or part of one."""

    mailbox: str | None
    """As clients name it; None is the selected one."""
    uid_validity: int | None
    uid: int
    section: bytes = b""
    """As between the brackets of BODY[]."""
    partial: tuple[int, int] | None = None
    """First octet, and how many at most."""


def parse_url(url: bytes) -> ImapUrl:
    """`imsg-or-part`, which has neither scheme nor server, with or without a slash at its beginning. Raises: NoSuchUrl."""
    found = _URL.fullmatch(url.decode("ascii", "replace")) if len(url) <= LONGEST else None
    if found is None:
        raise NoSuchUrl
    validity, first, count = (
        None if found[name] is None else int(found[name]) for name in ("validity", "first", "count")
    )
    uid = int(found["uid"])
    if not 0 < uid <= _LARGEST or validity == 0 or count == 0 or max(validity or 0, first or 0, count or 0) > _LARGEST:
        raise NoSuchUrl
    section = unquote_to_bytes(found["section"] or "")
    try:
        mailbox = None if found["mailbox"] is None else unquote_to_bytes(found["mailbox"]).decode("utf-8")
    except UnicodeDecodeError:
        raise NoSuchUrl from None
    if any(octet < 0x20 for octet in section) or (mailbox is not None and not mailbox.isprintable()):
        raise NoSuchUrl
    partial = None if first is None else (first, _LARGEST if count is None else count)
    return ImapUrl(mailbox, validity, uid, section, partial)
