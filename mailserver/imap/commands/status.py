"""STATUS (RFC 3501 6.3.10). A new item is a row of ITEMS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from mailserver.errors import BadSyntax
from mailserver.imap import condstore
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec
from mailserver.imap.object_ids import OBJECTID, mailbox_id
from mailserver.imap.progress import ProgressReporter
from mailserver.imap.session import Session
from mailserver.imap.wire.reader import Reader
from mailserver.session.cost import READING
from mailserver.store.interfaces import Status

ITEMS: Mapping[str, Callable[[Status, Session], int | str]] = {
    "MESSAGES": lambda status, _session: status.messages,
    "RECENT": lambda status, _session: status.recent,
    "UIDNEXT": lambda status, _session: status.uid_next,
    "UIDVALIDITY": lambda status, _session: status.uid_validity,
    "UNSEEN": lambda status, _session: status.unseen,
    "MAILBOXID": lambda status, _session: _mailbox_id(status),  # RFC 8474 4.3
    "SIZE": lambda status, _session: status.size,  # RFC 8438 3
    "HIGHESTMODSEQ": lambda status, _session: status.highest_modseq,  # RFC 7162 3.1.7
    "DELETED": lambda status, _session: status.deleted,  # RFC 9208 4.1.4
    "DELETED-STORAGE": lambda status, _session: status.deleted_size,
    "APPENDLIMIT": lambda _status, session: session.services.mail.max_message_size,  # RFC 7889 4
}

SIZES = frozenset({"SIZE", "DELETED-STORAGE"})
"""Items for which messages of unknown size are read."""


def _mailbox_id(status: Status) -> str:
    assert status.mailbox is not None
    return mailbox_id(status.mailbox)


def read_items(reader: Reader) -> tuple[str, ...]:
    """The list of items in parentheses, each once. Raises: BadSyntax."""
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
    items = session.services.argument_cache.read(read_items, reader)
    account = session.account
    assert account is not None
    name = session.services.namespace.to_store(wire_name)
    condstore.enable_by_status(session, items)
    with ProgressReporter(session, command) as reporter:
        reporter.start()
        facts = await account.status(name, reporter.progress, measured=not SIZES.isdisjoint(items))
    session.write(status_line(session, name, items, facts))


def status_line(session: Session, name: str, items: tuple[str, ...], facts: Status) -> bytes:
    """The STATUS response with these items of a mailbox, by the store's name."""
    text, getters = _format(items)
    values = text % tuple([get(facts, session) for get in getters])
    return b"* STATUS %b (%b)\r\n" % (session.mailbox_octets(name), values.encode("ascii"))


@lru_cache(maxsize=64)
def _format(items: tuple[str, ...]) -> tuple[str, tuple[Callable[[Status, Session], int | str], ...]]:
    return " ".join(f"{item} %s" for item in items), tuple(ITEMS[item] for item in items)


def offer_limit(session: Session) -> list[str]:
    """APPENDLIMIT with its value: the same for every mailbox (RFC 7889 3)."""
    return [f"APPENDLIMIT={session.services.mail.max_message_size}"]


APPENDLIMIT = Capability("APPENDLIMIT", "RFC 7889", __name__, "appendlimit", offer=offer_limit, when="always")
STATUS_SIZE = Capability("STATUS=SIZE", "RFC 8438", __name__, "status-size")

COMMANDS = (
    CommandSpec(
        "STATUS",
        LOGGED_IN,
        status,
        capabilities=(APPENDLIMIT, STATUS_SIZE, condstore.CONDSTORE, OBJECTID),
        reference="RFC 3501, RFC 7889, RFC 8438, RFC 7162, RFC 8474, RFC 9208",
        cost=READING,
    ),
)
