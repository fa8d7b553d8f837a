"""STATUS (RFC 3501 6.3.10). A new item is a row of ITEMS."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mailserver.errors import BadSyntax
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec
from mailserver.imap.progress import ProgressReporter
from mailserver.imap.session import Session
from mailserver.imap.wire import writer
from mailserver.imap.wire.reader import Reader
from mailserver.session.cost import READING
from mailserver.store.interfaces import Status

ITEMS: Mapping[str, Callable[[Status, Session], int]] = {
    "MESSAGES": lambda status, _session: status.messages,
    "RECENT": lambda status, _session: status.recent,
    "UIDNEXT": lambda status, _session: status.uid_next,
    "UIDVALIDITY": lambda status, _session: status.uid_validity,
    "UNSEEN": lambda status, _session: status.unseen,
    "APPENDLIMIT": lambda _status, session: session.services.mail.max_message_size,  # RFC 7889 4
}


def _read_items(reader: Reader) -> tuple[str, ...]:
    """The list of items, each once."""
    reader.take(b"(")
    items = [reader.read_word()]
    while reader.skip(b" "):
        items.append(reader.read_word())
    reader.take(b")")
    if not ITEMS.keys() >= set(items):
        raise BadSyntax("no such status item")
    return tuple(dict.fromkeys(items))


async def status(session: Session, command: Command) -> None:
    """RFC 3501 6.3.10: the status of any mailbox, without selecting it."""
    reader = command.reader
    reader.read_sp()
    wire_name = reader.read_mailbox()
    reader.read_sp()
    items = session.services.argument_cache.read(_read_items, reader)
    account = session.account
    assert account is not None
    namespace = session.services.namespace
    name = namespace.to_store(wire_name)
    with ProgressReporter(session, command) as reporter:
        reporter.start()
        facts = await account.status(name, reporter.progress)
    values = " ".join(f"{item} {ITEMS[item](facts, session)}" for item in items)
    session.untagged(b"STATUS %b (%b)" % (writer.mailbox(namespace.to_client(name)), values.encode("ascii")))


COMMANDS = (
    CommandSpec(
        "STATUS", LOGGED_IN, status, capabilities=("APPENDLIMIT",), reference="RFC 3501, RFC 7889", cost=READING
    ),
)
