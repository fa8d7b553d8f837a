"""i;unicode-casemap: forms that compare as those of RFC 5051 do."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.message import collation
from mailserver.message.collation import casemap, fold
from tests.message.casemap_reference import is_part, prepare

ODD = "aAbBſıİßẞéÉe\u0301\u0316ü\u1d5dβΒſﬁªᵃＡａǆǅǄ\u0345\u1fb3\u1fbcﾊﾟ가\u1100Å\u212bK…\xa0\ufdfaΣσς ſ\ud83d\ude00😀\U0010ffff\n"
texts = st.text(st.one_of(st.sampled_from(ODD), st.characters()), max_size=12)


def test_every_character_has_the_form_of_the_reference() -> None:
    for start in range(0, sys.maxunicode + 1, 4096):
        text = "".join(map(chr, range(start, start + 4096)))
        assert casemap(text).encode("utf-8", "surrogatepass") == prepare(text)
        assert fold(text) == swapped(casemap(text))
        for character in text if start < 0x3000 else "":
            assert fold(character) == swapped(casemap(character))


def swapped(text: str) -> str:
    return "".join([each.swapcase() if each.isascii() else each for each in text])


@pytest.mark.parametrize("few", [0, 16], ids=["looked up", "replaced"])
def test_texts_are_found_as_by_the_reference(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collation, "_FEW", few)
    found = 0

    @settings(max_examples=300, deadline=None)
    @given(texts, texts, texts)
    def check(before: str, part: str, behind: str) -> None:
        nonlocal found
        text = before + part + behind
        for needle in (part, part.upper(), part.lower(), before, behind[:2]):
            assert (fold(needle) in fold(text)) == is_part(needle, text)
            assert (
                (casemap(needle) == casemap(part)) == (prepare(needle) == prepare(part)) == (fold(needle) == fold(part))
            )
            found += is_part(needle, text)

    check()
    assert found > 300


@given(texts, texts)
def test_texts_are_ordered_as_by_the_reference(one: str, other: str) -> None:
    assert (casemap(one) < casemap(other)) == (prepare(one) < prepare(other))


@pytest.mark.parametrize(
    ("part", "text", "found"),
    [
        ("gru", "Grün", True),
        ("A\u0308", "ä", True),
        ("ÉCOLE", "école", True),
        ("ａ", "a", True),
        ("ΣΑΣ", "σας", True),
        # UnicodeData.txt has no titlecase of the sharp s, and letters of which a ligature is composed stay small.
        ("strasse", "Straße", False),
        ("ẞ", "ß", False),
        ("FIN", "ﬁn", False),
        ("SET", "ſet", True),
        ("u\u0308", "u", False),
        ("한", "\u1112\u1161\u11ab", False),
    ],
)  # fmt: skip
def test_what_finds_what(part: str, text: str, found: bool) -> None:
    assert (fold(part) in fold(text)) is is_part(part, text) is found


def test_a_long_text_is_folded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads wait while one piece is folded; where it ends changes nothing."""
    lengths: list[int] = []
    original = collation._fold

    def record(text: str) -> str:
        lengths.append(len(text))
        return original(text)

    monkeypatch.setattr(collation, "_fold", record)
    text = "Grüße, e\u0301\u0316 und \u1d5dβ. " * 5000
    assert fold(text) == original(text)
    assert max(lengths) == collation._PIECE
    assert sum(lengths) == len(text)
