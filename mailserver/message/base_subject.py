"""The base subject of a message (RFC 5256 2.1, 5): its subject without marks of replies, forwards and lists.

Linear in the subject: each step moves one of two ends, and none is tried again from the same place.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_SPACES: Final = re.compile(r"[ \t]{2,}|\t")
_SIMPLE: Final = re.compile(r"((?:re|fwd?+): )?+([^\s:\[\]()]++(?: [^\s:\[\]()]++)*+)\Z", re.IGNORECASE | re.ASCII)
"""A subject of which at most one mark can be removed."""
_BLOBS: Final = re.compile(r"(?:\[[^\[\]]*+\] *+)*+")
_REFWD: Final = re.compile(r"(?:re|fwd?+) *+(?:\[[^\[\]]*+\] *+)?+:", re.IGNORECASE | re.ASCII)
_FORWARDED: Final = "[fwd:"
_TRAILER: Final = "(fwd)"


class BaseSubject(NamedTuple):
    """The subject that SORT and THREAD compare."""

    text: str
    is_reply: bool
    """The message is a reply or a forward: a mark of one was removed."""


def base_subject(subject: str) -> BaseSubject:
    """Return the base subject of a decoded and unfolded Subject (RFC 5256 2.1, steps 1 to 7)."""
    simple = _SIMPLE.match(subject)
    if simple is not None:
        return BaseSubject(simple[2], is_reply=simple[1] is not None)
    text = _SPACES.sub(" ", subject)
    is_reply = False
    start, end = 0, len(text)
    while True:
        end, removed = _before_trailers(text, start, end)
        is_reply |= removed
        start, removed = _after_leaders(text, start, end)
        is_reply |= removed
        if text[start : start + len(_FORWARDED)].lower() != _FORWARDED or not text.endswith("]", start, end):
            return BaseSubject(text[start:end], is_reply)
        start, end, is_reply = start + len(_FORWARDED), end - 1, True


def _before_trailers(text: str, start: int, end: int) -> tuple[int, bool]:
    """Step 2: the end without each subj-trailer, and whether one was "(fwd)"."""
    removed = False
    while end > start:
        if text[end - 1] == " ":
            end -= 1
        elif end - start >= len(_TRAILER) and text[end - len(_TRAILER) : end].lower() == _TRAILER:
            end -= len(_TRAILER)
            removed = True
        else:
            break
    return end, removed


def _after_leaders(text: str, start: int, end: int) -> tuple[int, bool]:
    """Steps 3 to 5: the start behind each subj-leader and subj-blob, and whether one was a subj-refwd.

    Blobs in a row are removed at once: step 3 finds the same end behind them, however many step 4 has removed before.
    """
    removed = False
    while True:
        while start < end and text[start] == " ":
            start += 1
        blobs = _BLOBS.match(text, start, end)
        behind = blobs.end() if blobs else start
        mark = _REFWD.match(text, behind, end)
        if mark is None:
            break
        start, removed = mark.end(), True
    if behind < end:
        return behind, removed
    # Step 4 must leave a base: the last blob is it.
    return (text.rfind("[", start, end) if behind > start else start), removed
