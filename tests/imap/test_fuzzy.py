"""FUZZY (RFC 6203) against a naive matcher, and the bounds of its words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.imap.search import fuzzy
from mailserver.imap.search.fuzzy import beginning, words_of
from mailserver.imap.search.parser import MAX_KEYS
from tests.fakes import Client
from tests.imap.sessions import logged_in, put, services

SUBJECTS = (
    "searching the archive",
    "research of archives",
    "archive searching",
    "Search",
    "a file: 20260101.pdf",
    "the archive, searching",
    "Rechnungen 2026",
    "nothing",
)
BODY = "an archive is searched"


@pytest.fixture(scope="module")
def client() -> Client:
    client = logged_in(services())
    for number, subject in enumerate(SUBJECTS):
        body = BODY if number % 2 else "empty"
        put(client, message=f"Subject: {subject}\r\n\r\n{body}\r\n".encode())
    client.ask(b"s SELECT INBOX\r\n")
    return client


WORDS = st.sampled_from(
    ["searching", "searched", "archive", "the", "20260101", "Rechnung", "file:", "searching the", "ar"]
)
TEXTS = st.lists(WORDS, min_size=1, max_size=3).map(" ".join)


def score_of(text: str, subject: str, body: str | None) -> int:
    """The relevancy by the words of the documentation; 0: no match."""
    text, subject = text.lower(), subject.lower()
    places = [subject] if body is None else [subject, f"{subject}\n{body.lower()}"]
    for tests, scores in (
        ([text], (100, 80)),
        (text.split(), (60, 40)),
        ([word[: -(len(word) // 3)] if len(word) > 5 and word.isalpha() else word for word in text.split()], (20, 1)),
    ):
        for place, score in zip(places, scores, strict=False):
            if all(test in place for test in tests):
                return score
    return 0


@given(text=TEXTS, key=st.sampled_from(["SUBJECT", "TEXT"]))
@settings(deadline=None)
def test_matches_and_relevancies_are_those_of_the_rule(client: Client, text: str, key: str) -> None:
    expected = {}
    for number, subject in enumerate(SUBJECTS):
        body = BODY if number % 2 else "empty"
        if score := score_of(text, subject, body if key == "TEXT" else None):
            expected[number + 1] = score
    answer = client.ask(f't SEARCH FUZZY {key} "{text}"\r\n'.encode())
    assert [int(word) for word in answer.split(b"\r\n")[0].split()[2:]] == list(expected)
    answer = client.ask(f't SEARCH RETURN (RELEVANCY) FUZZY {key} "{text}"\r\n'.encode())
    found = re.search(rb"RELEVANCY \(([\d ]*)\)", answer)
    assert found is not None
    assert [int(word) for word in found[1].split()] == list(expected.values())
    answer = client.ask(f't SORT (RELEVANCY) UTF-8 FUZZY {key} "{text}"\r\n'.encode())
    by_score = sorted(expected, key=lambda number: (-expected[number], number))
    assert [int(word) for word in answer.split(b"\r\n")[0].split()[2:]] == by_score


@given(text=TEXTS)
@settings(deadline=None)
def test_no_match_is_lost_by_fuzzy(client: Client, text: str) -> None:
    plain = client.ask(f't SEARCH OR SUBJECT "{text}" BODY "{text}" NOT FUZZY TEXT "{text}"\r\n'.encode())
    assert plain.startswith(b"* SEARCH\r\n")


def test_words_and_their_beginnings() -> None:
    assert words_of(" a b\ta\r\nc ") == ["a", "b", "c"]
    assert [beginning(word) for word in ("abcde", "abcdef", "abcdefghi", "abcdef1", "a@bcdefgh")] == [
        "abcde",
        "abcd",
        "abcdef",
        "abcdef1",
        "a@bcdefgh",
    ]


def test_words_count_as_keys(client: Client) -> None:
    many = " ".join(f"w{number}" for number in range(MAX_KEYS - 1))
    assert client.ask(f't SEARCH FUZZY SUBJECT "{many}"\r\n'.encode()).endswith(b"t OK SEARCH completed\r\n")
    assert client.ask(f't SEARCH FUZZY SUBJECT "{many} one"\r\n'.encode()).startswith(b"t NO [LIMIT]")


def test_the_relevancy_costs_nothing_unless_it_is_asked_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    variants = fuzzy._variants
    monkeypatch.setattr(fuzzy, "_variants", lambda query: (calls.append(1), variants(query))[1])
    client.ask(b"t SEARCH RETURN (ALL) FUZZY TEXT archive\r\n")
    assert not calls
    client.ask(b"t SEARCH RETURN (RELEVANCY) FUZZY TEXT archive\r\n")
    assert calls


def test_a_fuzzy_result_is_kept_up_to_date(client: Client) -> None:
    answer = client.ask(b'u UID SEARCH RETURN (UPDATE COUNT) FUZZY SUBJECT "late search"\r\n')
    assert b"COUNT 0" in answer
    assert b"NOUPDATE" not in answer
    assert b'(TAG "u") UID ADDTO (0 ' in put(client, message=b"Subject: searching too late\r\n\r\nx\r\n")
