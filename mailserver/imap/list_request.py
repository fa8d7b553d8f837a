"""The arguments of LIST and LSUB, also of the extended LIST (RFC 5258 3 and 6, RFC 6154 2, RFC 5819 2)."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from mailserver.errors import BadMailboxName, BadSyntax
from mailserver.imap.wire.mailbox_names import Namespace
from mailserver.imap.wire.pattern import Patterns
from mailserver.imap.wire.reader import Reader

SUBSCRIBED: Final = "SUBSCRIBED"
SPECIAL_USE: Final = "SPECIAL-USE"
RECURSIVE_MATCH: Final = "RECURSIVEMATCH"
SELECTION: Final = (SUBSCRIBED, "REMOTE", RECURSIVE_MATCH, SPECIAL_USE)
"""Selection options. REMOTE adds mailboxes of other servers, of which there are none."""

ReturnOptions = Mapping[str, Callable[[Reader], Any] | None]
"""Return options by name, with the parser of what follows the name: a hashable value."""


@frozen(cache_hash=True)
class ListRequest:
    """What one command asks for. It can be a key: it depends on the command's text alone."""

    patterns: tuple[str, ...]
    """Each with the reference before it. Those that no name can match are left out."""
    is_extended: bool
    """Any of the three extensions is used (RFC 5258 1); then an empty pattern is no special request."""
    selection: frozenset[str] = frozenset()
    returned: tuple[tuple[str, Any], ...] = ()
    """Return options, each once, with their value or None."""
    asks_for_separator: bool = field(default=False, kw_only=True)
    """An empty pattern in the basic form (RFC 3501 6.3.8)."""

    def value(self, option: str) -> Any:
        """Return the value of a return option, None if it has none or was not given."""
        return dict(self.returned).get(option)

    @property
    def has_percent(self) -> bool:
        """True if a pattern has a wildcard for one level."""
        return any("%" in pattern for pattern in self.patterns)


_CAPITALS: Final = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)


class NameMatcher:
    """The patterns of a request, for which INBOX is INBOX in any case (RFC 3501 5.1)."""

    def __init__(self, request: ListRequest, namespace: Namespace) -> None:
        self._patterns = Patterns(request.patterns, namespace.separator)
        upper = (pattern.translate(_CAPITALS) for pattern in request.patterns)
        self._inbox = Patterns(upper, namespace.separator).matches("INBOX")

    def matches(self, name: str) -> bool:
        """Tell whether a client's name of a mailbox matches."""
        return self._inbox if name == "INBOX" else self._patterns.matches(name)


def read_list(reader: Reader, return_options: ReturnOptions) -> ListRequest:
    """Parse what follows LIST, to its end. Raises: BadSyntax."""
    reader.read_sp()
    extended = reader.peek(b"(")
    selection = _read_selection(reader) if extended else frozenset()
    reference = _readable(reader.read_mailbox)
    reader.read_sp()
    if reader.skip(b"("):
        extended = True
        patterns = [_readable(reader.read_list_mailbox)]
        while not reader.skip(b")"):
            reader.read_sp()
            patterns.append(_readable(reader.read_list_mailbox))
    else:
        patterns = [_readable(reader.read_list_mailbox)]
    returned: dict[str, Any] = {}
    if reader.skip(b" "):
        extended = True
        returned = _read_returned(reader, return_options)
    reader.read_end()
    if SUBSCRIBED in selection:
        returned.setdefault(SUBSCRIBED, None)
    return _make(reference, patterns, extended=extended, selection=selection, returned=returned)


def read_lsub(reader: Reader) -> ListRequest:
    """Parse what follows LSUB, to its end. Raises: BadSyntax."""
    reader.read_sp()
    reference = _readable(reader.read_mailbox)
    reader.read_sp()
    pattern = _readable(reader.read_list_mailbox)
    reader.read_end()
    return _make(reference, [pattern], extended=False, selection=frozenset(), returned={})


def _make(
    reference: str | None,
    patterns: Sequence[str | None],
    *,
    extended: bool,
    selection: frozenset[str],
    returned: Mapping[str, Any],
) -> ListRequest:
    if reference is None:
        patterns = ()
    # RFC 5258 3: an empty string of the extended form is ignored for the purpose of matching.
    whole = tuple(f"{reference}{each}" for each in patterns if each or (each is not None and not extended))
    asks_for_separator = not extended and list(patterns) == [""]
    return ListRequest(whole, extended, selection, tuple(returned.items()), asks_for_separator=asks_for_separator)


def _readable(read: Callable[[], str]) -> str | None:
    """A name or pattern, None for what no name can match: that is an empty list, not an error (`LIST "" "a&b*"`)."""
    try:
        return read()
    except BadMailboxName:
        return None


def _read_selection(reader: Reader) -> frozenset[str]:
    """`list-select-opts` with the space behind them. Raises: BadSyntax."""
    reader.take(b"(")
    options: list[str] = []
    while not reader.skip(b")"):
        if options:
            reader.read_sp()
        options.append(reader.read_word())
        if options[-1] not in SELECTION:
            raise BadSyntax(f"unknown selection option of LIST; known are {' '.join(SELECTION)}")
    reader.read_sp()
    if RECURSIVE_MATCH in options and SUBSCRIBED not in options:
        raise BadSyntax("RECURSIVEMATCH needs SUBSCRIBED")  # RFC 5258 3.1
    return frozenset(options)


def _read_returned(reader: Reader, known: ReturnOptions) -> dict[str, Any]:
    """`list-return-opts`; of an option that comes twice the first value counts. Raises: BadSyntax."""
    if reader.read_word() != "RETURN":
        raise BadSyntax("expected RETURN")
    reader.take(b" (")
    options: dict[str, Any] = {}
    count = 0
    while not reader.skip(b")"):
        if count:
            reader.read_sp()
        count += 1
        name = reader.read_word()
        if name not in known:
            raise BadSyntax(f"unknown return option of LIST; known are {' '.join(known)}")
        read = known[name]
        value = None
        if read is not None:
            reader.read_sp()
            value = read(reader)
        options.setdefault(name, value)
    return options
