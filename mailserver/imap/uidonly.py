"""UIDONLY (RFC 9586): a session without message numbers. Responses name messages by UID: UIDFETCH and VANISHED."""

from __future__ import annotations

from mailserver.errors import UIDRequired
from mailserver.imap.capabilities import Capability
from mailserver.imap.session import Session


def refuse_numbers(session: Session) -> None:
    """Refuse message numbers among the arguments of a command. Raises: UIDRequired."""
    if UIDONLY.token in session.enabled:
        raise UIDRequired


def enable(_session: Session) -> None:
    """Do what ENABLE UIDONLY does: nothing more than to be on."""


UIDONLY = Capability("UIDONLY", "RFC 9586", __name__, "uidonly", enable=enable)
