"""Base subjects: the examples of RFC 5256, and a naive implementation of its steps as the oracle."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.base_subject import base_subject

BLOB = r"\[[^\[\]]*\] *"
REFWD = rf"(?:re|fwd?) *(?:{BLOB})?:"


def naive(subject: str) -> tuple[str, bool]:
    """The steps of RFC 5256 2.1 as they stand."""
    text = re.sub(" +", " ", subject.replace("\t", " "))
    is_reply = False
    while True:
        while match := re.search(r"(?: |(\(fwd\)))\Z", text, re.IGNORECASE):
            is_reply = is_reply or match[1] is not None
            text = text[: match.start()]
        while True:
            if match := re.match(rf"(?:{BLOB})*({REFWD})| ", text, re.IGNORECASE):
                is_reply = is_reply or match[1] is not None
                text = text[match.end() :]
            elif (match := re.match(BLOB, text)) and text[match.end() :]:
                text = text[match.end() :]
            else:
                break
        if not (text.lower().startswith("[fwd:") and text.endswith("]")):
            return text, is_reply
        text, is_reply = text[5:-1], True


PIECES = st.sampled_from(
    [
        "re",
        "Re:",
        "fw:",
        "FWD",
        "fwd ",
        ":",
        "[",
        "]",
        "[a]",
        "[b] ",
        "[fwd:",
        "(fwd)",
        "(Fwd",
        ")",
        " ",
        "\t",
        "x",
        "hello",
        "ä",
    ]
)


@given(st.lists(PIECES, max_size=14).map("".join))
def test_base_subjects_are_those_of_the_steps(subject: str) -> None:
    assert base_subject(subject) == naive(subject)


@pytest.mark.parametrize(
    ("subject", "base", "is_reply"),
    [
        ("", "", False),
        ("hello", "hello", False),
        ("Re: hello", "hello", True),
        ("[list] Re: [2] fwd [x]: hello (fwd) (FWD) ", "hello", True),
        ("[list]", "[list]", False),
        ("[one] [two]", "[two]", False),
        ("Re: [one] [two]", "[two]", True),
        ("[Fwd: [fwd: hello]]", "hello", True),
        ("[fwd: hello] there", "there", False),
        ("re", "re", False),
        ("re:", "", True),
        ("a \t b", "a b", False),
        ("Aw: hello", "Aw: hello", False),
    ],
)
def test_examples(subject: str, base: str, is_reply: bool) -> None:
    assert base_subject(subject) == (base, is_reply)
    assert naive(subject) == (base, is_reply)


@pytest.mark.parametrize("piece", ["[a]", "re:", "[fwd:", "(fwd)", " ", "[", "re [a]", "[a]re:", "]"])
def test_long_subjects_take_linear_time(piece: str) -> None:
    counts = {}
    for number in (2_000, 20_000):
        started = time.process_time()
        base_subject(piece * number)
        counts[number] = time.process_time() - started
    assert counts[20_000] < 5.0, "quadratic time would be hundreds of times as much"
