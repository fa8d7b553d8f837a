"""IMAP4rev2 (RFC 9051) beside IMAP4rev1: a client that wants it enables it (Appendix A), and all others are served as before.

Once it is on, mailbox names and headers are UTF-8, no message is \\Recent, SELECT answers with LIST and without RECENT and UNSEEN, SEARCH
answers with ESEARCH, and each FETCH response that the client has not asked for has the UID. What else it contains are
extensions, which clients of IMAP4rev1 have as well.
"""

from __future__ import annotations

from mailserver.imap.capabilities import Capability
from mailserver.imap.session import Session


def enable(session: Session) -> None:
    """Do what ENABLE IMAP4rev2 does beyond being on."""
    session.utf8 = True


def is_on(session: Session) -> bool:
    """Has the client enabled it?"""
    return IMAP4REV2.token in session.enabled


IMAP4REV2 = Capability("IMAP4rev2", "RFC 9051", __name__, "imap4rev2", enable=enable)
