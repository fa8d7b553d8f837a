"""SELECT, EXAMINE, CLOSE and UNSELECT (RFC 3501 6.3.1, 6.3.2, 6.4.2; RFC 3691; RFC 7162 3.2.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mailserver.errors import BadSyntax, MailError
from mailserver.imap import condstore, qresync
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec, State
from mailserver.imap.list_extended import select_line
from mailserver.imap.object_ids import OBJECTID, mailbox_id_code
from mailserver.imap.progress import ProgressReporter
from mailserver.imap.rev2 import IMAP4REV2, is_on
from mailserver.imap.selected_mailbox import SelectedMailbox
from mailserver.imap.session import Session
from mailserver.imap.uidonly import UIDONLY, refuse_numbers
from mailserver.imap.updates import deleted_messages, flag_lines
from mailserver.imap.wire.reader import Reader
from mailserver.session.cost import ACCOUNT, CONSTANT, READING, Cost
from mailserver.store.interfaces import Mailbox
from mailserver.store.live import LiveAccount, LiveMailbox
from mailserver.types import UID

PARAMETERS: Final[Mapping[str, Callable[[Reader], Any]]] = {
    "CONDSTORE": lambda _reader: True,
    "QRESYNC": qresync.read_parameter,
}
"""Parameters of SELECT and EXAMINE (RFC 4466 2.1) by name: reads SP and the value, if there is one."""


def _read_parameters(reader: Reader) -> dict[str, Any]:
    """SP and the parameters in parentheses, if there are any, each once. Raises: BadSyntax, LimitReached."""
    found: dict[str, Any] = {}
    if reader.skip(b" "):
        reader.take(b"(")
        while True:
            name = reader.read_word()
            if name in found or name not in PARAMETERS:
                raise BadSyntax("unknown parameter, or one given twice")
            found[name] = PARAMETERS[name](reader)
            if not reader.skip(b" "):
                break
        reader.take(b")")
    reader.read_end()
    return found


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
    parameters = _read_parameters(reader)
    resync: qresync.Resync | None = parameters.get("QRESYNC")
    if resync is not None and "QRESYNC" not in session.enabled:
        raise BadSyntax("QRESYNC needs ENABLE QRESYNC")
    if resync is not None and resync.pairs[0]:
        refuse_numbers(session)
    if parameters:
        session.enabled.add("CONDSTORE")
    if session.selected is not None:
        session.close_mailbox()
        session.untagged(b"OK [CLOSED] the previous mailbox is closed")
    account = session.account
    assert account is not None
    name = session.services.namespace.to_store(wire_name)
    listed = select_line(session, name, await account.mailbox_list()) if is_on(session) else b""
    live, read_only, first_recent = await _begin(session, command, account, name, examine=examine)
    # A view without claims leaves \\Recent messages to clients that know of them.
    view = live.open_view(session.channel.poke, read_only=read_only or is_on(session))
    selected = SelectedMailbox(live, view, read_only, session.enabled, events=session.selected_events)
    session.open_mailbox(selected)
    if is_on(session):
        session.write(listed)
    elif read_only:
        live.show_recent(view, range(min(first_recent, view.last_uid + 1), view.last_uid + 1))
    else:
        await live.claim_recent(view, range(1, view.last_uid + 1))
        while view.behind():
            # The client knows nothing of it yet: it gets the mailbox as it is now.
            view.sync(allow_expunge=True)
            await live.claim_recent(view, range(1, view.last_uid + 1))
    session.write(_facts(selected))
    if resync is not None:
        try:
            await qresync.resynchronize(session, resync)
        except MailError:
            # A failed SELECT leaves no mailbox selected (RFC 3501 6.3.1).
            session.close_mailbox()
            raise
    return "[READ-ONLY] opened read-only" if read_only else "[READ-WRITE] opened"


async def _begin(
    session: Session, command: Command, account: LiveAccount, name: str, *, examine: bool
) -> tuple[LiveMailbox, bool, UID]:
    """Open the mailbox; return whether it is read-only, and the UID from which on messages were unclaimed. Unless it is, claim them."""
    loaded = account.select_at_once(name)
    if loaded is not None:
        return loaded, examine or loaded.mailbox.read_only, loaded.columns.uid_next

    claims = not examine and not is_on(session)

    def claim(mailbox: Mailbox) -> tuple[bool, range]:
        if claims and not mailbox.read_only:
            return False, mailbox.claim_recent()
        first = mailbox.first_recent()
        return examine or mailbox.read_only, range(first, first)

    with ProgressReporter(session, command) as reporter:
        reporter.start()
        live, (read_only, claimed) = await account.select_and(name, claim, reporter.progress)
    first_recent = UID(claimed.start)
    live.claims.add(claimed, max(first_recent, UID(claimed.stop)))
    return live, read_only, first_recent


def _facts(selected: SelectedMailbox) -> bytes:
    """The untagged responses that SELECT needs (RFC 3501 6.3.1; RFC 9051 6.3.2 without RECENT and UNSEEN)."""
    view = selected.view
    columns = view.columns
    recent = unseen = b""
    if IMAP4REV2.token not in selected.enabled:
        recent = b"* %d RECENT\r\n" % view.recent()
        first = columns.first_unseen() + 1
        if first and "UIDONLY" not in selected.enabled:
            unseen = b"* OK [UNSEEN %d] first unseen\r\n" % first
    return (
        b"%b* %d EXISTS\r\n%b%b* OK [UIDVALIDITY %d] UIDs valid\r\n* OK [UIDNEXT %d] next UID\r\n* %b\r\n* OK %b mailbox id\r\n"
        % (
            flag_lines(columns.keywords, columns.flags, read_only=selected.read_only),
            view.count,
            recent,
            unseen,
            columns.uid_validity,
            columns.uid_next,
            condstore.highest(view.complete_modseq),
            mailbox_id_code(selected.live.id).encode("ascii"),
        )
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


INPROGRESS = Capability("INPROGRESS", "RFC 9585", __name__, "inprogress")
UNSELECT = Capability("UNSELECT", "RFC 3691", __name__, "unselect")

COMMANDS = (
    CommandSpec(
        "SELECT",
        LOGGED_IN,
        select,
        capabilities=(INPROGRESS, OBJECTID, condstore.CONDSTORE, qresync.QRESYNC, UIDONLY, IMAP4REV2),
        reference="RFC 3501, RFC 8474, RFC 9585, RFC 7162, RFC 9586, RFC 9051",
        cost=READING,
    ),
    CommandSpec(
        "EXAMINE",
        LOGGED_IN,
        examine,
        capabilities=(OBJECTID, condstore.CONDSTORE, qresync.QRESYNC, UIDONLY, IMAP4REV2),
        reference="RFC 3501, RFC 8474, RFC 7162, RFC 9586, RFC 9051",
        cost=READING,
    ),
    CommandSpec("CLOSE", State.SELECTED, close, cost=Cost("messages with \\Deleted", ACCOUNT)),
    CommandSpec("UNSELECT", State.SELECTED, unselect, capabilities=(UNSELECT,), reference="RFC 3691", cost=CONSTANT),
)
