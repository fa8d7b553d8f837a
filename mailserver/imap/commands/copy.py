"""COPY and MOVE with their UID forms (RFC 3501 6.4.7, RFC 6851), and the UIDs of the copies (RFC 4315 3)."""

from __future__ import annotations

from mailserver.errors import NoSuchMailbox, ReadOnly
from mailserver.imap import message_limit, qresync
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import Command, CommandSpec, State, TryCreate
from mailserver.imap.commands.expunge import UIDPLUS, vanished
from mailserver.imap.progress import MANY, ProgressReporter
from mailserver.imap.quota_limits import update_quota
from mailserver.imap.session import Session
from mailserver.imap.wire.sequence_set import format_set
from mailserver.session.cost import ACCOUNT, BOTH, Cost
from mailserver.store.interfaces import Copied
from mailserver.types import UID


async def copy(session: Session, command: Command) -> str | None:
    """RFC 3501 6.4.7: all messages or none. UID COPY ignores UIDs that no longer exist (6.4.8)."""
    uids, target = _arguments(session, command)
    if not uids:
        return None
    message_limit.refuse_copies(session, uids)
    await update_quota(session)
    copied = await _transfer(session, command, uids, target, move=False)
    return f"{_copy_uid(copied)} copied" if copied.source else None


async def move(session: Session, command: Command) -> str | None:
    """RFC 6851: COPYUID goes before the EXPUNGE responses, in an untagged OK (4.3); 4.4 is about QRESYNC."""
    uids, target = _arguments(session, command)
    if session.mailbox.read_only:
        raise ReadOnly
    if not uids:
        return None
    uids, lowest = message_limit.newest_uids(session, uids)
    copied = await _transfer(session, command, uids, target, move=True)
    if not copied.source:
        return message_limit.report(session, lowest, None)
    session.untagged(f"OK {_copy_uid(copied)} moved".encode("ascii"))
    return message_limit.report(session, lowest, await vanished(session, "moved"))


def _arguments(session: Session, command: Command) -> tuple[list[UID], str]:
    reader = command.reader
    reader.read_sp()
    sequence_set = reader.read_sequence_set()
    reader.read_sp()
    target = reader.read_mailbox()
    reader.read_end()
    return session.uids(command, sequence_set), session.services.namespace.to_store(target)


async def _transfer(session: Session, command: Command, uids: list[UID], target: str, *, move: bool) -> Copied:
    assert session.account is not None
    try:
        with ProgressReporter(session, command) as reporter:
            if len(uids) >= MANY:
                reporter.start()
            live = session.mailbox.live
            copied = await session.account.copy(live, uids, target, move=move, skip_expunged=command.uid)
            session.note_own_messages(copied.mailbox, copied.target)
            return copied
    except NoSuchMailbox as error:
        raise TryCreate(error.sentence) from None


def _copy_uid(copied: Copied) -> str:
    source, target = format_set(copied.source).decode("ascii"), format_set(copied.target).decode("ascii")
    return f"[COPYUID {copied.uid_validity} {source} {target}]"


MOVE = Capability("MOVE", "RFC 6851", __name__, "move")

COMMANDS = (
    CommandSpec(
        "COPY",
        State.SELECTED,
        copy,
        uid_form=True,
        capabilities=(UIDPLUS, message_limit.MESSAGELIMIT, message_limit.SAVELIMIT),
        reference="RFC 3501, RFC 4315, RFC 9738",
        cost=Cost("messages named", ACCOUNT),
    ),
    CommandSpec(
        "MOVE",
        State.SELECTED,
        move,
        uid_form=True,
        capabilities=(MOVE, qresync.QRESYNC, message_limit.MESSAGELIMIT),
        reference="RFC 6851, RFC 7162, RFC 9738",
        cost=Cost("messages named", BOTH),
    ),
)
