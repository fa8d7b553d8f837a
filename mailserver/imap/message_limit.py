"""MESSAGELIMIT and SAVELIMIT (RFC 9738): the number of messages that one command may process.

Commands that may be carried out in part process the messages with the highest UIDs, and the client repeats them for the others.
Those that must not (COPY, APPEND) are refused. EXPUNGE, CLOSE and STATUS have no limit (3.1); SORT has none, as the orders of a
mailbox are kept; THREAD is refused in a larger mailbox (3.3).
"""

from __future__ import annotations

from collections.abc import Sequence

from mailserver.errors import MailError
from mailserver.imap.capabilities import Capability
from mailserver.imap.session import Session
from mailserver.types import UID


class TooManyMessages(MailError):
    """More messages than one command may process; none was processed (3.1)."""

    def __init__(self, limit: int, lowest: int | None = None) -> None:
        """`lowest`: the lowest UID that a command for the newest messages could name."""
        super().__init__(f"one command is for at most {limit} messages: use several")
        self.imap_code = _code(limit, lowest)  # type: ignore[misc]


def newest(session: Session, ranges: Sequence[tuple[int, int]]) -> tuple[Sequence[tuple[int, int]], UID | None]:
    """The last of the messages in rising half-open ranges of positions that one command may process.

    With them, the lowest UID of these; None if they are all.
    """
    limit = session.services.config.message_limit
    if not limit:
        return ranges, None
    excess = sum(high - low for low, high in ranges) - limit
    if excess <= 0:
        return ranges, None
    left = []
    for low, high in ranges:
        skipped = min(excess, high - low)
        excess -= skipped
        if low + skipped < high:
            left.append((low + skipped, high))
    return left, UID(session.view.uids[left[0][0]])


def newest_uids(session: Session, uids: list[UID]) -> tuple[list[UID], UID | None]:
    """The last of these rising UIDs that one command may process, and the lowest of them; None if they are all."""
    limit = session.services.config.message_limit
    if not limit or len(uids) <= limit:
        return uids, None
    return uids[-limit:], uids[-limit]


def report(session: Session, lowest: UID | None, text: str | None) -> str | None:
    """The text of the tagged OK of a command that has processed messages from the UID `lowest` on.

    A code that it has stays in it; that of this limit then goes into an untagged NO before (3.1).
    """
    if lowest is None:
        return text
    if text is None or not text.startswith("["):
        return _done(session, lowest)
    report_beside(session, lowest)
    return text


def report_beside(session: Session, lowest: UID | None) -> None:
    """Write the code of this limit, if there is one, in an untagged NO, as the tagged response has another one."""
    if lowest is not None:
        session.untagged(f"NO {_done(session, lowest)}".encode("ascii"))


def _done(session: Session, lowest: UID) -> str:
    limit = session.services.config.message_limit
    return f"[{_code(limit, lowest)}] done for the newest {limit} messages"


def refuse_copies(session: Session, uids: Sequence[UID]) -> None:
    """Refuse to copy too many messages. Raises: TooManyMessages."""
    limit = save_limit(session)
    if limit and len(uids) > limit:
        raise TooManyMessages(limit, uids[-limit])


def save_limit(session: Session) -> int:
    """The number of messages that COPY and APPEND may save; 0: any."""
    config = session.services.config
    return config.message_limit or config.save_limit


def refuse(session: Session, messages: int) -> None:
    """Refuse a command for so many messages that must not be carried out in part. Raises: TooManyMessages."""
    limit = session.services.config.message_limit
    if limit and messages > limit:
        raise TooManyMessages(limit)


def _code(limit: int, lowest: int | None) -> str:
    return f"MESSAGELIMIT {limit}" if lowest is None else f"MESSAGELIMIT {limit} {lowest}"


def _offer_all(session: Session) -> list[str]:
    limit = session.services.config.message_limit
    return [f"MESSAGELIMIT={limit}"] if limit else []


def _offer_saves(session: Session) -> list[str]:
    config = session.services.config
    return [f"SAVELIMIT={config.save_limit}"] if config.save_limit and not config.message_limit else []


MESSAGELIMIT = Capability(
    "MESSAGELIMIT",
    "RFC 9738",
    __name__,
    "messagelimit",
    offer=_offer_all,
    when="with message_limit",
    setting="message_limit",
)
SAVELIMIT = Capability(
    "SAVELIMIT", "RFC 9738", __name__, "savelimit", offer=_offer_saves, when="with save_limit", setting="save_limit"
)
