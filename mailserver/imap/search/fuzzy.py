"""SEARCH=FUZZY (RFC 6203): the key FUZZY, and the relevancy of the messages that it finds.

The rule. A text of a FUZZY key is divided into words at white space, and a message matches that has all of them, in any order.
Of a word of six letters or more the first two thirds are enough, wherever they stand in a word: "searching" finds "searched",
"research" and "Search". So inflections are found in any language that puts them at the end, and nothing is known of any of
them: other letters than those of the beginning, as in "broken" for "break" or in a slip, are not forgiven. Words with digits or
signs (numbers, addresses) count whole. Keys without a text (dates, sizes, flags, UIDs, ...) match as they do without FUZZY.

The words are ordinary keys of the query. So they use the text index where there is one, and are bounded as others are; without
an index the messages are read, as for any TEXT and BODY.

The relevancy is 100 for the text as it was written, 60 for all its words, and 20 for their beginnings, in the field that was
asked for. TEXT has these for the subject, and 80, 40 and 1 for other places. Each is a search of its own among the messages
found, made only if RELEVANCY is asked for. With several FUZZY keys the whole query counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from attrs import evolve, frozen

from mailserver.errors import BadSyntax
from mailserver.imap.capabilities import Capability
from mailserver.imap.progress import ProgressReporter
from mailserver.imap.search.columns import SLICE
from mailserver.imap.search.evaluation import SearchWork, find
from mailserver.imap.selected_mailbox import SearchScope
from mailserver.imap.wire.sequence_set import runs
from mailserver.store.query import And, Header, InUIDs, Not, Or, Query, Text

SCORES: Final = (100, 80, 60, 40, 20)
"""Of the variants of a query, in their order."""
LEAST: Final = 1
"""Of a message that matches in none of them."""
SHORTEST_CUT: Final = 6
"""Letters of a word whose end does not count."""


@frozen
class FuzzyText(And):
    """A text key within FUZZY; its parts are the beginnings of the words."""

    variants: tuple[Query, ...]
    """Stricter queries, for each of SCORES."""


def words_of(text: str) -> Sequence[str]:
    """The words that are searched for, each once; none of a text of white space."""
    return list(dict.fromkeys(text.split()))


def beginning(word: str) -> str:
    """The part of a word that must be there."""
    return word[: len(word) - len(word) // 3] if len(word) >= SHORTEST_CUT and word.isalpha() else word


def fuzzy_key(make: Callable[[str], Query], text: str, words: Sequence[str]) -> Query:
    """The FUZZY key of a text, whose `words_of` are given (at least one). `make` makes the key that is not fuzzy."""
    in_subject = _subject if isinstance(make(text), Text) else make
    starts = list(dict.fromkeys(map(beginning, words)))
    variants = (
        in_subject(text),
        make(text),
        And(tuple(map(in_subject, words))),
        And(tuple(map(make, words))),
        And(tuple(map(in_subject, starts))),
    )
    return FuzzyText(tuple(map(make, starts)), variants)


def _subject(text: str) -> Query:
    return Header("subject", text)


def loosest(query: Query) -> Query:
    """The query that finds all that match. Keys are nested in each other `keys.MAX_DEPTH` times at most."""
    return _variant(query, None)


def _variant(query: Query, number: int | None) -> Query:
    match query:
        case FuzzyText(parts, variants):
            return And(parts) if number is None else variants[number]
        case And(parts) | Or(parts):
            return evolve(query, parts=tuple([_variant(part, number) for part in parts]))
        case Not(part):
            return Not(_variant(part, number))
    return query


def _variants(query: Query) -> Iterator[tuple[int, Query]]:
    """The stricter variants of a query with their scores, without repeats."""
    before: list[Query] = []
    for number, score in enumerate(SCORES):
        variant = _variant(query, number)
        if variant not in before:
            before.append(variant)
            yield score, variant


def check_relevancy(*, asked: bool, is_fuzzy: bool) -> None:
    """Refuse to return, or sort by, a relevancy that no key gives (RFC 6203 4, 6). Raises: BadSyntax."""
    if asked and not is_fuzzy:
        raise BadSyntax("RELEVANCY is for searches with FUZZY")


async def relevancies(
    scope: SearchScope, query: Query, positions: Sequence[int], reporter: ProgressReporter, work: SearchWork
) -> Sequence[int]:
    """The relevancy, 1 to 100, of each message that the query's `loosest` has found (rising positions)."""
    whole = loosest(query)
    scores: dict[int, int] = {}
    left: Sequence[int] = positions
    for score, variant in _variants(query):
        if not left:
            break
        found: Sequence[int] = left
        if variant != whole:
            uids = scope.view.uids
            among: list[int] = []
            for start in range(0, len(left), SLICE):
                among += [uids[at] for at in left[start : start + SLICE]]
                await scope.channel.drain()
            found, _expunged = await find(scope, And((InUIDs(tuple(runs(among))), variant)), reporter, work)
        for start in range(0, len(found), SLICE):
            scores.update(dict.fromkeys(found[start : start + SLICE], score))
            await scope.channel.drain()
        left = [at for at in left if at not in scores]
    return [scores.get(at, LEAST) for at in positions]


FUZZY: Final = Capability("SEARCH=FUZZY", "RFC 6203", __name__, "fuzzy")
