"""REPLACE and UID REPLACE (RFC 8508): a new message in the place of one of the selected mailbox, in one step.

The new message is received as by APPEND, and may be made of parts (RFC 4469) or have binary content (RFC 3516).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mailserver.errors import BadSyntax, MessageExpunged, ReadOnly
from mailserver.imap.append.catenate import CATENATE
from mailserver.imap.append.incoming import IncomingMessages
from mailserver.imap.append.message import receive_message
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.commands.expunge import UIDPLUS, vanished
from mailserver.imap.commands.status import APPENDLIMIT
from mailserver.imap.fetch.binary import BINARY
from mailserver.imap.qresync import QRESYNC
from mailserver.imap.quota_limits import update_quota
from mailserver.imap.session import Session
from mailserver.imap.utf8_accept import UTF8_ACCEPT
from mailserver.imap.wire.reader import Reader
from mailserver.imap.wire.sequence_set import SequenceSet
from mailserver.session.cost import BOTH, Cost
from mailserver.store.live import LiveAccount
from mailserver.store.receiving import Appended, NewMessage
from mailserver.types import UID

_NUMBER = re.compile(rb"[1-9][0-9]{0,9}|\*")
"""`seq-number` (RFC 3501 9)."""
_BEFORE_MAILBOX = re.compile(rb"[^ ]+ (?:uid )?replace [0-9*]* *", re.IGNORECASE)


def is_message(parts: Sequence[bytes]) -> bool:
    """Is the announced literal the message, and not the mailbox's name?"""
    return len(parts) > 1 or not _BEFORE_MAILBOX.fullmatch(parts[0])


class _Replacement(IncomingMessages):
    """The new message, and the UID of the old one."""

    def __init__(self, session: Session, uid: UID, target: str) -> None:
        super().__init__(session, target)
        self._live = session.mailbox.live
        self._uid = uid

    def check_room(self, messages: int, octets: int) -> None:
        """The old message makes room (RFC 8508 3.4). Raises: MessageExpunged, OverQuota."""
        found = self._live.mailbox.measure([self._uid])
        if not found:
            raise MessageExpunged
        super().check_room(messages - 1, octets - found[0].size)

    async def store(self, account: LiveAccount) -> Appended:
        """Replace the old message. Raises: MessageExpunged, and as in `IncomingMessages`."""
        # The file is synced before the account is locked.
        new = await account.run(self._finish)
        return await account.replace(self._live, self._uid, self.target, new)

    def _finish(self) -> NewMessage:
        [new] = self.stage(self._live.account.account).messages
        new.staged.finish(new.date)
        return new


async def replace(session: Session, command: Command) -> str | None:
    """RFC 8508 3: NO where the old message is gone. APPENDUID comes before the EXPUNGE, in an untagged OK (4.3)."""
    reader = command.reader
    reader.read_sp()
    number = SequenceSet.parse(reader.read_match(_NUMBER, "a message number")[0])
    reader.read_sp()
    name = reader.read_mailbox()
    uids = session.uids(command, number)
    if session.mailbox.read_only:
        raise ReadOnly
    if not uids:
        raise MessageExpunged
    replacement = _Replacement(session, uids[0], session.services.namespace.to_store(name))
    await update_quota(session)
    try:
        _read_end(session, await receive_message(session, replacement, reader))
        appended = await replacement.publish()
    except BaseException:
        await replacement.abort()
        raise
    session.note_own_messages(appended.mailbox, appended.uids)
    session.channel.log("replace", user=session.user, size=replacement.octets)
    session.untagged(b"OK [APPENDUID %d %d] replacement message" % (appended.uid_validity, appended.uids[0]))
    return await vanished(session, "replaced")


def _read_end(session: Session, reader: Reader) -> None:
    """Raises: BadSyntax where a second message follows (RFC 8508 4.7)."""
    reader.read_end()
    if session.input.announced is not None:
        raise BadSyntax("expected the end of the command")


REPLACE = Capability("REPLACE", "RFC 8508", __name__, "replace")

COMMANDS = (
    CommandSpec(
        "REPLACE",
        State.SELECTED,
        replace,
        uid_form=True,
        capabilities=(REPLACE, UIDPLUS, APPENDLIMIT, BINARY, CATENATE, UTF8_ACCEPT, QRESYNC),
        reference="RFC 8508, RFC 3516, RFC 4315, RFC 4469, RFC 6855, RFC 7162, RFC 9755",
        max_literal=4096,
        streams=is_message,
        cost=Cost("octets of the message", BOTH),
    ),
)
