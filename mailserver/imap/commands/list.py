"""LIST, LSUB and NAMESPACE (RFC 3501 6.3.8 and 6.3.9, RFC 3348, RFC 6154 2, RFC 2342)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final, TypeVar

from mailserver.errors import BadMailboxName, BadSyntax
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec
from mailserver.imap.list_answers import LARGEST
from mailserver.imap.session import Session
from mailserver.imap.wire import writer
from mailserver.imap.wire.pattern import Pattern
from mailserver.imap.wire.reader import Reader
from mailserver.session.cost import BOTH, CONSTANT, Cost
from mailserver.store.interfaces import MailboxInfo, MailboxList

T = TypeVar("T")

_Lines = Callable[["Session", "_Wanted", MailboxList], AsyncIterator[bytes]]
"""Makes the lines of an answer, some of them at a time."""

_AT_ONCE: Final = 64
"""Names that are matched before other clients have their turn."""


async def list_mailboxes(session: Session, command: Command) -> None:
    """RFC 3501 6.3.8, with the attributes of RFC 3348 and RFC 6154.

    Of the extended LIST (RFC 5258) it takes the selection option SPECIAL-USE (RFC 6154 2), and the return options for data
    that is always returned.
    """
    await _answer(session, command, _list_lines)


async def lsub(session: Session, command: Command) -> None:
    """RFC 3501 6.3.9: subscribed names, existing or not; for % also the parents that hide subscribed names."""
    await _answer(session, command, _lsub_lines)


async def _answer(session: Session, command: Command, lines: _Lines) -> None:
    """Write the lines for the names that the command asks for; those of the last time if nothing has changed."""
    wanted = _arguments(session, command)
    if wanted is None:
        return
    account = session.account
    assert account is not None
    listed = await account.mailbox_list()
    question = command.name, wanted.pattern, wanted.only_special_use
    answers = session.services.list_answers
    known = answers.get(listed, question)
    if known is not None:
        session.write(known)
        return
    parts: list[bytes] | None = []
    size = 0
    async for part in lines(session, wanted, listed):
        session.write(part)
        size += len(part)
        if parts is not None:
            parts.append(part)
            if size > LARGEST:
                parts = None
    if parts is not None:
        answers.keep(listed, question, b"".join(parts))


async def _list_lines(session: Session, wanted: _Wanted, listed: MailboxList) -> AsyncIterator[bytes]:
    infos = listed.infos
    namespace = session.services.namespace
    separator = writer.quoted(namespace.separator.encode("ascii"))
    names = [namespace.to_client(info.name) for info in infos]
    parents = _parents(names, namespace.separator)
    async for part in _parts(session, list(zip(names, infos, strict=True))):
        lines = []
        for name, info in part:
            if wanted.matches(name) and (info.special_use or not wanted.only_special_use):
                attributes = " ".join(_attributes(info, has_children=name in parents)).encode("ascii")
                lines.append(b"* LIST (%b) %b %b\r\n" % (attributes, separator, writer.mailbox(name)))
        yield b"".join(lines)
    if wanted.only_special_use:
        return
    # The prefix itself is a level that no mailbox stands at.
    async for others in _parts(session, sorted(parents.difference(names))):
        yield b"".join(
            [
                b"* LIST (\\Noselect \\HasChildren) %b %b\r\n" % (separator, writer.mailbox(name))
                for name in others
                if wanted.matches(name)
            ]
        )


async def _lsub_lines(session: Session, wanted: _Wanted, listed: MailboxList) -> AsyncIterator[bytes]:
    namespace = session.services.namespace
    separator = writer.quoted(namespace.separator.encode("ascii"))
    selectable = {namespace.to_client(info.name) for info in listed.infos if info.selectable}
    names = sorted(map(namespace.to_client, listed.subscribed))
    matching: dict[str, bool] = {}
    async for part in _parts(session, names):
        matching.update((name, name in selectable) for name in part if wanted.matches(name))
    # RFC 3501 6.3.9 asks for this of % alone.
    hidden = [name for name in names if name not in matching] if wanted.has_percent else []
    async for part in _parts(session, list(_parents(hidden, namespace.separator))):
        matching.update((name, False) for name in part if name not in matching and wanted.matches(name))
    async for matched in _parts(session, sorted(matching.items())):
        yield b"".join(
            [
                b"* LSUB (%b) %b %b\r\n" % (b"" if exists else b"\\Noselect", separator, writer.mailbox(name))
                for name, exists in matched
            ]
        )


async def namespaces(session: Session, command: Command) -> None:
    """RFC 2342: one personal namespace."""
    command.reader.read_end()
    namespace = session.services.namespace
    prefix = writer.string(writer.mailbox(namespace.prefix).strip(b'"'))
    session.untagged(b"NAMESPACE ((%b %b)) NIL NIL" % (prefix, writer.quoted(namespace.separator.encode("ascii"))))


async def _parts(session: Session, items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """Match the names, a few at a time: a name may be matched against a thousand wildcards, and other clients have their turn."""
    for start in range(0, len(items), _AT_ONCE):
        if start:
            await session.channel.drain()
        yield items[start : start + _AT_ONCE]


def _arguments(session: Session, command: Command) -> _Wanted | None:
    """The pattern of the names; None if no name can match, or if only the separator was asked for, which is then answered."""
    reader = command.reader
    reader.read_sp()
    extended = command.name == "LIST" and reader.peek(b"(")
    selection = _options(reader, ("SPECIAL-USE",)) if extended else ()
    if extended:
        reader.read_sp()
    reference = _name(reader.read_mailbox)
    reader.read_sp()
    pattern = _name(reader.read_list_mailbox)
    if command.name == "LIST" and reader.skip(b" "):
        if reader.read_word() != "RETURN":
            raise BadSyntax("expected RETURN")
        reader.read_sp()
        _options(reader, ("SPECIAL-USE", "CHILDREN"))
        extended = True
    reader.read_end()
    if reference is None or pattern is None:
        return None
    separator = session.services.namespace.separator
    if not pattern and not extended:
        session.write(
            b'* %b (\\Noselect) %b ""\r\n' % (command.name.encode("ascii"), writer.quoted(separator.encode("ascii")))
        )
        return None
    return _Wanted(reference + pattern, separator, only_special_use="SPECIAL-USE" in selection)


def _options(reader: Reader, known: Sequence[str]) -> Sequence[str]:
    """A list of options in parentheses (RFC 5258 3). Raises: BadSyntax."""
    reader.take(b"(")
    options: list[str] = []
    while not reader.skip(b")"):
        if options:
            reader.read_sp()
        options.append(reader.read_word())
        if options[-1] not in known:
            raise BadSyntax(f"unknown LIST option; known are {' '.join(known)}")
    return options


def _name(read: Callable[[], str]) -> str | None:
    """A pattern, None for what no name can match: that is an empty list, not an error (`LIST "" "a&b*"`)."""
    try:
        return read()
    except BadMailboxName:
        return None


class _Wanted:
    """A pattern, for which INBOX is INBOX in any case (RFC 3501 5.1)."""

    def __init__(self, pattern: str, separator: str, *, only_special_use: bool) -> None:
        self.only_special_use = only_special_use
        self.pattern = pattern
        self.has_percent = "%" in pattern
        self._pattern = Pattern(pattern, separator)
        self._inbox = Pattern(pattern.upper(), separator).matches("INBOX")

    def matches(self, name: str) -> bool:
        """Does the name match?"""
        return self._inbox if name == "INBOX" else self._pattern.matches(name)


def _parents(names: Iterable[str], separator: str) -> set[str]:
    """All levels above the names."""
    found: set[str] = set()
    for name in names:
        at = name.rfind(separator)
        while at > 0 and name[:at] not in found:
            found.add(name[:at])
            at = name.rfind(separator, 0, at)
    return found


def _attributes(info: MailboxInfo, *, has_children: bool) -> Sequence[str]:
    first = [] if info.selectable else ["\\Noselect"]
    return [*first, "\\HasChildren" if has_children else "\\HasNoChildren", *sorted(info.special_use)]


COMMANDS = (
    CommandSpec(
        "LIST",
        LOGGED_IN,
        list_mailboxes,
        capabilities=("CHILDREN", "SPECIAL-USE"),
        reference="RFC 3501, RFC 3348, RFC 6154",
        cost=Cost("mailboxes of the account times length of the pattern", BOTH),
    ),
    CommandSpec(
        "LSUB",
        LOGGED_IN,
        lsub,
        cost=Cost("(mailboxes of the account + subscriptions) times length of the pattern", BOTH),
    ),
    CommandSpec("NAMESPACE", LOGGED_IN, namespaces, capabilities=("NAMESPACE",), reference="RFC 2342", cost=CONSTANT),
)
