"""What `mailserver exposures` asks for and prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.cli.control import Answer
from tests.cli.test_sessions import run

ROW = {
    "user": "anna\x1b[2J",
    "first": 0,
    "last": 90,
    "count": 3,
    "protocol": "imap",
    "method": "LOGIN",
    "peer": "",
}


def test_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, asked = run(tmp_path, monkeypatch, Answer(ok=True, lines=(), data=[ROW]), "exposures", "list")
    assert result.exit_code == 0
    assert asked == [("exposures", {})]
    assert "LOGIN" in result.output
    assert "local" in result.output
    assert "\x1b" not in result.output


@pytest.mark.parametrize(("words", "user"), [(["Anna@Example.Test"], "anna@example.test"), (["--all"], "")])
def test_clearing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], user: str) -> None:
    result, asked = run(tmp_path, monkeypatch, Answer(ok=True, lines=("cleared x",)), "exposures", "clear", *words)
    assert result.exit_code == 0
    assert asked == [("exposures-clear", {"user": user})]


def test_nothing_to_clear_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, _asked = run(tmp_path, monkeypatch, Answer(ok=False, lines=("none",)), "exposures", "clear", "x")
    assert result.exit_code == 1


@pytest.mark.parametrize("words", [[], ["anna", "--all"], [""]])
def test_nobody_is_cleared_by_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    result, asked = run(tmp_path, monkeypatch, Answer(ok=True, lines=()), "exposures", "clear", *words)
    assert result.exit_code == 2
    assert asked == []
