"""EXPUNGE and UID EXPUNGE (RFC 3501 6.4.3, RFC 4315 2.1). The closing sync sends the EXPUNGE responses."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from mailserver.errors import ReadOnly
from mailserver.imap import message_limit, qresync, updates
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.progress import MANY, ProgressReporter
from mailserver.imap.session import Session
from mailserver.imap.uidonly import UIDONLY
from mailserver.imap.updates import deleted_messages
from mailserver.imap.wire.sequence_set import runs
from mailserver.session.cost import BOTH, Cost


async def expunge(session: Session, command: Command) -> str | None:
    """RFC 3501 6.4.3; with UIDs only those of the set (RFC 4315 2.1). RFC 7162 3.2.7 has the code of its answer."""
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
    lowest = None
    if sequence_set is not None:
        if sequence_set.is_saved:
            ranges = list(runs(session.saved_result))
        else:
            ranges = sequence_set.ranges(view.uids[view.count - 1] if view.count else 0)
        uids = [uid for low, high in ranges for uid in uids[bisect_left(uids, low) : bisect_right(uids, high)]]
        uids, lowest = message_limit.newest_uids(session, uids)
    if uids:
        with ProgressReporter(session, command) as reporter:
            if len(uids) >= MANY:
                reporter.start()
            gone = await selected.live.change(lambda mailbox: mailbox.expunge(uids), len(uids))
        session.channel.log("expunge", user=session.user, messages=len(gone))
    return message_limit.report(session, lowest, await vanished(session, "expunged")) if uids else None


async def vanished(session: Session, text: str) -> str | None:
    """Send the expunges of this command; the tagged OK of a QRESYNC client has the HIGHESTMODSEQ that includes them."""
    selected = session.mailbox
    if "QRESYNC" not in session.enabled:
        if not selected.events.messages:
            await updates.send_changes(session.channel, selected, allow_expunge=True, requested=True)
        return None
    await updates.send_changes(session.channel, selected, allow_expunge=True, requested=True)
    selected.owes_highest = False
    return f"[HIGHESTMODSEQ {selected.view.complete_modseq}] {text}"


UIDPLUS = Capability("UIDPLUS", "RFC 4315", __name__, "uidplus")

COMMANDS = (
    CommandSpec(
        "EXPUNGE",
        State.SELECTED,
        expunge,
        uid_form=True,
        numberless=True,
        capabilities=(UIDPLUS, qresync.QRESYNC, UIDONLY, message_limit.MESSAGELIMIT),
        reference="RFC 3501, RFC 4315, RFC 7162, RFC 9586, RFC 9738",
        cost=Cost("messages with \\Deleted", BOTH),
    ),
)
