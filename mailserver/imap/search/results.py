"""The result of SEARCH or SORT: numbers (RFC 3501 7.2.5), or what RETURN's options ask for (RFC 4466 2.6.2, RFC 4731).

An option is one row of RETURN_OPTIONS.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from mailserver.errors import BadSyntax
from mailserver.imap.command import Command
from mailserver.imap.condstore import highest_of
from mailserver.imap.partial import PartialRange, read_partial
from mailserver.imap.search.columns import SLICE
from mailserver.imap.selected_mailbox import SearchScope
from mailserver.imap.session import Session
from mailserver.imap.wire.reader import Reader
from mailserver.imap.wire.sequence_set import format_runs, runs
from mailserver.types import ModSeq


@frozen
class Result:
    """The messages that match."""

    scope: SearchScope
    numbers: Sequence[int]
    """Sequence numbers, or UIDs of a UID command, in the order of the answer: rising for SEARCH."""
    has_modseq: bool = False
    """The query has a MODSEQ key: the response has the highest modseq."""
    scores: Sequence[int] | None = None
    """The relevancy of each message, if it is asked for."""
    part: PartialRange | None = None
    """What PARTIAL asks for."""


ReadItems = Callable[[Reader], tuple[Any, ...]]
"""Reads FETCH items in parentheses."""


@frozen
class ReturnOption:
    """An option of RETURN."""

    name: str
    write: Callable[[Result, Any], Awaitable[bytes | None]]
    """Takes the option's argument; returns its part of the ESEARCH response, or None if it has none."""
    read: Callable[[Reader, ReadItems | None], Any] | None = None
    """Reads SP and the option's argument. None: it has no argument."""


Options = Mapping[str, Any]
"""RETURN's options by name, with their arguments."""


async def _min(result: Result, _argument: None) -> bytes | None:
    return b"MIN %d" % result.numbers[0] if result.numbers else None


async def _max(result: Result, _argument: None) -> bytes | None:
    return b"MAX %d" % result.numbers[-1] if result.numbers else None


async def _all(result: Result, _argument: None) -> bytes | None:
    return b"ALL " + await write_set(result.scope, result.numbers) if result.numbers else None


async def _count(result: Result, _argument: None) -> bytes | None:
    return b"COUNT %d" % len(result.numbers)


async def _partial(result: Result, argument: PartialRange) -> bytes | None:
    part = argument.of(result.numbers)
    return b"PARTIAL (%b %b)" % (argument.text, await write_set(result.scope, part) if part else b"NIL")


async def _relevancy(result: Result, _argument: None) -> bytes | None:
    """RFC 6203 4. Of the messages that PARTIAL returns, if it is asked for, else of all."""
    assert result.scores is not None
    scores = result.scores if result.part is None else result.part.of(result.scores)
    return b"RELEVANCY (%b)" % b" ".join([b"%d" % score for score in scores])


async def _nothing(_result: Result, _argument: object) -> bytes | None:
    return None


def _read_update(reader: Reader, read_items: ReadItems | None) -> tuple[Any, ...]:
    """The items of new messages (RFC 5465 7, 8)."""
    if read_items is None or not reader.peek(b" ("):
        return ()
    reader.read_sp()
    return read_items(reader)


RETURN_OPTIONS: Final = {
    option.name: option
    for option in (
        ReturnOption("MIN", _min),
        ReturnOption("MAX", _max),
        ReturnOption("ALL", _all),
        ReturnOption("PARTIAL", _partial, lambda reader, _read_items: read_partial(reader)),
        ReturnOption("RELEVANCY", _relevancy),
        ReturnOption("COUNT", _count),
        ReturnOption("SAVE", _nothing),
        ReturnOption("UPDATE", _nothing, _read_update),
        ReturnOption("CONTEXT", _nothing),
    )
}
"""By name, in the order of the response."""


def read_return(reader: Reader, read_items: ReadItems | None = None) -> Options:
    """RETURN's options in parentheses; none named means ALL (RFC 4731 3.1). `read_items`: of UPDATE. Raises: BadSyntax."""
    reader.take(b"(")
    options: dict[str, Any] = {}
    if not reader.skip(b")"):
        _read_option(reader, options, read_items)
        while reader.skip(b" "):
            _read_option(reader, options, read_items)
        reader.take(b")")
    if "PARTIAL" in options and "ALL" in options:
        raise BadSyntax("PARTIAL and ALL exclude each other")
    return options or {"ALL": None}


def _read_option(reader: Reader, options: dict[str, Any], read_items: ReadItems | None) -> None:
    name = reader.read_word()
    option = RETURN_OPTIONS.get(name)
    if option is None:
        raise BadSyntax("unknown RETURN option")
    if name == "PARTIAL" and name in options:
        raise BadSyntax("PARTIAL is given twice")
    options[name] = None if option.read is None else option.read(reader, read_items)


def chosen(options: Options, positions: Sequence[int]) -> Sequence[int]:
    """The messages of a result that SAVE saves (RFC 5182 2.4, RFC 9394 3.2); the positions are in the result's order."""
    if "ALL" in options or "COUNT" in options or not options.keys() & {"MIN", "MAX", "PARTIAL"}:
        return positions
    found = set(options["PARTIAL"].of(positions)) if "PARTIAL" in options else set()
    if positions:
        found.update(positions[at] for name, at in (("MIN", 0), ("MAX", -1)) if name in options)
    return sorted(found)


async def write_numbers(session: Session, name: bytes, numbers: Sequence[int], modseq: ModSeq | None = None) -> bytes:
    """The response of that name with all numbers (RFC 3501 7.2.5), and their highest modseq (RFC 7162 3.1.6)."""
    pieces = [b"* " + name]
    for start in range(0, len(numbers), SLICE):
        if start:
            await session.channel.drain()
        part = tuple(numbers[start : start + SLICE])
        pieces.append(b" %d" * len(part) % part)
    pieces.append(b"\r\n" if modseq is None else b" (MODSEQ %d)\r\n" % modseq)
    return b"".join(pieces)


async def write_extended(command: Command, options: Options, result: Result, correlators: bytes = b"") -> bytes:
    """The ESEARCH response (RFC 4466 2.6.2, RFC 4731 3.1): for an empty result only COUNT. None to SAVE alone.

    `correlators` stand beside the tag (RFC 7377 2.1).
    """
    if options.keys() == {"SAVE"}:
        return b""
    pieces = [b'* ESEARCH (TAG "%b"%b)' % (command.tag.encode("ascii"), correlators)]
    if command.uid:
        pieces.append(b"UID")
    for name, option in RETURN_OPTIONS.items():
        if name in options:
            piece = await option.write(result, options[name])
            if piece is not None:
                pieces.append(piece)
    if result.has_modseq and result.numbers:
        returned = result.numbers
        if not options.keys() - {"MIN", "MAX", "SAVE"}:
            # RFC 4731 3.2: the modseq of the messages returned.
            returned = [returned[at] for name, at in (("MIN", 0), ("MAX", -1)) if name in options]
        modseq = await highest_of(result.scope, returned, uids=command.uid)
        if modseq is not None:
            pieces.append(b"MODSEQ %d" % modseq)
    return b" ".join(pieces) + b"\r\n"


async def write_set(scope: SearchScope, numbers: Sequence[int]) -> bytes:
    """Numbers (at least one), in their order, as a set; a run goes on from one slice to the next."""
    pieces = []
    open_ = (numbers[0], numbers[0])
    for start in range(0, len(numbers), SLICE):
        if start:
            await scope.channel.drain()
        found = list(runs(numbers[start : start + SLICE]))
        if start and found[0][0] == open_[1] + 1:
            found[0] = (open_[0], found[0][1])
        elif start:
            found.insert(0, open_)
        open_ = found.pop()
        if found:
            pieces.append(format_runs(found))
    return b",".join([*pieces, format_runs([open_])])
