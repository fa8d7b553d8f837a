"""What commands have in common."""

from __future__ import annotations

from mailserver.cli.options import MOST_SHOWN, instead


def test_of_many_some_are_shown() -> None:
    assert instead("x", []) == "; there is none"
    assert instead("exampel", ["example", "other"]) == "; did you mean example?"
    words = [f"{number:04}" for number in range(MOST_SHOWN + 3)]
    assert instead("x", words) == f"; there are {', '.join(words[:MOST_SHOWN])} and 3 more"
    assert instead("x", words[:MOST_SHOWN]) == f"; there are {', '.join(words[:MOST_SHOWN])}"
