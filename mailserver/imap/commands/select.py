"""SELECT, EXAMINE, CLOSE and UNSELECT (RFC 3501 6.3.1, 6.3.2, 6.4.2; RFC 3691)."""

from __future__ import annotations

from mailserver.imap.command import LOGGED_IN, Command, CommandSpec, State
from mailserver.imap.progress import ProgressReporter
from mailserver.imap.selected_mailbox import SelectedMailbox
from mailserver.imap.session import Session
from mailserver.imap.updates import deleted_messages, flag_lines
from mailserver.session.cost import ACCOUNT, CONSTANT, READING, Cost
from mailserver.store.interfaces import Mailbox
from mailserver.store.live import LiveAccount, LiveMailbox
from mailserver.types import UID


async def select(session: Session, command: Command) -> str:
    """RFC 3501 6.3.1. A failure leaves no mailbox selected."""
    return await _open(session, command, examine=False)


async def examine(session: Session, command: Command) -> str:
    """RFC 3501 6.3.2: as SELECT, but nothing changes, and \\Recent messages stay unclaimed."""
    return await _open(session, command, examine=True)


async def _open(session: Session, command: Command, *, examine: bool) -> str:
    reader = command.reader
    reader.read_sp()
    wire_name = reader.read_mailbox()
    reader.read_end()
    if session.selected is not None:
        session.close_mailbox()
        session.untagged(b"OK [CLOSED] the previous mailbox is closed")
    account = session.account
    assert account is not None
    name = session.services.namespace.to_store(wire_name)
    live, read_only, first_recent = await _begin(session, command, account, name, examine=examine)
    view = live.open_view(session.channel.poke, read_only=read_only)
    selected = SelectedMailbox(live, view, read_only)
    session.open_mailbox(selected)
    if read_only:
        live.show_recent(view, range(min(first_recent, view.last_uid + 1), view.last_uid + 1))
    else:
        await live.claim_recent(view, range(1, view.last_uid + 1))
        while view.behind():
            # The client knows nothing of it yet: it gets the mailbox as it is now.
            view.sync(allow_expunge=True)
            await live.claim_recent(view, range(1, view.last_uid + 1))
    session.write(_facts(selected))
    return "[READ-ONLY] opened read-only" if read_only else "[READ-WRITE] opened"


async def _begin(
    session: Session, command: Command, account: LiveAccount, name: str, *, examine: bool
) -> tuple[LiveMailbox, bool, UID]:
    """Open the mailbox; return whether it is read-only, and the UID from which on messages were unclaimed. Unless it is, claim them."""
    loaded = account.select_at_once(name)
    if loaded is not None:
        return loaded, examine or loaded.mailbox.read_only, loaded.columns.uid_next

    def claim(mailbox: Mailbox) -> tuple[bool, range]:
        if examine or mailbox.read_only:
            first = mailbox.first_recent()
            return True, range(first, first)
        return False, mailbox.claim_recent()

    with ProgressReporter(session, command) as reporter:
        reporter.start()
        live, (read_only, claimed) = await account.select_and(name, claim, reporter.progress)
    first_recent = UID(claimed.start)
    live.claims.add(claimed, max(first_recent, UID(claimed.stop)))
    return live, read_only, first_recent


def _facts(selected: SelectedMailbox) -> bytes:
    """The untagged responses that SELECT needs (RFC 3501 6.3.1)."""
    view = selected.view
    columns = view.columns
    first = columns.first_unseen() + 1
    return b"%b* %d EXISTS\r\n* %d RECENT\r\n%b* OK [UIDVALIDITY %d] UIDs valid\r\n* OK [UIDNEXT %d] next UID\r\n" % (
        flag_lines(columns.keywords, read_only=selected.read_only),
        view.count,
        view.recent(),
        b"* OK [UNSEEN %d] first unseen\r\n" % first if first else b"",
        columns.uid_validity,
        columns.uid_next,
    )


async def close(session: Session, command: Command) -> None:
    """RFC 3501 6.4.2: expunge without EXPUNGE responses, unless read-only, and leave the mailbox."""
    command.reader.read_end()
    selected = session.mailbox
    try:
        if not selected.read_only:
            uids = await deleted_messages(selected)
            if uids:
                gone = await selected.live.change(lambda mailbox: mailbox.expunge(uids), len(uids))
                session.channel.log("expunge", user=session.user, messages=len(gone))
    finally:
        session.close_mailbox()


async def unselect(session: Session, command: Command) -> None:
    """RFC 3691: leave the mailbox, expunging nothing."""
    command.reader.read_end()
    session.close_mailbox()


COMMANDS = (
    CommandSpec(
        "SELECT", LOGGED_IN, select, capabilities=("INPROGRESS",), reference="RFC 3501, RFC 9585", cost=READING
    ),
    CommandSpec("EXAMINE", LOGGED_IN, examine, cost=READING),
    CommandSpec("CLOSE", State.SELECTED, close, cost=Cost("messages with \\Deleted", ACCOUNT)),
    CommandSpec("UNSELECT", State.SELECTED, unselect, capabilities=("UNSELECT",), reference="RFC 3691", cost=CONSTANT),
)
