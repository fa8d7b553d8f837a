"""What commands have in common."""

from __future__ import annotations

from mailserver.cli.options import MAX_SUGGESTIONS, suggestion


def test_of_many_some_are_shown() -> None:
    assert suggestion("x", []) == "; there is none"
    assert suggestion("exampel", ["example", "other"]) == "; did you mean example?"
    words = [f"{number:04}" for number in range(MAX_SUGGESTIONS + 3)]
    assert suggestion("x", words) == f"; there are {', '.join(words[:MAX_SUGGESTIONS])} and 3 more"
    assert suggestion("x", words[:MAX_SUGGESTIONS]) == f"; there are {', '.join(words[:MAX_SUGGESTIONS])}"
