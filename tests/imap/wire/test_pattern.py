"""LIST patterns (RFC 3501 6.3.8) against the plain recursive meaning of the wildcards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailserver.imap.wire.pattern import Patterns


def meant(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] in "*%":
        return meant(pattern[1:], name) or bool(
            name and (pattern[0] == "*" or name[0] != "/") and meant(pattern, name[1:])
        )
    return bool(name) and pattern[0] == name[0] and meant(pattern[1:], name[1:])


@given(st.text("ab/*%", max_size=8), st.text("ab/", max_size=8))
def test_wildcards(pattern: str, name: str) -> None:
    assert Patterns([pattern], "/").matches(name) == meant(pattern, name)


@given(st.lists(st.text("ab/*%", max_size=6), max_size=5), st.text("ab/", max_size=8))
def test_several_patterns(patterns: list[str], name: str) -> None:
    assert Patterns(patterns, "/").matches(name) == any(meant(pattern, name) for pattern in patterns)


def test_many_wildcards_end_soon() -> None:
    """A backtracking matcher would not end in this universe's time."""
    assert not Patterns(["*a" * 500 + "b"], "/").matches("a" * 1000)
    assert Patterns(["%a" * 500], "/").matches("a" * 1000)


def test_a_pattern_longer_than_any_name_costs_nothing() -> None:
    pattern = Patterns(["*a" * 30_000 + "*"], "/")
    assert not pattern.matches("a" * 1000)
    assert pattern._places == {}, "nothing is moved on for it"
    assert Patterns(["*a" * 1000 + "*"], "/").matches("a" * 1000)
