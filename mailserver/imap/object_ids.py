"""Object identifiers as clients see them (RFC 8474): MAILBOXID is the mailbox's GUID, EMAILID that of a message's content.

Each has a letter before it, as 8.1 advises. THREADID is NIL.
"""

from __future__ import annotations

import re
from typing import Final

from mailserver.imap.capabilities import Capability
from mailserver.types import MailboxId

EMAIL_PREFIX: Final = "M"
OBJECT_ID: Final = re.compile("[A-Za-z0-9_-]{1,255}")
"""RFC 8474 7."""
OBJECTID: Final = Capability("OBJECTID", "RFC 8474", __name__, "objectid")


def mailbox_id(mailbox: MailboxId) -> str:
    """A mailbox's `objectid` in its parentheses."""
    return f"(F{mailbox.hex()})"


def mailbox_id_code(mailbox: MailboxId) -> str:
    """The response code MAILBOXID in its brackets."""
    return f"[MAILBOXID {mailbox_id(mailbox)}]"
