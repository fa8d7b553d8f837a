"""EXPUNGE and UID EXPUNGE (RFC 3501 6.4.3, RFC 4315 2.1). The closing sync sends the EXPUNGE responses."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from mailserver.errors import ReadOnly
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.progress import MANY, ProgressReporter
from mailserver.imap.session import Session
from mailserver.imap.updates import deleted_messages
from mailserver.session.cost import BOTH, Cost


async def expunge(session: Session, command: Command) -> None:
    """RFC 3501 6.4.3; with UIDs only those of the set (RFC 4315 2.1)."""
    reader = command.reader
    sequence_set = None
    if command.uid:
        reader.read_sp()
        sequence_set = reader.read_sequence_set()
    reader.read_end()
    selected, view = session.mailbox, session.view
    if selected.read_only:
        raise ReadOnly
    uids = await deleted_messages(selected)
    if sequence_set is not None:
        ranges = sequence_set.ranges(view.uids[view.count - 1] if view.count else 0)
        uids = [uid for low, high in ranges for uid in uids[bisect_left(uids, low) : bisect_right(uids, high)]]
    if uids:
        with ProgressReporter(session, command) as reporter:
            if len(uids) >= MANY:
                reporter.start()
            gone = await selected.live.change(lambda mailbox: mailbox.expunge(uids), len(uids))
        session.channel.log("expunge", user=session.user, messages=len(gone))


COMMANDS = (
    CommandSpec(
        "EXPUNGE",
        State.SELECTED,
        expunge,
        uid_form=True,
        capabilities=("UIDPLUS",),
        reference="RFC 3501, RFC 4315",
        cost=Cost("messages with \\Deleted", BOTH),
    ),
)
