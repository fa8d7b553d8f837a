"""LIST, LSUB and NAMESPACE (RFC 3501 6.3.8 and 6.3.9, RFC 3348, RFC 5258, RFC 5819, RFC 6154 2, RFC 2342)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final, TypeVar

from mailserver.errors import NoSuchMailbox, StorageFailure
from mailserver.imap import condstore
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec
from mailserver.imap.commands.metadata import listed_metadata
from mailserver.imap.commands.status import SIZES, read_items, status_line
from mailserver.imap.list_answers import LARGEST, ListLine, ListLines
from mailserver.imap.list_extended import ExtendedList, parents
from mailserver.imap.list_request import SPECIAL_USE as USE_OPTION
from mailserver.imap.list_request import SUBSCRIBED, ListRequest, NameMatcher, ReturnOptions, read_list, read_lsub
from mailserver.imap.metadata import MetadataRequest, read_request
from mailserver.imap.progress import ProgressReporter
from mailserver.imap.session import Session
from mailserver.imap.wire import writer
from mailserver.imap.wire.reader import Reader
from mailserver.session.cost import BOTH, CONSTANT, Cost
from mailserver.store.interfaces import MailboxInfo, MailboxList, Status

T = TypeVar("T")

_Lines = Callable[["Session", ListRequest, MailboxList], AsyncIterator[bytes]]
"""Makes the lines of an answer, some of them at a time."""

_AT_ONCE: Final = 64
"""Names that are matched before other clients have their turn."""
_STATUSES_AT_ONCE: Final = 256
"""Mailboxes whose status is read before other clients have their turn."""
_LINE: Final = 400
"""Octets that a kept line takes beyond its text, with the response for its status."""

RETURN_OPTIONS: ReturnOptions = {
    SUBSCRIBED: None,
    "CHILDREN": None,
    USE_OPTION: None,
    "STATUS": read_items,
    "METADATA": read_request,
}


async def list_mailboxes(session: Session, command: Command) -> None:
    """RFC 3501 6.3.8, with the attributes of RFC 3348 and RFC 6154, and the extended form of RFC 5258.

    The extended form always returns the attributes of CHILDREN and SPECIAL-USE: they cost nothing here.
    """
    request = session.services.argument_cache.read(_read_list, command.reader)
    if request.is_extended:
        await _answer_extended(session, command, request)
    else:
        await _answer(session, command, request, _list_lines)


async def lsub(session: Session, command: Command) -> None:
    """RFC 3501 6.3.9: subscribed names, existing or not; for % also the parents that hide subscribed names."""
    request = session.services.argument_cache.read(read_lsub, command.reader)
    await _answer(session, command, request, _lsub_lines)


def _read_list(reader: Reader) -> ListRequest:
    return read_list(reader, RETURN_OPTIONS)


async def _answer(session: Session, command: Command, request: ListRequest, lines: _Lines) -> None:
    """Write the lines for the names that the command asks for; those of the last time if nothing has changed."""
    if request.asks_for_separator:
        separator = writer.quoted(session.services.namespace.separator.encode("ascii"))
        session.write(b'* %b (\\Noselect) %b ""\r\n' % (command.name.encode("ascii"), separator))
        return
    if not request.patterns:
        return
    account = session.account
    assert account is not None
    listed = await account.mailbox_list()
    question = command.name, request.patterns, session.utf8
    answers = session.services.list_answers
    known = answers.get(listed, question)
    if known is not None:
        session.write(known)
        return
    parts: list[bytes] | None = []
    size = 0
    async for part in lines(session, request, listed):
        session.write(part)
        size += len(part)
        if parts is not None:
            parts.append(part)
            if size > LARGEST:
                parts = None
    if parts is not None:
        answers.keep(listed, question, b"".join(parts), size)


async def _list_lines(session: Session, request: ListRequest, listed: MailboxList) -> AsyncIterator[bytes]:
    infos = listed.infos
    namespace = session.services.namespace
    matcher = NameMatcher(request, namespace)
    separator = writer.quoted(namespace.separator.encode("ascii"))
    names = [namespace.to_client(info.name) for info in infos]
    above = parents(names, namespace.separator)
    async for part in _parts(session, list(zip(names, infos, strict=True))):
        lines = []
        for name, info in part:
            if matcher.matches(name):
                attributes = " ".join(_attributes(info, has_children=name in above)).encode("ascii")
                lines.append(b"* LIST (%b) %b %b\r\n" % (attributes, separator, writer.mailbox(name, session.utf8)))
        yield b"".join(lines)
    # The prefix itself is a level that no mailbox stands at.
    async for others in _parts(session, sorted(above.difference(names))):
        yield b"".join(
            [
                b"* LIST (\\Noselect \\HasChildren) %b %b\r\n" % (separator, writer.mailbox(name, session.utf8))
                for name in others
                if matcher.matches(name)
            ]
        )


async def _lsub_lines(session: Session, request: ListRequest, listed: MailboxList) -> AsyncIterator[bytes]:
    namespace = session.services.namespace
    matcher = NameMatcher(request, namespace)
    separator = writer.quoted(namespace.separator.encode("ascii"))
    selectable = {namespace.to_client(info.name) for info in listed.infos if info.selectable}
    names = sorted(map(namespace.to_client, listed.subscribed))
    matching: dict[str, bool] = {}
    async for part in _parts(session, names):
        matching.update((name, name in selectable) for name in part if matcher.matches(name))
    # RFC 3501 6.3.9 asks for this of % alone.
    hidden = [name for name in names if name not in matching] if request.has_percent else []
    async for part in _parts(session, list(parents(hidden, namespace.separator))):
        matching.update((name, False) for name in part if name not in matching and matcher.matches(name))
    async for matched in _parts(session, sorted(matching.items())):
        yield b"".join(
            [
                b"* LSUB (%b) %b %b\r\n"
                % (b"" if exists else b"\\Noselect", separator, writer.mailbox(name, session.utf8))
                for name, exists in matched
            ]
        )


# --- the extended LIST


async def _answer_extended(session: Session, command: Command, request: ListRequest) -> None:
    """Write the lines, each with what belongs to it: those of the last time if nothing has changed."""
    account = session.account
    assert account is not None
    listed = await account.mailbox_list()
    kept = session.services.list_lines
    answer = kept.get(listed, (request, session.utf8))
    if answer is None:
        answer = ListLines(tuple([line async for line in _extended_lines(session, request, listed)]), {})
        kept.keep(listed, (request, session.utf8), answer, sum(len(line.text) + _LINE for line in answer.lines))
    lines, rendered = answer
    items = request.value("STATUS")
    metadata = request.value("METADATA")
    if items is None:
        await _write_lines(session, lines, [line.text for line in lines], metadata)
        return
    condstore.enable_by_status(session, items)
    with ProgressReporter(session, command) as reporter:
        reporter.start()
        for start in range(0, len(lines), _STATUSES_AT_ONCE):
            if start:
                await session.channel.drain()
            some = lines[start : start + _STATUSES_AT_ONCE]
            await _write_lines(session, some, await _with_statuses(session, some, items, rendered, reporter), metadata)


async def _write_lines(
    session: Session, lines: Sequence[ListLine], texts: Sequence[bytes], metadata: MetadataRequest | None
) -> None:
    """Write the responses of each line, and the METADATA responses that belong to them (RFC 9590 3)."""
    if metadata is None:
        session.write(b"".join(texts))
        return
    start = 0
    while start < len(lines):
        found = await listed_metadata(session, lines[start : start + _STATUSES_AT_ONCE], metadata)
        for text, answer in zip(texts[start : start + len(found)], found, strict=True):
            session.write(text + answer)
        start += len(found)
        await session.channel.drain()


async def _extended_lines(session: Session, request: ListRequest, listed: MailboxList) -> AsyncIterator[ListLine]:
    names = ExtendedList(request, session.services.namespace, listed, session.utf8)
    matcher = NameMatcher(request, session.services.namespace)
    matched = [name async for name in _matching(session, names.meeting, matcher)]
    above: Sequence[str] = ()
    if names.is_recursive:
        above = [name async for name in _matching(session, names.find_recursive(matched), matcher)]
    for found, meets in ((matched, True), (above, False)):
        async for part in _parts(session, found):
            for name in part:
                yield names.line(name, meets=meets)


async def _matching(session: Session, names: Sequence[str], matcher: NameMatcher) -> AsyncIterator[str]:
    async for part in _parts(session, names):
        for name in filter(matcher.matches, part):
            yield name


async def _with_statuses(
    session: Session,
    lines: Iterable[ListLine],
    items: tuple[str, ...],
    rendered: dict[str, tuple[Status, bytes]],
    reporter: ProgressReporter,
) -> list[bytes]:
    """Return the text of each of these lines, with the STATUS response of its mailbox (RFC 5819 2)."""
    account = session.account
    assert account is not None
    names = [line.mailbox for line in lines if line.mailbox is not None]
    statuses = await account.statuses(names, reporter.progress, measured=not SIZES.isdisjoint(items))
    written: list[bytes] = []
    for text, mailbox in lines:
        if mailbox is None:
            written.append(text)
            continue
        status = statuses[mailbox]
        known = rendered.get(mailbox)
        if known is not None and known[0] is status:
            written.append(text + known[1])
        elif isinstance(status, Status):
            response = status_line(session, mailbox, items, status)
            rendered[mailbox] = status, response
            written.append(text + response)
        elif isinstance(status, NoSuchMailbox):
            # Deleted since it was listed: then the LIST response must say so, and no STATUS may come.
            written.append(text.replace(b"* LIST (", b"* LIST (\\Noselect ", 1))
        else:
            if isinstance(status, StorageFailure):
                session.channel.log("storage-failed", user=session.user, command="LIST", reason=status.reason)
            written.append(text)
    return written


async def namespaces(session: Session, command: Command) -> None:
    """RFC 2342: one personal namespace."""
    command.reader.read_end()
    namespace = session.services.namespace
    prefix = writer.mailbox(namespace.prefix, session.utf8)
    session.untagged(b"NAMESPACE ((%b %b)) NIL NIL" % (prefix, writer.quoted(namespace.separator.encode("ascii"))))


async def _parts(session: Session, items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """Match the names, a few at a time: a name may be matched against a thousand wildcards, and other clients have their turn."""
    for start in range(0, len(items), _AT_ONCE):
        if start:
            await session.channel.drain()
        yield items[start : start + _AT_ONCE]


def _attributes(info: MailboxInfo, *, has_children: bool) -> Sequence[str]:
    first = [] if info.selectable else ["\\Noselect"]
    return [*first, "\\HasChildren" if has_children else "\\HasNoChildren", *sorted(info.special_use)]


CHILDREN = Capability("CHILDREN", "RFC 3348", __name__, "list")
SPECIAL_USE = Capability("SPECIAL-USE", "RFC 6154", __name__, "special-use")
LIST_EXTENDED = Capability("LIST-EXTENDED", "RFC 5258", __name__, "list-extended")
LIST_METADATA = Capability("LIST-METADATA", "RFC 9590", __name__, "list-metadata")
LIST_STATUS = Capability("LIST-STATUS", "RFC 5819", __name__, "list-status")
NAMESPACE = Capability("NAMESPACE", "RFC 2342", __name__, "namespace")

COMMANDS = (
    CommandSpec(
        "LIST",
        LOGGED_IN,
        list_mailboxes,
        capabilities=(CHILDREN, SPECIAL_USE, LIST_EXTENDED, LIST_STATUS, LIST_METADATA),
        reference="RFC 3501, RFC 3348, RFC 5258, RFC 5819, RFC 6154, RFC 9590",
        cost=Cost(
            "mailboxes of the account times length of the patterns; with STATUS or METADATA as that of each", BOTH
        ),
    ),
    CommandSpec(
        "LSUB",
        LOGGED_IN,
        lsub,
        cost=Cost("(mailboxes of the account + subscriptions) times length of the pattern", BOTH),
    ),
    CommandSpec("NAMESPACE", LOGGED_IN, namespaces, capabilities=(NAMESPACE,), reference="RFC 2342", cost=CONSTANT),
)
