"""Surrogates in FETCH: the forms of messages with UTF-8 in headers that a session without UTF-8 gets (`message.surrogate`).

The caches and the index have messages, summaries and files as they are: a surrogate is made for each response, and nothing of
it is kept but the places of the edits of large messages. RFC822.SIZE is always that of the message itself (RFC 6858 3).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Final

from mailserver.imap.fetch.budget import Budget, NotCached
from mailserver.message.header_summary import NO_LINES, HeaderSummary
from mailserver.message.render import summarise
from mailserver.message.summary import Summary
from mailserver.message.surrogate import (
    Edit,
    apply_edits,
    message_edits,
    needs_surrogate,
    surrogate_lines,
)
from mailserver.message.surrogate_file import SurrogateFile, edits_of_file, edits_of_header, read_header
from mailserver.store.interfaces import MessageFile

LARGE: Final = 256 * 1024
"""Octets of a message whose edits are kept: clients fetch it piece by piece."""
_KEPT_EDITS: Final = 64 * 1024
"""Octets of the edits of one message that are kept at most, with _EACH for each edit."""
_EACH: Final = 150
_PART: Final = 32
"""The cost of a part; see `Budget`."""


def original_of(file: MessageFile) -> MessageFile:
    """The file itself, which caches may keep."""
    return file.original if isinstance(file, SurrogateFile) else file


def served_text(text: bytes, budget: Budget, *, may_edit: bool) -> bytes:
    """A small message or header, or its surrogate. Raises: BudgetExceeded, and NotCached where it must not be edited here."""
    return apply_edits(text, _text_edits(text, budget, may_edit=may_edit))


def file_edits(
    file: MessageFile, key: Hashable, budget: Budget, *, only_header: bool, may_edit: bool
) -> Sequence[Edit]:
    """The edits that make the surrogate of a file; `key` identifies the message.

    Raises: NotCached where it must not be edited here, BudgetExceeded, StoreUnavailable.
    """
    if only_header:
        header = read_header(file)
        if header.isascii():
            return ()
        if not may_edit:
            raise NotCached
        return edits_of_header(file)
    if file.size >= LARGE:
        return _edits_of_large(file, key, may_edit=may_edit)
    return _text_edits(file.read(), budget, may_edit=may_edit)


def _text_edits(text: bytes, budget: Budget, *, may_edit: bool) -> Sequence[Edit]:
    if text.isascii():
        return ()
    budget.spend(len(text) // 16 + _PART * text.count(b"\n--"))
    if not needs_surrogate(text):
        return ()
    if not may_edit:
        raise NotCached
    return message_edits(text)


@lru_cache(maxsize=256)
def _known_edits(key: Hashable) -> list[list[Edit]]:  # noqa: ARG001 - the key is what the cache is about
    """A place for the edits of one message. Messages never change, and neither do these."""
    return []


def _edits_of_large(file: MessageFile, key: Hashable, *, may_edit: bool) -> list[Edit]:
    known = _known_edits((key, file.size))
    if known:
        return known[0]
    if not may_edit:
        raise NotCached
    edits = edits_of_file(file)
    if sum([len(text) + _EACH for _, _, text in edits]) <= _KEPT_EDITS:
        known.append(edits)
    return edits


def is_plain_head(summary: Summary) -> bool:
    """Is it sure that the surrogate of the message, if there is one, has the same envelope and lines?"""
    return summary.envelope.isascii() and summary.fields.isascii()


def is_plain_structure(summary: Summary) -> bool:
    """Does the message have the same BODY and BODYSTRUCTURE? RFC 6858 3 leaves sizes of messages within as they are."""
    return summary.body_structure.isascii()


def served_head(summary: Summary) -> Summary | None:
    """The summary with the envelope and the lines of the surrogate's header, made of its lines; None if these are not all."""
    if is_plain_head(summary):
        return summary
    if summary.fields == NO_LINES:
        return None
    lines = surrogate_lines(summary.fields)
    return (
        summary if lines == summary.fields else summary._replace(envelope=HeaderSummary(lines).envelope(), fields=lines)
    )


def summary_of(file: MessageFile) -> Summary:
    """The summary of a message that is served."""
    return summarise(file.read())
